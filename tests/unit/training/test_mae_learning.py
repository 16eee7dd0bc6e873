"""The MAE learner: what it learns in a step, and what it does not change."""

from __future__ import annotations

import math
from collections.abc import Iterator
from typing import Any

import pytest
import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.nn.parallel import DistributedDataParallel

from tats_ray.config.schema import LoopConfig, OptimConfig
from tats_ray.core.errors import NonFiniteError, UsageError
from tats_ray.models.mae import MaskedAutoencoder
from tats_ray.ops.optim import adamw
from tats_ray.training.mae_learner import MAELearner, optimizer_steps

VISIBLE = torch.arange(8).expand(2, -1)


def make(mae: MaskedAutoencoder, optim: OptimConfig | None = None, **changes: Any) -> MAELearner:
    sizes = {"steps_per_epoch": 10, "total_steps": 100, "global_batch": 64}
    optim = optim or OptimConfig(base_lr=4e-3, warmup_epochs=0)
    return MAELearner(mae, optim, **{**sizes, **changes})


def weights(network: nn.Module) -> list[Tensor]:
    return [p.detach().clone() for p in network.parameters()]


def distance(one: list[Tensor], other: list[Tensor]) -> float:
    return max(float((a - b).abs().max()) for a, b in zip(one, other, strict=True))


def noise(seed: int, count: int = 2) -> Tensor:
    generator = torch.Generator().manual_seed(seed)
    return torch.randint(256, (count, 3, 4, 16, 16), generator=generator, dtype=torch.uint8)


def test_score_is_the_error_before_one_adamw_step_on_the_loss(
    mae: MaskedAutoencoder, clips: Tensor
) -> None:
    start = {name: value.clone() for name, value in mae.state_dict().items()}
    reference = adamw(mae, lr=4e-3 * 64 / 256, betas=(0.9, 0.95), weight_decay=0.05)
    expected = mae(clips, VISIBLE)
    expected.loss.backward()
    norm = math.sqrt(sum(float(p.grad.square().sum()) for p in mae.parameters()))  # type: ignore[union-attr]
    reference.step()
    after = weights(mae)

    mae.load_state_dict(start)
    mae.zero_grad(set_to_none=True)
    learner = make(mae)
    found = learner.learn(clips, VISIBLE)
    error = found.error
    assert torch.equal(error, expected.error.detach())
    assert not error.requires_grad
    assert found.loss == expected.loss.item()
    assert found.grad_norm == pytest.approx(norm)
    assert distance(weights(mae), after) == 0
    assert learner.step == 1


def test_rate_scales_with_the_batch_and_follows_the_schedule(
    mae: MaskedAutoencoder, clips: Tensor
) -> None:
    optim = OptimConfig(base_lr=1e-3, min_lr=1e-4, warmup_epochs=0.4)
    learner = make(mae, optim, total_steps=8, global_batch=512)
    rates = []
    for _ in range(8):
        rates.append(learner.lr)
        learner.learn(clips, VISIBLE)
        assert {g["lr"] for g in learner.optimizer.param_groups} == {rates[-1]}
    cosine = [2e-4 + 0.9e-3 * (1 + math.cos(math.pi * i / 4)) for i in range(4)]
    assert rates == pytest.approx([0.0, 0.5e-3, 1e-3, 1.5e-3, *cosine])


def test_first_step_of_a_warmup_has_rate_zero_and_moves_nothing(
    mae: MaskedAutoencoder, clips: Tensor
) -> None:
    before = weights(mae)
    make(mae, OptimConfig(warmup_epochs=1)).learn(clips, VISIBLE)
    assert distance(weights(mae), before) == 0


