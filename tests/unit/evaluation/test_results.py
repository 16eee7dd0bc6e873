"""Figures of an evaluation, worked out by hand, from rows as several processes would bring them."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch

from tats_ray.core.seeds import stream
from tats_ray.data.manifest import VideoEntry
from tats_ray.evaluation.results import Answers, EvaluationResult, write_results

# Two views each. Logits would be averaged to class 1 in the first video; scores give class 0.
SCORES = torch.tensor(
    [
        [[0.90, 0.10, 0.00], [0.20, 0.80, 0.00]],
        [[0.10, 0.30, 0.60], [0.10, 0.50, 0.40]],
        [[0.30, 0.40, 0.30], [0.30, 0.40, 0.30]],
    ]
)
VIDEO, VIEW = torch.arange(3).repeat_interleave(2), torch.arange(2).repeat(3)


@pytest.fixture
def entries(tmp_path: Path) -> list[VideoEntry]:
    """Two videos of the same name in different folders, and a third."""
    names = [("a/v.mp4", 0), ("b/v.mp4", 2), ("b/w.mp4", 2)]
    return [VideoEntry(str(tmp_path / name), label) for name, label in names]


def write(folder: Path, entries: list[VideoEntry], order: torch.Tensor) -> EvaluationResult:
    answers = Answers(entries, VIDEO[order], VIEW[order], SCORES.flatten(0, 1)[order])
    return write_results(folder, "test", answers, {"seed": 0}, {})


def test_figures_are_of_the_mean_of_softmax_scores(
    tmp_path: Path, entries: list[VideoEntry]
) -> None:
    found = write(tmp_path / "out", entries, torch.arange(6))
    assert (found.top1, found.top5) == (pytest.approx(2 / 3), 1.0)
    assert found.mean_class == pytest.approx((1 + 1 / 2) / 2)
    rows = json.loads((found.folder / "predictions.json").read_text())
    assert list(rows) == [entry.path for entry in entries]  # a bare name would collide
    assert [row["predicted"] for row in rows.values()] == [0, 2, 1]
    assert rows[entries[0].path]["scores"] == [0.55, 0.45, 0.0]
    protocol = json.loads((found.folder / "protocol.json").read_text())
    assert protocol["results"]["top1"] == 0.666667


def test_order_and_repeats_of_rows_change_no_byte(
    tmp_path: Path, entries: list[VideoEntry]
) -> None:
    first = write(tmp_path / "a", entries, torch.arange(6))
    mixed = torch.randperm(6, generator=stream(0, "rows"))
    again = write(tmp_path / "b", entries, torch.cat([mixed, mixed[:4]]))
    for name in ("predictions.json", "protocol.json", "confusion.png"):
        assert (first.folder / name).read_bytes() == (again.folder / name).read_bytes()


def test_video_without_a_row_is_left_out(tmp_path: Path, entries: list[VideoEntry]) -> None:
    found = write(tmp_path / "out", entries, torch.arange(4))
    assert found.top1 == 1.0
    assert len(json.loads((found.folder / "predictions.json").read_text())) == 2


def test_other_settings_write_beside_and_equal_ones_over(
    tmp_path: Path, entries: list[VideoEntry]
) -> None:
    answers = Answers(entries, VIDEO, VIEW, SCORES.flatten(0, 1))
    folders = {write_results(tmp_path, "x", answers, {"seed": s}, {}).folder for s in (0, 1, 0)}
    assert len(folders) == 2


def test_table_names_error_and_chance(
    tmp_path: Path, entries: list[VideoEntry], capsys: pytest.CaptureFixture[str]
) -> None:
    write(tmp_path / "out", entries, torch.arange(6))
    shown = capsys.readouterr().out.splitlines()
    (line,) = (line for line in shown if line.startswith("top-1"))
    # sqrt(2/3 x 1/3 / 3) = 27.2 %; three classes.
    assert line.split() == ["top-1", "66.7", "27.2", "33.3"]
    assert not any(line.startswith("top-5") for line in shown)  # of three classes it says nothing
