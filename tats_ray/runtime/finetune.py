"""Fine-tuning over many processes: what each Ray Train worker runs, and how the run is started."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any

import ray
import ray.train
import torch
import torch.distributed as dist
from torch import nn
from torch.nn.parallel import DistributedDataParallel

from tats_ray.config.finetune import FinetuneConfig
from tats_ray.config.load import dump_config, parse_finetune
from tats_ray.core.errors import CheckpointError, NonFiniteError, TatsError, UsageError
from tats_ray.learning import checkpoint as checkpoints
from tats_ray.learning.finetune import ClassifierLearner, FinetuneLoop, LabelledBatch
from tats_ray.learning.finetune_build import finetune_batches
from tats_ray.learning.finetune_state import (
    first_weights,
    load_state,
    read_labelled_lists,
    save_state,
)
from tats_ray.learning.loop import Halt, Position
from tats_ray.learning.validation import count_right
from tats_ray.runtime.launch import Event, Job, Outcome, Placement, run_job, start_log


def run_finetune(
    config: FinetuneConfig,
    folder: Path,
    placement: Placement,
    *,
    on_event: Callable[[Event], None],
    on_tick: Callable[[], None] = lambda: None,
) -> Outcome:
    """Fine-tune until the last epoch, a failure, or a request to stop.

    Args:
        config: resolved; the folder holds the first weights, or a checkpoint to go on from.

    Raises:
        UsageError, RunFailedError: as `launch.run`.
    """

    def start() -> Job:
        log = start_log()
        settings = {
            "config": asdict(config),
            "run": str(folder.resolve()),
            "threads": placement.threads,
            "log": log,
        }
        return Job(finetune_loop, settings, log)

    return run_job(config, folder, start, on_event=on_event, on_tick=on_tick)


def finetune_loop(job: dict[str, Any]) -> dict[str, Any]:
    """Entry point of a Ray Train worker; see `launch.Job`."""
    log = job["log"]
    rank = ray.train.get_context().get_world_rank()
    fatal = ray.get(log.fatal.remote())
    if fatal is not None:
        return {"status": "failed", "message": fatal, "step": 0}
    torch.set_num_threads(job["threads"])
    try:
        return _Rank(parse_finetune(job["config"]), Path(job["run"]), log).run()
    except NonFiniteError as error:
        # All ranks are here: whether a loss is finite is agreed.
        return {"status": "failed", "message": str(error), "step": 0}
    except TatsError as error:
        # Only this rank is here. The restart finds the message and ends the run.
        ray.get(log.set_fatal.remote(f"rank {rank}: {error}"))
        raise


class _Rank:
    """One rank's parts, its hooks, and what it tells the driver."""

    def __init__(self, config: FinetuneConfig, run: Path, log: Any) -> None:
        context = ray.train.get_context()
        self.config = config
        self.folder = run
        self.log = log
        self.rank = context.get_world_rank()
        self.world_size = context.get_world_size()
        on_gpu = config.cluster.use_gpu
        self.device = ray.train.torch.get_device() if on_gpu else torch.device("cpu")
        self.lists = read_labelled_lists(config)
        self.batches = finetune_batches(
            config, self.lists.train, rank=self.rank, world_size=self.world_size
        )
        self.learner = self._learner()
        self._sums: dict[str, float] = {}
        self._records = 0
        self._shown = self._replaced = 0
        self._all_shown = self._all_replaced = 0.0
        self._wants_stop = False

    def _learner(self) -> ClassifierLearner:
        network = first_weights(self.config, self.folder).to(self.device)
        wrapped: nn.Module = network
        if self.world_size > 1:
            wrapped = DistributedDataParallel(
                network, device_ids=[self.device] if self.device.type == "cuda" else None
            )
        return ClassifierLearner(
            network,
            self.config,
            steps_per_epoch=self.batches.steps_per_epoch,
            rank=self.rank,
            world_size=self.world_size,
            wrapped=wrapped,
            all_finite=lambda is_finite: self.sum(float(not is_finite)) == 0.0,
        )

    def sum(self, value: float) -> float:
        """Sum of `value` over the ranks."""
        if self.world_size == 1:
            return value
        total = torch.tensor([value], dtype=torch.float64, device=self.device)
        dist.all_reduce(total)
        return float(total)

    def run(self) -> dict[str, Any]:
        loop = FinetuneLoop(
            epochs=self.config.optim.epochs,
            batches=self.batches,
            learner=self.learner,
            hooks=self,
        )
        loop.at = self._restore()
        try:
            loop.run()
        except Halt as halt:
            return {"status": "stopped", "message": str(halt), "step": loop.at.step}
        except NonFiniteError as error:
            self._save(loop)
            raise NonFiniteError(f"{error}; {self._clips_of(loop)}") from error
        return {"status": "finished", "message": "", "step": loop.at.step}

    def _restore(self) -> Position:
        """Go on from the newest checkpoint, if there is one."""
        try:
            found = checkpoints.load_parts(self.folder)
        except CheckpointError:
            if (self.folder / "checkpoints" / "latest").exists():
                raise
            found = None
        position = load_state(self.learner, found) if found is not None else Position()
        self._tell("start", step=position.step, is_resumed=found is not None)
        return position

    def on_batch(
        self, loop: FinetuneLoop, metrics: Mapping[str, float], batch: LabelledBatch
    ) -> None:
        for name, value in metrics.items():
            self._sums[name] = self._sums.get(name, 0.0) + value
        self._records += 1
        self._replaced += batch.num_replaced
        self._shown += len(batch.pixels)
        if loop.at.step % self.config.log.every_steps == 0:
            self._record(loop)
        if self._wants_stop:
            self._save(loop)
            raise Halt(f"stopped after step {loop.at.step}")

    def on_epoch(self, loop: FinetuneLoop) -> None:
        last = loop.at.epoch == self.config.optim.epochs
        if last and self._records:
            self._record(loop)
        every = self.config.eval.every_epochs
        if self.lists.val and (last or (every and loop.at.epoch % every == 0)):
            self._measure(loop)
        if last or loop.at.epoch % self.config.checkpoint.every_epochs == 0:
            self._save(loop)

    def _measure(self, loop: FinetuneLoop) -> None:
        """Each rank takes its share of the validation videos."""
        right, num = count_right(
            self.learner, self.config, self.lists.val[self.rank :: self.world_size]
        )
        right, num = self.sum(right), self.sum(num)
        self._send(loop, {"val/top1": right / max(num, 1.0)})

    def _record(self, loop: FinetuneLoop) -> None:
        """Means since the last record, over all ranks."""
        seconds, shares = loop.stopwatch.read()
        names = ("finetune/loss", "finetune/top1", "finetune/lr", "finetune/grad_norm")
        means = {n: self.sum(self._sums[n]) / self._records / self.world_size for n in names}
        shown, replaced = self.sum(self._shown), self.sum(self._replaced)
        means |= {f"time/{room}": share for room, share in shares.items()}
        means |= {"data/clips_per_s": shown / seconds, "data/replaced": replaced}
        self._sums, self._records, self._shown, self._replaced = {}, 0, 0, 0
        self._send(loop, means)
        self._check_clips(loop, replaced, shown)
        wish = self.rank == 0 and ray.get(self.log.should_stop.remote())
        self._wants_stop = self._wants_stop or self.sum(float(wish)) > 0

    def _check_clips(self, loop: FinetuneLoop, replaced: float, shown: float) -> None:
        """End the run when too many videos cannot be read; a single one never does."""
        self._all_replaced += replaced
        self._all_shown += shown
        limit = self.config.data.max_bad_share
        if self._all_replaced > max(1.0, limit * self._all_shown):
            raise UsageError(
                f"{self._all_replaced:.0f} of {self._all_shown:.0f} clips until step "
                f"{loop.at.step} could not be read, more than data.max_bad_share {limit:g}; "
                "repair the list or raise the share"
            )

    def _save(self, loop: FinetuneLoop) -> None:
        if self.rank == 0:
            folder = save_state(
                self.folder,
                self.learner,
                loop.at,
                dump_config(self.config),
                keep_last=self.config.checkpoint.keep_last,
            )
            self._tell("checkpoint", step=loop.at.step, path=str(folder))

    def _send(self, loop: FinetuneLoop, metrics: Mapping[str, float]) -> None:
        self._tell("metrics", step=loop.at.step, epoch=loop.at.epoch, metrics=dict(metrics))

    def _tell(self, kind: str, **event: Any) -> None:
        """Send the driver an event, from rank 0 only; nobody waits for it."""
        if self.rank == 0:
            self.log.add.remote({"kind": kind, "time": time.time(), **event})

    def _clips_of(self, loop: FinetuneLoop) -> str:
        """The present batch in words."""
        keys = self.batches.keys(loop.at.epoch, loop.at.batch)
        paths = [self.lists.train[index].path for _, index in keys]
        more = f" and {len(paths) - 4} more" if len(paths) > 4 else ""
        return f"the clips of rank {self.rank} were from {', '.join(paths[:4])}{more}"
