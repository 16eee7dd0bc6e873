"""Parts that a configuration names: ours by a short name, others as `module:Class`."""

from __future__ import annotations

import importlib
import sys
import traceback
from collections.abc import Callable, Mapping
from contextlib import suppress
from importlib.util import find_spec
from types import ModuleType
from typing import Any

from tats_ray.core.errors import UsageError, did_you_mean

ALGORITHMS: Mapping[str, str] = {
    "ppo": "tats_ray.algorithms.ppo:PPOConfig",
    "a2c": "tats_ray.algorithms.a2c:A2CConfig",
    "reinforce": "tats_ray.algorithms.reinforce:ReinforceConfig",
    "grpo": "tats_ray.algorithms.grpo:GRPOConfig",
    "rloo": "tats_ray.algorithms.rloo:RLOOConfig",
}
"""Algorithm names and where their configurations live; `module:Class` works unlisted."""

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
    """Imports no plug-in: whether `module:Class` can be loaded is found out by `load_named`.

    Raises:
        UsageError: for a name that is neither known nor `module:Class`, with the nearest.
    """
    if name in known or ":" in name:
        return
    hint = did_you_mean(name, known)
    with suppress(Exception):  # of a dotted name, the packages above are imported
        if name not in sys.stdlib_module_names and find_spec(name):
            hint = f"; did you mean {name}:Class, with the name of a class of that module?"
    raise UsageError(
        f"{field} {name!r} is not known{hint}; "
        f"known: {', '.join(known)}, or module:Class from another package"
    )


def load_named(field: str, name: str, known: Mapping[str, str]) -> Any:
    """The object behind a known name or behind `module:Class`.

    Raises:
        UsageError: for an unknown name, and for a module or a class that cannot be loaded.
    """
    check_name(field, name, known)
    path, _, attribute = known.get(name, name).partition(":")
    cause: Exception | None = None
    try:
        module = importlib.import_module(path)
        if hasattr(module, attribute):
            return getattr(module, attribute)
        reason = f"module {path!r} has no attribute {attribute!r}{_nearest(attribute, module)}"
    except Exception as error:  # importing a plug-in runs its code, which may fail in any way
        is_absent = isinstance(error, ModuleNotFoundError) and error.name == path.split(".")[0]
        way_out = f"{one_line(error)}; add its folder to PYTHONPATH"
        reason, cause = way_out if is_absent else raised(error, name), error
    raise UsageError(f"{field} {name!r} cannot be loaded: {reason}") from cause


def _nearest(attribute: str, module: ModuleType) -> str:
    """The nearest name that the module defines, or all of them."""
    own = [
        name
        for name, value in vars(module).items()
        if getattr(value, "__module__", "") == module.__name__ and not name.startswith("_")
    ]
    near = did_you_mean(attribute, own, f"{module.__name__}:")
    return near or (f"; it defines {', '.join(own)}" if own else "")


def tried(name: str, said: str, function: Callable[..., Any], *arguments: object) -> Any:
    """What the code of a plug-in returns; its errors in one line that begins with `said`.

    Raises:
        UsageError: for any error, with its place in the plug-in.
    """
    try:
        return function(*arguments)
    except UsageError:
        raise
    except Exception as error:  # code of another package, which may fail in any way
        raise UsageError(f"{said}: {raised(error, name)}") from error


def raised(error: BaseException, name: str) -> str:
    """Type and message of an error, and the line of the named plug-in that it came from.

    Args:
        name: `module:Class`; lines of all modules of its package count.
    """
    package = name.partition(":")[0].split(".")[0]
    lines = [
        f" ({frame.f_code.co_filename}, line {line})"
        for frame, line in traceback.walk_tb(error.__traceback__)
        if str(frame.f_globals.get("__name__")).split(".")[0] == package
    ]
    return f"{type(error).__name__}: {one_line(error)}{''.join(lines[-1:])}"


def one_line(error: BaseException) -> str:
    """What an error says, without line breaks; its type where it says nothing."""
    return " ".join(str(error).split()) or type(error).__name__
