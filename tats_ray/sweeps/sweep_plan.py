"""What a sweep will do: computed and printed before its first trial."""

from __future__ import annotations

import math
import os
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

from tats_ray.config.points import Point, Trial, points, trials
from tats_ray.config.schema import RunConfig
from tats_ray.config.sweep_schema import Sweep
from tats_ray.core.errors import UsageError
from tats_ray.core.words import counted
from tats_ray.runs.pretrain_plan import Plan, make_plan
from tats_ray.runs.step_timing import StepTiming
from tats_ray.runtime.driver.tuner import Job
from tats_ray.runtime.resources.packing import trials_at_once
from tats_ray.runtime.resources.placement import is_private, usable_cores
from tats_ray.runtime.resources.request import ResourceRequest
from tats_ray.view.progress import format_duration

START_S = 15.0
"""Of a trial, beyond its training; measured on two cores, see docs/sweeps.md."""


@dataclass(frozen=True)
class SweepPlan:
    """A sweep with its computed sizes; `problems` are reasons not to start it."""

    sweep: Sweep
    points: list[Point]
    trials: list[Trial]
    """None of a search that finds its points as it goes."""
    need: ResourceRequest
    """Of the largest trial."""
    at_once: int
    first: Plan | None
    """Of a trial; None where a problem stands in its way."""
    problems: list[str]

    @property
    def num_trials(self) -> int:
        return len(self.trials) or self.sweep.config.num_samples

    def lines(self) -> list[tuple[str, str]]:
        """(what, how much) for a person to read."""
        sweep, config = self.sweep, self.sweep.config
        seeds = " ".join(map(str, config.seeds))
        best = "lowest" if config.is_best_lowest else "highest"
        found = [
            ("sweep", f"{config.title or sweep.name}: {self._trials_in_words()}"),
            ("search", f"{config.search}, seeds {seeds}, best is the {best} {config.metric}"),
            ("base", f"{config.base}{self._fixed_in_words()}"),
            ("a trial needs", f"{self.need}"),
            ("at once", f"{self.at_once or 'none'}"),
        ]
        if config.scheduler == "asha":
            grace = counted(config.grace_epochs, "epoch")
            rule = f"asha: no trial stops before {grace}, then one in {config.reduction} continues"
            found.insert(2, ("early stopping", rule))
        if self.first is not None:
            wanted = ("videos", "tokens", "batch")
            found += [line for line in self.first.lines() if line[0] in wanted]
            epochs = self.first.config.loop.epochs
            total = f"{self.first.steps_per_epoch} = {self.first.total_steps} per trial"
            found.append(("steps", f"{counted(epochs, 'epoch')} x {total}"))
        return found

    def never_learn(self) -> list[str]:
        """Trials that end before their sampler takes part."""
        late = []
        for trial in self.trials:
            loop = self.sweep.run_config(trial.point.values).loop
            if loop.mae_only_epochs >= loop.epochs and trial.name not in late:
                late.append(trial.name)
        return late

    def time(self, pace: StepTiming, num_left: int) -> str:
        """The estimate in words."""
        assert self.first is not None
        videos = len(self.first.lists.train) + len(self.first.lists.val)
        configs = [self.sweep.run_config(t.point.values) for t in self.trials]
        configs = configs or [self.first.config]
        each = sum(pace.trial_s(c, self.first.steps_per_epoch, videos) for c in configs)
        each = each / len(configs) + START_S
        seconds = each * math.ceil(num_left / self.at_once)
        return (
            f"about {format_duration(seconds)}: {counted(num_left, 'trial')} of "
            f"{format_duration(each)}, {self.at_once} at once; an MAE step takes "
            f"{pace.mae_step_s:.2g} s, {pace.joint_step_s:.2g} s with the sampler"
        )

    def _trials_in_words(self) -> str:
        if not self.trials:
            return counted(self.num_trials, "trial")
        num = len(self.sweep.config.seeds)
        return (
            f"{counted(len(self.trials), 'trial')} = {counted(len(self.points), 'point')} x "
            f"{counted(num, 'seed')}"
        )

    def _fixed_in_words(self) -> str:
        fixed = self.sweep.config.fixed
        return ", with " + ", ".join(f"{k} {v}" for k, v in fixed.items()) if fixed else ""


def trial_job(sweep: Sweep, trial: Trial, experiment: Path, shared_by: int) -> Job:
    """Everything that a trial needs, as plain data.

    Args:
        shared_by: trials among which the cores of a private cluster are divided.
    """
    config = sweep.run_config(trial.point.values)
    cluster = config.cluster
    joined = cluster.address or os.environ.get("RAY_ADDRESS") or ""
    config = replace(
        config,
        name=trial.folder,
        seed=trial.seed,
        checkpoint=replace(config.checkpoint, folder=str(experiment / "trials")),
        cluster=replace(
            cluster, threads=cluster.threads or _threads(config, shared_by), address=joined
        ),
    )
    return {
        "name": trial.name,
        "values": trial.point.values,
        "seed": trial.seed,
        "config": asdict(config),
        "metric": sweep.config.metric,
        # One ratio for all, whatever theirs: else errors could not be compared.
        "val_ratio": sweep.run_config({}).sampler.mask_ratio,
        "knn_k": sweep.config.knn_k,
        "is_followed": sweep.config.scheduler == "asha",
    }


def _threads(config: RunConfig, shared_by: int) -> int:
    """The cores divided among all learners that train at the same time."""
    cluster = config.cluster
    if not is_private(config):
        return max(int(cluster.cpus_per_worker), 1)
    return max(usable_cores() // (cluster.num_workers * max(shared_by, 1)), 1)


def plan_sweep(
    sweep: Sweep, nodes: Sequence[Mapping[str, float]], *, driver_cpu: float
) -> SweepPlan:
    """Work everything out. What only this place lacks is gathered, not raised.

    Raises:
        UsageError: for a space that is wrong anywhere.
    """
    found = points(sweep)
    values: list[Mapping[str, Any]] = [point.values for point in found]
    for dotted, domain in sweep.config.domains.items():
        values += [{dotted: example} for example in domain.examples()]
    configs = [sweep.run_config(point) for point in values]
    need = ResourceRequest.most([ResourceRequest.of(config) for config in configs])
    problems: list[str] = []
    at_once = 0
    try:
        at_once = trials_at_once(need, nodes, driver_cpu=driver_cpu)
    except UsageError as error:
        problems.append(str(error))
    made = trials(found, sweep.config.seeds)
    at_once = min(at_once, len(made) or sweep.config.num_samples)
    if sweep.config.max_at_once:
        at_once = min(at_once, sweep.config.max_at_once)
    first = None
    for config in configs:
        if config.cluster.is_elastic:
            problems.append(
                f"cluster.min_workers {config.cluster.min_workers} does not work in a sweep, "
                "because each trial keeps its resources until it ends; use 0"
            )
            break
        try:
            plan = make_plan(_anywhere(config))
            first = first or plan
        except UsageError as error:
            problems.append(str(error))
            break
    needs_validation = sweep.config.metric in ("val_error", "knn")
    if needs_validation and not configs[0].data.val_list:
        problems.append(
            f"metric {sweep.config.metric} needs a validation list; give --data.val_list LIST, or "
            "use --sweep.metric train_error"
        )
    return SweepPlan(sweep, found, made, need, at_once, first, problems)


def _anywhere(config: RunConfig) -> RunConfig:
    """What the machines hold was counted before: a plan need not be for this one."""
    return replace(config, cluster=replace(config.cluster, address="counted"))
