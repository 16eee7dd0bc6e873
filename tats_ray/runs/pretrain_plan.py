"""What a run will do: computed, checked and printed before anything starts."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace

import torch

from tats_ray.config.finetune_schema import Clustered
from tats_ray.config.schema import EnvConfig, RunConfig, SamplerConfig
from tats_ray.core.devices import memory_bytes
from tats_ray.core.errors import UsageError
from tats_ray.core.grid import TokenGrid
from tats_ray.core.words import counted
from tats_ray.data.clip_lists import Lists, cache_in_words, read_lists, shared_in_words
from tats_ray.data.manifest import VideoEntry
from tats_ray.data.motion import motion_path
from tats_ray.models.samplers.dry_run import check_sampler
from tats_ray.models.samplers.registry import find_sampler, ignored_fields
from tats_ray.models.samplers.tats import kept_bytes
from tats_ray.models.zoo import SIZES, num_visible, token_grid
from tats_ray.ops.rewards import PER_TOKEN, find_reward
from tats_ray.runs.step_plan import (
    check_compilation,
    compilation_in_words,
    decided_loop,
    decoding_in_words,
)
from tats_ray.runtime.resources.cost_model import expected, way_out
from tats_ray.runtime.resources.placement import Placement, plan_placement
from tats_ray.runtime.resources.policy_place import check_policy_place
from tats_ray.runtime.resources.rollout_bytes import clip_bytes
from tats_ray.training.algorithm_trial import check_algorithm
from tats_ray.training.mae_learner import optimizer_steps
from tats_ray.training.pretrain_build import wants_motion
from tats_ray.training.rate_schedule import RateSchedule
from tats_ray.view.trackers import require_trackers


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
    rollout_bytes: int
    """Most bytes of a buffer's shard in an object store, copies included."""

    @property
    def warmup_masks(self) -> str:
        """The masks of the MAE-only epochs, in words."""
        kind = self.config.loop.warmup_mask
        return {"random": "uniform masks", "tube": "tube masks"}.get(kind, "untrained sampler")

    @property
    def total_steps(self) -> int:
        return self.steps_per_epoch * self.config.loop.epochs

    def schedule(self, epochs: int) -> RateSchedule:
        """The learning rate of a run of so many epochs."""
        warmup = self.config.optim.warmup_epochs
        return RateSchedule(
            self.lr,
            self.min_lr,
            warmup,
            epochs,
            warmup_steps=round(warmup * self.steps_per_epoch),
            total_steps=optimizer_steps(
                replace(self.config.loop, epochs=epochs), self.steps_per_epoch
            ),
        )

    def lines(self) -> list[tuple[str, str]]:
        """(what, how much) for a person to read."""
        config, placement = self.config, self.placement
        optim, loop = config.optim, config.loop
        workers = placement.num_workers
        fewest = f"{config.cluster.min_workers} to " * config.cluster.is_elastic
        return [
            ("videos", f"{len(self.lists.train)} to train on, {len(self.lists.val)} to validate"),
            ("tokens", self._tokens_in_words()),
            ("model", f"{config.model.size}, {loop.precision}, seed {config.seed}"),
            *([("environment", config.env.id)] if config.env.id != EnvConfig().id else []),
            ("batch", self._batch_in_words()),
            (
                "learning rate",
                f"MAE {optim.base_lr:g} x {self.global_batch}/256 = {self.lr:g}, cosine to "
                f"{self.min_lr:g}, warm-up {counted(optim.warmup_epochs, 'epoch')}"
                + f"; sampler {config.algorithm.lr:g}"
                * placement.learns_policy,
            ),
            ("algorithm", self._algorithm_in_words()),
            *([("memory", self._memory_in_words())] if _has_trajectories(config.sampler) else []),
            *([("compiled", compilation_in_words(loop))] if loop.compile != "off" else []),
            (
                "steps",
                f"{counted(loop.epochs, 'epoch')} x {self.steps_per_epoch} = {self.total_steps}; "
                f"{self._phases_in_words()}",
            ),
            (
                "actors",
                f"{fewest}{counted(workers, 'MAE learner')} on "
                f"{placement.request.learners.device} "
                f"({placement.threads_in_words}), "
                f"{placement.decoders_in_words}{self._policy_in_words()}",
            ),
            *([("loads", self._loads_in_words())] if config.cluster.use_gpu else []),
            *(("note", note) for note in self._notes()),
        ]

    def _notes(self) -> list[str]:
        """Schedules that do nothing, settings that nobody reads, and videos in both lists."""
        loop, sampler, data = self.config.loop, self.config.sampler, self.config.data
        notes = self.schedule(loop.epochs).notes()
        if self.placement.learns_policy and loop.mae_only_epochs >= loop.epochs:
            notes.append(
                f"the sampler never trains: loop.mae_only_epochs {loop.mae_only_epochs} leaves "
                f"none of the {counted(loop.epochs, 'epoch')}; lower it, or raise loop.epochs"
            )
        if warning := cache_in_words(data):
            notes.append(warning)
        if ignored := ignored_fields(sampler):
            notes.append(f"sampler {sampler.name} ignores {', '.join(ignored)}")
        names = data.train_list, data.val_list
        if shared := shared_in_words(self.lists.train, self.lists.val, names, "error"):
            notes.append(shared)
        return notes

    def _phases_in_words(self) -> str:
        """Whose masks are shown when, and what learns from them."""
        loop, sampler = self.config.loop, self.config.sampler.name
        learns = self.placement.learns_policy
        has_own = loop.mae_only_epochs and (learns or loop.warmup_mask != "learned")
        first = f"{self.warmup_masks} for the first {counted(loop.mae_only_epochs, 'epoch')}, then "
        if not learns:
            return f"{first * bool(has_own)}masks of sampler {sampler}, no policy updates"
        flight = f", at most {loop.max_staleness} in flight" * bool(loop.max_staleness)
        ramps = "".join(
            f", {way} over {counted(epochs, 'epoch')}"
            for way, epochs in (("growing", loop.ramp_in_epochs), ("falling", loop.ramp_out_epochs))
            if epochs
        )
        each = counted(loop.mae_steps_per_update, "MAE step").removeprefix("1 ")
        return f"{first * bool(has_own)}one policy update per {each}{flight}{ramps}"

    def _tokens_in_words(self) -> str:
        """Tube and frame masks round to whole tubes and frames: the actual ratio is shown too."""
        share, asked = self.num_visible / self.num_tokens, self.config.sampler.mask_ratio
        decoded = self.config.model.decode_share
        words = (
            f"{self.num_tokens} per clip, {self.num_visible} visible ({share:.1%})"
            f"{decoding_in_words(decoded, self.num_tokens - self.num_visible)}, "
            f"sampler {self.config.sampler.name}"
        )
        if options := self.config.sampler.options:
            words += f" ({', '.join(f'{name} {value}' for name, value in options.items())})"
        is_exact = abs(1 - share - asked) * self.num_tokens < 1
        return words if is_exact else f"{words}, mask ratio {1 - share:.3g} instead of {asked:g}"

    def _batch_in_words(self) -> str:
        size, workers = self.config.optim.batch_size, self.placement.num_workers
        clips, masks = self.config.clips_per_step, self.config.algorithm.masks_per_clip
        rows = counted(size, "clip")
        if masks > 1:
            rows = f"{counted(size, 'row')} ({counted(clips, 'clip')} x {masks} masks)"
        return f"{rows} x {counted(workers, 'learner')} = {self.global_batch}"

    def _policy_in_words(self) -> str:
        config, request = self.config, self.placement.request
        if not self.placement.learns_policy:
            return "run log (this sampler does not learn)"
        if config.cluster.policy_place == "learner":
            alone = config.cluster.num_workers == 1
            return f"policy learner inside {'it' if alone else 'each of them'}, run log"
        makers = request.rollout
        return (
            f"{counted(makers.count, 'rollout worker')} on {makers.device}, " * bool(makers.count)
            + f"{self._learners_in_words()}, weight store, run log"
        )

    def _learners_in_words(self) -> str:
        policy, size = self.placement.request.policy, self.config.cluster.buffer_mb
        if policy.count == 1:
            return f"policy learner on {policy.device}, rollout buffer {size} MB"
        return (
            f"{policy.count} policy learners on {policy.device}, each with a shard of the rollout "
            f"buffer of {size} MB"
        )

    def _loads_in_words(self) -> str:
        """What will limit the run, by the cost model, and what would help."""
        grid = token_grid(self.config.data, self.config.model)
        asked = expected(self.config, clip_bytes(self.config, grid))
        shares = ", ".join(f"{part} {load:.2g}" for part, load in asked.loads.items() if load)
        help_ = way_out(self.config, asked)
        return f"{shares or 'none'} of 1 (expected of GPUs like an H100, docs/scaling.md)" + (
            f"; {asked.bottleneck} limits: use {help_}" * bool(help_)
        )

    def _algorithm_in_words(self) -> str:
        if not self.placement.learns_policy:
            return f"none: sampler {self.config.sampler.name} does not learn"
        return f"{self.config.algorithm.name}, rewarded with {self.config.reward}"

    def _memory_in_words(self) -> str:
        way = {"on": "recomputed in", "off": "kept for"}[self.config.sampler.recompute]
        return f"trajectories are {way} the backward pass (sampler.recompute)"


