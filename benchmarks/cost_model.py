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
    mae_bytes: float = 376.8e6
    """Of the autoencoder's gradients, in float32; counted."""
    weight_bytes: float = 41.1e6
    """Of the policy, and so of its gradients; counted."""
    handover_bytes_s: float = 468e6
    """Through one buffer into one policy learner; measured by `tats bench scale`."""
    policy_clips_s: float = 524.0
    """That one GPU can learn from, an H100; measured by benchmarks/step.py."""
    node_bytes_s: float = 12.5e9
    """100 Gbit/s; assumed."""


@dataclass(frozen=True, slots=True)
class Needs:
    """Of a run; loads are shares of what there is: one buffer and one policy learner today."""

    num_gpus: int
    clips_per_s: float
    decode_cores: float
    rollout_bytes_s: float
    updates_per_s: float
    weight_bytes_s: float
    """Into every node, once for all of its GPUs."""
    gradient_bytes_s: float
    """Into every node, and as many out of it, where a node sums those of its own GPUs first."""
    loads: Mapping[str, float]

    @property
    def bottleneck(self) -> str:
        return max(self.loads, key=lambda name: self.loads[name])


def needs(
    figures: Figures,
    num_gpus: int,
    *,
    fraction: float = 1.0,
    steps_per_update: int = 1,
    is_sharded: bool = False,
) -> Needs:
    """What `num_gpus` ask for.

    Args:
        fraction: `loop.rollout_fraction`.
        steps_per_update: `loop.mae_steps_per_update`.
        is_sharded: every node has a buffer and a policy learner, whose gradients are summed;
            not built.
    """
    nodes = max(1.0, num_gpus / figures.gpus_per_node)
    elsewhere = 1 - 1 / nodes
    clips = figures.clips_per_gpu_s * num_gpus
    cores = clips / figures.decode_clips_per_core_s
    rollouts = fraction * clips * figures.clip_bytes
    # Summed at every step, even where the optimiser waits for several of them.
    steps = figures.clips_per_gpu_s / figures.clips_per_step
    gradients = 2 * elsewhere * steps * figures.mae_bytes
    updates = steps / steps_per_update
    weights = updates * figures.weight_bytes
    if is_sharded:
        shards = nodes
        gradients += 2 * elsewhere * weights  # instead of the weights, those of the policy
        weights = 0.0
        network = gradients
    else:
        shards = 1.0
        # Of the policy learner's node, in its busier direction: rollouts of the other nodes in,
        # weights for each of them out.
        network = gradients + max(rollouts * elsewhere, weights * (nodes - 1))
    return Needs(
        num_gpus,
        clips,
        cores,
        rollouts,
        updates,
        weights,
        gradients,
        {
            "decoding": cores / (figures.cores_per_gpu * num_gpus),
            "hand-over": rollouts / shards / figures.handover_bytes_s,
            "policy learner": fraction * clips / shards / figures.policy_clips_s,
            "network": network / figures.node_bytes_s,
        },
    )


def clips_that_fit(figures: Figures, num_gpus: int, *, load: str) -> int:
    """Most clips of a batch that can be handed over before a part is overloaded; 0: not one."""
    for clips in range(figures.clips_per_step, 0, -1):
        asked = needs(figures, num_gpus, fraction=clips / figures.clips_per_step)
        if asked.loads[load] <= 1:
            return clips
    return 0
