"""The recipe: who trains when [method section 7.7].

Each rank runs one `PretrainLoop`. Per batch: embed the clips, let the policy draw, let the
environment reconstruct and the autoencoder learn from it, push the rollout; where rollout workers
are the source, they make the k batches' rollouts meanwhile. After k batches every rank asks for the
update and goes on with the new weights. During the first m_o epochs the draw is uniform, and
nothing is pushed.

A step has a fixed number of *slots*, each a batch with random streams of its own: one for each
rank, unless an elastic run has lost some. Then a rank goes through several in one step.

The loop knows neither Ray nor Gymnasium: the environment, the batches and the way to the policy
learner are handed in.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import islice
from typing import Any, Protocol, runtime_checkable

import torch
from torch import Tensor

from tats_ray.config.schema import LoopConfig
from tats_ray.core.arrays import Float, UInt8
from tats_ray.core.devices import autocast
from tats_ray.core.errors import UsageError
from tats_ray.core.late import LateChecks, LateMetrics, Scalar, mean, unread
from tats_ray.core.protocols import MaskPolicy
from tats_ray.core.seeds import stream
from tats_ray.core.types import Evaluation, Position, Rollout, Selection, TrainingStep
from tats_ray.models.samplers.oracle import with_motion
from tats_ray.training.mae_learner import MAELearner
from tats_ray.training.policy_learner import PolicyClient, PolicyUpdate
from tats_ray.training.stopwatch import Stopwatch


@runtime_checkable
class Batch(Protocol):
    """A batch of clips, as the loader yields it."""

    @property
    def pixels(self) -> UInt8[Tensor, "B C F H W"]: ...

    @property
    def num_replaced(self) -> int: ...

    @property
    def unreadable(self) -> Mapping[str, str]:
        """Videos that cannot be read, with reasons."""

    @property
    def motion(self) -> Float[Tensor, "B N"] | None:
        """Share of each token's pixels that truly move, where that is known and asked for."""


@runtime_checkable
class Environment(Protocol):
    """The part of Gymnasium's vector API that the loop uses."""

    def reset(self, *, options: dict[str, Any]) -> tuple[Any, dict[str, Any]]: ...

    def step(self, actions: Any) -> tuple[Any, Any, Any, Any, dict[str, Any]]: ...


@dataclass(frozen=True)
class Stage:
    """Who draws the masks, how many tokens they show, and the environment of that many."""

    policy: MaskPolicy
    env: Environment
    num_visible: int


def learned_share(config: LoopConfig, epoch: int) -> float:
    """Share of an epoch's steps whose masks are the sampler's; it grows and falls in equal steps.

    With ramps of 3 and 1, six epochs after the MAE-only ones have 1/4, 2/4, 3/4, 1, 1 and 1/2.
    """
    since, left = epoch + 1 - config.mae_only_epochs, config.epochs - epoch
    slopes = since / (config.ramp_in_epochs + 1), left / (config.ramp_out_epochs + 1)
    return max(0.0, min(1.0, *slopes))


def training_step(env: Environment, info: Mapping[str, Any]) -> TrainingStep:
    """What a step of the environment says that it did to the autoencoder.

    Raises:
        UsageError: naming the environment that trained nothing.
    """
    found = info.get("training_step")
    if isinstance(found, TrainingStep):
        return found
    name = getattr(getattr(env, "spec", None), "id", None) or type(env).__name__
    raise UsageError(
        f"env.id {name}: its step trained nothing, because info['training_step'] is missing; step "
        "must call scorer.learn(clips, visible_idx) once and put what it returns there"
    )


class Halt(Exception):  # noqa: N818 - not an error
    """Raised by a hook to end the loop at a point where a checkpoint can be taken."""


@runtime_checkable
class Hooks(Protocol):
    """What happens around the recipe. Hooks of all ranks are called at the same points."""

    def on_step(
        self, loop: PretrainLoop, metrics: Mapping[str, float], batches: Sequence[Batch]
    ) -> None:
        """After every step, with this rank's batches of it."""

    def on_epoch(self, loop: PretrainLoop) -> None:
        """After every epoch, when the memory is empty."""


