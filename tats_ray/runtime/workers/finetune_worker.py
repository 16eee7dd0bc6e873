"""Fine-tuning over many processes: what each Ray Train worker runs."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from tats_ray.checkpoints import format as checkpoints
from tats_ray.config.finetune_schema import FinetuneConfig
from tats_ray.config.load import dump_config, parse_finetune
from tats_ray.core.types import Position
from tats_ray.data.clip_lists import read_lists
from tats_ray.runtime.actors.peers import Peers
from tats_ray.runtime.workers.rank import ClipCount, Rank, run_worker
from tats_ray.training.finetune_build import finetune_batches
from tats_ray.training.finetune_loop import ClassifierLearner, FinetuneLoop, LabelledBatch
from tats_ray.training.finetune_state import first_weights, load_state, save_state
from tats_ray.training.finetune_validation import count_right
from tats_ray.training.pretrain_loop import Halt


def finetune_loop(job: dict[str, Any]) -> dict[str, Any]:
    """Entry point of a Ray Train worker; see `launch.run`.

    Args:
        job: `config` (nested dict), `run` (folder of the run), and what `run_worker` takes.
    """
    config = parse_finetune(job["config"])
    return run_worker(
        job, config.cluster, lambda peers: _Rank(config, Path(job["run"]), peers).run()
    )


class _Rank(Rank):
    """One rank's parts and its hooks."""

    def __init__(self, config: FinetuneConfig, run: Path, peers: Peers) -> None:
        super().__init__(config, run, peers)
        self.config = config
        self.lists = read_lists(config.data)
        self.batches = finetune_batches(
            config, self.lists.train, rank=self.rank, world_size=self.world_size
        )
        self.learner = self._learner()
        self._sums: dict[str, float] = {}
        self._records = 0
        self._clips = ClipCount(self, config.data.max_bad_share)
        self._wants_stop = False

    def _learner(self) -> ClassifierLearner:
        network = first_weights(self.config, self.run_folder).to(self.device)
        return ClassifierLearner(
            network,
            self.config,
            steps_per_epoch=self.batches.steps_per_epoch,
            rank=self.rank,
            world_size=self.world_size,
            wrapped=self.wrapped(network),
            all_finite=self.all_true,
        )

    def run(self) -> dict[str, Any]:
        loop = FinetuneLoop(
            epochs=self.config.optim.epochs,
            batches=self.batches,
            learner=self.learner,
            hooks=self,
        )
        loop.at = self._restore()
        return self.carry_out(loop, save=lambda: self._save(loop))

    def _restore(self) -> Position:
        """Go on from the newest good checkpoint, if there is one."""
        found, passed_over = self.newest(checkpoints.load_parts)
        position = load_state(self.learner, found) if found is not None else Position()
        self.begin()
        self.tell_start(position.step, is_resumed=found is not None, passed_over=passed_over)
        return position

    def on_batch(
        self, loop: FinetuneLoop, metrics: Mapping[str, float], batch: LabelledBatch
    ) -> None:
        for name, value in metrics.items():
            self._sums[name] = self._sums.get(name, 0.0) + value
        self._records += 1
        self._clips.add(batch)
        self.reached(loop.at.step)
        if loop.at.step % self.config.log.every_steps == 0:
            self._record(loop)
        # After an epoch's last step, `on_epoch` has rows to tell before it can be saved.
        if self._wants_stop and loop.at.batch < self.batches.steps_per_epoch:
            self._save(loop)
            raise Halt(f"stopped after step {loop.at.step}")

    def on_epoch(self, loop: FinetuneLoop) -> None:
        last = loop.at.epoch == self.config.optim.epochs
        if last and self._records:
            self._record(loop)
        every = self.config.eval.every_epochs
        validation_error = None
        if self.lists.val and (last or (every and loop.at.epoch % every == 0)):
            validation_error = 1.0 - self._measure(loop)
        is_stopped = self._wants_stop and not last
        if last or is_stopped or loop.at.epoch % self.config.checkpoint.every_epochs == 0:
            self._save(loop, validation_error)
        if is_stopped:
            raise Halt(f"stopped after step {loop.at.step}")

    def _measure(self, loop: FinetuneLoop) -> float:
        """Top-1, 0 to 1; each rank takes its share of the validation videos."""
        right, num = count_right(
            self.learner,
            self.config,
            self.lists.val,
            rank=self.rank,
            world_size=self.world_size,
            tell_unreadable=self.tell_unreadable,
        )
        right, num = self.sum(right), self.sum(num)
        top1 = right / max(num, 1.0)
        self.tell_metrics(loop.at, {"val/top1": top1})
        return top1

    def _record(self, loop: FinetuneLoop) -> None:
        """Means since the last record, over all ranks."""
        names = ("finetune/loss", "finetune/top1", "finetune/lr", "finetune/grad_norm")
        means = {n: self.sum(self._sums[n]) / self._records / self.world_size for n in names}
        means |= self._clips.read(loop.stopwatch)
        self._sums, self._records = {}, 0
        self.tell_metrics(loop.at, means)
        self._clips.check(loop.at.step)
        self._wants_stop = self.asks_to_stop() or self._wants_stop

    def _save(self, loop: FinetuneLoop, validation_error: float | None = None) -> None:
        if self.rank != 0:
            return
        keep = self.config.checkpoint
        self.persist(
            lambda: save_state(
                self.run_folder,
                self.learner,
                loop.at,
                dump_config(self.config),
                keep_last=keep.keep_last,
                keep_best=keep.keep_best,
                validation_error=validation_error,
            ),
            step=loop.at.step,
        )
