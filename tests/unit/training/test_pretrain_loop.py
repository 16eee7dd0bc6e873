"""The recipe: who trains when. Real environment, learners and algorithm, on clips of noise."""

from __future__ import annotations

import math
from dataclasses import replace
from typing import Any

import pytest
import torch

from tats_ray.algorithms.grpo import GRPOConfig
from tats_ray.algorithms.ppo import PPO, PPOConfig
from tats_ray.algorithms.rloo import RLOOConfig
from tats_ray.config.schema import LoopConfig, OptimConfig
from tats_ray.core.errors import UsageError
from tats_ray.core.seeds import stream
from tats_ray.core.types import Rollout
from tats_ray.models.policy import FixedPolicy
from tats_ray.training.policy_learner import PolicyUpdate
from tats_ray.training.pretrain_loop import Halt, PretrainLoop, learned_share
from tests.conftest import random_clips


def optimizer_steps(run: Any) -> int:
    """Steps that the policy's optimiser has taken, by its own count."""
    algorithm = run.policy_learner.algorithm
    assert isinstance(algorithm, PPO)
    counts = {int(slots["step"]) for slots in algorithm.optimizer.state.values()}
    assert len(counts) <= 1
    return counts.pop() if counts else 0


def test_policy_neither_draws_nor_learns_during_the_first_m_o_epochs(small_run: Any) -> None:
    run = small_run(loop=LoopConfig(epochs=3, mae_only_epochs=2), batches_per_epoch=3)
    start = run.weights()
    drawn_at: list[int] = []
    draw = run.policy_learner.policy.draw

    def spy(*args: Any, **kwargs: Any) -> Any:
        drawn_at.append(run.loop.at.step)
        return draw(*args, **kwargs)

    run.policy_learner.policy.draw = spy
    moved: list[set[str]] = []

    def look(loop: PretrainLoop) -> None:
        now = run.weights()
        parts = {name.split(".")[0] for name in now if not torch.equal(now[name], start[name])}
        moved.append(parts)

    run.after_batch = look
    run.loop.run()
    # The first MAE step has rate 0; policy and acting copy stay until the first update.
    assert moved == [set()] + [{"mae"}] * 5 + [{"mae", "policy"}] * 3
    assert drawn_at == [6, 7, 8]
    assert run.client.updates == [(1, 1)] * 3
    assert ["policy/loss" in metrics for metrics in run.metrics] == [False] * 6 + [True] * 3
    assert run.loop.at.policy_version == 3


def test_every_k_batches_the_memory_is_learned_from_and_emptied_and_the_epochs_rest_is_flushed(
    small_run: Any,
) -> None:
    run = small_run(
        loop=LoopConfig(epochs=2, mae_only_epochs=0, mae_steps_per_update=3),
        algorithm=PPOConfig(lr=1e-3, update_steps=2),
        batches_per_epoch=8,
    )
    memory: list[int] = []
    steps: list[int] = []

    def look(loop: PretrainLoop) -> None:
        memory.append(len(run.client.memory))
        steps.append(optimizer_steps(run))
        assert loop.num_pending == len(run.client.memory)

    run.after_batch = look
    run.loop.run()
    assert run.client.updates == [(3, 3), (3, 3), (2, 2)] * 2
    assert memory == [1, 2, 0, 1, 2, 0, 1, 2] * 2
    assert steps == [0, 0, 2, 2, 2, 4, 4, 4, 6, 6, 8, 8, 8, 10, 10, 10]
    assert optimizer_steps(run) == 12
    assert run.client.memory == []
    assert (run.loop.at.policy_version, run.epochs_ended) == (6, 2)
    # The autoencoder steps on every batch all the while.
    assert run.learner.step == 16