@pytest.mark.parametrize("accumulation_steps", [2, 5])
def test_batches_that_share_a_step_give_the_step_of_their_union(
    mae: MaskedAutoencoder, accumulation_steps: int
) -> None:
    # Two batches; with five to a step, the end of the epoch cuts it short.
    start = {name: value.clone() for name, value in mae.state_dict().items()}
    whole = make(mae)
    whole.learn(torch.cat([noise(1), noise(2)]), VISIBLE.repeat(2, 1))
    expected, norm = weights(mae), whole.grad_norm

    mae.load_state_dict(start)
    learner = make(mae)
    learner.accumulation_steps = accumulation_steps
    before = weights(mae)
    learner.learn(noise(1), VISIBLE)
    assert (learner.step, learner.pending) == (0, 1)
    assert distance(weights(mae), before) == 0
    learner.learn(noise(2), VISIBLE)
    learner.finish_step()
    assert (learner.step, learner.pending) == (1, 0)
    assert float(learner.grad_norm) == pytest.approx(float(norm), rel=1e-4)
    assert distance(weights(mae), expected) < 1e-6  # of a step of 1e-3
    learner.finish_step()
    assert learner.step == 1  # nothing has gathered


@pytest.fixture
def process_group() -> Iterator[None]:
    dist.init_process_group("gloo", store=dist.HashStore(), rank=0, world_size=1)
    yield
    dist.destroy_process_group()


@pytest.mark.filterwarnings("ignore::UserWarning", "ignore::FutureWarning")
@pytest.mark.usefixtures("process_group")
def test_ranks_exchange_the_gradient_of_every_batch_so_that_a_step_cut_short_is_the_same_on_all(
    mae: MaskedAutoencoder,
) -> None:
    wrapped = DistributedDataParallel(mae)
    exchanged: list[int] = []

    def hook(state: Any, bucket: Any) -> Any:
        exchanged.append(bucket.index())
        done: Any = torch.futures.Future()
        done.set_result(bucket.buffer())
        return done

    hook.__annotations__ = {"bucket": dist.GradBucket, "return": torch.futures.Future[Tensor]}
    wrapped.register_comm_hook(None, hook)
    learner = make(mae, wrapped=wrapped)
    learner.accumulation_steps = 3
    learner.learn(noise(1), VISIBLE)
    buckets = len(exchanged)
    learner.learn(noise(2), VISIBLE)
    learner.finish_step()
    assert len(exchanged) > buckets >= 1


def test_gradient_norm_is_limited_and_reported_as_it_was(mae: MaskedAutoencoder) -> None:
    free = make(mae)
    free.learn(noise(1), VISIBLE)
    assert free.grad_norm > 0.01
    gradients: list[Tensor] = []
    learner = make(mae, OptimConfig(clip_grad=0.01, warmup_epochs=0))
    learner.optimizer.register_step_pre_hook(
        lambda *_: gradients.extend(p.grad.flatten().clone() for p in mae.parameters())  # type: ignore[union-attr]
    )
    learner.learn(noise(1), VISIBLE)
    assert float(torch.cat(gradients).norm()) == pytest.approx(0.01, rel=1e-3)
    assert learner.grad_norm > 0.01


@pytest.mark.parametrize("clip_grad", [0.0, 0.01, 1e3])
@pytest.mark.parametrize("accumulation_steps", [1, 3])
def test_optimiser_that_clips_and_averages_as_it_reads_takes_the_same_step(
    mae: MaskedAutoencoder, clip_grad: float, accumulation_steps: int
) -> None:
    """As on a GPU; every gradient is divided once, where both ways are a pass of their own."""
    start, found = {name: value.clone() for name, value in mae.state_dict().items()}, []
    for folds_scale in (False, True):
        mae.load_state_dict(start)
        learner = make(mae, OptimConfig(clip_grad=clip_grad, warmup_epochs=0))
        learner.folds_scale, learner.accumulation_steps = folds_scale, accumulation_steps
        for step in range(2 * accumulation_steps):
            learner.learn(noise(step), VISIBLE)
        moments = torch.cat([s["exp_avg"].flatten() for s in learner.optimizer.state.values()])
        found.append((weights(mae), moments, float(learner.grad_norm)))
    (plain, slopes, norm), (folded, same, told) = found
    assert distance(plain, folded) < 1e-6  # of two steps of 1e-3
    torch.testing.assert_close(same, slopes, atol=1e-9, rtol=1e-4)
    assert told == pytest.approx(norm, rel=1e-5)


