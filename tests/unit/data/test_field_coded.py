"""Field-coded video: two packets make one frame, and frames are what is counted."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from field_coded import write_field_coded

from tats_ray.data.decode import probe, read_frames


@pytest.mark.parametrize("ending", ["mp4", "mkv", "ts", "avi"])
def test_frames_of_field_coded_video_are_counted_and_read_as_they_were_written(
    ending: str, tmp_path: Path
) -> None:
    noise = np.random.default_rng(0).integers(0, 25, (10, 64, 96))
    luma = (noise + 20 * np.arange(10)[:, None, None] + 16).astype(np.uint8)
    assert write_field_coded(tmp_path / f"fields.{ending}", luma) == 20
    path = str(tmp_path / f"fields.{ending}")
    assert probe(path).num_frames == 10
    grey = (luma.astype(float) - 16) * 255 / 219  # of the video range
    for chosen in (range(10), [9], [4, 0, 4]):
        frames = read_frames(path, lambda total, chosen=chosen: list(chosen))
        assert np.abs(frames - grey[list(chosen)][..., None]).max() <= 1
