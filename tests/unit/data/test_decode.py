from __future__ import annotations

import json
import os
import struct
import subprocess
import sys
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path

import av
import numpy as np
import pytest
from conftest import numbered_frames, read_numbers

from tats_ray.core.errors import UsageError, VideoError
from tats_ray.data import decode
from tats_ray.data.decode import Backend, probe, read_frames
from tats_ray.data.encode import Codec, write_video
from tats_ray.data.readers.jumping import JUMPING, Jumping, label_of, why_missing
from tats_ray.data.synthetic import synthesize

REPO = Path(__file__).parents[3]
CLIPS = REPO.parent / "shared" / "clips"
SCATTERED = [37, 0, 36, 5, 5, 99, 50, 49, 51, 12, 99]


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("videos")
    for name, codec, num_b_frames in (
        ("h264.mp4", "h264", 0),
        ("h264_b.mp4", "h264", 2),
        ("h264_b.mkv", "h264", 2),
        ("mpeg4.avi", "mpeg4", 0),
        ("mpeg4_b.avi", "mpeg4", 2),
    ):
        frames = numbered_frames(100)
        write_video(folder / name, frames, 30, codec, gop=12, num_b_frames=num_b_frames)
    return folder


@pytest.mark.parametrize("backend", ["auto", "pyav"])
@pytest.mark.parametrize(
    "name", ["h264.mp4", "h264_b.mp4", "h264_b.mkv", "mpeg4.avi", "mpeg4_b.avi"]
)
def test_frames_asked_for_are_the_frames_returned(
    folder: Path, name: str, backend: Backend
) -> None:
    frames = read_frames(str(folder / name), lambda _: SCATTERED, backend=backend)
    assert (frames.shape, frames.dtype) == ((len(SCATTERED), 64, 64, 3), np.uint8)
    assert read_numbers(frames) == SCATTERED


@pytest.mark.parametrize("reader", JUMPING)
@pytest.mark.parametrize("name", ["h264.mp4", "h264_b.mp4", "h264_b.mkv"])
def test_readers_that_jump_agree_with_pyav_to_the_bit_on_plain_files(
    folder: Path, name: str, reader: Jumping
) -> None:
    if missing := why_missing(reader):
        pytest.skip(missing)
    path = str(folder / name)
    by_reader, by_pyav = (
        read_frames(path, lambda _: SCATTERED, backend=backend) for backend in (reader, "pyav")
    )
    np.testing.assert_array_equal(by_reader, by_pyav)


@pytest.mark.parametrize(
    ("label", "is_opened"), [("", False), (label_of("decord"), True), ("decord 0.0.1", False)]
)
def test_auto_takes_the_very_reader_that_proved_exact_and_pyav_where_that_fails(
    folder: Path, monkeypatch: pytest.MonkeyPatch, label: str, is_opened: bool
) -> None:
    import decord

    opened = []

    def reader(path: str, num_threads: int) -> object:
        opened.append(Path(path).name)
        raise decord.DECORDError("broken on purpose")

    monkeypatch.setattr(decord, "VideoReader", reader)
    path = str(folder / "h264_b.mp4")
    info = replace(probe(path), reader=label)
    assert read_numbers(read_frames(path, lambda _: [7], look=lambda: info)) == [7]
    assert bool(opened) == is_opened


@pytest.mark.parametrize(("name", "codec"), [("h264_b.mp4", "h264"), ("mpeg4_b.avi", "mpeg4")])
def test_probe_tells_length_size_rate_and_codec(folder: Path, name: str, codec: Codec) -> None:
    info = probe(str(folder / name))
    assert (info.num_frames, info.width, info.height) == (100, 64, 64)
    assert (round(info.fps), info.codec) == (30, codec)


def test_probe_sees_a_file_that_was_replaced(tmp_path: Path) -> None:
    path = tmp_path / "v.mp4"
    for num_frames in (5, 9):
        write_video(path, numbered_frames(num_frames))
        os.utime(path, ns=(num_frames, num_frames))
        assert probe(str(path)).num_frames == num_frames