def make_plan(config: RunConfig) -> Plan:
    """Check everything that can be known before an actor starts.

    Raises:
        UsageError: for the first thing that would make the run fail.
    """
    if not config.data.train_list:
        raise UsageError(
            "data.train_list is empty; give a list of videos with --data.train_list PATH"
        )
    require_trackers(config.log.trackers)
    grid = token_grid(config.data, config.model)
    check_sampler(config.sampler, config.model, grid, seed=config.seed)
    if find_sampler(config.sampler).learns:
        check_algorithm(config, grid)
    _check_reward(config)
    visible = num_visible(config.sampler, grid)
    placement = plan_placement(config)
    device = torch.device(placement.request.learners.device)
    config = replace(config, loop=decided_loop(config, device))
    check_compilation(config)
    if config.num_rollout_workers:
        _check_source(config, learns_policy=placement.learns_policy)
    if config.cluster.is_elastic:
        _check_elastic(config)
    _check_gradients(config)
    rollout_bytes = check_policy_place(config, grid)
    lists = read_lists(config.data)
    if wants_motion(config):
        _check_motion(config, lists)
    if config.sampler.recompute == "auto" and _has_trajectories(config.sampler):
        config = replace(config, sampler=_decided(config, grid, placement))
    global_batch = config.optim.batch_size * config.cluster.num_workers
    steps = steps_in_epoch(config, lists.train, config.clips_per_step)
    if config.clips_per_step % config.data.clips_per_open:
        raise UsageError(
            f"data.clips_per_open {config.data.clips_per_open} does not divide the "
            f"{counted(config.clips_per_step, 'clip')} of a step; lower one of them"
        )
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
        rollout_bytes=rollout_bytes,
    )


