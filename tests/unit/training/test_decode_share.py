"""Decoding only a part of the hidden tokens: what is learned from, and what earns a reward."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from tats_ray.algorithms.ppo import PPOConfig
from tats_ray.checkpoints.format import load, save
from tats_ray.config.load import parse_config
from tats_ray.config.schema import LoopConfig, OptimConfig
from tats_ray.core.errors import UsageError
from tats_ray.core.seeds import stream
from tats_ray.core.types import Reconstruction
from tats_ray.models.mae import MaskedAutoencoder
from tats_ray.ops.selection import hidden_indices, some_hidden
from tats_ray.training.mae_learner import MAELearner
from tests.conftest import random_clips, small_mae

VISIBLE = torch.stack([torch.arange(8), torch.arange(20, 28)])


def learner(mae: MaskedAutoencoder, share: float, seed: int = 0) -> MAELearner:
    sizes = {"steps_per_epoch": 10, "total_steps": 100, "global_batch": 64}
    optim = OptimConfig(base_lr=4e-3, warmup_epochs=0)
    return MAELearner(mae, optim, **sizes, decode_share=share, seed=seed)


def test_decoding_all_hidden_tokens_by_name_changes_no_bit() -> None:
    mae, clips = small_mae(), random_clips("decode")
    default, named = mae(clips, VISIBLE), mae(clips, VISIBLE, hidden_indices(VISIBLE, 32))
    assert torch.equal(default.prediction, named.prediction)
    assert torch.equal(default.error, named.error)
    whole = learner(mae, 1.0).learn(clips, VISIBLE)
    assert torch.equal(whole.error, default.error)
    assert whole.loss == default.loss


def test_decoder_sees_no_other_hidden_token_and_only_decoded_ones_have_an_error() -> None:
    mae, clips = small_mae(), random_clips("decode")
    some = torch.tensor([[9, 17, 30], [0, 19, 31]])
    found = mae(clips, VISIBLE, some)
    assert found.prediction.shape == (2, 3, 96)
    for clip in range(2):  # a decoder of eleven rows, written out
        pixels = mae.pixels(clips[clip : clip + 1])
        latents = mae.encoder_to_decoder(mae.encode(pixels, VISIBLE[clip : clip + 1]))[0]
        table = mae.decoder_pos_embed[0]
        rows = [latents + table[VISIBLE[clip]], mae.mask_token[0] + table[some[clip]]]
        prediction = mae.decoder(torch.cat(rows)[None], 3)[0]
        torch.testing.assert_close(found.prediction[clip], prediction)
        assert found.error[clip].nonzero().flatten().tolist() == some[clip].tolist()
    own = found.error.gather(1, some)
    torch.testing.assert_close(found.loss, own.mean())


def test_step_learns_from_the_drawn_tokens_and_pays_them_by_the_inverse_of_their_share() -> None:
    clips, mae = random_clips("decode"), small_mae()
    some = some_hidden(VISIBLE, 32, 0.25, generator=stream(3, "decode", 7, 1))
    expected = mae(clips, VISIBLE, some)
    own = learner(mae, 0.25, seed=3)
    own.begin_slot(0, 1, (7, 1))
    found = own.learn(clips, VISIBLE)
    assert found.loss == expected.loss
    assert torch.equal(found.error, expected.error.detach() * (24 / 6))


def test_draw_is_uniform_over_the_hidden_tokens_and_at_least_one() -> None:
    draws, many = stream(0, "uniform"), VISIBLE[:1].expand(4000, -1)
    some = some_hidden(many, 32, 0.25, generator=draws)
    assert some.shape == (4000, 6)
    assert bool((some[:, 1:] > some[:, :-1]).all())
    frequency = torch.bincount(some.flatten(), minlength=32) / 4000
    assert not frequency[:8].any()  # visible
    torch.testing.assert_close(frequency[8:], torch.full((24,), 0.25), atol=0.03, rtol=0)
    assert some_hidden(VISIBLE, 32, 0.001, generator=draws).shape == (2, 1)


def test_reward_is_right_in_the_mean_over_draws() -> None:
    """Of a network whose errors do not depend on what else is decoded."""
    mae, clips = small_mae(), random_clips("decode")
    with torch.no_grad():
        truth = mae(clips, VISIBLE)

    class Known(torch.nn.Module):
        def forward(self, clips: Tensor, visible: Tensor, some: Tensor) -> Reconstruction:
            only = torch.zeros_like(truth.error).scatter(1, some, 1.0)
            nothing = 0.0 * mae.mask_token.sum()  # something to learn from
            few = truth.prediction[:, : some.shape[1]]
            return replace(
                truth, prediction=few, hidden_idx=some, error=truth.error * only + nothing
            )

    own = learner(mae, 0.25)
    own.network, own.accumulation_steps = Known(), 1000
    total = torch.zeros_like(truth.error)
    for step in range(300):
        own.begin_slot(0, 1, (step, 0))
        total += own.learn(clips, VISIBLE).error
    assert float(((total / 300).sum(1) / truth.error.sum(1) - 1).abs().max()) < 0.03


def test_run_that_decodes_a_part_goes_on_as_if_it_had_not_stopped(
    small_run: Any, tmp_path: Path
) -> None:
    def run() -> Any:
        made = small_run(loop=LoopConfig(epochs=2, mae_only_epochs=1), algorithm=PPOConfig(lr=1e-2))
        made.learner.decode_share = 0.5
        return made

    straight, saving, resumed = run(), run(), run()
    straight.loop.run()

    def keep(loop: Any) -> None:
        if loop.at.step == 6:
            save(tmp_path, saving.checkpoint(), keep_last=1)

    saving.after_batch = keep
    saving.loop.run()
    resumed.restore(load(tmp_path))
    resumed.loop.run()
    for name, value in straight.weights().items():
        assert torch.equal(value, resumed.weights()[name]), name
    whole = small_run(loop=LoopConfig(epochs=2, mae_only_epochs=1), algorithm=PPOConfig(lr=1e-2))
    whole.loop.run()
    assert not all(torch.equal(v, straight.weights()[n]) for n, v in whole.weights().items())


@pytest.mark.parametrize("share", [0, 1.5, -1])
def test_share_outside_0_to_1_is_refused(share: float) -> None:
    with pytest.raises(UsageError, match="model.decode_share"):
        parse_config({"model": {"decode_share": share}, "algorithm": {"name": "ppo"}})
