"""What the viewer is given, and where curves lie; the browser has tests of its own in e2e."""

from __future__ import annotations

import base64
import io
import json
import re
from importlib.resources import files
from typing import Any

import numpy as np
import pytest
from PIL import Image

from tats_ray.core.grid import TokenGrid
from tats_ray.view.page.plots import Line, Plot, plot_html
from tats_ray.view.page.viewer import BUDGET_BYTES, viewer_html
from tests.pages import viewing

SMALL = TokenGrid(num_frames=6, image_size=16, patch=8)  # 3 x 2 x 2 tokens


def data_of(html: str) -> dict[str, Any]:
    (text,) = re.findall(r'id="viewer-data">(.*?)</script>', html, re.DOTALL)
    data: dict[str, Any] = json.loads(text)
    return data


def frames_of(sprite: str, count: int) -> np.ndarray:
    """The frames of a sprite, as the page cuts them."""
    sheet = np.asarray(Image.open(io.BytesIO(base64.b64decode(sprite.partition(",")[2]))))
    across = int(np.ceil(np.sqrt(count)))
    side = sheet.shape[1] // across
    corners = [(at // across * side, at % across * side) for at in range(count)]
    return np.stack([sheet[y : y + side, x : x + side] for y, x in corners])


def test_small_clips_are_packed_exactly() -> None:
    shown = viewing(SMALL, {"mine": (5,)}, is_noise=True)
    (clip,) = data_of(viewer_html(shown))["clips"]
    (look,) = clip["looks"][0]
    truth = shown.clips[0]
    np.testing.assert_array_equal(frames_of(clip["input"], 6), truth.frames)
    seen = truth.looks[0][0]
    np.testing.assert_array_equal(frames_of(look["reconstruction"], 6), seen.reconstruction)
    visible = np.frombuffer(base64.b64decode(look["visible"]), np.uint8)
    np.testing.assert_array_equal(visible.reshape(3, 2, 2) > 0, seen.visible)
    levels = np.frombuffer(base64.b64decode(look["probability"]["bytes"]), np.uint8) / 255
    np.testing.assert_allclose(
        levels * look["probability"]["top"], seen.probability.ravel() * 12, atol=0.01
    )
    assert float(look["mean"]) == pytest.approx(seen.error[~seen.visible].mean(), rel=0.005)


def test_clips_of_the_papers_size_fit_the_budget_even_as_noise() -> None:
    html = viewer_html(viewing(TokenGrid(), {"mine": (1, 2, 3)}, num_clips=2, is_noise=True))
    pictures = re.findall(r'"data:image/jpeg;base64,[^"]*"', html)
    assert len(pictures) == 2 + 2 * 3
    assert sum(map(len, pictures)) <= BUDGET_BYTES + 100
    assert len(html) < 1.1 * BUDGET_BYTES


def test_error_that_is_not_finite_is_bright_and_leaves_the_others_their_scale() -> None:
    shown = viewing(SMALL, {"mine": (5,)}, is_noise=True)
    look = shown.clips[0].looks[0][0]
    hidden = np.argwhere(~look.visible)
    look.error[tuple(hidden[0])] = np.nan
    look.error[tuple(hidden[1])] = np.inf
    found = data_of(viewer_html(shown))["clips"][0]["looks"][0][0]["error"]
    levels = np.frombuffer(base64.b64decode(found["bytes"]), np.uint8).reshape(3, 2, 2)
    assert levels[tuple(hidden[0])] == levels[tuple(hidden[1])] == 255
    assert 0 < found["top"] <= 1


def test_script_stays_small() -> None:
    script = files("tats_ray.view.page").joinpath("report.js").read_text()
    assert len(script.splitlines()) <= 300


def polylines(html: str) -> list[np.ndarray]:
    found = re.findall(r'<polyline class="s\d" points="([^"]*)"', html)
    return [np.array([point.split(",") for point in one.split()], float) for one in found]


def ticks(html: str) -> list[str]:
    return re.findall(r'text-anchor="end">([^<]*)</text>', html)


def test_equal_factors_are_equally_far_apart_where_values_differ_much() -> None:
    line = Line("a", [1, 2, 3], [1.0, 0.01, 0.0001])
    (points,) = polylines(plot_html(Plot(title="t", meaning="m", lines=[line], may_be_log=True)))
    first, second = np.diff(points[:, 1])
    assert first == pytest.approx(second, abs=0.2)
    (linear,) = polylines(plot_html(Plot(title="t", meaning="m", lines=[line])))
    assert np.diff(linear[:, 1])[0] > 50 * np.diff(linear[:, 1])[1] > 0


def test_axis_reads_well_whatever_the_size_of_the_values() -> None:
    for scale in (1e-6, 1.0, 1e5):
        line = Line("a", [0, 10], [scale, 1.5 * scale])
        texts = ticks(plot_html(Plot(title="t", meaning="m", lines=[line])))
        assert len(set(texts)) == len(texts) >= 3
        assert max(map(len, texts)) <= 8
        assert float(texts[0]) <= scale < 1.5 * scale <= float(texts[-1])
    percent = plot_html(Plot(title="t", meaning="m", lines=[line], unit="%", span=(0.0, 1.0)))
    assert all(text.endswith(" %") for text in ticks(percent))


def test_long_curve_keeps_every_spike_and_both_ends() -> None:
    steps = list(range(10_000))
    values = [1.0] * 10_000
    values[4321], values[8765] = 99.0, -7.0
    html = plot_html(Plot(title="t", meaning="m", lines=[Line("a", steps, values)]))
    (found,) = re.findall(r'data-lines="([^"]*)"', html)
    (line,) = json.loads(found.replace("&quot;", '"'))
    kept = dict(zip(line["steps"], line["texts"], strict=True))
    assert (kept[4321], kept[8765]) == ("99.0", "-7.00")
    assert {0, 9_999} <= {*kept}
    assert len(kept) <= 410
    assert len(html) < 20_000
