"""Films of masks: over a list of videos, and over the checkpoints of a run."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from tats_ray.core.errors import CheckpointError, UsageError
from tats_ray.data.decode import all_frames, probe
from tats_ray.data.synthetic import synthesize
from tats_ray.evaluation.show_masks import show_masks
from tests.full_disk import files_limited_to
from tests.random_checkpoints import own_run


@pytest.fixture(scope="module")
def scene(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """A run with two checkpoints, and a list of two videos."""
    folder = tmp_path_factory.mktemp("films")
    made = synthesize(folder / "v", num_train=2, num_val=1, num_frames=16, size=32, workers=1)
    return own_run(own_run(folder / "run"), step=9), made.train_list


def first_video(videos: Path) -> Path:
    return videos.parent / videos.read_text().split("\t")[0]


def test_film_of_a_list_shows_every_slot_of_one_video_after_the_other(
    scene: tuple[Path, Path], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    run, videos = scene
    film = show_masks(run, videos, tmp_path / "all.mp4")
    alone = show_masks(run, first_video(videos), tmp_path / "one.mp4")
    frames = list(all_frames(str(film)))
    assert (probe(str(film)).codec, len(frames)) == ("h264", 2 * 2)
    for shown, expected in zip(frames[:2], all_frames(str(alone)), strict=True):
        np.testing.assert_array_equal(shown, expected)
    assert np.abs(frames[2].astype(int) - frames[0]).max() > 100
    assert "2 of 2 videos" in capsys.readouterr().err


def test_film_over_training_has_a_picture_for_each_checkpoint_in_order_of_steps(
    scene: tuple[Path, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    run, videos = scene
    out = tmp_path / "training.gif"
    panels = []
    draw = "tats_ray.evaluation.show_masks.draw_masks"
    from tats_ray.view.mask_panel import draw_masks

    monkeypatch.setattr(draw, lambda panel, path: panels.append(panel) or draw_masks(panel, path))
    show_masks(run, first_video(videos), out, over_training=True)
    with Image.open(out) as film:
        assert film.n_frames == 2
    assert [panel.title.split(",")[0] for panel in panels] == ["step 7", "step 9"]
    # One scale for both, and neither is cut off by it.
    assert panels[0].tops == panels[1].tops
    assert panels[0].tops[1] == max(panel.probability.max() for panel in panels)


@pytest.mark.parametrize(
    ("out", "over_training", "is_list", "says"),
    [
        (
            "a.png",
            True,
            False,
            r"is one picture; the checkpoints of a run need a film, --out masks",
        ),
        ("a.pdf", False, True, r"is one picture; the videos of .*train\.csv need a film"),
        ("a.gif", True, True, r"--over-training films one video, and .*train\.csv is a list"),
    ],
)
def test_film_that_cannot_be_is_refused(
    out: str,
    over_training: bool,
    is_list: bool,
    says: str,
    scene: tuple[Path, Path],
    tmp_path: Path,
) -> None:
    video = scene[1] if is_list else first_video(scene[1])
    with pytest.raises(UsageError, match=says):
        show_masks(scene[0], video, tmp_path / out, over_training=over_training)
    assert list(tmp_path.iterdir()) == []


def test_run_with_fewer_than_two_checkpoints_has_no_film(
    scene: tuple[Path, Path], tmp_path: Path
) -> None:
    video, out = first_video(scene[1]), tmp_path / "a.mp4"
    with pytest.raises(UsageError, match=r"kept one checkpoint, .* --checkpoint\.keep_last"):
        show_masks(own_run(tmp_path / "once"), video, out, over_training=True)
    (tmp_path / "none").mkdir()
    with pytest.raises(CheckpointError, match="holds no checkpoint; give a run folder"):
        show_masks(tmp_path / "none", video, out, over_training=True)


@pytest.mark.parametrize("name", ["a.png", "a.gif", "a.mp4"])
def test_full_disk_costs_one_line_and_leaves_what_was_there(
    name: str, scene: tuple[Path, Path], tmp_path: Path
) -> None:
    out = tmp_path / name
    out.write_text("before")
    with files_limited_to(3000), pytest.raises(UsageError, match=r"cannot be written \(File too"):
        show_masks(scene[0], first_video(scene[1]), out)
    assert [out.read_text(), *tmp_path.iterdir()] == ["before", out]
