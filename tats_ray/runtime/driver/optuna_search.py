"""The search that learns from finished trials. Optuna enters the project here."""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from tats_ray.core.errors import UsageError


@dataclass(frozen=True)
class Proposals:
    """A search that learns from what was measured (TPE).

    Args:
        space: field -> (kind, values) of its domain.
        known: points and measures of trials that are done.
        first: points to try before all others.
    """

    space: Mapping[str, tuple[str, tuple[Any, ...]]]
    num_samples: int
    seed: int
    known: Sequence[tuple[dict[str, Any], float]] = ()
    first: Sequence[dict[str, Any]] = ()


def make_searcher(asked: Proposals, metric: str, *, is_lowest: bool) -> Any:
    """Optuna's TPE behind Tune's own adapter, told of what is known."""
    check_optuna()
    from optuna.distributions import (
        BaseDistribution,
        CategoricalDistribution,
        FloatDistribution,
        IntDistribution,
    )
    from ray.tune.search.optuna import OptunaSearch

    def distribution(kind: str, values: tuple[Any, ...]) -> BaseDistribution:
        if kind in ("choice", "grid"):
            return CategoricalDistribution(list(values))
        if kind == "randint":
            return IntDistribution(*values)
        return FloatDistribution(*values, log=kind == "loguniform")

    logging.getLogger("optuna").setLevel(logging.ERROR)
    searcher = OptunaSearch(
        {f"values/{name}": distribution(*domain) for name, domain in asked.space.items()},
        metric=metric,
        mode="min" if is_lowest else "max",
        # Other draws when it goes on than those it began with.
        seed=asked.seed + len(asked.known),
        points_to_evaluate=[_as_asked(point) for point in asked.first] or None,
    )
    for point, value in asked.known:
        searcher.add_evaluated_point(_as_asked(point), value)
    return searcher


def _as_asked(point: Mapping[str, Any]) -> dict[str, Any]:
    return {f"values/{name}": value for name, value in point.items()}


def check_optuna() -> None:
    """Optuna is an extra.

    Raises:
        UsageError: where it is not installed.
    """
    try:
        import optuna  # noqa: F401
    except ImportError:
        raise UsageError(
            "search tpe needs optuna, which is not installed; pip install 'tats-ray[search]', or "
            "use search random"
        ) from None
