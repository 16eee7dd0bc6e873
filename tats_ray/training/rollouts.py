"""Rollouts apart from training: frozen copies of both networks play on clips of their own."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Literal

import torch
from torch import Tensor, nn

from tats_ray.checkpoints.frozen_scorer import FrozenScorer
from tats_ray.config.schema import RunConfig
from tats_ray.core.arrays import Float, Int, UInt8
from tats_ray.core.devices import Precision, autocast
from tats_ray.core.seeds import derive, stream
from tats_ray.core.types import Rollout
from tats_ray.data.clip_lists import clip_dataset
from tats_ray.data.dataset import ClipBatch, collate
from tats_ray.data.manifest import VideoEntry
from tats_ray.data.sampler import ClipSampler
from tats_ray.models.mae import MaskedAutoencoder
from tats_ray.models.zoo import build_learned_policy, build_mae, num_visible, token_grid
from tats_ray.training.environments import make_env
from tats_ray.training.pretrain_build import wants_motion


class Replica(FrozenScorer):
    """A frozen copy of an autoencoder that learns elsewhere, in the same precision."""

    is_frozen = False
    """Until its weights are replaced: answers must not be remembered."""

    def __init__(self, mae: MaskedAutoencoder, precision: Precision) -> None:
        super().__init__(mae)
        self.precision: Precision = precision

    def embed(self, clips: UInt8[Tensor, "B C F H W"]) -> Float[Tensor, "B N D"]:
        with autocast(self.device, self.precision):
            return super().embed(clips)

    def score(
        self, clips: UInt8[Tensor, "B C F H W"], visible_idx: Int[Tensor, "B K"]
    ) -> Float[Tensor, "B N"]:
        with autocast(self.device, self.precision):
            return super().score(clips, visible_idx)


def rollout_order(config: RunConfig, num_videos: int) -> ClipSampler:
    """Which clips rollouts show that are made apart: the n-th batch is that of rollout n.

    Another order and other crops than the MAE learners': they see the same videos.
    """
    return ClipSampler(
        num_clips=num_videos,
        batch_size=config.clips_per_rollout,
        seed=derive(config.seed, "rollouts"),
    )


def rollout_number(config: RunConfig, version: int, entry: int, slot: int) -> int:
    """The number in a run of a rollout that policy update `version` takes."""
    return version * config.rollouts_per_update + entry * config.cluster.num_workers + slot


class RolloutMaker:
    """Makes any rollout of a run, from its number and the weights of both networks.

    Clips, crops and draws come from streams of their own that the number names. So it does not
    matter who makes a rollout, nor how many makers there are.

    Args:
        entries: the training list.
        device: of both networks; tokens are made there and leave it with the rollout.
    """

    def __init__(
        self,
        config: RunConfig,
        entries: list[VideoEntry],
        *,
        device: torch.device,
    ) -> None:
        grid = token_grid(config.data, config.model)
        mae = build_mae(config.model, grid, seed=config.seed).to(device)
        policy = build_learned_policy(config.sampler, config.model, grid, seed=config.seed)
        self.config, self.mae, self.policy = config, mae, policy.to(device)
        self.num_visible = num_visible(config.sampler, grid)
        self.masks = config.algorithm.masks_per_clip
        scorer = Replica(mae, config.loop.precision)
        rows = config.clips_per_rollout * self.masks
        self.env = make_env(config, scorer, rows, self.num_visible)
        self.dataset = clip_dataset(
            config.data,
            entries,
            seed=derive(config.seed, "rollouts"),
            motion_grid=grid if wants_motion(config) else None,
        )
        self.unreadable: dict[str, str] = {}
        """Videos that cannot be read, with reasons."""
        self._sampler = rollout_order(config, len(entries))

    def load(self, network: Literal["mae", "policy"], weights: Mapping[str, Tensor]) -> None:
        """Go on with other weights."""
        target: nn.Module = self.mae if network == "mae" else self.policy
        target.load_state_dict(dict(weights))

    def clips(self, number: int) -> ClipBatch:
        """The clips of rollout `number` of the run."""
        epoch, batch = divmod(number, self._sampler.steps_per_epoch)
        self._sampler.set_epoch(epoch, batch)
        return collate([self.dataset[key] for key in next(iter(self._sampler))])

    def make(
        self, cycle: int, index: int, *, step: int, policy_version: int, mae_step: int
    ) -> Rollout:
        """Rollout `index` of those that policy update `cycle` takes.

        Args:
            step: MAE steps that were done when the cycle began.
            policy_version, mae_step: the weights that were loaded.
        """
        config = self.config
        batch = self.clips(cycle * config.rollouts_per_update + index)
        self.unreadable.update(batch.unreadable)
        options = {"clips": batch.pixels.repeat_interleave(self.masks, 0)}
        if batch.motion is not None:
            options["token_motion"] = batch.motion.repeat_interleave(self.masks, 0)
        tokens, _ = self.env.reset(options=options)
        generator = stream(config.seed, "rollout", cycle, index, device=tokens.device)
        with autocast(tokens.device, config.loop.precision):
            drawn = self.policy.act(tokens, self.num_visible, generator=generator)
        _, _, _, _, info = self.env.step(drawn.visible_idx)
        # They stand in the memory as the rollouts of the cycle's MAE steps and ranks would.
        entry, rank = divmod(index, config.cluster.num_workers)
        return Rollout(
            tokens=tokens,
            visible_idx=drawn.visible_idx,
            log_prob=drawn.log_prob,
            value=drawn.value,
            reward=info["token_reward"],
            policy_version=policy_version,
            step=step + entry,
            rank=rank,
            mae_step=mae_step,
            masks_per_clip=self.masks,
        )
