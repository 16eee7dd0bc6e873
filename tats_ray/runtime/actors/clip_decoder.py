"""A decode actor: the clips of the keys that it is given, on whatever node it runs."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from dataclasses import fields
from functools import cached_property
from typing import Any

import ray
import torch

from tats_ray.config.load import parse_config
from tats_ray.data.clip_lists import read_lists
from tats_ray.data.dataset import ClipBatch, ClipDataset, Key, collate
from tats_ray.runtime.actors.transfer import to_arrays, to_tensors
from tats_ray.runtime.driver import home
from tats_ray.training.pretrain_build import training_clips


class ClipDecoderActor:
    """Decodes batches of training clips. It holds nothing that cannot be made anew.

    Args:
        config: of the run.
        log: the run log, which is told when this is not the first life of the actor.
        started_in: the driver's folder.
    """

    def __init__(self, config: Mapping[str, Any], log: Any, *, started_in: str) -> None:
        astray = home.go_to(started_in, config["data"])
        torch.set_num_threads(1)
        self._config = parse_config(config)
        if astray:
            log.remark.remote(astray, time.time())
        if ray.get_runtime_context().was_current_actor_reconstructed:
            note = "a decode actor was lost and has been restarted; others decoded its clips"
            log.remark.remote(note, time.time())

    @cached_property
    def _clips(self) -> ClipDataset:
        """Made in a call: what a constructor raises is, to its callers, the death of the actor."""
        return training_clips(self._config, read_lists(self._config.data).train)

    def decode(self, keys: Sequence[Key]) -> dict[str, Any]:
        """A batch in arrays; `to_batch` puts it together again.

        Raises:
            TatsError: as the local reader does.
        """
        batch = collate(self._clips.__getitems__(keys))
        return {field.name: to_arrays(getattr(batch, field.name)) for field in fields(batch)}


def to_batch(arrays: Mapping[str, Any]) -> ClipBatch:
    """What `decode` returned, in memory of its own: that of the object store is free again."""
    return ClipBatch(**to_tensors(arrays))
