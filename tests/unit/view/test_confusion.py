"""The confusion matrix as a picture: right way round, readable at any number of classes."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from tats_ray.view.confusion import draw_confusion


def test_rows_are_true_classes_and_shades_are_shares_of_them(tmp_path: Path) -> None:
    counts = np.array([[3, 1, 0], [0, 0, 0], [0, 2, 2]])
    figure = draw_confusion(counts, tmp_path / "c.png", names=["left", "right", "up"], title="t")
    axes = figure.axes[0]
    shown = np.asarray(axes.images[0].get_array())
    np.testing.assert_allclose(shown, [[0.75, 0.25, 0], [0, 0, 0], [0, 0.5, 0.5]])
    numbers = {text.get_position(): text.get_text() for text in axes.texts}
    assert numbers == {(0, 0): "3", (1, 0): "1", (1, 2): "2", (2, 2): "2"}
    assert [label.get_text() for label in axes.get_yticklabels()] == ["left", "right", "up"]
    assert (axes.get_ylabel(), axes.get_xlabel()) == ("true", "predicted")
    assert (tmp_path / "c.png").read_bytes()[:4] == b"\x89PNG"


@pytest.mark.parametrize("num", [2, 8, 51, 400])
def test_nothing_lies_outside_the_picture(num: int) -> None:
    names = [f"a_rather_long_name_{label}" for label in range(num)] if num <= 8 else None
    figure = draw_confusion(np.eye(num, dtype=int), None, names=names, title="linear: top-1 9 %")
    figure.canvas.draw()
    whole = figure.bbox
    axes = figure.axes[0]
    ticks = [*axes.get_xticklabels(), *axes.get_yticklabels(), axes.xaxis.label, axes.yaxis.label]
    for text in [*ticks, *figure.texts]:
        box = text.get_window_extent()
        assert box.x0 >= 0, text
        assert box.y0 >= 0, text
        assert box.x1 <= whole.x1, text
        assert box.y1 <= whole.y1, text
    assert len(axes.texts) == (num if num <= 20 else 0)
    assert len(axes.get_xticks()) == (num if num <= 60 else 0)
