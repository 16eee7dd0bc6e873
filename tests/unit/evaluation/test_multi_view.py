"""`tats test` on a fine-tuned checkpoint: its figures, what changes none of them, its refusals."""

from __future__ import annotations

import json
import re
import shutil
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file

import tats_ray
from tats_ray.checkpoints import format as checkpoints
from tats_ray.checkpoints.fine_tuned import read_fine_tuned
from tats_ray.config.load import dump_config
from tats_ray.data.manifest import read_list
from tats_ray.data.views import ViewDataset, ViewPlan
from tests.commands import refusal, tats
from tests.unit.conftest import DATA


@pytest.fixture
def place(fine_tuned: Path, tmp_path: Path) -> Path:
    """A copy that a test may change."""
    return Path(shutil.copytree(fine_tuned, tmp_path / "place"))


def outcome_of(place: Path, *words: str | Path) -> tuple[Path, dict[str, Any]]:
    """Folder and predictions of the one test that these words make."""
    root = place / "tuned" / "tests"
    shutil.rmtree(root, ignore_errors=True)
    tats("test", place / "tuned", *words)
    (folder,) = root.iterdir()
    return folder, json.loads((folder / "predictions.json").read_text())


def test_scores_are_the_mean_softmax_over_the_views_by_full_path(place: Path) -> None:
    folder, found = outcome_of(place, place / "data", "--views", "3x2")
    model = tats_ray.load(place / "tuned")
    entries = read_list(place / "data" / "val.csv")
    views = ViewDataset(entries, ViewPlan(3, 2), **DATA)
    assert set(found) == {str(Path(entry.path).resolve()) for entry in entries}
    for at, entry in enumerate(entries):
        pixels = views[at].pixels
        assert pixels is not None
        mean = model.classify(pixels).softmax(-1).mean(0)
        row = found[str(Path(entry.path).resolve())]
        assert row["scores"] == pytest.approx(mean.tolist(), abs=2e-6)
        assert (row["label"], row["predicted"]) == (entry.label, int(mean.argmax()))
    protocol = json.loads((folder / "protocol.json").read_text())
    right = [row["label"] == row["predicted"] for row in found.values()]
    assert protocol["results"]["top1"] == pytest.approx(sum(right) / len(right))
    assert protocol["features"]["views"] == "3x2"
    assert (folder / "confusion.png").stat().st_size > 1000


