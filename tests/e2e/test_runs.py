"""Whole commands in processes of their own, as a person runs them."""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch

from tats_ray.checkpoints import format as checkpoints
from tats_ray.config.load import load_config
from tats_ray.data.synthetic import SyntheticSet, synthesize
from tats_ray.view.tracking import read_metrics
from tests.runtime.test_recipe import recipe

REPO = Path(__file__).parents[2]
pytestmark = [pytest.mark.long, pytest.mark.ray, pytest.mark.timeout(600)]

SMALL = """
data: {{train_list: {train}, val_list: {val}, num_frames: 4, image_size: 32, stride: 1,
       num_workers: 0, cache_mb: 50}}
model: {{size: tiny, patch: 8, depth: 1, decoder_depth: 1, pos_embed: sincos_3d}}
sampler: {{mask_ratio: 0.75}}
algorithm: {{name: ppo, lr: 1e-3, advantage: relative}}
loop: {{epochs: {epochs}, mae_only_epochs: 1}}
optim: {{batch_size: 4, base_lr: 0.1, warmup_epochs: 1}}
eval: {{every_epochs: 50}}
checkpoint: {{folder: {folder}, every_epochs: 500}}
log: {{every_steps: 1}}
cluster: {{threads: 1}}
"""


@pytest.fixture(scope="module")
def videos(tmp_path_factory: pytest.TempPathFactory) -> SyntheticSet:
    folder = tmp_path_factory.mktemp("videos")
    return synthesize(folder, num_train=22, num_val=4, num_frames=10, size=32, workers=1)


def start(*words: str, cwd: Path) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [sys.executable, "-m", "tats_ray", *words],
        cwd=cwd,
        env={**os.environ, "RAY_AUTH_MODE": "disabled"},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )


def write_config(path: Path, videos: SyntheticSet, folder: Path, epochs: int) -> Path:
    path.write_text(
        SMALL.format(train=videos.train_list, val=videos.val_list, folder=folder, epochs=epochs)
    )
    return path


def wait_for_lines(path: Path, count: int, process: subprocess.Popen[str]) -> None:
    """Until a file has so many lines: act on what was seen, not on a guess of how long."""
    deadline = time.monotonic() + 300
    while not path.is_file() or len(path.read_text().splitlines()) < count:
        assert process.poll() is None, process.communicate()[0]
        assert time.monotonic() < deadline, f"{path} never had {count} lines"
        time.sleep(0.05)


def test_ctrl_c_saves_a_checkpoint_and_the_printed_command_continues_exactly(
    videos: SyntheticSet, tmp_path: Path
) -> None:
    """Exactly: to the weights of the recipe, which never stops."""
    epochs = 12
    config = write_config(tmp_path / "stopped.yaml", videos, tmp_path / "runs", epochs)
    process = start("pretrain", str(config), cwd=tmp_path)
    run = tmp_path / "runs" / "stopped"
    wait_for_lines(run / "metrics.jsonl", 8, process)
    process.send_signal(signal.SIGINT)
    output, _ = process.communicate(timeout=300)
    assert process.returncode == 0, output
    assert "FRESH START" in output
    printed = re.search(r"continue with:\n\s*tats (.+)\n", output)
    assert printed, output
    stopped_at = checkpoints.load(run).position
    assert 8 <= stopped_at.step < epochs * 5
    assert re.search(rf"stopped after step {stopped_at.step}\b", output)

    again = start(*printed[1].split(), cwd=tmp_path)
    output, _ = again.communicate(timeout=500)
    assert again.returncode == 0, output
    assert f"RESUMED from step {stopped_at.step}" in output
    steps = [record["step"] for record in read_metrics(run) if "mae/loss" in record]
    assert steps == list(range(1, epochs * 5 + 1))

    found = checkpoints.load(run)
    assert found.policy is not None
    for part, expected in zip((found.mae, found.policy), recipe(load_config(config)), strict=True):
        for name, weight in expected.items():
            assert torch.equal(part["network"][name], weight), name

    picture = tmp_path / "masks.png"
    video = next(videos.val_list.parent.rglob("*.mp4"))
    shown = start("show-masks", str(run), str(video), "--out", str(picture), cwd=tmp_path)
    output, _ = shown.communicate(timeout=300)
    assert shown.returncode == 0, output
    assert picture.read_bytes().startswith(b"\x89PNG")


ENDING = r"motion (\S+)x chance, AUC (\d\.\d{3}), (\d+) s, report (\S+)"


@pytest.mark.parametrize(
    ("kind", "run", "errors", "names", "steps"),
    [
        (
            [],
            "pong_cpu",
            r"error (\S+) under random masks, (\S+) under its own",
            ("eval/error", "eval/own_error"),
            "2 epochs x 25 = 50",
        ),
        pytest.param(
            ["--blobs"],
            "debug_cpu",
            r"error (\S+) -> (\S+)",
            ("eval/error", "eval/error"),
            "2 epochs x 6 = 12",
            marks=pytest.mark.long,
        ),
    ],
)
def test_the_demo_ends_with_its_figures_and_a_report(
    kind: list[str], run: str, errors: str, names: tuple[str, str], steps: str, tmp_path: Path
) -> None:
    """Shortened to a few steps: the format and the files, not the learning."""
    (tmp_path / "tune_configs").symlink_to(REPO / "tune_configs")
    flags = ["--loop.epochs", "2", "--loop.mae_only_epochs", "1", "--eval.every_epochs", "1"]
    process = start("demo", *kind, *flags, "--optim.warmup_epochs", "1", cwd=tmp_path)
    output, _ = process.communicate(timeout=500)
    assert process.returncode == 0, output
    last = output.strip().splitlines()[-1]
    found = re.fullmatch(f"demo: {errors}, {ENDING}", last)
    assert found, last
    measured = [r for r in read_metrics(tmp_path / "runs" / run) if "eval/error" in r]
    assert len(measured) == 2
    first = measured[0] if kind else measured[-1]
    assert float(found[1]) == pytest.approx(first[names[0]], rel=5e-3)
    assert float(found[2]) == pytest.approx(measured[-1][names[1]], rel=5e-3)
    assert float(found[3]) == pytest.approx(measured[-1]["eval/motion_ratio"], abs=5e-3)
    report = (tmp_path / found[6]).read_text()
    assert f"{measured[-1]['eval/motion_auc']:.3f}" in report
    assert not re.search(r"""(src|href)=["']https?:""", report)
    assert "256 per clip, 25 visible" in output
    assert steps in output
