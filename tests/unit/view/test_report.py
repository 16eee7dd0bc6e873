from __future__ import annotations

import base64
import re
from collections.abc import Callable
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from matplotlib.figure import Figure

from tats_ray.view.curves import draw_curves
from tats_ray.view.glossary import GLOSSARY
from tats_ray.view.health import examine
from tats_ray.view.records import sampler_start, series
from tats_ray.view.report_page import write_report

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


def _write(run: Path, metrics: Records, pictures: list[tuple[str, Path]]) -> str:
    path = write_report(
        run,
        title="demo <b>&</b>",
        summary=[("Validation error", "1.0 -> 0.5", "under <fixed> masks")],
        metrics=metrics,
        pictures=pictures,
        config_yaml='name: "<script>alert(1)</script>"\nseed: 0\n',
        next_commands=["tats show-masks runs/demo a&b.mp4", "two", "three"],
    )
    assert path == run / "report.html"
    return path.read_text(encoding="utf-8")


def test_report_is_well_formed_and_complete(
    tmp_path: Path, metrics: Records, picture: Path
) -> None:
    text = _write(tmp_path, metrics, [("a.mp4", picture)])
    page = _Page(text)
    assert page.tags.count("img") == 1 + 6
    assert base64.b64encode(picture.read_bytes()).decode() in text
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
    ):
        assert words in page.words
    assert "details" in page.tags


def test_report_needs_nothing_but_itself(tmp_path: Path, metrics: Records, picture: Path) -> None:
    text = _write(tmp_path, metrics, [("a.mp4", picture)])
    page = _Page(text)
    assert all(address.startswith("data:image/png;base64,") for address in page.addresses)
    assert "script" not in page.tags
    assert not re.search(r"https?:|url\(|@import", text)
    assert "prefers-color-scheme" in text
    assert 'name="viewport"' in text


def test_report_of_a_run_that_measured_nothing_is_a_page_too(tmp_path: Path) -> None:
    page = _Page(_write(tmp_path, [], []))
    assert "img" not in page.tags
    assert page.words.count("not measured") >= 5


def test_curves_exist_for_what_was_measured_only(metrics: Records) -> None:
    assert len(draw_curves(metrics)) == 6
    without_videos_of_motion = [
        {name: value for name, value in record.items() if "motion" not in name}
        for record in metrics
    ]
    assert len(draw_curves(without_videos_of_motion)) == 4
    for curve in draw_curves(metrics, plateau=0.998, sampler_step=30):
        assert curve.light[:4] == curve.dark[:4] == b"\x89PNG"
        assert curve.light != curve.dark


def test_series_leaves_out_what_is_not_finite() -> None:
    records = [{"step": 1, "a": 1.0}, {"step": 2, "a": np.nan}, {"step": 3, "a": None}, {"step": 4}]
    assert series(records, "a") == ([1], [1.0])


def test_sampler_starts_after_the_last_record_without_policy(metrics: Records) -> None:
    assert sampler_start(metrics) == 30
    assert sampler_start(metrics[:4]) is None


def test_healthy_run_has_green_lights_only(metrics: Records) -> None:
    assert {verdict.light for verdict in examine(metrics)} == {"good"}


def test_run_without_a_sampler_is_not_judged_for_it(metrics: Records) -> None:
    lights = [verdict.light for verdict in examine(metrics[:5])]
    assert lights == ["watch", "unknown", "unknown", "unknown", "unknown", "good"]


@pytest.mark.parametrize(
    ("name", "value", "question"),
    [
        ("eval/error", 0.995, "Did the error fall?"),
        ("eval/motion_ratio", 0.5, "Does the sampler look at motion?"),
        ("eval/entropy", 0.3, "Do the masks still vary?"),
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
    (verdict,) = [verdict for verdict in examine(metrics) if verdict.question == question]
    assert verdict.light == "bad"


def test_advice_on_the_plateau_is_that_of_the_documentation() -> None:
    metrics = [{"step": step, "epoch": step, "eval/error": 0.998} for step in (1, 2)]
    assert "optim.base_lr, a lower one first" in examine(metrics)[0].answer
    page = (Path(__file__).parents[3] / "docs" / "metrics.md").read_text()
    assert "`optim.base_lr`, try a lower one first" in page


def test_every_metric_of_the_script_is_in_the_glossary(metrics: Records) -> None:
    names = {name for record in metrics for name in record} - {"step", "epoch", "time"}
    assert names <= set(GLOSSARY)
