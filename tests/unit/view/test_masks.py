from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from einops import repeat

from tats_ray.core.grid import TokenGrid
from tats_ray.core.types import Reconstruction
from tats_ray.ops.patches import normalized_targets, patchify, unit_pixels
from tats_ray.ops.selection import hidden_indices, is_visible
from tats_ray.view.mask_panel import MaskPanel, build_panel, draw_masks, one_by_one

GRID = TokenGrid(num_frames=4, image_size=16, tubelet=2, patch=8)  # 2 x 2 x 2 tokens
CLIP = torch.randint(256, (3, 4, 16, 16), generator=torch.manual_seed(0)).to(torch.uint8)
VISIBLE_IDX = torch.tensor([6, 1])
LOG_PROB = torch.log_softmax(torch.arange(8.0), 0)


def _panel(*, is_perfect: bool = False, is_normalized: bool = True) -> MaskPanel:
    hidden_idx = hidden_indices(VISIBLE_IDX[None], 8)
    targets = unit_pixels(patchify(CLIP[None], GRID))[:, hidden_idx[0]]
    targets = normalized_targets(targets) if is_normalized else targets
    prediction = targets if is_perfect else torch.zeros_like(targets)
    error = torch.zeros(1, 8)
    error[0, hidden_idx[0]] = (prediction - targets).square().mean(-1)[0] + 0.1
    return build_panel(
        clip=CLIP,
        reconstruction=Reconstruction(prediction, hidden_idx, error),
        log_prob=LOG_PROB,
        visible_idx=VISIBLE_IDX,
        grid=GRID,
        other_visible=is_visible(torch.tensor([[0, 7]]), 8)[0],
        label="mask: TATS",
        other_label="mask: uniform random (no AdaMAE checkpoint given)",
        moving=np.arange(8) == 3,
        title="clip",
        is_normalized=is_normalized,
    )


def _pixels_of(lattice: np.ndarray) -> np.ndarray:
    return repeat(lattice, "t h w -> t (h y) (w x)", y=8, x=8)


def test_frames_are_the_first_of_each_time_slot() -> None:
    frames = CLIP.permute(1, 2, 3, 0).numpy()
    np.testing.assert_array_equal(_panel().frames, frames[[0, 2]])


def test_visible_patches_are_copied_exactly_and_hidden_ones_differ() -> None:
    panel = _panel()
    is_same = (panel.reconstruction == panel.frames.astype(np.float32) / np.float32(255)).all(-1)
    shown = _pixels_of(panel.visible)
    assert is_same[shown].all()
    assert not is_same[~shown].any()


def test_hidden_patches_are_painted_as_predicted_where_targets_are_plain_pixels() -> None:
    plain = _panel(is_perfect=True, is_normalized=False)
    np.testing.assert_allclose(plain.reconstruction, plain.frames / 255.0, atol=1e-6)
    black = _panel(is_normalized=False)
    assert not black.reconstruction[~_pixels_of(black.visible)].any()


def test_hidden_patches_are_painted_at_their_true_mean_and_deviation() -> None:
    np.testing.assert_allclose(
        _panel(is_perfect=True).reconstruction, _panel().frames / 255.0, atol=1e-5
    )
    # Predicting nothing paints the mean of the patch, over both frames of its slot.
    patch = CLIP[:, 0:2, 0:8, 0:8].float().mean((1, 2, 3)) / 255.0
    np.testing.assert_allclose(_panel().reconstruction[0, 0, 0], patch, atol=1e-5)


def test_lattices_follow_the_order_of_the_grid() -> None:
    panel = _panel()
    assert np.argwhere(panel.visible).tolist() == [[0, 0, 1], [1, 1, 0]]
    assert panel.moving is not None
    assert np.argwhere(panel.moving).tolist() == [[0, 1, 1]]
    np.testing.assert_allclose(panel.probability.sum(), 1.0, rtol=1e-5)
    assert panel.probability.argmax() == 7
    assert (panel.error[panel.visible] == 0).all()
    assert (panel.error[~panel.visible] > 0).all()


