"""Which clips a policy learner's error can come from; it knows steps and slots, and no videos."""

from __future__ import annotations

from tats_ray.config.schema import RunConfig
from tats_ray.core.errors import NonFiniteError
from tats_ray.core.words import counted
from tats_ray.data.clip_loader import ClipLoader
from tats_ray.data.manifest import VideoEntry
from tats_ray.training.rollouts import rollout_number, rollout_order

_MOST = 4


def clips_in_words(
    error: NonFiniteError, config: RunConfig, batches: ClipLoader, videos: list[VideoEntry]
) -> str:
    """The videos behind the rollouts that an error names."""
    found: dict[str, None] = {}
    for entry, step, slot in error.rollouts:
        if config.loop.source == "workers":
            order = rollout_order(config, len(videos))
            number = rollout_number(config, error.version, entry, slot)
            epoch, batch = divmod(number, order.steps_per_epoch)
            keys = order.of_slot(epoch, batch, 0)
        else:
            keys = batches.keys_of_slot(step, slot)[: config.clips_per_rollout]
        found |= dict.fromkeys(videos[index].path for _, index in keys)
    paths = [*found]
    more = f" and {len(paths) - _MOST} more" if len(paths) > _MOST else ""
    return (
        f"the clips of {counted(len(error.rollouts), 'rollout')} were from "
        f"{', '.join(paths[:_MOST])}{more}"
    )
