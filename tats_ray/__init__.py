"""TATS: trajectory-guided adaptive token selection for masked video modelling, on Ray."""

from pathlib import Path

__version__ = "0.1.0"

# A checkout keeps the environments beside this package, in envs/; a wheel keeps them inside it.
if (Path(__file__).parents[1] / "envs" / "token_selection.py").is_file():
    __path__.append(str(Path(__file__).parents[1]))
