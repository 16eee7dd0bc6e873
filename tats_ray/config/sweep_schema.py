"""A sweep, described in full: what is varied over a run's configuration, and what is measured.

`tune_configs/sweep_*.yaml` are read strictly, as runs are. docs/sweeps.md explains the form.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from copy import deepcopy
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, Literal

from tats_ray.config.domains import Domain, parse_domain
from tats_ray.config.file_kinds import refuse_other_kinds
from tats_ray.config.load import (
    blaming,
    flag_value,
    parse_config,
    parse_flags,
    read_yaml,
    set_field,
    validated,
)
from tats_ray.config.parts import swap_parts
from tats_ray.config.schema import RunConfig
from tats_ray.core.errors import UsageError
from tats_ray.core.protocols import ConfigBase
from tats_ray.core.ranges import AtLeastOne, AtLeastTwo, Count, require

_NOT_VARIED = ("name", "seed", "checkpoint.", "log.", "eval.", "cluster.address")
"""Fields that the sweep itself decides, or that change no result."""
PREFIX = "sweep."
"""Flags that begin with it change the sweep; all others, the base configuration."""


@dataclass(frozen=True, kw_only=True, slots=True)
class SweepConfig(ConfigBase):
    """What is varied, how it is searched, and what is measured."""

    base: str
    """Configuration of a run, in the folder of the sweep file."""
    title: str = ""
    """Heading of the report. Default: the file's name."""
    fixed: dict[str, Any] = field(default_factory=dict)
    """Fields that differ from the base in all trials: `loop.epochs: 40`."""
    synthetic: bool = False
    """First make the demo's videos at `data.train_list`."""
    search: Literal["table", "grid", "random", "tpe"] = "table"
    """table runs the rows of `table`. The others search `space`, and tpe needs optuna."""
    names: dict[str, str] = field(default_factory=dict)
    """Short name -> field, for the columns of the table and the names of trials."""
    table: list[dict[str, Any]] = field(default_factory=list)
    """Rows: a value for each of `names`. A row may also have `paper` (the printed values), `row`
    (its name in the paper, if that differs) and `note`."""
    space: dict[str, Any] = field(default_factory=dict)
    """Field -> domain: `algorithm.clip_eps: {uniform: [0.1, 0.3]}`."""
    num_samples: Count = 0
    """Number of points that random and tpe try."""
    search_seed: int = 0
    """Seed of the search: which points random and tpe draw. `seeds` are those of the runs."""
    scheduler: Literal["none", "asha", "pbt"] = "none"
    """asha stops trials that fall behind."""
    grace_epochs: AtLeastOne = 1
    """Epochs that every trial runs before asha may stop it."""
    reduction: AtLeastTwo = 3
    """At each comparison, asha lets one in this many trials continue."""
    seeds: tuple[int, ...] = (0,)
    """Every point runs once with each of these seeds."""
    metric: Literal["train_error", "val_error", "knn"] = "train_error"
    """Measure that ranks the trials. All three are measured. The paper uses train_error, which
    cannot compare samplers or mask ratios. The other two can."""
    knn_k: AtLeastOne = 20
    """Number of neighbours of the kNN measure."""
    max_at_once: Count = 0
    """Number of trials at a time. 0 runs as many as the cluster can hold."""

    def __post_init__(self) -> None:
        ConfigBase.__post_init__(self)
        require(bool(self.seeds), "seeds", self.seeds, "one number or more")
        require(len(set(self.seeds)) == len(self.seeds), "seeds", self.seeds, "different numbers")
        self._check_search()
        self._check_scheduler()

    def _check_search(self) -> None:
        given, other = ("table", "space") if self.search == "table" else ("space", "table")
        if not getattr(self, given):
            raise UsageError(f"search {self.search} has an empty {given}; say what to try")
        if getattr(self, other):
            raise UsageError(f"search {self.search} takes no {other}; leave it out")
        needs_count = self.search in ("random", "tpe")
        if needs_count != (self.num_samples > 0):
            rule = "at least 1" if needs_count else f"left out for search {self.search}"
            require(False, "num_samples", self.num_samples, rule)
        if self.search == "tpe" and len(self.seeds) > 1:
            raise UsageError(
                f"search tpe takes one seed, got {list(self.seeds)}: it learns from single trials; "
                "run its best.yaml with others"
            )

    def _check_scheduler(self) -> None:
        if self.scheduler == "pbt":
            raise UsageError(
                "scheduler pbt is not supported: it copies checkpoints through Ray Train, which "
                "does not hold ours, so every copy would silently be skipped; use asha"
            )
        if self.scheduler == "asha" and self.metric == "knn":
            raise UsageError(
                "scheduler asha cannot use metric knn, which is measured only at the end; "
                "use metric train_error or val_error"
            )

    @property
    def domains(self) -> dict[str, Domain]:
        return {name: parse_domain(name, raw, "space") for name, raw in self.space.items()}

    @property
    def is_best_lowest(self) -> bool:
        return self.metric != "knn"


