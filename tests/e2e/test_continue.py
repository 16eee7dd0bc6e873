"""Runs that are extended, moved, started from each other, or lose their driver: whole commands."""

from __future__ import annotations

import shutil
import signal
import time
from pathlib import Path

import pytest
import torch

from tats_ray.checkpoints import format as checkpoints
from tats_ray.data.synthetic import SyntheticSet
from tats_ray.runs.run_record import read_run
from tests.e2e.test_runs import start, videos, wait_for_lines, write_config

__all__ = ["videos"]
pytestmark = [pytest.mark.long, pytest.mark.ray, pytest.mark.timeout(900)]
STEPS = 5
"""Of an epoch."""


def carry_out(*words: str, cwd: Path) -> str:
    process = start(*words, cwd=cwd)
    output, _ = process.communicate(timeout=600)
    assert process.returncode == 0, output
    return output


def weights(run: Path) -> dict[str, torch.Tensor]:
    found = checkpoints.load(run)
    assert found.policy is not None
    return {**found.mae["network"], **found.policy["network"]}


def assert_equal(one: dict[str, torch.Tensor], other: dict[str, torch.Tensor]) -> None:
    assert one.keys() == other.keys()
    for name, weight in one.items():
        assert torch.equal(other[name], weight), name


def test_extended_run_repeats_bit_for_bit_from_a_moved_folder_and_starts_another(
    videos: SyntheticSet, tmp_path: Path
) -> None:
    config = write_config(tmp_path / "first.yaml", videos, Path("runs"), epochs=2)
    every = ["--checkpoint.every_epochs", "1", "--checkpoint.keep_last", "9"]
    carry_out("pretrain", str(config), *every, cwd=tmp_path)
    run = tmp_path / "runs" / "first"
    said = carry_out("pretrain", "runs/first", "--extend", "--loop.epochs", "4", cwd=tmp_path)
    assert "extended  2 to 4 epochs" in said
    assert f"RESUMED from step {2 * STEPS}" in said

    # The same once more from the third epoch, in another place and another working directory.
    moved = tmp_path / "elsewhere" / "again"
    shutil.copytree(run, moved)
    shutil.rmtree(moved / "checkpoints" / f"step_{4 * STEPS:08d}")
    (moved / "checkpoints" / "latest").write_text(f"step_{3 * STEPS:08d}\n")
    said = carry_out("pretrain", str(moved), "--resume", cwd=tmp_path / "elsewhere")
    assert f"RESUMED from step {3 * STEPS}" in said
    assert_equal(weights(moved), weights(run))

    flags = ["--init", "runs/first", "--name", "second", "--loop.epochs", "1"]
    said = carry_out("pretrain", str(config), *flags, *every, cwd=tmp_path)
    assert "FRESH START" in said
    second = tmp_path / "runs" / "second"
    assert_equal(weights(second / "checkpoints" / "step_00000000"), weights(run))
    assert checkpoints.load(second).position.step == STEPS


def processes_of(logs: Path) -> list[str]:
    """Command lines that name a session of Ray's: its servers and their agents."""
    found = []
    for place in Path("/proc").glob("[0-9]*"):
        try:
            words = (place / "cmdline").read_bytes().decode(errors="replace")
        except OSError:
            continue
        if str(logs.parent) in words:
            found.append(words.replace("\0", " "))
    return found


def test_nothing_of_a_private_ray_outlives_a_killed_driver(
    videos: SyntheticSet, tmp_path: Path
) -> None:
    config = write_config(tmp_path / "killed.yaml", videos, Path("runs"), epochs=500)
    process = start("pretrain", str(config), cwd=tmp_path)
    run = tmp_path / "runs" / "killed"
    wait_for_lines(run / "metrics.jsonl", 2, process)
    logs = Path(read_run(run)["logs"])
    assert logs.is_dir()
    assert processes_of(logs)
    process.send_signal(signal.SIGKILL)
    process.communicate(timeout=60)
    deadline = time.monotonic() + 15
    while processes_of(logs):
        assert time.monotonic() < deadline, processes_of(logs)
        time.sleep(0.2)