def test_autoencoder_steps_once_per_k_batches_when_asked_to_and_only_after_m_o(
    small_run: Any,
) -> None:
    run = small_run(
        loop=LoopConfig(
            epochs=2, mae_only_epochs=1, mae_steps_per_update=3, mae_step_every_batch=False
        ),
        batches_per_epoch=5,
    )
    steps: list[int] = []
    run.after_batch = lambda loop: steps.append(run.learner.step)
    run.loop.run()
    assert steps == [1, 2, 3, 4, 5, 5, 5, 6, 6, 6]
    assert run.learner.step == 7  # the rest of the epoch is not lost
    assert run.learner.pending == 0


def test_policy_learns_from_the_asked_share_of_each_batchs_clips(small_run: Any) -> None:
    whole, half = [], []
    for fraction, pushed in ((1.0, whole), (0.4, half)):
        loop = LoopConfig(epochs=1, mae_only_epochs=0, rollout_fraction=fraction)
        run = small_run(loop=loop, seed=0)
        run.client.push = pushed.append
        run.client.update = lambda _, run=run: PolicyUpdate(0, run.acting.state_dict(), {})
        run.loop.run()
    assert len(half) == len(whole) > 0
    for part, all_of_it in zip(half, whole, strict=True):
        clips = len(all_of_it.tokens)
        assert len(part.tokens) == math.ceil(0.4 * clips) < clips
        for name in ("tokens", "visible_idx", "log_prob", "value", "reward"):
            assert torch.equal(getattr(part, name), getattr(all_of_it, name)[: len(part.tokens)])


def test_share_of_learned_steps_grows_and_falls_in_equal_steps() -> None:
    config = LoopConfig(epochs=8, mae_only_epochs=2, ramp_in_epochs=3, ramp_out_epochs=1)
    shares = [learned_share(config, epoch) for epoch in range(8)]
    assert shares == [0, 0, 0.25, 0.5, 0.75, 1, 1, 0.5]
    plain = LoopConfig(epochs=4, mae_only_epochs=2)
    assert [learned_share(plain, epoch) for epoch in range(4)] == [0, 0, 1, 1]