def test_number_of_workers_order_and_repeats_change_no_digit(
    place: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """What a distributed sampler pads, and how many processes decode, must not show."""
    told = []
    entries = read_list(place / "data" / "val.csv")
    padded = place / "padded.csv"
    lines = [f"{entry.path}\t{entry.label}\n" for entry in [*reversed(entries), *entries[:3]]]
    padded.write_text("".join(lines))
    for words in ([place / "data"], [place / "data", "--workers", "2"], ["--list", padded]):
        folder, found = outcome_of(place, *words)
        protocol = json.loads((folder / "protocol.json").read_text())
        figures = [line for line in capsys.readouterr().out.splitlines() if "%" not in line]
        table = [line for line in figures if "top-" in line or "mean" in line]
        assert table
        told.append((found, protocol["results"], table))
    assert told[0] == told[1] == told[2]


def test_views_and_sampling_are_the_runs_own_unless_others_are_asked_for(place: Path) -> None:
    config = read_fine_tuned(place / "tuned").config
    text = dump_config(config).replace("sampling: dense", "sampling: segments")
    found = checkpoints.load_parts(place / "tuned")
    other = replace(found, config_yaml=text.replace("clips: 2", "clips: 1"))
    checkpoints.save_parts(place / "tuned", other, keep_last=1)
    for words, views, sampling in (
        ([], "1x3", "segments"),
        (["--views", "2x1"], "2x1", "segments"),
        (["--sampling", "dense", "--views", "5x3"], "5x3", "dense"),
    ):
        folder, _ = outcome_of(place, place / "data", *words)
        features = json.loads((folder / "protocol.json").read_text())["features"]
        assert (features["views"], features["sampling"]) == (views, sampling)


def test_what_a_test_refuses(place: Path, capsys: pytest.CaptureFixture[str]) -> None:
    says = refusal(capsys, "test", place / "run", place / "data")
    assert "has no classifier" in says
    assert "`tats finetune` trains one" in says
    said = refusal(
        capsys, "test", place / "enc.safetensors", place / "data",
        "--num-frames", "4", "--image-size", "16",
    )  # fmt: skip
    assert "has no classifier" in said
    beyond = place / "data" / "beyond.csv"
    beyond.write_text((place / "data" / "val.csv").read_text().replace("\t7", "\t8"))
    says = refusal(capsys, "test", place / "tuned", "--list", beyond)
    assert "has class 8" in says
    assert "knows 0 to 7" in says
    beyond.write_text("".join(f"{e.path}\n" for e in read_list(place / "data" / "val.csv")))
    assert "has no labels" in refusal(capsys, "test", place / "tuned", "--list", beyond)
    says = refusal(capsys, "test", place / "tuned", place / "data", "--list", beyond)
    assert f"{place / 'data'} and --list {beyond} both name videos" in says
    assert says.endswith(f"leave out {place / 'data'}, or --list\n")
    assert "neither test.csv nor val.csv" in refusal(capsys, "test", place / "tuned", place)
    assert "not CLIPSxCROPS" in refusal(
        capsys, "test", place / "tuned", place / "data", "--views", "6"
    )
    assert "take 1000 or fewer" in refusal(
        capsys, "test", place / "tuned", place / "data", "--views", "99999x1"
    )
    damaged = next((place / "tuned" / "checkpoints").glob("step_*")) / "classifier.safetensors"
    damaged.write_bytes(damaged.read_bytes()[:100])
    assert "is damaged" in refusal(capsys, "test", place / "tuned", place / "data")


def test_file_of_a_fine_tuned_checkpoint_is_tested_as_its_run_is(place: Path) -> None:
    config = read_fine_tuned(place / "tuned").config
    found = checkpoints.load_parts(place / "tuned")
    text = dump_config(config).replace("clips: 2", "clips: 1")
    checkpoints.save_parts(place / "tuned", replace(found, config_yaml=text), keep_last=1)
    (step,) = (place / "tuned" / "checkpoints").glob("step_*")
    told = []
    for path in (step, step / "classifier.safetensors"):
        tats("test", path, place / "data")
        (folder,) = (place / "tuned" / "tests").iterdir()
        told.append({file.name: file.read_bytes() for file in folder.iterdir()})
        shutil.rmtree(folder.parent)
    assert told[0] == told[1]
    assert json.loads(told[0]["protocol.json"])["features"]["views"] == "1x3"
    assert not (step / "tests").exists()


@pytest.mark.filterwarnings("ignore:Initializing zero-element")
def test_head_without_classes_is_refused(place: Path, capsys: pytest.CaptureFixture[str]) -> None:
    file = place / "tuned.safetensors"
    tats("ckpt", "convert", place / "tuned", file)
    state = load_file(file)
    state |= {name: state[name][:0] for name in ("head.weight", "head.bias")}
    save_file(state, file)
    sizes = ("--num-frames", "4", "--image-size", "16")
    for words in (("test", file, place / "data", *sizes), ("finetune", file, place / "data")):
        says = refusal(capsys, *words)
        assert "its head" in says
        assert "0 to -1" not in says


def test_what_a_file_brought_is_said_and_kept(
    place: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    file = place / "tuned.safetensors"
    tats("ckpt", "convert", place / "tuned", file)
    state = load_file(file)
    save_file({**state, "more": torch.zeros(1)}, file)
    capsys.readouterr()
    sizes = ("--num-frames", "4", "--image-size", "16", "--stride", "1")
    tats("test", file, place / "data", *sizes)
    told = re.search(r"^ +encoder  (tuned.safetensors, .*loaded \d+/\d+, ignored 1)$",
                     capsys.readouterr().out, re.MULTILINE)  # fmt: skip
    assert told is not None
    (folder,) = (place / "tests").iterdir()
    protocol = json.loads((folder / "protocol.json").read_text())
    assert (protocol["origin"], protocol["at_random"]) == (told[1], [])
