"""`tats demo`: make videos, train on them, show what was learned."""

from __future__ import annotations

import tempfile
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tats_ray.config.load import load_config, parse_config
from tats_ray.core.errors import UsageError
from tats_ray.core.words import three
from tats_ray.data.atari.atari_set import make_atari
from tats_ray.data.synthetic import synthesize
from tats_ray.runs.pretrain_run import RunResult, pretrain
from tats_ray.view.progress import VideoCount
from tats_ray.view.tracking import read_metrics

PONG = Path("tune_configs/pong_cpu.yaml")
BLOBS = Path("tune_configs/debug_cpu.yaml")


@dataclass(frozen=True)
class DemoFigures:
    """The figures of the demo's last line, all measured in the run on validation clips."""

    first_error: float
    """Error under one fixed set of random masks, first measurement."""
    error: float
    """Last measurement."""
    own_error: float
    """Last error under the sampler's own masks."""
    motion_ratio: float
    """Share of moving tokens among the visible, in multiples of their share in the clips."""
    motion_auc: float
    seconds: float
    report: Path

    def line(self) -> str:
        """Of the demo: a sampler that finds what moves."""
        return self._line(
            f"error {three(self.error)} under random masks, {three(self.own_error)} under its own"
        )

    def line_of_blobs(self) -> str:
        """Of `--blobs`: an autoencoder that leaves the plateau."""
        return self._line(f"error {three(self.first_error)} -> {three(self.error)}")

    def _line(self, errors: str) -> str:
        return (
            f"demo: {errors}, motion {three(self.motion_ratio)}x chance, "
            f"AUC {three(self.motion_auc)}, {self.seconds:.0f} s, report {self.report}"
        )


def demo(flags: Sequence[str] = (), *, config_path: Path = PONG, resume: bool = False) -> RunResult:
    """Make videos of Pong, train on them, and print the figures last.

    Args:
        flags: fields to change, as for `tats pretrain`.
        config_path: `PONG`, or `BLOBS`, whose videos are synthetic.

    Raises:
        UsageError: as `pretrain`, and when the config is not here to be found.
    """
    started = time.perf_counter()
    config = load_config(config_path, flags)
    if not config.data.train_list.endswith("train.csv"):
        raise UsageError(f"data.train_list of {config_path} must end in train.csv for the demo")
    videos, is_pong = Path(config.data.train_list).parent, config_path == PONG
    if is_pong:
        make_atari(videos, "pong", progress=VideoCount())
        print(f"{'videos':>14}  {videos}: Pong, played at random", flush=True)
    else:
        print(f"{'videos':>14}  {videos}: {', '.join(synthesize(videos).classes)}", flush=True)
    result = pretrain(config, resume=resume)
    if result.report is not None:
        figures = demo_figures(result.folder, result.report, time.perf_counter() - started)
        print(figures.line() if is_pong else figures.line_of_blobs(), flush=True)
    return result


def try_out(raw: Mapping[str, Any]) -> RunResult:
    """Train a tiny autoencoder for three epochs in a temporary folder, on videos made there.

    For files of a user's own: whether they go through the whole loop shows within a minute.

    Args:
        raw: fields as in a configuration file, such as `algorithm`.

    Raises:
        UsageError: as `pretrain`.
    """
    folder = Path(tempfile.mkdtemp())
    videos = synthesize(folder / "videos", num_train=16, num_val=4, num_frames=10, size=32)
    tiny = {
        "name": "try_out",
        "data": {
            "train_list": str(videos.train_list),
            "num_frames": 4,
            "image_size": 32,
            "num_workers": 0,
        },
        "model": {"size": "tiny", "patch": 8},
        "loop": {"epochs": 3, "mae_only_epochs": 1},
        "optim": {"batch_size": 8, "warmup_epochs": 1},
        "checkpoint": {"folder": str(folder), "every_epochs": 1},
    }
    return pretrain(parse_config({**tiny, **raw}))


def demo_figures(folder: Path, report: Path, seconds: float) -> DemoFigures:
    """Read the figures from what the run wrote down."""
    measured = [record for record in read_metrics(folder) if "eval/error" in record]
    first, last = measured[0], measured[-1]
    return DemoFigures(
        first_error=first["eval/error"],
        error=last["eval/error"],
        own_error=last["eval/own_error"],
        motion_ratio=last["eval/motion_ratio"],
        motion_auc=last["eval/motion_auc"],
        seconds=seconds,
        report=report,
    )
