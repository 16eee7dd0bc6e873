"""Batches of clips for one rank, of any epoch and from any step of it on."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from itertools import chain, islice

from torch.utils.data import DataLoader

from tats_ray.config.cluster_schema import ClusterConfig
from tats_ray.data.dataset import ClipBatch, ClipDataset, collate
from tats_ray.data.sampler import ClipSampler

ClipSource = Callable[[ClipSampler], Iterable[ClipBatch]]
"""From the order of a rank's clips to its batches, each time it is iterated over."""


class ClipLoader:
    """One rank's batches of any epoch, from any batch of it on.

    Args:
        num_workers: processes that decode.
        source: decodes the clips elsewhere instead.
    """

    def __init__(
        self,
        dataset: ClipDataset,
        sampler: ClipSampler,
        *,
        num_workers: int,
        cluster: ClusterConfig,
        source: ClipSource | None = None,
    ) -> None:
        self.dataset = dataset
        self._sampler = sampler
        self.steps_per_epoch, self.slots = sampler.steps_per_epoch, sampler.slots
        self._batches: Iterable[ClipBatch]
        if source is not None:
            self._batches = source(sampler)
        else:
            self._batches = DataLoader(
                dataset,
                batch_sampler=sampler,
                collate_fn=collate,
                num_workers=num_workers,
                pin_memory=cluster.use_gpu,
                persistent_workers=num_workers > 0,
                timeout=cluster.timeout_s if num_workers else 0,
            )

    def __call__(self, epoch: int, first_step: int) -> Iterator[ClipBatch]:
        self._sampler.set_epoch(epoch, first_step)
        return iter(self._batches)

    def keys(self, epoch: int, step: int) -> list[tuple[int, int]]:
        """(epoch, index) of the clips of one step."""
        self._sampler.set_epoch(epoch, step)
        return list(chain.from_iterable(islice(self._sampler, len(self.slots))))

    def keys_of_slot(self, step: int, slot: int) -> list[tuple[int, int]]:
        """(epoch, index) of the clips of any slot at a step of the run, counted from 0."""
        epoch, batch = divmod(step, self.steps_per_epoch)
        return self._sampler.of_slot(epoch, batch, slot)
