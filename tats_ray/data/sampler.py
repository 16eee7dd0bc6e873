"""Which clips each rank sees at each step: a function of (seed, epoch, step, rank), no state."""

from __future__ import annotations

from collections.abc import Iterator

import torch
from torch.utils.data import Sampler

from tats_ray.core.errors import UsageError
from tats_ray.core.seeds import stream
from tats_ray.core.words import counted
from tats_ray.data.dataset import Key


class ClipSampler(Sampler[list[Key]]):
    """Batches of keys for one rank; give it to a DataLoader as `batch_sampler`.

    An epoch is a permutation of the list, cut into global batches of `batch_size` x `num_slots`;
    slot s is the s-th slice of each, and rank r takes slots r, r + `world_size`, ..., one after the
    other. What is left at the end is dropped, so that all ranks make the same number of steps; the
    next epoch drops others.

    Args:
        num_clips: length of the list.
        batch_size: clips per slot and step.
        seed: root seed of the run.
        epoch: first epoch; `set_epoch` moves on.
        rank, world_size: this process among those that share the work.
        num_slots: default is one for each rank. What they hold does not depend on `world_size`.
        start_step: step of the epoch to begin at, when a run continues.
        repeats: keys for each clip of a batch, which then has that many times `batch_size` keys;
            the epoch in a key is `epoch * repeats + copy`.
        clips_per_open: keys of each video in a batch, one behind the other. An epoch is as long as
            ever, takes its share of an order that so many epochs share, and each key of a video is
            different: the epoch in it is `epoch * clips_per_open + copy`.

    Raises:
        UsageError: when the list is shorter than one global batch.
    """

    def __init__(
        self,
        *,
        num_clips: int,
        batch_size: int,
        seed: int = 0,
        epoch: int = 0,
        rank: int = 0,
        world_size: int = 1,
        num_slots: int = 0,
        start_step: int = 0,
        repeats: int = 1,
        clips_per_open: int = 1,
    ) -> None:
        if min(batch_size, world_size) < 1 or not 0 <= rank < world_size:
            raise UsageError(
                f"batch size {batch_size} on rank {rank} of {world_size}: the sizes must be at "
                "least 1, and ranks count from 0"
            )
        if batch_size % clips_per_open:
            raise UsageError(
                f"data.clips_per_open {clips_per_open} does not divide the "
                f"{counted(batch_size, 'clip')} of a batch; lower one of them"
            )
        num_slots = num_slots or world_size
        self._global_batch = batch_size * num_slots
        if num_clips < self._global_batch:
            raise UsageError(
                f"{counted(num_clips, 'clip')} cannot fill one global batch of "
                f"{self._global_batch} ({batch_size} x {counted(num_slots, 'rank')}); lower the "
                f"batch size to at most {num_clips // num_slots}, or add videos"
            )
        self._num_clips, self._batch_size = num_clips, batch_size
        self.slots = range(rank, num_slots, world_size)
        """This rank's batches of each step."""
        self._seed, self._repeats, self._per_open = seed, repeats, clips_per_open
        self.steps_per_epoch = num_clips // self._global_batch
        """Steps of a whole epoch, the same on every rank."""
        self.set_epoch(epoch, start_step)

    def set_epoch(self, epoch: int, start_step: int = 0) -> None:
        """Moves to `epoch`, to begin at `start_step` of it.

        Raises:
            UsageError: for a step that the epoch does not have.
        """
        if not 0 <= start_step <= self.steps_per_epoch:
            raise UsageError(
                f"cannot start at step {start_step} of an epoch of "
                f"{counted(self.steps_per_epoch, 'step')}; was the batch size or the list changed "
                "since the checkpoint?"
            )
        self._epoch, self._start_step = epoch, start_step

    def __len__(self) -> int:
        return (self.steps_per_epoch - self._start_step) * len(self.slots)

    def __iter__(self) -> Iterator[list[Key]]:
        order = self._order()
        for step in range(self._start_step, self.steps_per_epoch):
            for slot in self.slots:
                yield self._batch(order, step, slot)

    def of_slot(self, epoch: int, step: int, slot: int) -> list[Key]:
        """The keys of any slot, this rank's or another's, at a step of an epoch."""
        self.set_epoch(epoch, step)
        return self._batch(self._order(), step, slot)

    def _order(self) -> list[int]:
        generator = stream(self._seed, "order", self._epoch // self._per_open)
        return torch.randperm(self._num_clips, generator=generator).tolist()

    def _batch(self, order: list[int], step: int, slot: int) -> list[Key]:
        num_opened = self._batch_size // self._per_open
        before = self._epoch % self._per_open * (self._num_clips // self._per_open)
        first = before + step * self._global_batch // self._per_open + slot * num_opened
        chosen = order[first : first + num_opened]
        if self._per_open > 1:
            copies = self._copies(self._per_open)
            return [(copy, index) for index in chosen for copy in copies]
        copies = self._copies(self._repeats)
        return [(copy, index) for copy in copies for index in chosen]

    def _copies(self, count: int) -> range:
        return range(self._epoch * count, (self._epoch + 1) * count)