def test_score_says_what_learning_would_and_changes_nothing(
    mae: MaskedAutoencoder, clips: Tensor
) -> None:
    learner = make(mae)
    before = weights(mae)
    first, second = learner.score(clips, VISIBLE), learner.score(clips, VISIBLE)
    assert torch.equal(first, second)
    assert distance(weights(mae), before) == 0
    assert learner.step == 0
    assert torch.equal(learner.learn(clips, VISIBLE).error, first)
    assert distance(weights(mae), before) > 0


def test_slot_is_learned_from_once_and_the_last_one_takes_the_step(mae: MaskedAutoencoder) -> None:
    learner = make(mae, weight=0.5)
    for index in range(2):
        learner.begin_slot(index, 2)
        learner.learn(noise(index), VISIBLE)
        with pytest.raises(UsageError, match=r"called scorer\.learn twice for one batch"):
            learner.learn(noise(index), VISIBLE)
        learner.score(noise(index), VISIBLE)
        assert learner.step == index


def test_loss_that_is_not_finite_is_an_error_and_moves_nothing(
    mae: MaskedAutoencoder, clips: Tensor
) -> None:
    learner = make(mae)
    learner.learn(clips, VISIBLE)
    with torch.no_grad():
        mae.mask_token.fill_(float("nan"))
    before = weights(mae.encoder)
    with pytest.raises(NonFiniteError, match="nan at its step 1"):
        learner.learn(clips, VISIBLE)
    assert distance(weights(mae.encoder), before) == 0
    assert (learner.step, learner.pending) == (1, 0)
    with torch.no_grad():
        mae.mask_token.fill_(0.0)
    learner.learn(clips, VISIBLE)  # what was wrong is over
    assert learner.step == 2


def test_other_ranks_word_that_a_loss_is_not_finite_stops_this_one_too(
    mae: MaskedAutoencoder, clips: Tensor
) -> None:
    asked: list[bool] = []

    def all_finite(is_finite: Tensor) -> Tensor:
        asked.append(bool(is_finite))
        return torch.zeros_like(is_finite)

    before = weights(mae)
    with pytest.raises(NonFiniteError):
        make(mae, all_finite=all_finite).learn(clips, VISIBLE)
    assert asked == [True]
    assert distance(weights(mae), before) == 0


def test_embedding_is_the_networks_own_and_carries_no_gradient(
    mae: MaskedAutoencoder, clips: Tensor
) -> None:
    tokens = make(mae).embed(clips)
    assert torch.equal(tokens, mae.embed(clips))
    assert not tokens.requires_grad


def test_bfloat16_learner_keeps_float32_weights_and_errors_and_learns(
    mae: MaskedAutoencoder, clips: Tensor
) -> None:
    learner = make(mae, precision="bfloat16")
    assert learner.embed(clips).dtype == torch.bfloat16
    first = learner.learn(clips, VISIBLE)
    assert first.error.dtype == torch.float32
    assert all(p.dtype == torch.float32 for p in mae.parameters())
    for _ in range(20):
        last = learner.learn(clips, VISIBLE)
    assert last.loss < first.loss


def test_wrapped_network_is_the_one_that_is_called(mae: MaskedAutoencoder, clips: Tensor) -> None:
    class Wrapper(nn.Module):
        calls = 0

        def forward(self, *inputs: Tensor) -> Any:
            Wrapper.calls += 1
            return mae(*inputs)

    make(mae, wrapped=Wrapper()).learn(clips, VISIBLE)
    assert Wrapper.calls == 1


@pytest.mark.parametrize(
    ("loop", "expected"),
    [
        (LoopConfig(epochs=5, mae_only_epochs=2, mae_steps_per_update=3), 35),
        (
            LoopConfig(
                epochs=5, mae_only_epochs=2, mae_steps_per_update=3, mae_step_every_batch=False
            ),
            2 * 7 + 3 * 3,
        ),
        (
            LoopConfig(
                epochs=2, mae_only_epochs=9, mae_steps_per_update=3, mae_step_every_batch=False
            ),
            2 * 7,
        ),
    ],
)
def test_optimizer_steps_of_a_run_are_those_that_the_loop_takes(
    loop: LoopConfig, expected: int
) -> None:
    assert optimizer_steps(loop, 7) == expected
