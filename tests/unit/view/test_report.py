from __future__ import annotations

import base64
import re
from collections.abc import Callable
from functools import partial
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from matplotlib.figure import Figure

from tats_ray.core.errors import UsageError
from tats_ray.view.curves import curves_of
from tats_ray.view.glossary import GLOSSARY
from tats_ray.view.health import examine
from tats_ray.view.page.viewer import Viewing
from tats_ray.view.records import sampler_start, series, without_stub
from tats_ray.view.report_page import write_report
from tests.full_disk import disk_full_at

Records = list[dict[str, Any]]
_VOID = {"meta", "img", "source", "br", "link", "input", "hr"}


class _Page(HTMLParser):
    """Checks that tags are balanced; collects addresses and words."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.open: list[str] = []
        self.tags: list[str] = []
        self.addresses: list[str] = []
        self.words = ""
        self.feed(text)
        self.close()
        assert not self.open, f"never closed: {self.open}"

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append(tag)
        if tag not in _VOID:
            self.open.append(tag)
        self.addresses += [v or "" for n, v in attrs if n in ("src", "href", "srcset")]

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        self.words += data


@pytest.fixture
def metrics(script: Callable[..., list[dict[str, Any]]]) -> Records:
    return [
        {"step": e["step"], "epoch": e["epoch"], "time": e["time"], **e["metrics"]}
        for e in script()
        if e["kind"] == "metrics"
    ]


@pytest.fixture
def picture(tmp_path: Path) -> Path:
    path = tmp_path / "masks_1.png"
    Figure(figsize=(1, 1)).savefig(path)
    return path


@pytest.fixture
def dark_picture(tmp_path: Path) -> Path:
    path = tmp_path / "masks_1_dark.png"
    Figure(figsize=(1, 1), facecolor="black").savefig(path)
    return path


def _write(
    run: Path,
    metrics: Records,
    picture: tuple[str, Path, Path] | None = None,
    viewing: Viewing | None = None,
) -> str:
    path = write_report(
        run / "report.html",
        title="demo <b>&</b>",
        summary=[("Validation error", "1.0 -> 0.5", "under <fixed> masks")],
        metrics=metrics,
        viewing=viewing,
        unseen="No clips: <none> could be read",
        picture=picture,
        config_yaml='name: "<script>alert(1)</script>"\nseed: 0\n',
        next_commands=["tats show-masks runs/demo a&b.mp4", "two", "three"],
        about=[("machine", "a <box>"), ("commit", "abc123")],
        num_visible=25,
        num_tokens=256,
    )
    assert path == run / "report.html"
    return path.read_text(encoding="utf-8")


def test_report_is_well_formed_and_complete(
    tmp_path: Path, metrics: Records, picture: Path, dark_picture: Path
) -> None:
    text = _write(tmp_path, metrics, ("a.mp4", picture, dark_picture))
    page = _Page(text)
    assert page.tags.count("svg") == 7
    assert page.tags.count("img") == page.tags.count("source") == 1
    for path in (picture, dark_picture):
        assert base64.b64encode(path.read_bytes()).decode() in text
    for words in (
        "demo <b>&</b>",
        "1.0 -> 0.5",
        "under <fixed> masks",
        "Is it healthy?",
        "Reconstruction error",
        "Where the time goes",
        "<script>alert(1)</script>",
        "tats show-masks runs/demo a&b.mp4",
        "two",
        "three",
        GLOSSARY["eval/motion_auc"],
        "a <box>",
        "abc123",
        "Swipe sideways",
        "No clips: <none> could be read",
    ):
        assert words in page.words
    assert "details" in page.tags


def test_report_needs_nothing_but_itself(
    tmp_path: Path, metrics: Records, picture: Path, dark_picture: Path
) -> None:
    text = _write(tmp_path, metrics, ("a.mp4", picture, dark_picture))
    page = _Page(text)
    kinds = ("data:image/png;base64,", "data:,")
    assert all(address.startswith(kinds) for address in page.addresses)
    assert not re.search(r"https?:|url\(|@import", text)
    assert "default-src 'none'" in text
    assert "prefers-color-scheme" in text
    assert 'name="viewport"' in text


def test_large_picture_stays_beside_the_page(
    tmp_path: Path, metrics: Records, picture: Path, dark_picture: Path
) -> None:
    dark_picture.write_bytes(bytes(1_000_000))
    text = _write(tmp_path, metrics, ("a.mp4", picture, dark_picture))
    assert len(text) < 500_000
    assert str(picture) in text


def test_report_on_a_full_disk_leaves_the_old_one_and_says_what_to_do(
    tmp_path: Path, metrics: Records
) -> None:
    old = _write(tmp_path, metrics)
    with disk_full_at(".report.html.draft"), pytest.raises(UsageError, match=r"space.*--out"):
        _write(tmp_path, metrics[:3])
    assert (tmp_path / "report.html").read_text() == old
    assert [path.name for path in tmp_path.iterdir()] == ["report.html"]


def test_glossary_of_the_page_shows_names_as_code(tmp_path: Path, metrics: Records) -> None:
    text = _write(tmp_path, metrics)
    assert "`" not in text.partition("<script>")[0]
    assert "<code>model.normalize_targets: false</code>" in text


def test_page_says_nowhere_but_in_its_figures_what_predicting_the_mean_gives() -> None:
    """It depends on the pixels of a token, so a number here would contradict another one there."""
    assert not re.search(r"0\.99\d", " ".join(GLOSSARY.values()))


def test_last_record_of_few_steps_is_not_drawn(metrics: Records) -> None:
    stub = {**metrics[-2], "step": 61, "mae/loss": 9.0, "eval/error": 0.1, "data/replaced": 2.0}
    kept = without_stub([*metrics, stub])
    assert kept[:-1] == metrics
    assert kept[-1] == {
        name: stub[name] for name in ("step", "epoch", "time", "eval/error", "data/replaced")
    }
    assert series(kept, "mae/loss") == series(metrics, "mae/loss")
    long = {**stub, "step": 63}
    assert without_stub([*metrics, long]) == [*metrics, long]
    assert without_stub(metrics[:2]) == metrics[:2]


def test_curve_of_plain_pixels_has_no_line_for_predicting_the_mean(metrics: Records) -> None:
    errors = [{"step": r["step"], "mae/loss": r["mae/loss"]} for r in metrics if "mae/loss" in r]
    (normalised,), (plain,) = (curves_of(errors, plateau=level) for level in (0.998, None))
    assert normalised.level == (0.998, "predicting the mean: 0.998")
    assert plain.level is None


def test_report_of_a_run_that_measured_nothing_is_a_page_too(tmp_path: Path) -> None:
    page = _Page(_write(tmp_path, []))
    assert not {"img", "svg"} & {*page.tags}
    assert page.words.count("not measured") >= 5


def test_curves_exist_for_what_was_measured_only(metrics: Records) -> None:
    assert len(curves_of(metrics)) == 7
    without_videos_of_motion = [
        {name: value for name, value in record.items() if "motion" not in name}
        for record in metrics
    ]
    assert len(curves_of(without_videos_of_motion)) == 5


def test_series_leaves_out_what_is_not_finite() -> None:
    records = [{"step": 1, "a": 1.0}, {"step": 2, "a": np.nan}, {"step": 3, "a": None}, {"step": 4}]
    assert series(records, "a") == ([1], [1.0])


def test_sampler_starts_after_the_last_record_without_policy(metrics: Records) -> None:
    assert sampler_start(metrics) == 30
    assert sampler_start(metrics[:4]) is None


_examine = partial(examine, num_visible=25, num_tokens=256)


def test_healthy_run_has_green_lights_only(metrics: Records) -> None:
    assert {verdict.light for verdict in _examine(metrics)} == {"good"}


def test_run_without_a_sampler_is_not_judged_for_it(metrics: Records) -> None:
    lights = [verdict.light for verdict in _examine(metrics[:5])]
    assert lights == ["watch", "unknown", "unknown", "unknown", "good"]


@pytest.mark.parametrize(
    ("name", "value", "question"),
    [
        ("eval/error", 0.995, "Did the error fall?"),
        ("eval/motion_ratio", 0.5, "Does the sampler look at motion?"),
        ("eval/effective_tokens", 9.0, "Has the sampler avoided collapse?"),
        ("eval/clip_overlap", 0.95, "Has the sampler avoided collapse?"),
        ("policy/approx_kl", 0.5, "Are the sampler's updates of a sensible size?"),
    ],
)
def test_each_illness_has_its_light(
    metrics: Records, name: str, value: float, question: str
) -> None:
    for record in metrics:
        if name in record:
            record[name] = value
    (verdict,) = [verdict for verdict in _examine(metrics) if verdict.question == question]
    assert verdict.light == "bad"


@pytest.mark.parametrize(
    ("mean", "own", "light", "says"),
    [
        (
            0.9,
            0.7,
            "good",
            "it is 0.556 times the error of predicting the mean, under its own 0.778",
        ),
        (0.3, 0.05, "good", "under its own 0.167 times"),
        (0.3, 0.7, "watch", "under random masks it is 1.67 times"),
        (0.0, 0.7, "good", "less"),
    ],
)
def test_error_is_compared_with_predicting_the_mean(
    metrics: Records, mean: float, own: float, light: str, says: str
) -> None:
    for record in metrics:
        if "eval/error" in record:
            record |= {"eval/mean_error": mean, "eval/own_error": own}
    verdict = _examine(metrics)[0]
    assert (verdict.light, says in verdict.answer) == (light, True), verdict.answer


def test_verdicts_survive_what_is_not_finite_and_zero(metrics: Records) -> None:
    sick = [
        {name: np.nan if name.startswith(("eval/eff", "eval/mean")) else value
         for name, value in record.items()}
        for record in metrics
    ]  # fmt: skip
    assert _examine(sick)[2].light == "unknown"
    zero = [{"step": step, "epoch": 0, "mae/loss": 0.0} for step in (1, 2)]
    assert _examine(zero)[0].light == "unknown"


def test_bad_videos_are_named_where_the_report_counts_the_clips(metrics: Records) -> None:
    (verdict,) = [v for v in _examine(metrics, {"a.mp4": "cut"}) if "videos be read" in v.question]
    assert verdict.light == "watch"
    assert "could not be read: a.mp4 (cut)" in verdict.answer


def test_advice_on_the_plateau_is_that_of_the_documentation() -> None:
    metrics = [{"step": step, "epoch": step, "eval/error": 0.998} for step in (1, 2)]
    assert "optim.base_lr, a lower one first" in _examine(metrics)[0].answer
    page = (Path(__file__).parents[3] / "docs" / "metrics.md").read_text()
    assert "`optim.base_lr`, try a lower one first" in page


def test_every_metric_of_the_script_is_in_the_glossary(metrics: Records) -> None:
    names = {name for record in metrics for name in record} - {"step", "epoch", "time"}
    assert names <= set(GLOSSARY)
