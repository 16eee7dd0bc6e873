"""Checkpoints of runs whose sampler is another package's: every door opens them."""

from __future__ import annotations

import importlib
import sys
from pathlib import Path

import pytest

import tats_ray
from tats_ray.checkpoints.describe import inspect
from tats_ray.checkpoints.export_hf import export_hf
from tats_ray.core.errors import UsageError
from tats_ray.data.synthetic import synthesize
from tats_ray.evaluation.show_masks import show_masks
from tats_ray.models.policy import is_learned
from tests.random_checkpoints import converted, own_run, same

EXAMPLES = Path(__file__).parents[3] / "examples"


@pytest.fixture
def run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """With random weights of the example's sampler."""
    monkeypatch.syspath_prepend(str(EXAMPLES))
    importlib.invalidate_caches()
    return own_run(tmp_path / "run", sampler="custom_sampler:CustomSampler")


def test_weights_of_the_sampler_come_back_from_a_run_and_from_an_export(
    run: Path, tmp_path: Path
) -> None:
    policy = tats_ray.load(run).policy
    assert is_learned(policy)
    assert type(policy.sampler).__name__ == "CustomSampler"
    back = tats_ray.load(export_hf(run, tmp_path / "exported")).policy
    assert is_learned(back)
    assert same(back.state_dict(), policy.state_dict())


def test_commands_about_checkpoints_know_the_sampler(run: Path, tmp_path: Path) -> None:
    assert dict(inspect(run))["sampler"] == "custom_sampler:CustomSampler, mask ratio 0.75"
    said = converted(run, tmp_path / "official.pth")
    assert any("left out the custom_sampler:CustomSampler sampler" in line for line in said)
    made = synthesize(tmp_path / "v", num_train=1, num_val=1, num_frames=16, size=32, workers=1)
    video = next(made.train_list.parent.rglob("*.mp4"))
    assert show_masks(run, video, tmp_path / "masks.png").stat().st_size > 1000


def test_checkpoint_whose_sampler_is_not_on_this_machine_says_which_it_lacks(
    run: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sys, "path", [p for p in sys.path if p != str(EXAMPLES)])
    monkeypatch.delitem(sys.modules, "custom_sampler", raising=False)
    with pytest.raises(
        UsageError, match=r"'custom_sampler:CustomSampler' cannot be loaded: .*PATH"
    ):
        tats_ray.load(run)