def test_picture_has_the_rows_in_the_papers_order(tmp_path: Path) -> None:
    panel = _panel()
    figure = draw_masks(panel, tmp_path / "masks.png")
    words = " ".join(text.get_text() for text in figure.texts)
    names = ["frames", "reconstruction", "error", "sampling probability", "mask: TATS"]
    places = [words.index(name) for name in (*names, "mask: uniform random")]
    assert places == sorted(places)
    assert (tmp_path / "masks.png").read_bytes()[:4] == b"\x89PNG"
    cells = [axes for axes in figure.axes if axes.images and len(axes.get_yticks()) == 0]
    assert len(cells) == 6 * 2
    heights = [cell.get_position().y0 for cell in cells]
    assert heights == sorted(heights, reverse=True)
    assert not any(axes.get_label().startswith("empty") for axes in figure.axes)


def test_masks_are_white_where_visible(tmp_path: Path) -> None:
    figure = draw_masks(_panel(), None)
    figure.canvas.draw()
    image = np.asarray(figure.canvas.buffer_rgba())[..., :3]  # type: ignore[attr-defined]
    cells = [axes for axes in figure.axes if axes.images and len(axes.get_yticks()) == 0]
    for slot, is_shown in enumerate(_panel().visible):
        box = cells[4 * 2 + slot].get_window_extent()
        for (y, x), shown in np.ndenumerate(is_shown):
            column = int(box.x0 + (x + 0.5) / 2 * box.width)
            row = int(image.shape[0] - box.y1 + (y + 0.5) / 2 * box.height)
            assert image[row, column].min() == 255 if shown else image[row, column].max() < 60


def test_pictures_of_single_slots_keep_the_colours_of_the_whole() -> None:
    panel = _panel()
    pictures = one_by_one(panel)
    assert (len(pictures), pictures.dtype) == (2, np.uint8)
    assert not any(side % 2 for side in pictures.shape[1:3])
    whole, single = draw_masks(panel, None), draw_masks(panel, None, slots=[1])
    found = [axes.images[0] for axes in single.axes if axes.images]
    expected = [axes.images[0] for axes in whole.axes if axes.images and axes.images[0]][1::2]
    for image, twin in zip(found[2:4], expected[2:4], strict=True):
        assert image.get_clim() == twin.get_clim()
        np.testing.assert_array_equal(image.get_array(), twin.get_array())
    assert "slot 2" in [text.get_text() for text in single.texts]


@pytest.mark.parametrize(("is_normalized", "slots"), [(True, None), (False, None), (True, [0])])
def test_caption_says_what_the_reconstruction_takes_from_the_video(
    is_normalized: bool, slots: list[int] | None
) -> None:
    figure = draw_masks(_panel(is_normalized=is_normalized), None, slots=slots)
    figure.canvas.draw()
    cells = [axes for axes in figure.axes if axes.images]
    lowest = min(cell.get_window_extent().y0 for cell in cells)
    below = [text for text in figure.texts if text.get_window_extent().y1 < lowest]
    said = " ".join(text.get_text() for text in below)
    assert said.startswith("Reconstruction: visible patches are copied from the video.")
    assert ("mean and contrast are taken from the video" in said) == is_normalized
    assert ("own prediction, colours included" in said) != is_normalized
    assert all(text.get_window_extent().y0 >= 0 for text in below)


@pytest.mark.parametrize("slots", [None, [0]])
def test_all_labels_lie_within_the_picture(slots: list[int] | None) -> None:
    figure = draw_masks(_panel(), None, slots=slots)
    figure.canvas.draw()
    width = figure.get_window_extent().width
    for text in figure.texts:
        box = text.get_window_extent()
        assert box.x0 >= 0, text.get_text()
        assert box.x1 <= width or text.get_text() == "clip"


def test_fifth_row_is_the_last_without_a_mask_to_compare() -> None:
    panel = _panel()
    alone = MaskPanel(
        frames=panel.frames,
        reconstruction=panel.reconstruction,
        error=panel.error,
        probability=panel.probability,
        visible=panel.visible,
    )
    figure = draw_masks(alone, None)
    cells = [axes for axes in figure.axes if axes.images and len(axes.get_yticks()) == 0]
    assert len(cells) == 5 * 2
