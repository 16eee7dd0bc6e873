"""What a run says about a cache when it waits for clips."""

from __future__ import annotations

import io
import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from tats_ray.config.schema import DataConfig, RunConfig
from tats_ray.data.clip_lists import Lists
from tats_ray.data.decode import all_frames
from tats_ray.data.encode import write_video
from tats_ray.data.manifest import read_list
from tats_ray.runs.carry_out import CacheAdvice, is_waiting
from tats_ray.view.progress import BoardPlan

SHOWN = BoardPlan(
    name="r", total_steps=50, total_epochs=5, steps_per_epoch=10, mae_only_epochs=1,
    num_tokens=8, num_visible=2, loaders=1,
)  # fmt: skip


@pytest.mark.parametrize(
    ("step", "metrics", "expected"),
    [
        (20, {"time/data": 0.6}, True),
        (20, {"time/data": 0.4}, False),
        (10, {"time/data": 0.9}, False),  # files are opened for the first time
        (20, {"time/data": None}, False),
        (20, {"eval/error": 0.6}, False),
    ],
)
def test_record_tells_of_a_run_that_waits(
    step: int, metrics: dict[str, Any], expected: bool
) -> None:
    assert is_waiting(SHOWN, {"kind": "metrics", "step": step, "metrics": metrics}) is expected
    assert not is_waiting(SHOWN, {"kind": "note", "text": "slow"})


def test_advice_is_measured_on_the_videos_and_told_once(tmp_path: Path) -> None:
    frames = np.random.default_rng(0).integers(0, 256, (30, 64, 96, 3), dtype=np.uint8)
    write_video(tmp_path / "v.mp4", frames)
    (tmp_path / "train.csv").write_text("v.mp4\n" * 3)
    lists = Lists(read_list(tmp_path / "train.csv"), [])
    advice = CacheAdvice(RunConfig(data=DataConfig(image_size=56)), lists)
    assert advice.news() == ""
    advice.ask()
    advice.ask()
    deadline = time.monotonic() + 120
    while not (told := advice.news()):
        assert time.monotonic() < deadline
        time.sleep(0.05)
    jpegs = io.BytesIO()
    for frame in all_frames(str(tmp_path / "v.mp4")):
        Image.fromarray(frame).save(jpegs, "JPEG", quality=90)
    assert float(told.split(" MB, ")[0]) == pytest.approx(3 * jpegs.tell() / 1e6, rel=0.3)
    assert "--short-side 64)" in told
    assert advice.news() == ""

    has_one = CacheAdvice(RunConfig(data=DataConfig(cache="somewhere")), lists)
    has_one.ask()
    assert has_one._thread is None
