"""Ray's version, and Ray's own check of a cluster file, before it contacts any cloud."""

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
    from ray.autoscaler._private.util import prepare_config, validate_config

    said = io.StringIO()
    try:
        with redirect_stdout(said), redirect_stderr(said):  # it comments on what is in order, too
            validate_config(prepare_config(copy.deepcopy(dict(config))))
    except SystemExit:  # how Ray's command line gives up
        return f"Ray refuses it: {' '.join(said.getvalue().split())}"[:200]
    except Exception as error:  # jsonschema's, and whatever a provider's own preparation raises
        where = "/".join(str(step) for step in getattr(error, "absolute_path", ()))
        text = str(getattr(error, "message", error)).strip() or "no message"
        return f"{type(error).__name__}, {where or 'top level'}: {text.splitlines()[0]}"[:200]
    return ""
