"""What Ray itself says of its version and of a cluster file, before it talks to any cloud."""

from __future__ import annotations

import copy
import io
from collections.abc import Mapping
from contextlib import redirect_stderr, redirect_stdout
from typing import Any


def ray_version() -> str:
    """Of the Ray that imports, not of the one that is said to be installed."""
    import ray

    return str(ray.__version__)


def schema_error(config: Mapping[str, Any]) -> str:
    """Ray's complaint in one line; empty when it has none."""
    from jsonschema import ValidationError
    from ray.autoscaler._private.util import prepare_config, validate_config

    said = io.StringIO()
    try:
        with redirect_stdout(said), redirect_stderr(said):  # it comments on what is in order, too
            validate_config(prepare_config(copy.deepcopy(dict(config))))
    except ValidationError as error:
        where = "/".join(str(step) for step in error.absolute_path)
        return f"{where or 'top level'}: {error.message}"[:200]
    except (ValueError, KeyError, TypeError, NotImplementedError) as error:
        return f"{type(error).__name__}: {str(error).splitlines()[0] if str(error) else ''}"[:200]
    except SystemExit:  # how Ray's command line gives up
        return f"Ray refuses it: {' '.join(said.getvalue().split())}"[:200]
    return ""