def _check_source(config: RunConfig, *, learns_policy: bool) -> None:
    if not learns_policy:
        raise UsageError(
            f"loop.source workers needs a sampler that learns, and sampler.name "
            f"{config.sampler.name} does not; use --loop.source learner, or another sampler"
        )
    if config.cluster.sharding == "fsdp":
        raise UsageError(
            "loop.source workers cannot be combined with cluster.sharding fsdp, because one "
            "learner must hold the whole autoencoder to copy it; use --cluster.sharding ddp"
        )


def _has_trajectories(sampler: SamplerConfig) -> bool:
    return "recompute" in find_sampler(sampler).heeds and sampler.trajectory_attention


_KEPT_SHARE = 1 / 3
"""Of a device's memory, for what an update keeps; weights and the autoencoder need some too."""


def _decided(config: RunConfig, grid: TokenGrid, placement: Placement) -> SamplerConfig:
    """Whether trajectories are kept or recomputed, by the memory of the device that learns.

    Not by what is free at the moment: the same run would differ by rounding from day to day.
    """
    own, loop = placement.request, config.loop
    beside = config.cluster.policy_place == "learner"
    device = torch.device(own.learners.device if beside else own.policy.device)
    takes_all = getattr(config.algorithm, "minibatch", "all") == "all"
    workers = config.cluster.num_workers
    # Inside the learners, each has its own; of an elastic run, also those of the ones it lost.
    # Policy learners on CPUs may share one machine's memory.
    sharing = config.cluster.policy_learners if own.policy.gpu else 1
    ranks = math.ceil(workers / (config.cluster.fewest_workers if beside else sharing))
    clips = config.clips_per_rollout * ranks
    clips *= loop.mae_steps_per_update if takes_all else 1
    width = SIZES[config.model.size].width
    kept = kept_bytes(clips, width, grid, config.sampler.num_blocks)
    fits = kept <= _KEPT_SHARE * memory_bytes(device)
    return replace(config.sampler, recompute="off" if fits else "on")


