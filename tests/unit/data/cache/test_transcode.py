"""Films of `tats data transcode` against the videos that they were made from."""

from __future__ import annotations

import math
import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import av
import numpy as np
import pytest
from conftest import numbered_frames, read_numbers, write_pictures
from PIL import Image

from tats_ray.__main__ import main
from tats_ray.core.errors import UsageError
from tats_ray.data.cache.make_cache import Forecast
from tats_ray.data.cache.shards import FilmSettings
from tats_ray.data.cache.transcode import transcode
from tats_ray.data.decode import probe, read_frames
from tats_ray.data.encode import write_video
from tats_ray.data.manifest import read_list
from tats_ray.data.readers.jumping import installed

SETTINGS = FilmSettings(48, 18, 4)


@pytest.fixture(scope="module")
def videos(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Several kinds, two of one stem, one that breaks off, one that is none, and one twice."""
    folder = tmp_path_factory.mktemp("videos")
    (folder / "sub").mkdir()
    write_video(folder / "a.mp4", numbered_frames(30), num_b_frames=2)
    write_video(folder / "a.avi", numbered_frames(30, 50), codec="mpeg4", gop=90)
    write_pictures(folder / "sub" / "c", 30)
    wide = np.pad(numbered_frames(30, 90), ((0, 0), (0, 0), (30, 36), (0, 0)))
    write_video(folder / "sub" / "d, é.mkv", wide, fps=30)
    write_video(folder / "whole.avi", numbered_frames(60), codec="mpeg4", gop=1)
    whole = (folder / "whole.avi").read_bytes()
    (folder / "cut.avi").write_bytes(whole[: len(whole) // 2])
    (folder / "none.mp4").write_text("not a film\n" * 99)
    names = ["a.mp4", "a.avi", "sub/c", '"sub/d, é.mkv"', "cut.avi", "none.mp4", "a.mp4"]
    (folder / "train.csv").write_text("".join(f"{n}\t{i % 6}\n" for i, n in enumerate(names)))
    return folder / "train.csv"


@pytest.fixture(scope="module")
def films(videos: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("films") / "out"
    transcode(videos, out, SETTINGS, jobs=2)
    return out / "train.csv"


def frames_of(path: str) -> np.ndarray:
    return read_frames(path, lambda total: range(total))


def test_list_names_the_films_with_the_labels_that_the_videos_had(films: Path) -> None:
    found = [(str(Path(e.path).relative_to(films.parent)), e.label) for e in read_list(films)]
    assert found == [
        ("a.mp4.mp4", 0), ("a.avi.mp4", 1), ("sub/c.mp4", 2), ("sub/d, é.mkv.mp4", 3),
        ("cut.avi.mp4", 4), ("a.mp4.mp4", 0),
    ]  # fmt: skip


@pytest.mark.parametrize(("index", "offset"), [(0, 0), (1, 50), (2, 0), (3, 90)])
def test_frames_of_a_film_are_those_of_its_video(
    videos: Path, films: Path, index: int, offset: int
) -> None:
    old, new = (frames_of(read_list(path)[index].path) for path in (videos, films))
    assert len(new) == len(old) == 30
    width, height = SETTINGS.size(old.shape[2], old.shape[1])
    assert new.shape == (30, height, width, 3)
    assert min(width, height) == 48
    if index != 3:  # the squares of the wide one do not fill it
        assert read_numbers(new) == [offset + n for n in range(30)]
    for was, is_now in zip(old, new, strict=True):
        expected = Image.fromarray(was).resize((width, height), Image.Resampling.BOX)
        error = np.asarray(expected, float) - is_now
        assert 10 * math.log10(255**2 / np.mean(error**2)) > 25  # neighbours in time have 17


def test_key_frames_are_near_rate_is_kept_and_jumps_are_exact(films: Path) -> None:
    path = read_list(films)[3].path
    with av.open(path) as container:
        packets = [p for p in container.demux(container.streams.video[0]) if p.size]
    keys = [at for at, packet in enumerate(packets) if packet.is_keyframe]
    assert keys[0] == 0
    gaps = np.diff([*keys, len(packets)])
    assert gaps.max() <= SETTINGS.gop < 30
    assert probe(path).fps == 30
    whole = frames_of(path)
    for reader in installed():
        chosen = [29, 0, 13, 7, 14, 6]
        found = read_frames(path, lambda _, chosen=chosen: chosen, backend=reader)
        np.testing.assert_array_equal(found, whole[chosen])


def test_command_predicts_adds_and_says_what_is_missing(
    videos: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = shutil.copytree(videos.parent, tmp_path / "copy", copy_function=shutil.copy2)
    out = tmp_path / "films"
    words = ["data", "transcode", str(folder / "train.csv"), str(out), "--short-side", "48"]
    main(words)
    said, told = capsys.readouterr()
    assert "6 videos to decode: about" in told
    assert "1 video left out of the list: " in said
    assert "none.mp4 (cannot be decoded" in said
    before = {path: path.stat().st_mtime_ns for path in out.rglob("*.mp4")}
    assert len(before) == 5
    write_video(folder / "more.mp4", numbered_frames(5))
    (folder / "val.csv").write_text("a.mp4\t1\nmore.mp4\t0\n")
    main([*words[:2], str(folder / "val.csv"), *words[3:]])
    assert "1 video to decode" in capsys.readouterr().err
    assert {path: path.stat().st_mtime_ns for path in before} == before
    assert [e.label for e in read_list(out / "val.csv")] == [1, 0]
    # A film that was cut, and a video that has changed, are made again.
    (out / "a.avi.mp4").write_bytes((out / "a.avi.mp4").read_bytes()[:-9])
    write_video(folder / "more.mp4", numbered_frames(7))
    (folder / "val.csv").write_text("a.avi\t1\nmore.mp4\t0\na.mp4\t0\n")
    main([*words[:2], str(folder / "val.csv"), *words[3:]])
    said, told = capsys.readouterr()
    assert "2 videos to decode" in told
    assert f"replaced: {out}/val.csv; what it was is {out}/val.csv.old" in said
    assert [e.probe().num_frames for e in read_list(out / "val.csv")] == [30, 7, 30]


def test_prediction_is_near_what_it_takes(tmp_path: Path) -> None:
    for n in range(3):
        write_video(tmp_path / f"v{n}.mp4", numbered_frames(160, 60 * n))
    (tmp_path / "train.csv").write_text("v0.mp4\nv1.mp4\nv2.mp4\n")
    told: list[Forecast] = []
    done = transcode(tmp_path / "train.csv", tmp_path / "o", SETTINGS, on_forecast=told.append)
    assert 0.7 < told[0].num_bytes / done.made.num_bytes < 1.4
    assert told[0].seconds > 0


@pytest.mark.parametrize(
    ("words", "says"),
    [
        (["--crf", "30"], r"is a folder of films with crf 18, not 30; name a new folder"),
        (["--gop", "0"], r"--gop 0 at least 1"),
        (["--root", "{}/sub", "--short-side", "48"], r"no such file"),
        (["-j", "0"], "-j 0 and --limit-s 60 must be above 0"),
    ],
)
def test_wrong_request_ends_in_one_line(
    videos: Path, films: Path, capsys: pytest.CaptureFixture[str], words: list[str], says: str
) -> None:
    out = films.parent
    known = ["--short-side", "48", "--gop", "4"] if "--gop" not in words else []
    with pytest.raises(SystemExit):
        main(
            ["data", "transcode", str(videos), str(out), *known]
            + [word.format(videos.parent) for word in words]
        )
    error = capsys.readouterr().err
    assert says in error
    assert "Traceback" not in error


def test_videos_that_have_no_place_beneath_the_root_are_refused(
    videos: Path, tmp_path: Path
) -> None:
    (tmp_path / "train.csv").write_text(f"{videos.parent}/a.mp4\n")
    with pytest.raises(UsageError, match=r"a\.mp4 is not beneath the folder of the list"):
        transcode(tmp_path / "train.csv", tmp_path / "films", SETTINGS)
    done = transcode(tmp_path / "train.csv", tmp_path / "films", SETTINGS, root=str(videos.parent))
    assert done.made.num_videos == 1
    with pytest.raises(UsageError, match=r"holds train\.csv itself"):
        transcode(videos, videos.parent, SETTINGS)
    with pytest.raises(UsageError, match="something other than a folder of films"):
        transcode(tmp_path / "train.csv", videos.parent, SETTINGS, root=str(videos.parent))


FULL = """
import os, resource, signal
from tats_ray.data.cache import store_videos
from tats_ray.data.cache.workers import serve
signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
resource.setrlimit(resource.RLIMIT_FSIZE, (int(os.environ["FILE_LIMIT"]), -1))
serve(store_videos.carry_out)
"""


@pytest.mark.parametrize("missing", [10_000, 1])
def test_full_disk_is_one_line_and_no_half_film_is_taken_for_whole(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, missing: int
) -> None:
    from tats_ray.data.cache import make_cache as module

    write_video(tmp_path / "a.mp4", numbered_frames(4))
    write_video(tmp_path / "b.mp4", numbered_frames(120))
    (tmp_path / "train.csv").write_text("a.mp4\nb.mp4\n")
    whole = transcode(tmp_path / "train.csv", tmp_path / "whole", SETTINGS)
    size = (tmp_path / "whole" / "b.mp4.mp4").stat().st_size
    assert size - missing > (tmp_path / "whole" / "a.mp4.mp4").stat().st_size
    assert whole.made.num_videos == 2
    (tmp_path / "full_disk_worker.py").write_text(FULL)
    monkeypatch.setenv("PYTHONPATH", f"{tmp_path}:{os.environ.get('PYTHONPATH', '')}")
    with monkeypatch.context() as patch:
        patch.setattr(module, "_MODULE", "full_disk_worker")
        patch.setenv("FILE_LIMIT", str(size - missing))
        with pytest.raises(UsageError, match=r"cannot be written \(.*\) after .* of 2 videos"):
            transcode(tmp_path / "train.csv", tmp_path / "out", SETTINGS)
    assert not (tmp_path / "out" / "b.mp4.mp4").exists()
    assert transcode(tmp_path / "train.csv", tmp_path / "out", SETTINGS).made.num_videos == 2


@pytest.mark.parametrize("how", [signal.SIGINT, signal.SIGKILL])
def test_stopped_command_continues_behind_the_last_whole_part(
    tmp_path: Path, how: signal.Signals
) -> None:
    video = tmp_path / "v.mp4"
    write_video(video, numbered_frames(40))
    for n in range(24):
        (tmp_path / f"v{n}.mp4").hardlink_to(video)
    (tmp_path / "train.csv").write_text("".join(f"v{n}.mp4\t{n}\n" for n in range(24)))
    out = tmp_path / "films"
    command = [sys.executable, "-m", "tats_ray", "data", "transcode", str(tmp_path / "train.csv")]
    own = signal.signal(signal.SIGINT, signal.default_int_handler)
    try:
        process = subprocess.Popen(
            [*command, str(out), "--short-side", "48", "--gop", "4"],
            stdout=subprocess.PIPE,
            text=True,
        )
    finally:
        signal.signal(signal.SIGINT, own)
    deadline = time.monotonic() + 240
    while not list(out.glob(".parts/*.csv")):
        assert time.monotonic() < deadline
        time.sleep(0.02)
    process.send_signal(how)
    said, _ = process.communicate(timeout=120)
    assert (how is signal.SIGINT) == ("the same command continues" in said)
    assert not (out / "train.csv").exists()
    counts: list[int] = []
    transcode(
        tmp_path / "train.csv", out, SETTINGS, on_progress=lambda done, _: counts.append(done)
    )
    assert 0 < counts[0] < 24
    found = read_list(out / "train.csv")
    assert [entry.label for entry in found] == list(range(24))
    assert {entry.probe().num_frames for entry in found} == {40}
    assert not [path for path in out.iterdir() if path.name.startswith(".draft")]
