"""What a run of many GPUs asks of decoding, hand-over, policy learner and network."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal

import torch

from tats_ray.config.schema import DataConfig, ModelConfig, RunConfig
from tats_ray.models.policy import is_learned
from tats_ray.models.zoo import build_mae, build_policy, count_parameters, token_grid

Place = Literal["actor", "learner"]
"""Of the policy: actors of its own, or inside every MAE learner."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Figures:
    """What one of each can do. docs/scaling.md says where every default comes from."""

    clips_per_gpu_s: float = 540.0
    """ViT-B autoencoder with its sampler drawing, an H100; measured by benchmarks/step.py."""
    clips_per_step: int = 32
    """Of a GPU."""
    gpus_per_node: int = 8
    cores_per_gpu: float = 16
    """That decode."""
    decode_clips_per_core_s: float = 12.6
    """Kinetics-like H.264; measured."""
    clip_bytes: float = 2.42e6
    """Of a clip in a rollout: 1,568 tokens of 768 values in half precision, and scores."""
    mae_bytes: float = 376.8e6
    """Of the autoencoder's gradients, as they are exchanged: in float32; counted."""
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
    """Of a run; loads are shares of what there is."""

    num_gpus: int
    clips_per_s: float
    decode_cores: float
    rollout_bytes_s: float
    """Between processes."""
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
    place: Place = "actor",
    shards: int = 1,
) -> Needs:
    """What `num_gpus` ask for.

    Args:
        fraction: `loop.rollout_fraction`.
        steps_per_update: `loop.mae_steps_per_update`.
        place: where the policy learns. Inside the learners its updates take a part of their time.
        shards: policy learners in actors of their own, each on another node with a shard of the
            buffer.
    """
    nodes = max(1.0, num_gpus / figures.gpus_per_node)
    elsewhere = 1 - 1 / nodes
    each = figures.clips_per_gpu_s
    if place == "learner":
        each = 1 / (1 / each + fraction / figures.policy_clips_s)
    clips = each * num_gpus
    cores = clips / figures.decode_clips_per_core_s
    rollouts = 0.0 if place == "learner" else fraction * clips * figures.clip_bytes
    # Summed at every step, even where the optimiser waits for several of them.
    steps = each / figures.clips_per_step
    gradients = 2 * elsewhere * steps * figures.mae_bytes
    updates = steps / steps_per_update
    weights = updates * figures.weight_bytes
    if place == "actor":
        # Of a policy learner's node, in its busier direction: rollouts of nodes without one in,
        # weights for those out.
        inward = rollouts * max(1 / shards - 1 / nodes, 0.0)
        outward = weights * max(nodes / shards - 1, 0.0)
        members = 2 * (1 - 1 / shards) * weights
        network = gradients + members + max(inward, outward)
        weights *= shards < nodes
    else:
        shards = 1
        gradients += 2 * elsewhere * weights  # instead of the weights, those of the policy
        weights, network = 0.0, gradients
    learned = 0.0 if place == "learner" else fraction * clips
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
            "policy learner": learned / shards / figures.policy_clips_s,
            "network": network / figures.node_bytes_s,
        },
    )


def clips_that_fit(figures: Figures, num_gpus: int, *, load: str, shards: int = 1) -> int:
    """Most clips of a batch that can be handed over before a part is overloaded; 0: not one."""
    for clips in range(figures.clips_per_step, 0, -1):
        fraction = clips / figures.clips_per_step
        asked = needs(figures, num_gpus, fraction=fraction, shards=shards)
        if asked.loads[load] <= 1:
            return clips
    return 0


def figures_of(config: RunConfig, clip_bytes: float) -> Figures:
    """Of a run on GPUs like an H100, eight in a machine, from what was measured with ViT-B.

    Speeds are in inverse proportion to weights times tokens.

    Args:
        clip_bytes: of a clip in a rollout.
    """
    grid, usual = token_grid(config.data, config.model), token_grid(DataConfig(), ModelConfig())
    with torch.device("meta"):
        mae = count_parameters(build_mae(config.model, grid, seed=0))
    policy = build_policy(config.sampler, config.model, grid, seed=0)
    own = count_parameters(policy) if is_learned(policy) else 0
    base = Figures()
    scale = base.mae_bytes / (4 * mae) * usual.num_tokens / grid.num_tokens
    value_bytes = 2 if config.cluster.gradient_precision == "bfloat16" else 4
    return Figures(
        clips_per_gpu_s=base.clips_per_gpu_s * scale,
        clips_per_step=config.clips_per_step,
        cores_per_gpu=max(config.data.num_workers, 1),
        clip_bytes=clip_bytes,
        mae_bytes=mae * value_bytes,
        weight_bytes=own * 4,
        policy_clips_s=base.policy_clips_s * scale,
    )


def expected(config: RunConfig, clip_bytes: float) -> Needs:
    """The loads of a run on GPUs."""
    return needs(
        figures_of(config, clip_bytes),
        config.cluster.num_workers,
        fraction=config.loop.rollout_fraction,
        steps_per_update=config.loop.mae_steps_per_update,
        place=config.cluster.policy_place,
        shards=config.cluster.policy_learners,
    )


def way_out(config: RunConfig, asked: Needs) -> str:
    """The one change that would help a run most; empty where nothing is overloaded."""
    part = asked.bottleneck
    if asked.loads[part] <= 1:
        return ""
    if part == "decoding":
        workers = math.ceil(asked.decode_cores / asked.num_gpus)
        return f"--data.num_workers {workers} on as many cores, or a cache (tats data cache)"
    if part == "network":
        is_wide = config.cluster.gradient_precision == "float32"
        bigger = f"--optim.batch_size {2 * config.optim.batch_size}"
        return "--cluster.gradient_precision bfloat16" if is_wide else bigger
    if config.num_rollout_workers:
        shards = config.cluster.policy_learners
        wanted = min(math.ceil(shards * asked.loads[part]), config.cluster.num_workers)
        more = f"--cluster.policy_learners {wanted} on as many nodes, or "
        return more * (wanted > shards) + "a lower loop.rollout_fraction"
    own_gpu = " --cluster.policy_gpus 0" * bool(config.cluster.policy_gpus)
    alone = " --cluster.policy_learners 1" * (config.cluster.policy_learners > 1)
    return f"--cluster.policy_place learner{own_gpu}{alone}"