def _check_reward(config: RunConfig) -> None:
    """Visible tokens have no error of their own: they can only be judged by the whole clip's."""
    find_reward(config.reward)
    scored = getattr(config.algorithm, "scored", "hidden")
    if scored in ("visible", "joint") and config.reward in PER_TOKEN:
        raise UsageError(
            f"algorithm.scored {scored} cannot be combined with env.reward {config.reward}, which "
            "says nothing of visible tokens; use --env.reward negative_clip_error"
        )


def _check_gradients(config: RunConfig) -> None:
    cluster = config.cluster
    if cluster.gradient_precision != "float32" and cluster.sharding == "fsdp":
        raise UsageError(
            f"cluster.gradient_precision {cluster.gradient_precision} cannot be combined with "
            "cluster.sharding fsdp, which sums in the precision of the weights; use float32"
        )


def _check_elastic(config: RunConfig) -> None:
    """Ray Train takes all that nodes have for its own, and sharded learners need equal shares."""
    cluster = config.cluster
    others = config.num_rollout_workers or config.num_decoders or cluster.policy_gpus
    if others or cluster.sharding == "fsdp":
        raise UsageError(
            f"cluster.min_workers {cluster.min_workers} needs ddp, and MAE learners that alone "
            "reserve "
            f"CPUs and GPUs: it cannot be combined with loop.source {config.loop.source}, "
            f"data.reader {config.data.reader}, cluster.policy_gpus {cluster.policy_gpus:g} and "
            f"cluster.sharding {cluster.sharding}; use 0"
        )


def _check_motion(config: RunConfig, lists: Lists) -> None:
    """Motion can be shown or rewarded only where the videos have it marked."""
    draws_by_it = find_sampler(config.sampler).needs_motion
    who = f"sampler.name {config.sampler.name}" if draws_by_it else f"env.reward {config.reward}"
    # Policies draw on validation clips, too.
    for entry in [*lists.train, *(lists.val if draws_by_it else [])]:
        beside = motion_path(entry.path)
        if not beside.is_file():
            raise UsageError(
                f"{who} needs {beside}, the true motion of its video; `tats data synth` writes "
                "videos with it; for other videos choose another sampler or reward"
            )


def steps_in_epoch(config: Clustered, videos: Sequence[VideoEntry], each: int) -> int:
    """Whole batches of a list, for learners that take `each` of its videos a step.

    Raises:
        UsageError: where there is none.
    """
    workers = config.cluster.num_workers
    steps = len(videos) // (each * workers)
    if not steps:
        raise UsageError(
            f"{config.data.train_list} has {counted(len(videos), 'video')}, fewer than one batch "
            f"of {each * workers} ({each} x {counted(workers, 'learner')}); lower optim.batch_size"
        )
    return steps
