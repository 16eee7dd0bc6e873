"""Parts that a configuration names: ours by a short name, others as `module:Class`."""

from __future__ import annotations

import importlib
from collections.abc import Mapping
from typing import Any

from tats_ray.core.errors import UsageError, did_you_mean

SAMPLERS: Mapping[str, str] = {
    "tats": "tats_ray.models.samplers.tats:TATS",
    "adamae": "tats_ray.models.samplers.adamae:ADAMAE",
    "random": "tats_ray.models.samplers.fixed_masks:RANDOM",
    "tube": "tats_ray.models.samplers.fixed_masks:TUBE",
    "frame": "tats_ray.models.samplers.fixed_masks:FRAME",
    "multi_block": "tats_ray.models.samplers.fixed_masks:MULTI_BLOCK",
    "oracle": "tats_ray.models.samplers.oracle:ORACLE",
}
"""Token samplers and where their entries live; see `models.samplers.registry`."""


def check_name(field: str, name: str, known: Mapping[str, str]) -> None:
    """Imports nothing: whether `module:Class` can be loaded is found out by `load_named`.

    Raises:
        UsageError: for a name that is neither known nor `module:Class`, with the nearest.
    """
    if name not in known and ":" not in name:
        raise UsageError(
            f"{field} {name!r} is not known{did_you_mean(name, known)}; "
            f"known: {', '.join(known)}, or module:Class from another package"
        )


def load_named(field: str, name: str, known: Mapping[str, str]) -> Any:
    """The object behind a known name or behind `module:Class`.

    Raises:
        UsageError: for an unknown name, and for a module or a class that cannot be loaded.
    """
    check_name(field, name, known)
    module, _, attribute = known.get(name, name).partition(":")
    try:
        return getattr(importlib.import_module(module), attribute)
    except Exception as error:  # importing a plug-in runs its code, which may fail in any way
        is_absent = isinstance(error, ModuleNotFoundError) and error.name == module.split(".")[0]
        way_out = "; add its folder to PYTHONPATH" if is_absent else ""
        raise UsageError(
            f"{field} {name!r} cannot be loaded: {one_line(error)}{way_out}"
        ) from error


def one_line(error: BaseException) -> str:
    """What an error says, without line breaks; its type where it says nothing."""
    return " ".join(str(error).split()) or type(error).__name__
