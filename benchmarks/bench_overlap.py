"""`tats bench overlap`: what it gains that the autoencoder need not wait for the policy."""

from __future__ import annotations

import os
import statistics
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from tats_ray.config.load import load_config
from tats_ray.config.schema import RunConfig
from tats_ray.core.errors import UsageError
from tats_ray.data.synthetic import synthesize
from tats_ray.runs.demo import BLOBS
from tats_ray.runs.pretrain_plan import make_plan
from tats_ray.runtime.driver import launch

_WARM_UP_STEPS = 12
"""Two epochs of the demo: after the first, decoded videos are in memory."""
_MAX_SPREAD = 0.15
"""Of the rounds' ratios; beyond it the machine was busy with something else."""


@dataclass(frozen=True)
class Throughput:
    """What a run's records say, without its start."""

    clips_per_s: float
    step_s: float
    wait_s: float
    """Per step, in which the autoencoder waited for the policy."""
    max_staleness: float

    @property
    def limit(self) -> float:
        """The most that overlapping can gain over this synchronous run: (a + b) / max(a, b)."""
        alone = self.step_s - self.wait_s
        return self.step_s / max(alone, self.wait_s)


def bench_overlap(
    flags: Sequence[str] = (), *, rounds: int = 3, steps: int = 48, staleness: int = 1
) -> float:
    """Run the demo's joint phase in both modes by turns, one thread per learner; print the ratio.

    Args:
        flags: fields to change, in both modes alike.

    Returns:
        Median over the rounds of overlapped by synchronous clips/s.
    """
    config = load_config(BLOBS, [*_flags(steps), *flags])
    if config.loop.max_staleness:
        raise UsageError("loop.max_staleness is what the modes differ in; use --staleness")
    synthesize(Path(config.data.train_list).parent)
    print(f"{'round':>5}  {'synchronous':>12}  {f'staleness {staleness}':>12}  ratio   load")
    ratios, paces = [], []
    for number in range(rounds):
        waiting, overlapped = (
            _pace(load_config(BLOBS, [*_flags(steps), *flags, "--loop.max_staleness", str(s)]))
            for s in (0, staleness)
        )
        paces.append(waiting)
        ratios.append(overlapped.clips_per_s / waiting.clips_per_s)
        assert overlapped.max_staleness <= staleness
        print(
            f"{number + 1:>5}  {waiting.clips_per_s:>12.1f}  {overlapped.clips_per_s:>12.1f}  "
            f"{ratios[-1]:>5.2f}  {os.getloadavg()[0]:>5.1f}",
            flush=True,
        )
    step, wait = (
        statistics.median(getattr(p, name) for p in paces) for name in ("step_s", "wait_s")
    )
    limit = statistics.median(pace.limit for pace in paces)
    median = statistics.median(ratios)
    print(
        f"synchronous step {1e3 * step:.0f} ms: {1e3 * (step - wait):.0f} ms autoencoder, "
        f"{1e3 * wait:.0f} ms waiting for the policy; overlapping can give {limit:.2f}x"
    )
    is_noisy = max(ratios) - min(ratios) > _MAX_SPREAD * median
    print(
        f"overlap: {median:.2f}x [{min(ratios):.2f}-{max(ratios):.2f}] clips/s, wanted >= 1.25x"
        + ("; too noisy for a verdict" if is_noisy else "")
    )
    return median


def _flags(steps: int) -> list[str]:
    """The demo without what it does alone: only steps in which both networks learn."""
    return (
        f"--name bench --loop.epochs {-(-steps // 6) + 2} --loop.mae_only_epochs 0 "
        "--optim.warmup_epochs 1 --eval.every_epochs 0 --eval.num_clips 2 --log.every_steps 6 "
        "--checkpoint.every_epochs 100000 --cluster.threads 1"
    ).split()


def _pace(config: RunConfig) -> Throughput:
    events: list[launch.Event] = []
    with tempfile.TemporaryDirectory(prefix="tats_bench_") as folder:
        launch.run(config, Path(folder), make_plan(config).placement, on_event=events.append)
    return read_pace(events, config.clips_per_step)


def read_pace(events: Sequence[launch.Event], clips_per_step: int) -> Throughput:
    """A run's pace, from its records after the first epochs."""
    records = [e for e in events if e["kind"] == "metrics" and "time/wait" in e["metrics"]]
    records = [e for e in records if e["step"] >= _WARM_UP_STEPS]
    first, last = records[0], records[-1]
    seconds, steps = last["time"] - first["time"], last["step"] - first["step"]
    share = statistics.fmean(e["metrics"]["time/wait"] for e in records[1:])
    return Throughput(
        clips_per_s=steps * clips_per_step / seconds,
        step_s=seconds / steps,
        wait_s=share * seconds / steps,
        max_staleness=max(e["metrics"].get("policy/staleness", 0.0) for e in records),
    )