class PretrainLoop:
    """One rank's share of pre-training.

    Args:
        slots: this rank's.
        batches: (epoch, steps done) -> the rest of that epoch's batches for this rank, those of its
            slots one after the other.
        warmup: who draws during the MAE-only epochs.
        main: who draws afterwards; its policy is the acting copy, whose weights are replaced
            after every update.
        client: None when the sampler does not learn.
        masks_per_clip: how often each clip stands in the environment's batch, in all epochs, so
            that they have the same number of steps.
    """

    def __init__(
        self,
        config: LoopConfig,
        *,
        seed: int,
        slots: Sequence[int],
        batches: Callable[[int, int], Iterator[Batch]],
        learner: MAELearner,
        warmup: Stage,
        main: Stage,
        client: PolicyClient | None,
        hooks: Hooks,
        masks_per_clip: int = 1,
    ) -> None:
        self.config = config
        self.seed = seed
        self.slots = slots
        self.batches = batches
        self.learner = learner
        self.warmup = warmup
        self.main = main
        self.client = client
        self.hooks = hooks
        self.masks_per_clip = masks_per_clip
        self.at = Position()
        self.num_pending = 0
        """Steps since the last policy update was asked for."""
        self.flushed: Mapping[str, float] = {}
        """Metrics of the policy update that ended the last epoch, where one was left to do."""
        self.stopwatch = Stopwatch.of(learner.device)
        self.checks = LateChecks()

    @property
    def policy_takes_part(self) -> bool:
        """Whether the policy draws and learns in the present epoch."""
        return learned_share(self.config, self.at.epoch) > 0

    def _is_learned(self) -> bool:
        """Whether the policy draws and learns in the present step, the same on all ranks."""
        share = learned_share(self.config, self.at.epoch)
        if share in (0, 1):
            return bool(share)
        return bool(torch.rand((), generator=stream(self.seed, "ramp", self.at.step)) < share)

    def run(self) -> None:
        """From the present position to the last epoch, unless a hook raises `Halt`."""
        while self.at.epoch < self.config.epochs:
            self._epoch()
            self.hooks.on_epoch(self)

    def _epoch(self) -> None:
        self.learner.accumulation_steps = (
            1
            if self.config.mae_step_every_batch or not self.policy_takes_part
            else self.config.mae_steps_per_update
        )
        batches = self.batches(self.at.epoch, self.at.batch)
        while True:
            with self.stopwatch("data"):
                shown = list(islice(batches, len(self.slots)))
            if not shown:
                break
            try:
                with self.checks.gather(self._mark()):
                    metrics = self._step(shown)
            except Exception:
                self.settle()  # an earlier check that failed is the cause
                raise
            self.at.batch += 1
            self.at.step += 1
            if self.num_pending == self.config.mae_steps_per_update:
                metrics |= self._update_policy()
            self.hooks.on_step(self, LateMetrics(metrics), shown)
        # The end of an epoch flushes what is left, so a checkpoint needs no buffer.
        self.learner.finish_step()
        self.flushed = LateMetrics(self._update_policy()) if self.num_pending else {}
        self.settle()
        self.at.epoch += 1
        self.at.batch = 0

    def _mark(self) -> tuple[Position, int]:
        """Where the run is, for a check that fails later."""
        return replace(self.at), self.learner.step

    def settle(self) -> None:
        """Look at what the last steps had to hold, before anything of them is told or saved.

        Raises:
            NonFiniteError: for the first loss that is not finite. The network whose loss it was
                has not moved since, and the position is that of its step.
        """
        failed = self.checks.failed()
        if failed is not None:
            error, (self.at, self.learner.step) = failed
            raise error

    def _step(self, batches: Sequence[Batch]) -> dict[str, Scalar]:
        lr = self.learner.lr
        is_learned = self._is_learned()
        stage, learning = (self.main, self.client) if is_learned else (self.warmup, None)
        if learning is not None and not self.num_pending:
            with self.stopwatch("policy"), self.stopwatch("handover"):
                learning.begin(self.at.step, self.learner.mae)
        seen = []
        for index, (slot, batch) in enumerate(zip(self.slots, batches, strict=True)):
            self.learner.begin_slot(index, len(self.slots), (self.at.step, slot))
            seen.append(self._batch(slot, batch, stage, learning))
        if learning is not None:
            self.num_pending += 1
        return {
            "mae/loss": mean([trained.loss for trained, _ in seen]),
            "mae/lr": lr,
            "mae/grad_norm": seen[-1][0].grad_norm,
            "env/reward": mean([reward for _, reward in seen]),
        }

    def _batch(
        self, slot: int, batch: Batch, stage: Stage, learning: PolicyClient | None
    ) -> tuple[TrainingStep, Scalar]:
        """What the autoencoder did in one slot, and the reward."""
        with self.stopwatch("mae"):
            options = {"clips": self._repeated(batch.pixels)}
            motion = None if batch.motion is None else self._repeated(batch.motion)
            if motion is not None:
                options["token_motion"] = motion
            tokens, _ = stage.env.reset(options=options)
        with self.stopwatch("policy"):
            generator = stream(self.seed, "draw", self.at.step, slot, device=tokens.device)
            with autocast(tokens.device, self.config.precision):
                selection, drawn = self._draw(stage, learning, tokens, motion, generator)
        with self.stopwatch("mae"):
            _, reward, _, _, info = stage.env.step(selection.visible_idx)
        trained = training_step(stage.env, info)
        if learning is not None and self.config.source == "learner":
            with self.stopwatch("policy"), self.stopwatch("handover"):
                if learning.is_remote:
                    self.settle()
                rollout = self._rollout(slot, tokens, selection, info["token_reward"])
                learning.push(replace(rollout, drawn=drawn))
        return trained, reward.mean()

    def _draw(
        self,
        stage: Stage,
        client: PolicyClient | None,
        tokens: Tensor,
        motion: Tensor | None,
        generator: torch.Generator,
    ) -> tuple[Selection, Evaluation | None]:
        """Who stays visible; with the graph of that choice where the next update is of it alone."""
        is_whole = len(self.slots) == self.masks_per_clip == self.config.rollout_fraction == 1
        is_next = is_whole and self.config.mae_steps_per_update == 1
        learning = client.learning_policy() if is_next and client else None
        if learning is not None:
            with torch.enable_grad():
                drawn = learning.evaluate(tokens)
            return learning.draw(drawn, stage.num_visible, generator=generator), drawn
        policy = with_motion(stage.policy, motion)
        return policy.act(tokens, stage.num_visible, generator=generator), None

    def _repeated(self, rows: Tensor) -> Tensor:
        """Each clip as often as it gets masks."""
        return rows.repeat_interleave(self.masks_per_clip, 0) if self.masks_per_clip > 1 else rows

    def _rollout(self, slot: int, tokens: Tensor, selection: Selection, reward: Tensor) -> Rollout:
        """Of the first clips of a batch: which those are is as random as the batch itself."""
        whole = Rollout(
            tokens=tokens,
            visible_idx=selection.visible_idx,
            log_prob=selection.log_prob,
            value=selection.value,
            reward=reward,
            policy_version=self.at.policy_version,
            step=self.at.step,
            rank=slot,
            masks_per_clip=self.masks_per_clip,
        )
        return whole.head(math.ceil(self.config.rollout_fraction * whole.num_clips))

    def _update_policy(self) -> dict[str, Scalar]:
        assert self.client is not None  # only rollouts of a learning policy are pending
        watch, checks = self.stopwatch, self.checks.gather(self._mark())
        with watch("policy"), watch("wait"), checks:
            update = self.client.update(self.num_pending)
        self.num_pending = 0
        return self._adopt(update)

    def drain(self) -> None:
        """Wait for policy updates under way, and draw with the newest policy from here on.

        For points where state is saved or measured. Without staleness nothing is under way.

        Raises:
            NonFiniteError: as `settle`.
        """
        self.settle()
        if self.client is not None:
            with self.stopwatch("policy"), self.stopwatch("wait"):
                update = self.client.drain()
            self.flushed = LateMetrics({**unread(self.flushed), **self._adopt(update)})

    def _adopt(self, update: PolicyUpdate | None) -> dict[str, Scalar]:
        """Draw with new weights from here on; scalars about the update that made them."""
        if update is None:
            return {}
        policy = self.main.policy
        assert isinstance(policy, torch.nn.Module)  # only a learning policy has updates
        metrics = unread(update.metrics)
        stale = metrics.get("staleness", 0.0)
        assert stale <= self.config.max_staleness, f"a rollout was {stale} updates old"
        policy.load_state_dict(dict(update.weights))
        self.at.policy_version = update.version
        return {name if "/" in name else f"policy/{name}": value for name, value in metrics.items()}