def test_policy_draws_and_learns_in_its_share_of_the_steps_of_a_ramp(small_run: Any) -> None:
    config = LoopConfig(epochs=3, mae_only_epochs=0, ramp_in_epochs=1, ramp_out_epochs=1)
    run = small_run(loop=config, batches_per_epoch=12)
    drawn_at: list[int] = []
    draw = run.policy_learner.policy.draw

    def spy(*args: Any, **kwargs: Any) -> Any:
        drawn_at.append(run.loop.at.step)
        return draw(*args, **kwargs)

    run.policy_learner.policy.draw = spy
    run.loop.run()
    per_epoch = [sum(step // 12 == epoch for step in drawn_at) for epoch in range(3)]
    assert per_epoch[1] == 12  # shares are 1/2, 1, 1/2
    assert 0 < min(per_epoch) <= max(per_epoch[0], per_epoch[2]) < 12
    assert run.client.updates == [(1, 1)] * len(drawn_at)
    learned = [step for step, metrics in enumerate(run.metrics) if "policy/loss" in metrics]
    assert learned == drawn_at
    assert run.learner.step == 36


def test_each_clip_gets_its_group_of_masks_in_rows_that_follow_each_other(small_run: Any) -> None:
    run = small_run(
        loop=LoopConfig(epochs=2, mae_only_epochs=1, rollout_fraction=0.4),
        algorithm=RLOOConfig(lr=1e-2, policy_coef=1.0, group_size=3),
        optim=OptimConfig(batch_size=6, base_lr=0.1, warmup_epochs=0.5),
    )
    pushed: list[Rollout] = []
    seen: list[torch.Tensor] = []
    reset, push = run.loop.main.env.reset, run.client.push

    def note_clips(*, options: dict[str, Any]) -> Any:
        seen.append(options["clips"])
        return reset(options=options)

    def note_rollout(rollout: Rollout) -> None:
        pushed.append(rollout)
        push(rollout)

    run.loop.main.env.reset, run.client.push = note_clips, note_rollout
    run.loop.run()
    # The autoencoder's batch has all rows in all epochs: two clips, three times each.
    assert len(seen) == 8
    for index, clips in enumerate(seen):
        distinct = next(run.batches(index // 4, index % 4)).pixels
        assert len(distinct) == 2
        assert torch.equal(clips, distinct[[0, 0, 0, 1, 1, 1]])
    # Of the two clips, two fifths are one, with all of its masks.
    assert [(len(r.value), r.masks_per_clip, r.num_clips) for r in pushed] == [(3, 3, 1)] * 4
    for rollout in pushed:
        assert torch.equal(rollout.tokens[0], rollout.tokens[2])
        assert len({tuple(sorted(row)) for row in rollout.visible_idx.tolist()}) == 3
    assert any(m.get("policy/group_spread", 0) > 0 for m in run.metrics)
    assert "policy/value_loss" not in run.metrics[-1]


def test_run_with_groups_that_was_stopped_continues_to_the_same_weights(small_run: Any) -> None:
    def fresh() -> Any:
        return small_run(
            loop=LoopConfig(epochs=3, mae_only_epochs=1),
            algorithm=GRPOConfig(lr=1e-2, policy_coef=1.0, group_size=2, update_steps=2),
            optim=OptimConfig(batch_size=4, base_lr=0.1, warmup_epochs=0.5),
        )

    straight, stopped, resumed = fresh(), fresh(), fresh()
    straight.loop.run()

    def halt(loop: PretrainLoop) -> None:
        if loop.at.step == 6:
            raise Halt("enough")

    stopped.after_batch = halt
    with pytest.raises(Halt):
        stopped.loop.run()
    resumed.restore(stopped.checkpoint())
    resumed.loop.run()
    expected = straight.weights()
    assert all(torch.equal(expected[name], value) for name, value in resumed.weights().items())


def test_rollouts_say_what_the_policy_saw_drew_and_earned_under_which_version(
    small_run: Any, mae: Any, policy: Any
) -> None:
    run = small_run(loop=LoopConfig(epochs=1, mae_only_epochs=0, mae_steps_per_update=2), seed=0)
    pushed: list[Rollout] = []
    push = run.client.push

    def spy(rollout: Rollout) -> None:
        pushed.append(rollout)
        push(rollout)

    run.client.push = spy
    run.loop.run()
    assert [(r.step, r.policy_version, r.rank) for r in pushed] == [
        (0, 0, 0),
        (1, 0, 0),
        (2, 1, 0),
        (3, 1, 0),
    ]
    first = pushed[0]
    pixels = next(run.batches(0, 0)).pixels
    # What was seen are embeddings before this batch's update of the autoencoder.
    tokens = mae.embed(pixels)
    assert torch.equal(first.tokens, tokens)
    expected = policy.act(tokens, 8, generator=stream(0, "draw", 0, 0))
    assert torch.equal(first.visible_idx, expected.visible_idx)
    assert torch.equal(first.log_prob, expected.log_prob)
    assert torch.equal(first.value, expected.value)
    with torch.no_grad():
        assert torch.equal(first.reward, mae(pixels, first.visible_idx).error)


@pytest.mark.parametrize("rank", [0, 1])
def test_draw_of_every_step_and_rank_has_a_random_stream_of_its_own(
    small_run: Any, rank: int
) -> None:
    run = small_run(loop=LoopConfig(epochs=2, mae_only_epochs=2))
    run.loop.slots = [rank]
    env, drawn = run.loop.warmup.env, []
    step = env.step

    def spy(visible_idx: torch.Tensor) -> Any:
        drawn.append(visible_idx)
        return step(visible_idx)

    env.step = spy
    run.loop.run()
    uniform = FixedPolicy(run.grid)
    for number, visible_idx in enumerate(drawn):
        generator = stream(0, "draw", number, rank)
        expected = uniform.act(torch.zeros(2, 32, 1), 8, generator=generator)
        assert torch.equal(visible_idx, expected.visible_idx)
    assert len({tuple(visible_idx.flatten().tolist()) for visible_idx in drawn}) == 8


def test_acting_copy_has_the_learners_weights_after_every_update(small_run: Any) -> None:
    run = small_run(loop=LoopConfig(epochs=1, mae_only_epochs=0, mae_steps_per_update=2))
    differs: list[bool] = []

    def look(loop: PretrainLoop) -> None:
        acting, owned = run.acting.state_dict(), run.policy_learner.policy.state_dict()
        assert all(torch.equal(acting[name], owned[name]) for name in owned)
        differs.append(loop.at.policy_version > 0)

    run.after_batch = look
    run.loop.run()
    assert differs == [False, True, True, True]


def test_metrics_of_a_batch_are_the_learners_and_the_environments(small_run: Any) -> None:
    run = small_run(loop=LoopConfig(epochs=1, mae_only_epochs=1))
    rates, steps = [], []
    run.after_batch = lambda loop: rates.append(run.learner.lr)  # of the next step
    env, step = run.loop.warmup.env, run.loop.warmup.env.step

    def spy(visible_idx: torch.Tensor) -> Any:
        found = step(visible_idx)
        steps.append(found[4]["training_step"])
        return found

    env.step = spy
    run.loop.run()
    losses = [float(found.loss) for found in steps]
    assert [m["mae/loss"] for m in run.metrics] == losses
    assert [m["mae/grad_norm"] for m in run.metrics] == [found.grad_norm for found in steps]
    assert [m["mae/lr"] for m in run.metrics] == [0.0, *rates[:-1]]
    # The reward of each clip is its mean error, and the loss is the mean over clips.
    assert [m["env/reward"] for m in run.metrics] == pytest.approx(losses, rel=1e-5)
    assert set(run.metrics[0]) == {"mae/loss", "mae/lr", "mae/grad_norm", "env/reward"}


def play(run: Any, step: Any) -> None:
    """Run with an environment whose `step` is another one."""
    run.loop.warmup.env.step = step
    run.loop.run()


def test_environment_that_trains_nothing_stops_the_run_at_its_first_step_by_name(
    small_run: Any,
) -> None:
    run = small_run(loop=LoopConfig(epochs=1, mae_only_epochs=1))
    before, reward = run.weights(), torch.zeros(2, 32)
    says = (
        r"^env\.id TATS/TokenSelection-v0: its step trained nothing, .* is missing; step must call "
        r"scorer\.learn\(clips, visible_idx\) once and put what it returns there$"
    )
    with pytest.raises(UsageError, match=says):
        play(run, lambda idx: (None, reward.mean(1), None, None, {"token_reward": reward}))
    assert run.metrics == []
    assert all(torch.equal(value, before[name]) for name, value in run.weights().items())


def test_environment_of_no_id_that_only_asks_for_errors_is_named_by_its_class(
    small_run: Any,
) -> None:
    class Mine:
        def reset(self, *, options: dict[str, Any]) -> Any:
            self.clips = options["clips"]
            return run.learner.embed(self.clips), {}

        def step(self, actions: torch.Tensor) -> Any:
            error = run.learner.score(self.clips, actions)
            return None, error.mean(1), None, None, {"token_reward": error}

    run = small_run(loop=LoopConfig(epochs=1, mae_only_epochs=1))
    run.loop.warmup = replace(run.loop.warmup, env=Mine())
    with pytest.raises(UsageError, match=r"^env\.id Mine: its step trained nothing"):
        run.loop.run()


@pytest.mark.parametrize("slots", [1, 3])
def test_environment_that_learns_from_a_batch_twice_stops_the_run_before_the_second_time(
    small_run: Any, slots: int
) -> None:
    run = small_run(loop=LoopConfig(epochs=1, mae_only_epochs=1), slots=slots)
    step = run.loop.warmup.env.step

    def twice(visible_idx: torch.Tensor) -> Any:
        found = step(visible_idx)
        run.learner.learn(random_clips("again"), visible_idx)
        return found

    with pytest.raises(UsageError, match=r"\(env\.id\) called scorer\.learn twice for one batch"):
        play(run, twice)
    assert (run.metrics, run.learner.step) == ([], int(slots == 1))


def test_run_repeats_bit_for_bit_and_another_seed_does_not(small_run: Any) -> None:
    def final(seed: int) -> dict[str, torch.Tensor]:
        run = small_run(loop=LoopConfig(epochs=2, mae_only_epochs=1), seed=seed)
        torch.manual_seed(seed + 17)  # torch's own stream must not matter
        run.loop.run()
        weights: dict[str, torch.Tensor] = run.weights()
        return weights

    first, again, other = final(0), final(0), final(1)
    assert all(torch.equal(first[name], again[name]) for name in first)
    assert not torch.equal(first["mae.mask_token"], other["mae.mask_token"])


def test_position_counts_batches_and_epochs_and_a_hook_can_halt_between_them(
    small_run: Any,
) -> None:
    run = small_run(loop=LoopConfig(epochs=2, mae_only_epochs=2))
    seen: list[tuple[int, int, int]] = []

    def look(loop: PretrainLoop) -> None:
        seen.append((loop.at.epoch, loop.at.batch, loop.at.step))
        if loop.at.step == 6:
            raise Halt("enough")

    run.after_batch = look
    with pytest.raises(Halt, match="enough"):
        run.loop.run()
    assert seen == [(0, 1, 1), (0, 2, 2), (0, 3, 3), (0, 4, 4), (1, 1, 5), (1, 2, 6)]


def test_sampler_that_does_not_learn_needs_no_client(small_run: Any) -> None:
    run = small_run(loop=LoopConfig(epochs=1, mae_only_epochs=0))
    run.loop.client = None
    run.loop.main = run.loop.warmup
    run.loop.run()
    assert run.loop.num_pending == 0
    assert run.learner.step == 4


@pytest.mark.parametrize("staleness", [0, 1, 3])
def test_masks_are_drawn_by_the_policy_of_exactly_that_many_updates_ago(
    small_run: Any, staleness: int
) -> None:
    loop = LoopConfig(epochs=1, mae_only_epochs=0, max_staleness=staleness)
    run = small_run(loop=loop, batches_per_epoch=6)
    pushed: list[Rollout] = []
    push = run.client.push
    run.client.push = lambda rollout: (pushed.append(rollout), push(rollout))
    run.loop.run()
    assert [r.policy_version for r in pushed] == [max(0, step - staleness) for step in range(6)]
    told = [metrics["policy/staleness"] for metrics in run.metrics if "policy/staleness" in metrics]
    assert max(told) <= staleness
    run.loop.drain()
    assert run.loop.at.policy_version == 6
    for name, value in run.policy_learner.weights().items():
        assert torch.equal(run.acting.state_dict()[name], value)


def test_half_precision_rollouts_are_half_as_large_and_train_the_float32_policy(
    small_run: Any,
) -> None:
    sizes, weights = {}, {}
    for precision in ("float32", "bfloat16"):
        run = small_run(loop=LoopConfig(epochs=1, mae_only_epochs=0, precision=precision))
        before, push = run.weights(), run.client.push
        seen: list[Rollout] = []
        run.client.push = lambda rollout, seen=seen, push=push: (
            seen.append(rollout),
            push(rollout),
        )
        run.loop.run()
        sizes[precision] = seen[0].tokens.nbytes
        assert seen[0].log_prob.dtype == seen[0].value.dtype == torch.float32
        weights[precision] = run.weights()
        assert any(
            not torch.equal(weights[precision][n], before[n]) for n in before if "policy" in n
        )
        assert all(w.dtype == torch.float32 for w in weights[precision].values())
    assert sizes["bfloat16"] * 2 == sizes["float32"]
    assert any(not torch.equal(weights["bfloat16"][n], w) for n, w in weights["float32"].items())
