"""Frozen scorers: the tiny one has learned what it should, and checkpoints come back whole."""

from __future__ import annotations

from pathlib import Path

import gymnasium
import pytest
import torch
from tats_ray.envs import TOKEN_SELECTION

from tats_ray.checkpoints import format as checkpoint
from tats_ray.checkpoints.export_hf import export_hf
from tats_ray.checkpoints.format import Checkpoint
from tats_ray.checkpoints.frozen_scorer import TINY_GRID, TINY_WEIGHTS, FrozenScorer
from tats_ray.checkpoints.open import open_checkpoint
from tats_ray.config.load import dump_config, parse_config
from tats_ray.config.schema import OptimConfig
from tats_ray.core.errors import CheckpointError
from tats_ray.core.grid import TokenGrid
from tats_ray.core.seeds import stream
from tats_ray.core.types import Position
from tats_ray.data.clips import SyntheticClips
from tats_ray.models.zoo import build_mae
from tats_ray.ops.measures import ranking_auc
from tats_ray.training.mae_learner import MAELearner
from tests.official import adamae, encoder_only, videomae
from tests.random_checkpoints import clips as some_clips
from tests.random_checkpoints import official, own_run


def test_tiny_autoencoder_has_left_the_plateau_and_finds_moving_tokens_harder() -> None:
    source = SyntheticClips(TINY_GRID, 64)
    known = [source[index] for index in range(len(source))]
    clips = torch.stack([clip.pixels for clip in known])
    moving = torch.stack([clip.motion for clip in known if clip.motion is not None]) >= 0.1
    total, times = torch.zeros(moving.shape), torch.zeros(moving.shape)
    scorer, generator = FrozenScorer.tiny(), stream(0, "test")
    for _ in range(8):
        masks = torch.rand(moving.shape, generator=generator).argsort(1)[:, :14]
        error = scorer.score(clips, masks)
        total, times = total + error, times + (error > 0)
    assert total.sum() / times.sum() < 0.62  # 31/32 before training
    mean = total / times
    assert mean[moving].mean() > 1.5 * mean[~moving].mean()
    assert ranking_auc(mean, moving) > 0.85


def test_frozen_scorer_answers_the_same_twice_and_keeps_no_gradient() -> None:
    scorer = FrozenScorer.tiny()
    clips = torch.randint(256, (2, *TINY_GRID.clip_shape), dtype=torch.uint8)
    masks = torch.arange(16).expand(2, -1)
    first, second = scorer.score(clips, masks), scorer.score(clips, masks)
    assert torch.equal(first, second)
    assert not first[:, :16].any()
    assert not first.requires_grad
    assert not scorer.embed(clips).requires_grad


def test_weights_that_ship_are_small() -> None:
    assert TINY_WEIGHTS.stat().st_size < 500_000


def test_synthetic_clips_are_numbered_and_their_motion_is_known() -> None:
    source, again = (SyntheticClips(TINY_GRID, 5) for _ in range(2))
    assert len(source) == 5
    for index in range(5):
        assert torch.equal(source[index].pixels, again[index].pixels)
        motion = source[index].motion
        assert motion is not None
        assert 0 < motion.mean() < 0.5
        assert source[index].pixels.shape == TINY_GRID.clip_shape
    other = SyntheticClips(TINY_GRID, 5, split="train")
    assert not torch.equal(source[0].pixels, other[0].pixels)


def test_missing_checkpoint_is_refused_by_its_name(tmp_path: Path) -> None:
    with pytest.raises(CheckpointError, match=r"nothing holds no checkpoint; give a run folder"):
        FrozenScorer.load(tmp_path / "nothing")
    with pytest.raises(CheckpointError, match=r"gone\.safetensors cannot be read"):
        checkpoint.read_tensors(tmp_path / "gone.safetensors")


def test_checkpoint_of_a_run_becomes_a_scorer_with_its_weights_and_ratio(tmp_path: Path) -> None:
    data = {"train_list": "x.csv", "num_frames": 4, "image_size": 16}
    config = parse_config({"data": data, "model": {"size": "tiny", "patch": 8}})
    grid = TokenGrid(num_frames=4, image_size=16, patch=8)
    mae = build_mae(config.model, grid, seed=7)
    optim = OptimConfig(batch_size=2)
    learner = MAELearner(mae, optim, steps_per_epoch=1, total_steps=1, global_batch=2)
    saved = Checkpoint(Position(), learner.state_dict(), None, dump_config(config))
    checkpoint.save(tmp_path, saved, keep_last=1)
    scorer = FrozenScorer.load(tmp_path)
    assert (scorer.grid, scorer.width, scorer.mask_ratio) == (grid, 128, config.sampler.mask_ratio)
    clips = torch.randint(256, (2, *grid.clip_shape), dtype=torch.uint8)
    masks = torch.tensor([[0], [5]])
    assert torch.equal(scorer.score(clips, masks), learner.score(clips, masks))


def test_autoencoders_of_other_projects_and_exported_ones_judge_too(tmp_path: Path) -> None:
    run = own_run(tmp_path / "run")
    export_hf(run, tmp_path / "hf")
    files = {
        official(tmp_path, videomae, "videomae.pth")[0]: 0.75,
        official(tmp_path, adamae, "adamae.pth")[0]: 0.75,
        tmp_path / "hf": 0.75,
        run: 0.75,
    }
    masks = torch.arange(0, 32, 4).expand(2, -1)
    for path, ratio in files.items():
        scorer = FrozenScorer.load(path)
        error = scorer.score(some_clips(), masks)
        expected = open_checkpoint(path).mae(some_clips(), masks).error
        assert torch.equal(error, expected)
        assert error.std() > 0
        assert scorer.mask_ratio == ratio
        assert not any(p.requires_grad for p in scorer.mae.parameters())
    # The same weights, by way of another format.
    theirs, ours = (FrozenScorer.load(path) for path in (tmp_path / "hf", run))
    assert torch.equal(theirs.score(some_clips(), masks), ours.score(some_clips(), masks))


def test_environment_opens_an_official_file(tmp_path: Path) -> None:
    path, _ = official(tmp_path, videomae)
    env = gymnasium.make_vec(TOKEN_SELECTION, num_envs=2, checkpoint=str(path), num_clips=4)
    env.reset(seed=0)
    _, _, _, _, info = env.step(env.action_space.sample())
    assert info["token_error"].shape == (2, 32)
    assert (info["token_error"] == 0).sum(1).tolist() == [8, 8]  # a quarter of 32 is visible


def test_checkpoint_without_a_decoder_is_refused_in_one_line(
    tmp_path: Path, fine_tuned: Path
) -> None:
    file, _ = official(tmp_path, encoder_only)
    for path in (file, fine_tuned / "tuned", fine_tuned / "enc.safetensors"):
        with pytest.raises(CheckpointError, match="it has no decoder, .*use a complete") as caught:
            FrozenScorer.load(path)
        assert "\n" not in str(caught.value)