@pytest.mark.parametrize("backend", ["auto", "pyav"])
def test_choice_is_made_again_where_a_file_is_shorter_than_it_claims(
    folder: Path, backend: Backend, monkeypatch: pytest.MonkeyPatch
) -> None:
    original = decode._probe
    monkeypatch.setattr(decode, "_probe", lambda *file: replace(original(*file), num_frames=105))
    for name in ("h264.mp4", "mpeg4.avi"):
        path = str(folder / name)
        assert read_numbers(read_frames(path, lambda n: [n - 1, 3], backend=backend)) == [99, 3]
        assert read_numbers(read_frames(path, lambda n: [n // 5], backend=backend)) == [21]


@pytest.mark.parametrize("chosen", [[], [100], [-1, 3]])
def test_choice_outside_the_video_is_a_value_error(folder: Path, chosen: Sequence[int]) -> None:
    for name in ("h264.mp4", "mpeg4.avi"):
        with pytest.raises(ValueError, match="chose frames"):
            read_frames(str(folder / name), lambda _: chosen)


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        (None, "cannot be opened"),
        (b"", "0 bytes"),
        (b"this is not a film\n" * 100, "cannot be decoded"),
    ],
)
@pytest.mark.parametrize("backend", ["auto", "pyav", "decord"])
def test_unreadable_file_is_a_video_error_that_names_it(
    tmp_path: Path, content: bytes | None, reason: str, backend: Backend
) -> None:
    path = tmp_path / "bad.mp4"
    if content is not None:
        path.write_bytes(content)
    with pytest.raises(VideoError) as caught:
        read_frames(str(path), lambda _: [0], backend=backend)
    assert caught.value.path == str(path)
    assert "\n" not in str(caught.value)
    assert backend == "decord" or reason in caught.value.reason


def test_text_file_that_ffmpeg_would_render_is_a_video_error(tmp_path: Path) -> None:
    path = tmp_path / "LICENSE.txt"
    path.write_text("Permission is hereby granted\n" * 50)
    with pytest.raises(VideoError):
        probe(str(path))


def test_truncated_file_is_an_error_or_its_sound_part(folder: Path, tmp_path: Path) -> None:
    whole = (folder / "mpeg4.avi").read_bytes()
    path = tmp_path / "half.avi"
    path.write_bytes(whole[: len(whole) // 2])
    total = probe(str(path)).num_frames
    assert 10 < total < 90
    assert read_numbers(read_frames(str(path), lambda n: [0, n - 2])) == [0, total - 2]


@pytest.mark.parametrize("shape", [(0, 16, 16, 3), (2, 15, 16, 3), (2, 16, 15, 3)])
def test_encoder_refuses_what_it_cannot_store(tmp_path: Path, shape: tuple[int, ...]) -> None:
    with pytest.raises(UsageError, match="cannot encode"):
        write_video(tmp_path / "v.mp4", np.zeros(shape, np.uint8))


# Reads every clip with a bare PyAV loop, then with ours, and prints one line of JSON for each.
_COMPARE = """
import json, sys, zlib, av, numpy as np
from tats_ray.core.errors import VideoError
from tats_ray.data.catalog.examine import examine
from tats_ray.data.decode import probe, read_frames
from tats_ray.data.readers.jumping import installed
av.logging.set_level(None)
crc = lambda rgb: zlib.crc32(np.ascontiguousarray(rgb).tobytes())
for path in sys.argv[1:]:
    frames, error, same, other = [], "", [], ""
    try:
        with av.open(path, metadata_errors="ignore") as video:
            for frame in video.decode(video.streams.best("video")):
                upright = np.rot90(frame.to_ndarray(format="rgb24"), frame.rotation // 90)
                frames.append(crc(upright))
    except Exception as caught:
        error = repr(caught)
    *_, last = examine(path)
    info, notes = last.row.info, last.row.notes
    def choose(n):
        order = np.random.default_rng(n).permutation(n)[:40].tolist()
        return [n - 1, 0, n // 2, n // 3, n // 2, n - 1, max(n - 3, 0), n // 7, *order]
    try:
        if not error and probe(path).num_frames != len(frames):
            same.append(False)
        is_sound = not error and not last.row.reason
        exact = [reader for reader in installed() if is_sound and reader not in notes]
        for backend in ["auto", "pyav", *exact]:
            look = (lambda: info) if info else None
            ours = [crc(rgb) for rgb in read_frames(path, choose, backend=backend, look=look)]
            same.append(ours == [frames[i] for i in choose(len(frames))])
    except VideoError as caught:
        other = caught.reason
    print(json.dumps([path, len(frames), error, same, other]), flush=True)
"""


@pytest.mark.long  # half a minute of processor time: 67 files are decoded several times
@pytest.mark.skipif(not CLIPS.is_dir(), reason=f"real clips are not there: {CLIPS}")
def test_real_clips_give_the_frames_of_a_sequential_decode_or_a_video_error() -> None:
    """With PyAV, with what the index would name, and with each reader that passed the check."""
    entries = json.loads((CLIPS / "manifest.json").read_text())
    paths = [str(CLIPS / entry["file"]) for entry in entries if entry and entry.get("file")]
    assert len(paths) > 60
    environment = {**os.environ, "PYTHONPATH": str(REPO)}
    child = subprocess.run(
        [sys.executable, "-W", "ignore", "-c", _COMPARE, *paths],
        env=environment, capture_output=True, text=True, timeout=280,
    )  # fmt: skip
    assert child.returncode == 0, child.stderr[-2000:]
    results = [json.loads(line) for line in child.stdout.splitlines()]
    assert [result[0] for result in results] == paths
    num_exact = 0
    for path, num_frames, error, same, other in results:
        if error or num_frames == 0:
            assert other or all(same), path
        else:
            assert not other, (path, other)
            assert all(same), path
            num_exact += len(same) > 2
    assert num_exact >= 30  # files on which a reader that jumps was compared, too


def test_data_room_imports_without_a_video_library_and_says_so_when_one_is_needed() -> None:
    script = """
import sys
sys.modules["av"] = sys.modules["decord"] = None
import tats_ray.data.dataset, tats_ray.data.sampler, tats_ray.data.synthetic
from tats_ray.data.decode import read_frames
for backend in ("auto", "pyav", "decord"):
    try:
        read_frames(sys.executable, lambda n: [0], backend=backend)
    except tats_ray.core.errors.UsageError as error:
        assert "pip install" in str(error)
    else:
        sys.exit("no error")
"""
    environment = {**os.environ, "PYTHONPATH": str(REPO)}
    child = subprocess.run(
        [sys.executable, "-c", script], env=environment, capture_output=True, text=True, timeout=60
    )
    assert child.returncode == 0, child.stderr[-2000:]


def remuxed(source: Path, target: Path, change: Callable[[int, av.Packet], None]) -> Path:
    """The same packets, in the same order, each after `change` has had its way with it."""
    with av.open(str(source)) as reader, av.open(str(target), "w") as writer:
        stream = reader.streams.video[0]
        copied = writer.add_stream_from_template(stream)
        packets = (packet for packet in reader.demux(stream) if packet.size)
        for number, packet in enumerate(packets):
            change(number, packet)
            packet.stream = copied
            writer.mux(packet)
    return target


def jump(number: int, packet: av.Packet) -> None:
    packet.pts = (packet.pts or 0) + (5000 if number >= 25 else 0)


def drift(number: int, packet: av.Packet) -> None:
    packet.pts = packet.dts = (packet.dts or 0) + 40 * number * number


@pytest.mark.parametrize("change", [jump, drift])
def test_frame_is_the_same_alone_as_among_others_whatever_the_time_stamps_say(
    tmp_path: Path, change: Callable[[int, av.Packet], None]
) -> None:
    """Decord seeks by time: on the first of these, 24 of 50 of its single reads are wrong."""
    source = tmp_path / "even.mp4"
    write_video(source, numbered_frames(50), 30, "h264", gop=1, num_b_frames=0)
    path = str(remuxed(source, tmp_path / "uneven.mp4", change))
    assert not probe(path).jumps_pay
    assert [read_numbers(read_frames(path, lambda _, i=i: [i]))[0] for i in range(50)] == [
        *range(50)
    ]


ONE = 1 << 16
TURNS = [
    (matrix, name)
    for name, matrix in {
        "upright": (ONE, 0, 0, ONE),
        "mirrored": (-ONE, 0, 0, ONE),
        "upside down": (ONE, 0, 0, -ONE),
        "half a turn": (-ONE, 0, 0, -ONE),
        "a quarter": (0, ONE, -ONE, 0),
        "three quarters": (0, -ONE, ONE, 0),
        "transposed": (0, ONE, ONE, 0),
        "transposed back": (0, -ONE, -ONE, 0),
    }.items()
]


@pytest.mark.parametrize("backend", ["auto", "pyav"])
@pytest.mark.parametrize(("matrix", "name"), TURNS)
def test_display_matrix_is_applied_in_all_eight_orientations(
    tmp_path: Path, matrix: tuple[int, int, int, int], name: str, backend: Backend
) -> None:
    """Every stored pixel is sent where the matrix says, one at a time."""
    path = tmp_path / "v.mp4"
    picture = np.zeros((1, 64, 96, 3), np.uint8)
    picture[0, :32, :48] = (255, 0, 0)
    picture[0, 32:, :48] = (0, 255, 0)
    picture[0, :32, 48:] = (0, 0, 255)
    write_video(path, picture.repeat(4, 0), 30, "h264")
    (stored,) = read_frames(str(path), lambda _: [2], backend="pyav")
    content = bytearray(path.read_bytes())
    at = content.index(b"tkhd") + 4 + 40
    a, b, c, d = matrix
    content[at : at + 36] = struct.pack(">9i", a, b, 0, c, d, 0, 0, 0, 1 << 30)
    path.write_bytes(content)
    os.utime(path, ns=(1, 1))

    height, width = stored.shape[:2]
    places = {
        (x, y): ((a * x + c * y) // ONE, (b * x + d * y) // ONE)
        for x in range(width)
        for y in range(height)
    }
    left, top = (min(place[axis] for place in places.values()) for axis in (0, 1))
    expected = np.zeros((height, width, 3) if a else (width, height, 3), np.uint8)
    for (x, y), (right, down) in places.items():
        expected[down - top, right - left] = stored[y, x]
    (shown,) = read_frames(str(path), lambda _: [2], backend=backend)
    np.testing.assert_array_equal(shown, expected)
    assert (probe(str(path)).width, probe(str(path)).height) == (shown.shape[1], shown.shape[0])


@pytest.mark.parametrize("backend", ["auto", "pyav"])
def test_picture_that_changes_its_size_on_the_way_is_a_video_error(
    tmp_path: Path, backend: Backend
) -> None:
    joined = tmp_path / "joined.ts"
    parts = []
    for number, (height, width) in enumerate([(48, 64), (64, 96)]):
        part = tmp_path / f"{number}.ts"
        write_video(part, np.full((10, height, width, 3), 90, np.uint8), 30, "h264")
        parts.append(part.read_bytes())
    joined.write_bytes(b"".join(parts))
    with pytest.raises(VideoError, match=r"changes its picture size from 64x48 to 96x64"):
        read_frames(str(joined), lambda n: [2, n - 1], backend=backend)
    assert read_frames(str(joined), lambda _: [2], backend=backend).shape == (1, 48, 64, 3)


def test_header_that_claims_billions_of_frames_keeps_decord_away(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Decord would allocate room for all of them, and abort the process."""
    made = synthesize(tmp_path / "made", num_train=4, num_val=1, num_frames=8, size=32, workers=1)
    sound = next(made.train_list.parent.rglob("*.mp4"))
    monkeypatch.setattr(decode, "_CLIP_SPAN", -99)
    assert probe(str(sound)).jumps_pay
    data = bytearray(sound.read_bytes())
    count = data.index(b"stts") + 12  # after the box's name, version and number of entries
    assert int.from_bytes(data[count : count + 4], "big") == 8
    data[count : count + 4] = bytes.fromhex("e6e6e6e6")
    lying = tmp_path / "lying.mp4"
    lying.write_bytes(data)
    assert not probe(str(lying)).jumps_pay
    frames = read_frames(str(lying), lambda total: [0, 7])
    assert np.array_equal(frames, read_frames(str(sound), lambda total: [0, 7]))
