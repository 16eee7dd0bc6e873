from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from conftest import numbered_frames

from tats_ray.__main__ import main
from tats_ray.core.errors import UsageError
from tats_ray.data.cache import make_cache as module
from tats_ray.data.cache.make_cache import Forecast, make_cache
from tats_ray.data.cache.shards import CacheSettings, read_tables
from tats_ray.data.encode import write_video

SETTINGS = CacheSettings(48, 90)
HASTY = """
import os, resource, signal, time
from tats_ray.data.cache import store_videos
from tats_ray.data.cache.workers import serve

probe = store_videos.probe

def odd_probe(path):
    if "dies" in path:
        os.kill(os.getpid(), signal.SIGSEGV)
    if "hangs" in path:
        time.sleep(600)
    return probe(path)

store_videos.probe = odd_probe
signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
if limit := os.environ.get("FILE_LIMIT"):
    resource.setrlimit(resource.RLIMIT_FSIZE, (int(limit), resource.RLIM_INFINITY))
serve(store_videos.carry_out)
"""


@pytest.fixture
def videos(tmp_path: Path) -> Path:
    for n in range(4):
        write_video(tmp_path / f"v{n}.mp4", numbered_frames(8 + n))
    (tmp_path / "text.avi").write_text("not a film\n" * 99)
    path = tmp_path / "train.csv"
    path.write_text("".join(f"v{n}.mp4\t{n}\n" for n in range(4)) + "text.avi\t7\n")
    return path


