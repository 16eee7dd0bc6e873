"""`--dry-run`: a plan with time and memory, and nothing started or written."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest

from tats_ray.config.load import parse_config
from tats_ray.models.zoo import build_mae, count_parameters, token_grid
from tests.commands import tats

FRAMES = ["--data.num_frames", "4", "--data.image_size", "16", "--data.num_workers", "0"]


def memory_of(said: str) -> list[float]:
    """GB by batch size, rising."""
    (line,) = re.findall(r"memory  (?:MAE )?learner: at least (.*?) clips;", said)
    return [float(number) for number in re.findall(r"([\d.e-]+) GB with", line)]


def test_pretraining_says_time_and_memory_and_starts_nothing(
    fine_tuned: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: Any
) -> None:
    monkeypatch.chdir(tmp_path)
    text = f"data: {{train_list: {fine_tuned / 'data' / 'train.csv'}}}"
    Path("small.yaml").write_text(text + "\nmodel: {size: tiny, patch: 8}\ncluster: {threads: 1}")
    flags = [*FRAMES, "--optim.batch_size", "4", "--loop.epochs", "3", "--mask_ratio", "0.5"]
    tats("pretrain", "small.yaml", "--dry-run", *flags)
    said = capsys.readouterr().out
    assert re.search(r"time  about \d.* an MAE step takes [\d.e-]+ s, [\d.e-]+ s with the", said)
    low, asked, high = memory_of(said)
    assert low < asked < high
    config = parse_config({"model": {"size": "tiny", "patch": 8}, "data": {"num_frames": 4}})
    mae = build_mae(config.model, token_grid(config.data, config.model), seed=0)
    assert low > 16 * count_parameters(mae) / 1e9
    # What the backward pass keeps is that of the clips: it grows in proportion.
    assert high - asked == pytest.approx(2 * (asked - low), rel=0.3)  # as printed, rounded
    assert "policy learner: " in said
    assert [path.name for path in tmp_path.iterdir()] == ["small.yaml"]
    tats("pretrain", "small.yaml", "--dry-run", "--loop.precision", "bfloat16", *flags)
    # Copies of the weights in bfloat16 are there once, not for each clip.
    half = memory_of(capsys.readouterr().out)
    assert half[2] - half[1] < high - asked
    tats("pretrain", "small.yaml", "--dry-run", "--cluster.use_gpu", "true", *flags)
    said = capsys.readouterr().out
    assert "time  not measured, since this machine cannot hold the run: " in said
    assert memory_of(said) == [low, asked, high]


def test_fine_tuning_says_time_and_memory_and_starts_nothing(
    fine_tuned: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: Any
) -> None:
    monkeypatch.chdir(tmp_path)
    flags = ["--optim.batch_size", "4", "--cluster.threads", "1", "--data.num_workers", "0"]
    tats("finetune", fine_tuned / "run", fine_tuned / "data", "--dry-run", *flags)
    said = capsys.readouterr().out
    assert re.search(r"time  about \d.* a step takes [\d.e-]+ s, and reading a batch", said)
    assert memory_of(said) == sorted(memory_of(said))
    joined = ("--cluster.address", "10.0.0.1:6379", "--cluster.use_gpu", "true")
    tats("finetune", fine_tuned / "run", fine_tuned / "data", "--dry-run", *flags, *joined)
    there = capsys.readouterr().out
    assert "time  not measured: the run would join a cluster" in there
    assert memory_of(there) == memory_of(said)
    assert list(tmp_path.iterdir()) == []
