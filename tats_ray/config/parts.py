"""The algorithm and the sampler of a configuration, and another in the place of either."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import fields
from typing import Any

from tats_ray.config.plugins import ALGORITHMS, load_named
from tats_ray.config.schema import AlgorithmConfig
from tats_ray.core.errors import UsageError


def algorithm_class(name: str) -> type[AlgorithmConfig]:
    """The configuration class of a named algorithm, or of `module:Class`.

    Raises:
        UsageError: for an unknown name, with the nearest; for a plug-in that does not import,
            with the import error.
    """
    found = load_named("algorithm.name", name, ALGORITHMS)
    if not (isinstance(found, type) and issubclass(found, AlgorithmConfig)):
        raise UsageError(
            f"algorithm.name {name!r} is not a subclass of AlgorithmConfig; name the class of its "
            "settings, whose build(policy) returns the algorithm, as in `tats new algorithm NAME`"
        )
    return found


def swap_parts(raw: dict[str, Any], chosen: Mapping[str, Any]) -> list[tuple[str, str, list[str]]]:
    """Leave out the file's fields that another algorithm or sampler does not have.

    Args:
        chosen: dotted fields that are about to be set; the two names are looked at.

    Returns:
        (branch, its new name, the fields that were left out), where there are any.
    """
    found = []
    for branch, missing in (("algorithm", _missing_fields), ("sampler", _own_options)):
        name, old = chosen.get(f"{branch}.name"), raw.get(branch)
        if name is None or not isinstance(old, dict):
            continue
        gone = missing(str(old.get("name", "")), str(name))
        left_out = [key for key in old if key in gone]  # what neither knows is refused later
        raw[branch] = {key: value for key, value in old.items() if key not in gone}
        if left_out:
            found.append((branch, str(name), left_out))
    return found


def _missing_fields(old: str, new: str) -> set[str]:
    """Fields of one algorithm that another does not have."""
    before, after = ({f.name for f in fields(algorithm_class(n))} for n in (old or "ppo", new))
    return before - after


def _own_options(old: str, new: str) -> set[str]:
    """Options are the arguments of one sampler."""
    return {"options"} if old != new else set()
