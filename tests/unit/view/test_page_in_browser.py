"""Reports in a real browser: small, at once, alone, and usable by anyone."""

from __future__ import annotations

import importlib.util
import json
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

from tats_ray.core.grid import TokenGrid
from tats_ray.core.words import three
from tests.browser import CHROMIUM, Tab, chromium
from tests.pages import comparison_of, records, report_of, viewing

pytestmark = pytest.mark.skipif(not CHROMIUM, reason="no Chromium here; apt-get install chromium")
AXE = importlib.util.find_spec("axe_core_python")
GRID = TokenGrid(num_frames=16, image_size=96, patch=8)
FRAMES, CELLS = GRID.num_frames, GRID.side
STEPS = (2, 4, 6, 8)
ONE = viewing(GRID, {"one": STEPS}, num_clips=4)
ARROWS = {"ArrowLeft": 37, "ArrowUp": 38, "ArrowRight": 39, "ArrowDown": 40, "Tab": 9}


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Pages of a run of four checkpoints, and of it and one of two; noise fills the budget."""
    place = tmp_path_factory.mktemp("reports")
    report_of(place / "one.html", ONE)
    report_of(place / "large.html", viewing(TokenGrid(), {"one": STEPS}, is_noise=True))
    comparison_of(place / "both.html", viewing(GRID, {"one": STEPS, "two": (4, 8)}, num_clips=2))
    return place


@pytest.fixture(scope="module")
def browser(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Tab]:
    with chromium(tmp_path_factory.mktemp("browser")) as tab:
        yield tab


@pytest.fixture(params=["one.html", "large.html", "both.html"])
def page(request: pytest.FixtureRequest, folder: Path) -> Path:
    return folder / str(request.param)


@pytest.fixture
def tab(browser: Tab, folder: Path) -> Tab:
    """The report of one run."""
    browser.open(folder / "one.html")
    return browser


def choose(tab: Tab, **controls: int) -> None:
    """Move sliders as a hand does, and wait for what they show."""
    for name, value in controls.items():
        tab.get(f"{name}.value = {value}; {name}.dispatchEvent(new Event('input'))")
    tab.get("new Promise((done) => requestAnimationFrame(() => requestAnimationFrame(done)))")


def look_at(tab: Tab, layer: str) -> None:
    tab.get(f"document.querySelector('input[value={layer}]').click()")
    choose(tab)


@pytest.mark.long  # its clock is that of the wall, so it wants a core for itself
def test_page_is_small_and_ready_at_once_and_asks_nobody(browser: Tab, page: Path) -> None:
    assert page.stat().st_size < 5_000_000
    browser.open(page)
    assert float(browser.get("document.documentElement.dataset.ready")) < 1000
    assert browser.faults == []
    assert browser.requests == []


def test_policy_of_the_page_lets_no_request_out(tab: Tab) -> None:
    refused = tab.get("fetch('http://127.0.0.1:9/').then(() => 'sent', (error) => error.message)")
    assert refused == "Failed to fetch"
    assert any("Content Security Policy" in fault for fault in tab.faults)


@pytest.mark.long
@pytest.mark.parametrize("layer", ["reconstruction", "probability", "mask"])
def test_scrubbing_shows_30_frames_a_second(browser: Tab, page: Path, layer: str) -> None:
    """The browser paints between two animation frames, 60 times a second; the best of three."""
    browser.open(page)
    look_at(browser, layer)
    scrub = f"""new Promise((done) => {{
        const start = performance.now(), seen = new Set();
        let count = 0;
        const next = () => {{
            seen.add(document.querySelector("output[for=frame]").textContent);
            if (count++ === 60) return done([60000 / (performance.now() - start), seen.size]);
            frame.value = 1 + (count % {FRAMES});
            frame.dispatchEvent(new Event("input"));
            requestAnimationFrame(next);
        }};
        next();
    }})"""
    rates = []
    for _ in range(3):
        rate, distinct = browser.get(scrub)
        assert distinct == FRAMES
        rates.append(rate)
        if rate >= 30:
            break
    assert max(rates) >= 30


def middles(tab: Tab) -> np.ndarray:
    """Colours in the middle of each token of the large picture, row by row."""
    return np.array(
        tab.get(f"""(() => {{
            const canvas = document.querySelector("#stage canvas");
            const context = canvas.getContext("2d"), cell = canvas.width / {CELLS};
            const middle = (at) => Math.floor((at + 0.5) * cell);
            return [...Array({CELLS**2}).keys()].map((at) => [...context.getImageData(
                middle(at % {CELLS}), middle(Math.floor(at / {CELLS})), 1, 1).data.slice(0, 3)]);
        }})()""")
    )


def test_views_show_what_the_networks_said(tab: Tab) -> None:
    clip = ONE.clips[0]
    choose(tab, frame=6, checkpoint=4)  # the third time slot
    for layer, film in (
        ("input", clip.frames),
        ("reconstruction", clip.looks[0][3].reconstruction),
    ):
        look_at(tab, layer)
        np.testing.assert_array_equal(middles(tab), film[5, :CELLS, :CELLS].reshape(-1, 3))
    for layer, lattice in (
        ("mask", clip.looks[0][3].visible),
        ("other", clip.other_visible),
        ("motion", clip.moving),
    ):
        assert lattice is not None
        look_at(tab, layer)
        bright = (middles(tab) == clip.frames[5, 0, 0]).all(1)
        np.testing.assert_array_equal(bright, lattice[2].ravel())
    look_at(tab, "error")
    order = clip.looks[0][3].error[2].ravel()
    darkest = middles(tab)[order.argmin()].sum()
    assert darkest < middles(tab)[order.argsort()[len(order) // 2]].sum()
    assert darkest < 60
    text = tab.get("document.querySelector('#stage figcaption').textContent")
    seen = clip.looks[0][3]
    assert text == (
        f"one, step 8: error {three(float(seen.error[~seen.visible].mean()))} in this clip, "
        f"{seen.visible[2].sum()} of 144 tokens visible in this time slot"
    )
    look_at(tab, "mask")
    choose(tab, checkpoint=1)
    bright = (middles(tab) == clip.frames[5, 0, 0]).all(1)
    np.testing.assert_array_equal(bright, clip.looks[0][0].visible[2].ravel())


def focused(tab: Tab) -> str:
    return str(
        tab.get("""(() => { const it = document.activeElement;
            return it.id || it.name || it.getAttribute("aria-label") || it.tagName; })()""")
    )


def test_everything_is_reached_and_moved_by_keys_alone(tab: Tab) -> None:
    reached: list[str] = []
    while len(reached) < 60 and (not reached or reached[-1] != "BODY"):
        tab.press("Tab", ARROWS["Tab"])
        reached.append(focused(tab))
    wanted = ["clip", "layer", "play", "frame", "checkpoint", "Reconstruction error"]
    assert [name for name in reached if name in wanted] == wanted
    tab.get("frame.focus()")
    tab.press("ArrowRight", ARROWS["ArrowRight"])
    tab.until("document.querySelector('output[for=frame]').textContent.startsWith('Frame 2 of')")
    tab.get("checkpoint.focus()")
    tab.press("ArrowLeft", ARROWS["ArrowLeft"])
    tab.until("document.querySelector('output[for=checkpoint]').textContent === 'Step 6, 3 of 4'")
    tab.get("document.querySelector('input[value=mask]').focus()")
    tab.press("ArrowLeft", ARROWS["ArrowLeft"])
    tab.until("key.textContent.startsWith('Sampling probability')")
    tab.get("play.focus()")
    tab.press("ArrowDown", ARROWS["ArrowDown"])
    tab.press("ArrowLeft", ARROWS["ArrowLeft"])
    tab.until("said.textContent.startsWith('probability. Frame 1 of 16, time slot 1. one, step 4')")


def test_play_goes_round(tab: Tab) -> None:
    tab.get("play.click()")
    seen = "document.querySelector('output[for=frame]').textContent"
    tab.until(f"{seen}.startsWith('Frame 3 of')")
    assert tab.get("play.textContent") == "Pause"
    tab.get("play.click()")
    assert tab.get("play.textContent") == "Play"


def test_mouse_and_finger_move_through_time(tab: Tab) -> None:
    tab.get("stage.scrollIntoView()")
    box = tab.get("(({x, y, width}) => [x, y, width])(document.querySelector('#stage canvas')"
                  ".getBoundingClientRect())")  # fmt: skip
    at = [(box[0] + box[2] * share, box[1] + 40) for share in (0.02, 0.5, 0.97)]
    seen = "document.querySelector('output[for=frame]').textContent"
    tab.mouse("mousePressed", *at[0], buttons=1)
    tab.mouse("mouseMoved", *at[2], buttons=1)
    tab.until(f"{seen}.startsWith('Frame 16 of')")
    tab.mouse("mouseReleased", *at[2])
    tab.mouse("mouseMoved", *at[0])  # nothing is held any more
    choose(tab)
    assert tab.get(seen).startswith("Frame 16 of")
    tab.touch("touchStart", at[2])
    tab.touch("touchMove", at[1])
    tab.until(f"{seen}.startsWith('Frame 9 of')")
    tab.touch("touchEnd")
    tab.press("ArrowLeft", ARROWS["ArrowLeft"])  # goes on from where the hand was
    tab.until(f"{seen}.startsWith('Frame 8 of')")


def test_curves_tell_the_values_under_pointer_and_keys(tab: Tab) -> None:
    measured: dict[str, float] = {}
    for record in records(STEPS)[2:4]:
        measured |= record
    words = (
        f"step 4: training {three(measured['mae/loss'])}; validation "
        f"{three(measured['eval/error'])}; validation, own masks 0.000333"
    )
    tab.get("document.querySelector('.plot').scrollIntoView()")
    box = tab.get("(({x, y, width, height}) => [x, y, width, height])"
                  "(document.querySelector('.plot svg').getBoundingClientRect())")  # fmt: skip
    x = (56 + (460 - 56 - 12) * 4 / 8) / 460  # where the picture has step 4 of 8
    tab.mouse("mouseMoved", box[0] + box[2] * x + 3, box[1] + box[3] / 2)
    tab.until(f"document.querySelector('.readout').textContent === {json.dumps(words)}")
    tab.get("document.querySelector('.plot').focus()")
    tab.press("ArrowRight", ARROWS["ArrowRight"])
    tab.until("document.querySelector('.plot').ariaValueText.startsWith('step 6: training ')")
    assert tab.get("document.querySelector('.plot').ariaValueNow") == "6"


def test_several_runs_stand_side_by_side_at_the_same_step(browser: Tab, folder: Path) -> None:
    browser.open(folder / "both.html")
    captions = "[...document.querySelectorAll('#stage figcaption')].map((it) => it.textContent)"
    for place, steps in ((4, (8, 8)), (3, (6, 4)), (1, (2, 4))):
        choose(browser, checkpoint=place)
        found = [text.split(":")[0] for text in browser.get(captions)]
        assert found == [f"one, step {steps[0]}", f"two, step {steps[1]}"]
    tops = browser.get(
        "[...document.querySelectorAll('#stage canvas')].map((it) => it.getBoundingClientRect().y)"
    )
    assert tops[0] == tops[1]


def test_phone_needs_no_sideways_scrolling(browser: Tab, page: Path) -> None:
    browser.open(page, width=360, height=740)
    assert browser.get("document.documentElement.scrollWidth") <= 360


@pytest.mark.parametrize("is_dark", [False, True])
def test_axe_finds_no_serious_fault(browser: Tab, page: Path, is_dark: bool) -> None:
    if AXE is None or AXE.origin is None:
        pytest.skip("axe-core is not installed; pip install axe-core-python")
    browser.open(page, is_dark=is_dark)
    browser.get("document.querySelector('details')?.setAttribute('open', '')")
    browser.get(Path(AXE.origin).with_name("axe.min.js").read_text() + ";0")
    found = browser.get("axe.run().then((result) => result.violations)")
    serious = [fault for fault in found if fault["impact"] in ("serious", "critical")]
    assert [(f["id"], [n["html"][:200] for n in f["nodes"][:3]]) for f in serious] == []
