"""TATS: trajectory-guided adaptive token selection for masked video modelling, on Ray."""

from importlib import import_module
from importlib.util import find_spec
from pathlib import Path
from typing import Any

__version__ = "0.1.0"

# A checkout keeps the environments beside this package, in envs/; a wheel keeps them inside it.
if (Path(__file__).parents[1] / "envs" / "token_selection.py").is_file():
    __path__.append(str(Path(__file__).parents[1]))

# Gymnasium has no plug-ins, so `gymnasium.make("tats_ray:TATS/...")` works only if this registers.
if find_spec("gymnasium") is not None:
    from tats_ray import envs as envs


def __getattr__(name: str) -> Any:
    """`tats_ray.load`, whose imports wait until it is asked for."""
    if name == "load":
        return import_module("tats_ray.evaluation.loaded_model").load
    raise AttributeError(f"module 'tats_ray' has no attribute {name!r}")
