"""What a run of many GPUs asks of decoding, hand-over, policy learner and network."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass


@dataclass(frozen=True, kw_only=True, slots=True)
class Figures:
    """What one of each can do. docs/scaling.md says where every default comes from."""

    clips_per_gpu_s: float = 540.0
    """ViT-B autoencoder with its sampler drawing, an H100; measured by benchmarks/step.py."""
    clips_per_step: int = 32
    """Of a GPU."""
    gpus_per_node: int = 8
    cores_per_gpu: int = 16
    decode_clips_per_core_s: float = 12.6
    """Kinetics-like H.264; measured."""
    clip_bytes: float = 2.42e6
    """Of a clip in a rollout: 1,568 tokens of 768 values in half precision, and scores."""
    weight_bytes: float = 41.1e6
    """Of the policy; counted."""
    handover_bytes_s: float = 468e6
    """Through one buffer into one policy learner; measured by `tats bench scale`."""
    policy_clips_s: float = 524.0
    """That one GPU can learn from, an H100; measured by benchmarks/step.py."""
    node_bytes_s: float = 12.5e9
    """100 Gbit/s; assumed."""


@dataclass(frozen=True, slots=True)
class Needs:
    """Of a run; loads are shares of what there is today, one buffer and one policy learner."""

    num_gpus: int
    clips_per_s: float
    decode_cores: float
    rollout_bytes_s: float
    updates_per_s: float
    weight_bytes_s: float
    """Into every node, once for all of its GPUs."""
    loads: Mapping[str, float]

    @property
    def bottleneck(self) -> str:
        return max(self.loads, key=lambda name: self.loads[name])


def needs(
    figures: Figures, num_gpus: int, *, fraction: float = 1.0, steps_per_update: int = 1
) -> Needs:
    """What `num_gpus` ask for.

    Args:
        fraction: `loop.rollout_fraction`.
        steps_per_update: `loop.mae_steps_per_update`.
    """
    clips = figures.clips_per_gpu_s * num_gpus
    cores = clips / figures.decode_clips_per_core_s
    rollouts = fraction * clips * figures.clip_bytes
    updates = figures.clips_per_gpu_s / figures.clips_per_step / steps_per_update
    weights = updates * figures.weight_bytes
    return Needs(
        num_gpus,
        clips,
        cores,
        rollouts,
        updates,
        weights,
        {
            "decoding": cores / (figures.cores_per_gpu * num_gpus),
            "hand-over": rollouts / figures.handover_bytes_s,
            "policy learner": fraction * clips / figures.policy_clips_s,
            # Rollouts of its own node do not cross the network to the policy learner.
            "network": rollouts
            * max(0.0, 1 - figures.gpus_per_node / num_gpus)
            / figures.node_bytes_s,
        },
    )


def largest_fraction(figures: Figures, num_gpus: int, *, load: str) -> float:
    """The `loop.rollout_fraction` at which a part is just not overloaded; at most 1."""
    return min(1.0, 1.0 / needs(figures, num_gpus).loads[load])
