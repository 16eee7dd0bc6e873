"""What a run will do, worked out and printed before anything starts."""

from __future__ import annotations

from dataclasses import dataclass

from tats_ray.config.schema import RunConfig
from tats_ray.core.errors import UsageError
from tats_ray.data.manifest import VideoEntry
from tats_ray.learning.build import Lists, read_lists
from tats_ray.models.zoo import num_visible, token_grid
from tats_ray.ops.rewards import REWARDS
from tats_ray.runtime.launch import Placement, plan_placement


@dataclass(frozen=True)
class Plan:
    """A run's sizes, all derived from its configuration and its lists."""

    config: RunConfig
    lists: Lists
    placement: Placement
    num_tokens: int
    num_visible: int
    global_batch: int
    steps_per_epoch: int
    lr: float
    min_lr: float

    @property
    def plateau(self) -> float:
        """Error of predicting nothing: (n-1)/n for the n pixels of a patch, targets unbiased."""
        pixels = self.config.model.tubelet * self.config.model.patch**2
        return (pixels - 1) / pixels

    @property
    def warmup_masks(self) -> str:
        """What the MAE-only epochs are masked with, in words."""
        kind = self.config.loop.warmup_mask
        return {"random": "uniform masks", "tube": "tube masks"}.get(kind, "untrained sampler")

    @property
    def total_steps(self) -> int:
        return self.steps_per_epoch * self.config.loop.epochs

    def lines(self) -> list[tuple[str, str]]:
        """(what, how much) for a person to read."""
        config, placement = self.config, self.placement
        optim, loop = config.optim, config.loop
        workers = placement.num_workers
        return [
            ("videos", f"{len(self.lists.train)} to train on, {len(self.lists.val)} to validate"),
            (
                "tokens",
                f"{self.num_tokens} per clip, {self.num_visible} visible "
                f"({self.num_visible / self.num_tokens:.1%}), sampler {config.sampler.name}",
            ),
            ("model", f"{config.model.size}, {loop.precision}, seed {config.seed}"),
            (
                "batch",
                f"{optim.batch_size} clips x {workers} learner{'s' * (workers > 1)} "
                f"= {self.global_batch}",
            ),
            (
                "learning rate",
                f"MAE {optim.base_lr:g} x {self.global_batch}/256 = {self.lr:g}, cosine to "
                f"{self.min_lr:g}, warm-up {optim.warmup_epochs:g} epochs; "
                f"sampler {config.algorithm.lr:g} ({config.algorithm.name})",
            ),
            (
                "steps",
                f"{loop.epochs} epochs x {self.steps_per_epoch} = {self.total_steps}; "
                f"{self.warmup_masks} for the first {loop.mae_only_epochs} epochs, "
                f"then one policy update per {loop.mae_steps_per_update} MAE step"
                f"{'s' * (loop.mae_steps_per_update > 1)}",
            ),
            (
                "actors",
                f"{workers} MAE learner{'s' * (workers > 1)} on {placement.device} "
                f"({placement.threads} threads each), "
                + (
                    f"policy learner on {placement.policy_device}, rollout buffer "
                    f"{config.cluster.buffer_mb} MB, weight store, run log"
                    if placement.learns_policy
                    else "run log (this sampler does not learn)"
                ),
            ),
        ]


def make_plan(config: RunConfig) -> Plan:
    """Check everything that can be known before an actor starts.

    Raises:
        UsageError: for the first thing that would make the run fail.
    """
    if not config.data.train_list:
        raise UsageError("data.train_list names no list of videos; use --data.train_list PATH")
    if config.env.reward not in REWARDS:
        raise UsageError(
            f"env.reward {config.env.reward!r} is not known; known: {', '.join(REWARDS)}"
        )
    _check_reward(config)
    grid = token_grid(config.data, config.model)
    visible = num_visible(config.sampler, grid)
    placement = plan_placement(config)
    lists = read_lists(config.data)
    global_batch = config.optim.batch_size * config.cluster.num_workers
    steps = _steps_per_epoch(lists.train, global_batch, config)
    return Plan(
        config=config,
        lists=lists,
        placement=placement,
        num_tokens=grid.num_tokens,
        num_visible=visible,
        global_batch=global_batch,
        steps_per_epoch=steps,
        lr=config.optim.base_lr * global_batch / 256,
        min_lr=config.optim.min_lr * global_batch / 256,
    )


def _check_reward(config: RunConfig) -> None:
    """Visible tokens have no error of their own: they can only be judged by the whole clip's."""
    scored = getattr(config.algorithm, "scored", "hidden")
    if scored in ("visible", "joint") and config.env.reward == "token_error":
        raise UsageError(
            f"algorithm.scored {scored} cannot be paid with env.reward token_error, which is 0 on "
            "visible tokens; use --env.reward negative_clip_error"
        )


def _steps_per_epoch(train: list[VideoEntry], global_batch: int, config: RunConfig) -> int:
    steps = len(train) // global_batch
    if not steps:
        raise UsageError(
            f"{config.data.train_list} has {len(train)} videos, fewer than one batch of "
            f"{global_batch} ({config.optim.batch_size} x {config.cluster.num_workers} learners); "
            "lower optim.batch_size"
        )
    return steps