@dataclass(frozen=True)
class Sweep:
    """A sweep file with its base and the command line over both."""

    name: str
    config: SweepConfig
    source: str
    raw: dict[str, Any]
    """The base configuration, nested, with `fixed` and the flags."""

    @property
    def fields(self) -> list[str]:
        """What is varied."""
        return list(self.config.names.values()) if self.config.table else list(self.config.space)

    def run_config(
        self, values: Mapping[str, Any], *, source: str = "", typed: Collection[str] = ()
    ) -> RunConfig:
        """The configuration with some fields changed; `typed` as for `parse_config`.

        Raises:
            UsageError: for a field that does not exist, or a value that it cannot have.
        """
        raw = deepcopy(self.raw)
        swap_parts(raw, values)
        for dotted, value in values.items():
            set_field(raw, dotted, value)
        return parse_config(raw, source=source or self.source, typed=typed)


def load_sweep(path: str | Path, flags: Sequence[str] = ()) -> Sweep:
    """Read a sweep, check its fields, and put the command line over it.

    Raises:
        UsageError: one line that names file, field and value.
    """
    path = Path(path)
    raw = read_yaml(path)
    refuse_other_kinds(raw, path, "sweep")
    typed = dict(parse_flags(flags))
    name = typed.pop("name", path.stem)
    own = {key.removeprefix(PREFIX): typed.pop(key) for key in [*typed] if key.startswith(PREFIX)}
    for key, text in own.items():
        raw[key] = text.replace(",", " ").split() if key == "seeds" else text
    with blaming(str(path), own):
        config: SweepConfig = validated(SweepConfig, raw)
    base = read_yaml(path.parent / config.base)
    refuse_other_kinds(base, path.parent / config.base, "run")
    chosen = dict(config.fixed) | {dotted: flag_value(dotted, typed[dotted]) for dotted in typed}
    swap_parts(base, chosen)
    for dotted, value in chosen.items():
        set_field(base, dotted, value)
    sweep = Sweep(name, config, str(path), base)
    sweep.run_config({}, typed=typed)
    _check_fields(sweep, typed)
    return sweep


def _check_fields(sweep: Sweep, flags: Collection[str]) -> None:
    """Every varied field exists and takes an example of every domain."""
    fields = sweep.fields
    for dotted in fields:
        if dotted.startswith(_NOT_VARIED):
            raise UsageError(f"{sweep.source}: {dotted} cannot be varied: the sweep decides it")
        if dotted in flags:
            raise UsageError(f"--{dotted} is varied by {sweep.source}; leave the flag out")
    if len(set(fields)) < len(fields):
        raise UsageError(f"{sweep.source}: a field appears twice in names; list each once")
    for dotted, domain in sweep.config.domains.items():
        if sweep.config.search == "grid" and not domain.is_listed:
            raise UsageError(
                f"{sweep.source}: {dotted}: a grid needs listed values, got {domain}; "
                "use {grid: [...]}, or search random or tpe"
            )
        for example in domain.examples():
            try:
                sweep.run_config({dotted: example}, source=f"{sweep.source}: space")
            except UsageError as error:
                raise UsageError(f"{error}; give {dotted} valid values") from None


def settings(sweep: Sweep) -> dict[str, Any]:
    """All that decides a sweep's trials, to be compared when it is resumed."""
    return {"sweep": asdict(sweep.config), "base": asdict(sweep.run_config({}))}