@pytest.fixture
def odd_workers(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Workers that die of some files, hang over others, and find a disk of FILE_LIMIT bytes."""
    (tmp_path / "odd_worker.py").write_text(HASTY)
    monkeypatch.setenv("PYTHONPATH", f"{tmp_path}:{os.environ.get('PYTHONPATH', '')}")
    monkeypatch.setattr(module, "_MODULE", "odd_worker")


def _left_behind(out: Path) -> list[str]:
    return [path.name for path in out.iterdir() if path.name.startswith(".")]


def test_command_predicts_stores_and_adds(videos: Path, capsys: pytest.CaptureFixture[str]) -> None:
    out = videos.parent / "cache"
    arguments = ["data", "cache", str(videos), str(out), "--short-side", "48", "-j", "2"]
    main(arguments)
    said, told = capsys.readouterr()
    assert "5 videos to decode: about" in told
    assert "with 2 processes" in told
    assert f"{out}: 5 videos, " in said
    assert "1 video cannot be read to the end: " in said
    assert "text.avi (cannot be decoded" in said
    stored = {video.name: video for video in read_tables(out)}
    assert {name: video.stored for name, video in stored.items()} == {
        "v0.mp4": 8, "v1.mp4": 9, "v2.mp4": 10, "v3.mp4": 11, "text.avi": 0,
    }  # fmt: skip
    assert _left_behind(out) == []

    before = {path: path.stat().st_mtime_ns for path in out.iterdir()}
    write_video(videos.parent / "more.mp4", numbered_frames(5))
    (videos.parent / "val.csv").write_text("v1.mp4\t1\nmore.mp4\t0\n")
    main([*arguments[:2], str(videos.parent / "val.csv"), *arguments[3:]])
    assert "1 video to decode" in capsys.readouterr().err
    assert {path: path.stat().st_mtime_ns for path in before} == before
    assert len(read_tables(out)) == 6


def test_prediction_is_near_what_it_takes(tmp_path: Path) -> None:
    for n in range(3):
        write_video(tmp_path / f"v{n}.mp4", numbered_frames(100, 60 * n))
    (tmp_path / "train.csv").write_text("v0.mp4\nv1.mp4\nv2.mp4\n")
    told: list[Forecast] = []
    made = make_cache(tmp_path / "train.csv", tmp_path / "c", SETTINGS, on_forecast=told.append)
    assert told[0].num_videos == 3
    assert 0.8 < told[0].num_bytes / made.num_bytes < 1.25
    assert told[0].seconds > 0


def test_cache_of_other_settings_is_refused_with_the_difference(videos: Path) -> None:
    out = videos.parent / "cache"
    make_cache(videos, out, SETTINGS)
    with pytest.raises(UsageError, match="is a cache of frames with short_side 48, not 64; name"):
        make_cache(videos, out, CacheSettings(64, 90))
    with pytest.raises(UsageError, match="short_side 48, not 64; quality 90, not 80"):
        make_cache(videos, out, CacheSettings(64, 80))
    with pytest.raises(UsageError, match="something other than a cache"):
        make_cache(videos, videos.parent, SETTINGS)
    with pytest.raises(UsageError, match="--short-side 8 must be at least 16"):
        CacheSettings(8, 90)


def test_changed_file_is_stored_again(videos: Path) -> None:
    out = videos.parent / "cache"
    make_cache(videos, out, SETTINGS)
    write_video(videos.parent / "v0.mp4", numbered_frames(20))
    assert make_cache(videos, out, SETTINGS).num_videos == 5
    assert sorted(v.stored for v in read_tables(out) if v.name == "v0.mp4") == [8, 20]


@pytest.mark.usefixtures("odd_workers")
def test_file_that_kills_or_stalls_a_worker_costs_only_itself(videos: Path) -> None:
    for name in ("dies", "hangs"):
        shutil.copy2(videos.parent / "v1.mp4", videos.parent / f"{name}.mp4")
    lines = ["v0.mp4 0", "dies.mp4 0", "v1.mp4 0", "hangs.mp4 0", "v2.mp4 0"]
    videos.write_text("\n".join(lines) + "\n")
    out = videos.parent / "cache"
    made = make_cache(videos, out, SETTINGS, limit_s=8)
    found = {Path(path).name: reason for path, reason in made.broken.items()}
    assert found == {
        "dies.mp4": "cannot be decoded (the decoder crashes (signal 11))",
        "hangs.mp4": "cannot be decoded (the decoder takes over 8 s)",
    }
    assert sorted(v.stored for v in read_tables(out)) == [0, 0, 8, 9, 10]


@pytest.mark.usefixtures("odd_workers")
def test_full_disk_is_one_line_and_what_is_whole_stays(
    videos: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write_video(videos.parent / "v3.mp4", numbered_frames(200))
    out = videos.parent / "cache"
    monkeypatch.setenv("FILE_LIMIT", "60000")
    with pytest.raises(UsageError, match=r"cannot be written \(File too large\) after .* of 5"):
        make_cache(videos, out, SETTINGS)
    assert 0 < len(read_tables(out)) < 5
    assert _left_behind(out) == []
    monkeypatch.delenv("FILE_LIMIT")
    assert make_cache(videos, out, SETTINGS).num_videos == 5


def test_disk_that_is_too_small_is_refused_before_the_work(
    videos: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    usage = module.shutil.disk_usage(videos.parent)
    monkeypatch.setattr(module.shutil, "disk_usage", lambda _: usage._replace(free=1000))
    with pytest.raises(UsageError, match=r"has 0\.0 MB free, .* lower --short-side"):
        make_cache(videos, videos.parent / "cache", SETTINGS)
    assert read_tables(videos.parent / "cache") == []


@pytest.mark.parametrize("how", [signal.SIGINT, signal.SIGKILL])
def test_stopped_command_continues_behind_the_last_whole_shard(
    tmp_path: Path, how: signal.Signals
) -> None:
    video = tmp_path / "v.mp4"
    write_video(video, numbered_frames(40))
    for n in range(30):
        (tmp_path / f"v{n}.mp4").hardlink_to(video)
    (tmp_path / "train.csv").write_text("".join(f"v{n}.mp4\n" for n in range(30)))
    out = tmp_path / "cache"
    command = [sys.executable, "-m", "tats_ray", "data", "cache", str(tmp_path / "train.csv")]
    # A shell starts what runs in its background with SIGINT ignored, and children inherit that.
    own = signal.signal(signal.SIGINT, signal.default_int_handler)
    try:
        process = subprocess.Popen(
            [*command, str(out), "--short-side", "48"], stdout=subprocess.PIPE, text=True
        )
    finally:
        signal.signal(signal.SIGINT, own)
    deadline = time.monotonic() + 240
    while not list(out.glob("*.csv")):
        assert time.monotonic() < deadline
        time.sleep(0.02)
    process.send_signal(how)
    said, _ = process.communicate(timeout=120)
    if how is signal.SIGINT:
        assert "the same command continues" in said
        assert _left_behind(out) == []
    kept = {video.name for video in read_tables(out)}
    assert 0 < len(kept) < 30
    counts: list[int] = []
    made = make_cache(
        tmp_path / "train.csv", out, SETTINGS, on_progress=lambda done, _: counts.append(done)
    )
    assert counts[0] >= len(kept)
    assert made.num_videos == 30
    assert len({video.name for video in read_tables(out)}) == 30
    assert _left_behind(out) == []


def test_settings_are_kept_as_json(videos: Path) -> None:
    make_cache(videos, videos.parent / "cache", SETTINGS)
    found = json.loads((videos.parent / "cache" / "cache.json").read_text())
    assert found == {"short_side": 48, "quality": 90, "format": 1}


def test_file_that_grows_meanwhile_is_told_and_stored_by_the_next_command(videos: Path) -> None:
    video, out = videos.parent / "v0.mp4", videos.parent / "cache"
    videos.write_text("v0.mp4 0\nv1.mp4 0\nv0.mp4 0\n")  # and a video that is listed twice

    def grow(done: int, total: int) -> None:
        assert total == 2
        if done == 0:
            video.write_bytes(video.read_bytes() + bytes(8))

    made = make_cache(videos, out, SETTINGS, on_progress=grow)
    assert (made.num_videos, made.changed) == (1, 1)
    assert "1 video changed meanwhile; run the command again" in str(made)
    made = make_cache(videos, out, SETTINGS)
    assert (made.num_videos, made.changed) == (2, 0)
