"""`tats report`: pages of one run and of several, and what cannot be reported on."""

from __future__ import annotations

import json
import os
import re
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import tats_ray
from tats_ray.config.load import load_config
from tats_ray.core.folder_lock import only_run_in
from tats_ray.data.clip_lists import read_lists
from tats_ray.data.manifest import VideoEntry
from tats_ray.data.synthetic import SyntheticSet, synthesize
from tats_ray.evaluation.pictures.clip_views import view_clips
from tests.commands import refusal, tats
from tests.finished_runs import finished_run
from tests.full_disk import disk_full_at


@pytest.fixture(scope="module")
def videos(tmp_path_factory: pytest.TempPathFactory) -> SyntheticSet:
    folder = tmp_path_factory.mktemp("videos")
    return synthesize(folder, num_train=4, num_val=6, num_frames=8, size=32, workers=1)


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory, videos: SyntheticSet) -> Path:
    return finished_run(tmp_path_factory.mktemp("runs") / "mine", videos)


@pytest.fixture
def run(made: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A run of two checkpoints, alone in runs/ of the working directory."""
    monkeypatch.chdir(tmp_path)
    return Path(shutil.copytree(made, "runs/mine"))


def data_of(page: Path) -> dict[str, Any]:
    """What the viewer of a page is given."""
    text = page.read_text(encoding="utf-8")
    found = re.search(r'id="viewer-data">(.*?)</script>', text, re.DOTALL)
    assert found, "the page has no viewer"
    data: dict[str, Any] = json.loads(found[1])
    return data


def test_report_is_written_again_with_all_checkpoints(
    run: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    tats("report", run)
    assert capsys.readouterr().out == "runs/mine/report.html\n"
    assert data_of(run / "report.html")["steps"] == [4, 8]
    assert (run / "masks_1.png").is_file()
    first = (run / "report.html").read_bytes()
    tats("report", run)
    assert (run / "report.html").read_bytes() == first


def test_looks_are_what_the_networks_say(run: Path) -> None:
    lists = read_lists(load_config(run).data)
    viewing = view_clips({"mine": run}, lists.val)
    assert [list(column.steps) for column in viewing.columns] == [[4, 8]]
    paths = {Path(entry.path).name: entry.path for entry in lists.val}
    model = tats_ray.load(run)
    for clip in viewing.clips:
        drawn = model.mask(paths[clip.name])
        seen = clip.looks[0][-1]
        visible = np.zeros(model.grid.num_tokens, bool)
        visible[drawn.visible_idx[0]] = True
        np.testing.assert_array_equal(seen.visible.ravel(), visible)
        np.testing.assert_allclose(seen.probability.ravel(), drawn.probability[0], rtol=1e-5)
        shown = seen.visible.repeat(2, 0).repeat(8, 1).repeat(8, 2)
        np.testing.assert_array_equal(seen.reconstruction[shown], clip.frames[shown])
        assert not seen.error[seen.visible].any()
        # Targets are plain pixels: the error of a token can be seen in the picture itself.
        squares = (seen.reconstruction / 255.0 - clip.frames / 255.0) ** 2
        cells = squares.reshape(2, 2, 4, 8, 4, 8, 3).mean((1, 3, 5, 6))
        assert np.corrcoef(cells[~seen.visible], seen.error[~seen.visible])[0, 1] > 0.5


def test_checkpoint_that_its_run_retires_meanwhile_is_left_out(run: Path, tmp_path: Path) -> None:
    copy = shutil.copytree(run, tmp_path / "going_on")

    class Videos(list[VideoEntry]):
        def __iter__(self) -> Iterator[VideoEntry]:  # checkpoints are listed and not opened yet
            oldest = copy / "checkpoints" / "step_00000004"
            oldest.rename(oldest.with_name(f".{oldest.name}.removed"))
            return super().__iter__()

    viewing = view_clips({"mine": copy}, Videos(read_lists(load_config(run).data).val))
    assert [list(column.steps) for column in viewing.columns] == [[8]]
    assert all(len(looks) == 1 for clip in viewing.clips for looks in clip.looks)


def test_clips_are_those_of_lowest_and_highest_error_and_between(run: Path) -> None:
    clips = view_clips({"mine": run}, read_lists(load_config(run).data).val).clips
    assert [clip.why.split(":")[0] for clip in clips] == ["lowest", "between", "between", "highest"]
    errors = [float(clip.why.split()[-1]) for clip in clips]
    assert errors == sorted(errors)
    assert len({clip.name for clip in clips}) == 4


def test_mask_of_another_checkpoint_takes_the_place_of_the_random_one(
    run: Path, videos: SyntheticSet
) -> None:
    other = finished_run(Path("runs/other"), videos, seed=7, sampler="adamae")
    tats("report", run, "--compare", other, "--out", "new/page.html")
    layers = data_of(Path("new/page.html"))["layers"]
    assert layers["other"]["name"] == "mask of adamae"
    assert not (run / "report.html").exists()


def test_page_of_several_runs_has_a_column_and_a_row_for_each(
    run: Path, videos: SyntheticSet, capsys: pytest.CaptureFixture[str]
) -> None:
    other = finished_run(Path("runs/other"), videos, steps=(4, 6, 8), seed=7)
    tats("report", run, other)
    assert capsys.readouterr().out == "comparison.html\n"
    data = data_of(Path("comparison.html"))
    assert data["steps"] == [4, 6, 8]
    assert data["columns"] == [
        {"name": "mine", "steps": [4, 8]},
        {"name": "other", "steps": [4, 6, 8]},
    ]
    text = Path("comparison.html").read_text()
    rows = re.findall(r'<th scope="row">(\w+)</th><td>(\w+)</td><td>(\d+)</td><td>(.*?)</td>', text)
    assert rows == [("mine", "tats", "8", "0.00741"), ("other", "tats", "8", "0.00247")]
    assert "differs from" not in text


def test_runs_of_other_shapes_and_data_are_said_so_in_one_line_each(
    run: Path, videos: SyntheticSet, tmp_path: Path
) -> None:
    long = finished_run(Path("runs/long"), videos, num_frames=8)
    more = synthesize(tmp_path / "v", num_train=4, num_val=2, num_frames=8, size=32, workers=1)
    fresh = finished_run(Path("runs/fresh"), more)
    tats("report", run, long, fresh)
    notes = re.findall("<li>(.*?)</li>", Path("comparison.html").read_text())
    assert notes == [
        "long differs from mine: data.num_frames is 8 instead of 4. Errors of the two do not "
        "compare, and long is not in the viewer.",
        "fresh differs from mine: data.val_list holds other videos. Errors of the two do not "
        "compare.",
    ]
    columns = data_of(Path("comparison.html"))["columns"]
    assert [column["name"] for column in columns] == ["mine", "fresh"]


def test_report_of_a_run_whose_videos_are_gone_says_so_and_has_the_rest(
    run: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    config = run / "config.yaml"
    config.write_text(re.sub(r"val_list: .*", "val_list: /gone/val.csv", config.read_text()))
    tats("report", run)
    assert "note: No clips are shown: /gone/val.csv" in capsys.readouterr().out
    text = (run / "report.html").read_text()
    assert "No clips are shown: /gone/val.csv" in text
    assert "Reconstruction error" in text


def test_run_without_a_checkpoint_has_no_report_yet(
    run: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    shutil.rmtree(run / "checkpoints")
    assert "runs/mine has no checkpoint yet" in refusal(capsys, "report", run)


def test_encoder_alone_cannot_be_reported_on(run: Path, capsys: pytest.CaptureFixture[str]) -> None:
    weights = next(run.rglob("mae.safetensors"))
    assert "is a file, and a report needs the metrics of a run" in refusal(
        capsys, "report", weights
    )
    newest = max((run / "checkpoints").glob("step_*"))
    state = tats_ray.load(run).mae.state_dict()
    lost = [name for name in state if name.startswith(("decoder.", "mask_token"))]
    (newest / "origin.json").write_text(json.dumps({"missing": lost}))
    assert "it has no decoder" in refusal(capsys, "report", run)


def test_run_that_goes_on_keeps_its_report_to_itself(
    run: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    with only_run_in(run):
        error = refusal(capsys, "report", run)
        assert f"runs/mine is in use by process {os.getpid()}" in error
        assert error.endswith("--out mine.html\n")
        tats("report", run, "--out", "mine.html")
    assert data_of(Path("mine.html"))["steps"] == [4, 8]
    assert sorted(path.name for path in run.iterdir() if path.suffix == ".png") == []


def test_full_disk_is_one_line(run: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with disk_full_at(".page.html.draft"):
        error = refusal(capsys, "report", run, "--out", "page.html")
    assert error == (
        "tats: report page.html cannot be written (No space left on device); free space and write "
        "it with `tats report`, or name another file with --out\n"
    )


def test_full_disk_for_its_pictures_is_one_line_too(
    run: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (run / "masks_1.png").mkdir()  # no file can be written there, whoever asks
    assert "runs/mine/masks_1.png cannot be written (" in refusal(capsys, "report", run)


def test_mask_of_another_grid_is_refused(
    run: Path, videos: SyntheticSet, capsys: pytest.CaptureFixture[str]
) -> None:
    long = finished_run(Path("runs/long"), videos, num_frames=8)
    error = refusal(capsys, "report", run, "--compare", long)
    assert "--compare runs/long cuts clips as TokenGrid(num_frames=8" in error


@pytest.mark.parametrize(
    ("words", "says"),
    [
        ((), "report needs a run folder; use tats report RUN [RUN ...]"),
        (("nowhere",), "nowhere does not exist; `tats status` lists the runs here"),
        (("runs",), "runs is not a run folder; `tats status` lists the runs here"),
        (("runs/mine", "runs/mine"), "runs/mine is there more than once; leave one out"),
        (("runs/mine", "--out", "page.pdf"), "--out page.pdf is not the name of a page"),
        (("a",) * 9, "9 runs are too many for one page, which takes 8; leave some out"),
    ],
)
def test_wrong_request_is_one_line(
    words: tuple[str, ...], says: str, run: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert says in refusal(capsys, "report", *words)
