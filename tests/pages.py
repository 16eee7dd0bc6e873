"""Pages of made-up runs, whose every number and pixel is known."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np

from tats_ray.core.grid import TokenGrid
from tats_ray.view.page.viewer import ClipView, Column, Look, Viewing
from tats_ray.view.report_page import write_comparison, write_report


def viewing(
    grid: TokenGrid,
    runs: Mapping[str, Sequence[int]],
    *,
    num_clips: int = 1,
    is_noise: bool = False,
) -> Viewing:
    """Clips of runs with checkpoints at these steps.

    Args:
        is_noise: pixels are, which packs worst; else each clip and frame has one colour.
    """
    rng = np.random.default_rng(0)
    lattice = (grid.time, grid.side, grid.side)

    def film() -> np.ndarray:
        side = grid.image_size if is_noise else 1
        pixels = rng.integers(60, 256, (grid.num_frames, side, side, 3), dtype=np.uint8)
        return pixels.repeat(grid.image_size // side, 1).repeat(grid.image_size // side, 2)

    def look() -> Look:
        visible = rng.random(lattice) < 0.25
        error = np.where(visible, 0.0, rng.random(lattice)).astype(np.float32)
        probability = rng.random(lattice).astype(np.float32)
        return Look(reconstruction=film(), error=error, visible=visible,
                    probability=probability / probability.sum())  # fmt: skip

    clips = [
        ClipView(
            name=f"</script>{number}.mp4",
            why="made up",
            frames=film(),
            looks=[[look() for _ in steps] for steps in runs.values()],
            other_visible=rng.random(lattice) < 0.25,
            moving=rng.random(lattice) < 0.1,
        )
        for number in range(num_clips)
    ]
    return Viewing(
        grid=grid,
        columns=[Column(name, steps) for name, steps in runs.items()],
        clips=clips,
        rule="All there are.",
        other_label="random mask",
    )


def records(steps: Sequence[int]) -> list[dict[str, float]]:
    """A training record and a measurement at each step."""
    found: list[dict[str, float]] = []
    for at, step in enumerate(steps):
        position = {"step": step, "epoch": at, "time": 1e9 + step}
        shares = {"time/mae": 0.6, "time/data": 0.1, "time/policy": 0.3}
        policy = {"policy/entropy": 0.9, "policy/approx_kl": 0.01} if at else {}
        found.append({**position, "mae/loss": 0.123456 / 10**at, **shares, **policy})
        found.append({**position, "eval/error": 0.0222222 / 3**at, "eval/own_error": 0.00033333,
                      "eval/motion_ratio": 1.0 + at, "eval/motion_auc": 0.75, "eval/entropy": 0.8,
                      "eval/effective_tokens": 20.5, "eval/error_tokens": 17.0})  # fmt: skip
    return found


def report_of(path: Path, shown: Viewing) -> Path:
    """The report of the one run that a viewer shows."""
    return write_report(
        path,
        title="A run",
        summary=[("Validation error", "1.00 -> 0.500", "under fixed masks")],
        metrics=records(shown.columns[0].steps),
        viewing=shown,
        config_yaml="name: one\nseed: 0\n",
        next_commands=["tats show-masks runs/one " + "a_long_name_" * 12],
        about=[("machine", "this one")],
        num_visible=25,
        num_tokens=256,
    )


def comparison_of(path: Path, shown: Viewing) -> Path:
    """The page about all runs that a viewer shows."""
    return write_comparison(
        path,
        title="Some runs",
        notes=["two differs from one."],
        head=["run", "sampler", *(f"a long figure {number}" for number in range(8))],
        rows=[[column.name, "tats", *["0.000123"] * 8] for column in shown.columns],
        metrics={column.name: records(column.steps) for column in shown.columns},
        viewing=shown,
        next_commands=["tats compare one two"],
    )
