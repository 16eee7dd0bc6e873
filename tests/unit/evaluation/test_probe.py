"""Whole probes and extractions on a small run, from the command line to the files they leave."""

from __future__ import annotations

import json
import re
import shlex
import shutil
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors import safe_open
from safetensors.torch import load_file

from tats_ray.checkpoints import format as checkpoints
from tats_ray.checkpoints.format import Checkpoint
from tats_ray.config.encoder_flags import EncoderOptions
from tats_ray.config.load import dump_config, parse_config
from tats_ray.core.types import Position
from tats_ray.data.atari.atari_set import make_atari
from tats_ray.data.manifest import read_list
from tats_ray.data.synthetic import CLASSES, synthesize
from tats_ray.data.views import ViewPlan
from tats_ray.evaluation.encoder import folder_of_run, open_encoder
from tats_ray.evaluation.probe import _note_chance
from tats_ray.models.zoo import build_mae, token_grid
from tats_ray.ops.optim import adamw
from tests.commands import refusal, tats
from tests.official import filled, save, videomae

ROOT = Path(__file__).parents[3]
ON_CPU = EncoderOptions(device="cpu")
FAST = ["--epochs", "3", "--lrs", "0.1", "1.0", "--weight-decays", "0.0"]


@pytest.fixture(scope="module")
def origin(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Videos of the eight classes in data/, and a run whose encoder has learned nothing."""
    folder = tmp_path_factory.mktemp("origin")
    synthesize(folder / "data", num_train=24, num_val=8, num_frames=10, size=32, workers=1)
    raw = {
        "name": "small",
        "data": {"num_frames": 4, "image_size": 16, "stride": 1},
        "model": {"size": "tiny", "patch": 8, "depth": 1, "decoder_depth": 1},
        "algorithm": {"name": "ppo"},
    }
    config = parse_config(raw)
    mae = build_mae(config.model, token_grid(config.data, config.model), seed=0)
    optimizer = adamw(mae, lr=1.0, betas=(0.9, 0.95), weight_decay=0.0)
    part = {"network": mae.state_dict(), "optimizer": optimizer.state_dict(), "numbers": {}}
    state = Checkpoint(Position(step=5), part, None, dump_config(config))
    checkpoints.save(folder / "run", state, keep_last=1)
    return folder


@pytest.fixture
def place(origin: Path, tmp_path: Path) -> Path:
    """A copy that a test may change."""
    return Path(shutil.copytree(origin, tmp_path / "place"))


def results(place: Path, kind: str) -> dict[str, Any]:
    """Protocol and predictions of the only probe of a kind."""
    (folder,) = (place / "run" / "probes").glob(f"{kind}-*")
    read = {name: json.loads((folder / f"{name}.json").read_text()) for name in FILES}
    return {**read, "folder": folder}


FILES = ("protocol", "predictions")


@pytest.mark.parametrize("kind", ["linear", "attentive", "knn"])
def test_probe_leaves_figures_that_follow_from_its_predictions(
    place: Path, capsys: pytest.CaptureFixture[str], kind: str
) -> None:
    flags = [] if kind == "knn" else FAST
    tats("probe", kind, place / "run", place / "data", "--device", "cpu", *flags)
    shown = capsys.readouterr().out
    found = results(place, kind)
    entries = read_list(place / "data" / "val.csv")
    predictions = found["predictions"]
    assert list(predictions) == [str(Path(entry.path).resolve()) for entry in entries]
    right = top5 = 0
    for entry, row in zip(entries, predictions.values(), strict=True):
        assert row["label"] == entry.label
        assert sum(row["scores"]) == pytest.approx(1.0, abs=1e-5)
        assert len(row["scores"]) == len(CLASSES)
        order = sorted(range(8), key=lambda c: -row["scores"][c])
        assert row["scores"][row["predicted"]] == row["scores"][order[0]]
        right += row["predicted"] == row["label"]
        top5 += row["label"] in order[:5]
    figures = found["protocol"]["results"]
    assert figures["top1"] == figures["mean_class"] == right / 8  # one video of each class
    assert figures["top5"] == top5 / 8
    assert re.search(rf"top-1 +{100 * right / 8:.1f} ", shown), shown
    assert (found["folder"] / "confusion.png").read_bytes()[:4] == b"\x89PNG"
    protocol = found["protocol"]
    encoder = open_encoder(place / "run", ON_CPU)
    for part, views in (("train", "1x1"), ("val", "2x3")):
        assert protocol[part]["features"]["views"] == views
        assert protocol[part]["features"]["encoder_sha256"] == encoder.fingerprint()
    assert {"seed", "settings", "torch", "tats_ray", "python", "num_classes"} <= set(protocol)
    assert (found["folder"] / "head.safetensors").is_file() == (kind != "knn")


@pytest.mark.parametrize(
    ("top1", "is_noted"), [(0.125, True), (0.2, True), (0.0, True), (0.3, False), (1.0, False)]
)
def test_accuracy_that_may_be_chance_is_called_so(
    top1: float, is_noted: bool, capsys: pytest.CaptureFixture[str]
) -> None:
    """Of 48 videos of 8 classes, whose chance is 12.5 %, as in the demo."""
    _note_chance(top1, 48, 8)
    assert ("within two standard errors of chance" in capsys.readouterr().out) == is_noted


def test_choice_is_made_on_training_videos_only(place: Path) -> None:
    tats("probe", "linear", place / "run", place / "data", *FAST)
    protocol = results(place, "linear")["protocol"]
    assert "8 held-out videos of the training list" in protocol["chosen_on"]
    assert [trial["base_lr"] for trial in protocol["held_out"]] == [0.1, 1.0]
    assert protocol["chosen"]["base_lr"] in (0.1, 1.0)
    # Other validation labels change the figures, not the choice.
    lines = (place / "data" / "val.csv").read_text().splitlines()
    turned = [re.sub(r"\d+$", lambda m: str((int(m[0]) + 1) % 8), line) for line in lines]
    (place / "data" / "val.csv").write_text("\n".join(turned))
    tats("probe", "linear", place / "run", place / "data", *FAST, "--out", place / "other")
    (other,) = (place / "other" / "probes").iterdir()
    again = json.loads((other / "protocol.json").read_text())
    assert (again["chosen"], again["held_out"]) == (protocol["chosen"], protocol["held_out"])


def test_saved_head_is_the_probe(place: Path) -> None:
    tats("probe", "linear", place / "run", place / "data", *FAST, "--val-views", "1x1")
    found = results(place, "linear")
    head = load_file(found["folder"] / "head.safetensors")
    tats("extract", place / "run", place / "data" / "val.csv", "-o", place / "f.safetensors")
    file = load_file(place / "f.safetensors")
    scores = (file["features"][:, 0] @ head["weight"].T + head["bias"]).softmax(1)
    written = torch.tensor([row["scores"] for row in found["predictions"].values()])
    torch.testing.assert_close(scores, written, atol=2e-5, rtol=0)
    assert file["labels"].tolist() == list(range(8))


@pytest.mark.parametrize("kind", ["linear", "knn"])
def test_probes_repeat_to_the_last_digit_whatever_the_loaders(place: Path, kind: str) -> None:
    flags = [] if kind == "knn" else FAST
    for name, workers in (("a", "0"), ("b", "2")):
        tats(
            *("probe", kind, place / "run", place / "data", *flags),
            *("--out", place / name, "--workers", workers),
        )
    files = [
        sorted(path.relative_to(place / name) for path in (place / name).rglob("*.*"))
        for name in ("a", "b")
    ]
    assert files[0] == files[1]
    for file in files[0]:
        if file.suffix == ".json":
            assert (place / "a" / file).read_text() == (place / "b" / file).read_text()


def test_second_probe_takes_the_features_of_the_first(
    place: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    tats("probe", "knn", place / "run", place / "data")
    capsys.readouterr()
    tats("probe", "linear", place / "run", place / "data", *FAST)
    assert capsys.readouterr().out.count("features  from ") == 2
    assert len(list((place / "run" / "features").iterdir())) == 2


def test_untrained_encoder_is_of_the_same_shape_and_another(place: Path) -> None:
    trained, again = (open_encoder(place / "run", ON_CPU) for _ in range(2))
    untrained = [open_encoder(place / "run", ON_CPU, untrained_seed=seed) for seed in (0, 1)]
    assert trained.fingerprint() == again.fingerprint()
    assert len({encoder.fingerprint() for encoder in (trained, *untrained)}) == 3
    shapes = [
        {name: value.shape for name, value in encoder.encoder.state_dict().items()}
        for encoder in (trained, untrained[0])
    ]
    assert shapes[0] == shapes[1]
    tats("probe", "knn", place / "run", place / "data", "--untrained")
    assert results(place, "knn")["protocol"]["is_untrained"] is True


def test_run_folder_is_found_from_any_of_its_checkpoints(place: Path) -> None:
    step = place / "run" / "checkpoints" / "step_00000005"
    assert step.is_dir()
    for path in (place / "run", place / "run" / "checkpoints", step, step / "mae.safetensors"):
        assert folder_of_run(path) == place / "run"
    (place / "weights.pth").write_text("")
    assert folder_of_run(place / "weights.pth") == place


def test_extract_writes_tokens_labels_and_where_they_are_from(
    place: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    names = [line.split("\t")[0] for line in (place / "data" / "val.csv").read_text().splitlines()]
    (place / "data" / "plain.csv").write_text("\n".join([*names, names[0]]))
    out = place / "deep" / "f.safetensors"
    words = ("--pool", "tokens", "--views", "2x1")
    tats("extract", place / "run", place / "data" / "plain.csv", "-o", out, *words)
    assert "left out 1 repeated video\n" in capsys.readouterr().out
    found = load_file(out)
    assert found["features"].shape == (8, 2, 8, 128)
    assert found["labels"].tolist() == [-1] * 8
    assert not list(out.parent.glob(".*"))


def test_file_with_the_official_names_gives_the_same_features(place: Path) -> None:
    words = (place / "data" / "val.csv", "-o")
    tats("ckpt", "convert", place / "run", place / "official.safetensors")
    tats("extract", place / "run", *words, place / "own.safetensors")
    sizes = ("--num-frames", "4", "--image-size", "16", "--stride", "1")
    tats("extract", place / "official.safetensors", *words, place / "their.safetensors", *sizes)
    own, their = (load_file(place / f"{name}.safetensors")["features"] for name in ("own", "their"))
    assert torch.equal(own, their)
    tats("extract", place / "run", *words, place / "wider.safetensors", "--stride", "2")
    assert not torch.equal(load_file(place / "wider.safetensors")["features"], own)


def test_what_a_file_brought_of_an_encoder_is_said_and_kept(
    place: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    state, lost = filled(videomae()), "encoder.blocks.0.norm1.bias"
    file = save(place / "theirs.pth", {n: v for n, v in state.items() if n != lost})
    said = f"loaded {len(state) - 1}/{len(state)}, ignored 0"
    sizes = ("--num-frames", "4", "--image-size", "16", "--stride", "1")
    tats("probe", "knn", file, place / "data", *sizes)
    assert f"{said}; 1 at random ({lost})" in capsys.readouterr().out
    (folder,) = (place / "probes").iterdir()
    protocol = json.loads((folder / "protocol.json").read_text())
    assert protocol["origin"].endswith(said)
    assert protocol["at_random"] == [lost]
    out = place / "f.safetensors"
    tats("extract", file, place / "data" / "val.csv", "-o", out, *sizes)
    assert f"{said}; 1 at random ({lost})" in capsys.readouterr().out
    with safe_open(out, framework="pt") as found:
        about = json.loads(found.metadata()["about"])
    assert (about["origin"], about["at_random"]) == (protocol["origin"], [lost])
    tats("probe", "knn", place / "run", place / "data", "--untrained")
    told = capsys.readouterr().out
    assert "encoder  untrained, in the shape of tats_ray run small, step 5\n" in told


def test_file_of_a_checkpoint_is_probed_as_the_checkpoint(place: Path) -> None:
    step = place / "run" / "checkpoints" / "step_00000005"
    tats("probe", "knn", step, place / "data")
    first = results(place, "knn")
    tats("probe", "knn", step / "mae.safetensors", place / "data")
    assert results(place, "knn") == first  # the one folder of equal settings
    assert not (step / "probes").exists()


def test_wrong_lists_are_refused_in_one_line(
    place: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    data, run = place / "data", place / "run"
    rows = (data / "val.csv").read_text().splitlines()
    names = [row.split("\t")[0] for row in rows]
    lists = {
        "bare": names,
        "beyond": [f"{names[0]}\t8"],
        "two": [f"{names[0]}\t0", f"{names[0]}\t1"],
        "single": [f"{name}\t0" for name in names],
    }
    for name, lines in lists.items():
        (data / f"{name}.csv").write_text("\n".join(lines))
    cases = [
        ("bare", "val", r"bare\.csv has no labels"),
        ("val", "bare", r"bare\.csv has no labels"),
        ("train", "beyond", r"has class 8, .*train\.csv has 0 to 7"),
        ("two", "val", r"has the labels 0 and 1"),
        ("single", "val", r"single\.csv has only one class"),
    ]
    for train, val, says in cases:
        words = ("--train", data / f"{train}.csv", "--val", data / f"{val}.csv")
        assert re.search(says, refusal(capsys, "probe", "linear", run, *words))
    assert re.search(r"no train\.csv; give a folder", refusal(capsys, "probe", "knn", run, run))
    assert "there is no train list" in refusal(capsys, "probe", "knn", run)
    assert not (run / "probes").exists()


@pytest.mark.parametrize("names", [("train",), ("val",), ("train", "val")])
def test_folder_and_lists_together_are_refused_by_name(
    place: Path, capsys: pytest.CaptureFixture[str], names: tuple[str, ...]
) -> None:
    data = place / "data"
    lists = [f"--{name} {data / name}.csv" for name in names]
    words = [word for pair in lists for word in pair.split()]
    assert refusal(capsys, "probe", "knn", place / "run", data, *words) == (
        f"tats: {data} and {' '.join(lists)} both name videos; leave out {data}, "
        f"or {' and '.join(f'--{name}' for name in names)}\n"
    )


@pytest.mark.parametrize(
    ("flags", "says"),
    [
        (["--views", "3"], "views '3' are not CLIPSxCROPS"),
        (["--device", "tpu"], "device 'tpu' is not available"),
        (["--max-gb", "1e-9"], "the limit is 1e-09: raise --max-gb"),
        (["-o", "features.npz"], "must end in .safetensors"),
    ],
)
def test_wrong_requests_for_features_are_refused(
    place: Path, capsys: pytest.CaptureFixture[str], flags: list[str], says: str
) -> None:
    words = ("extract", place / "run", place / "data" / "val.csv", *flags)
    assert says in refusal(capsys, *words)


def test_wrong_numbers_of_a_probe_are_refused(
    place: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    words = (place / "run", place / "data")
    assert "take 1000 or fewer" in refusal(
        capsys, "probe", "linear", *words, "--val-views", "99999x1"
    )
    assert "k 0 must be" in refusal(capsys, "probe", "knn", *words, "--k", "0")
    assert "learning rate must be above 0" in refusal(
        capsys, "probe", "linear", *words, "--lrs", "0"
    )
    assert "leave it out" in refusal(capsys, "probe", "attentive", *words, "--preset", "ft-like")
    assert "holds no checkpoint" in refusal(capsys, "probe", "knn", place / "data", place / "data")


def test_classes_without_training_videos_are_noted_and_count_as_wrong(
    place: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    data = place / "data"
    rows = [row for row in (data / "train.csv").read_text().splitlines() if row[-1] not in "25"]
    (data / "train.csv").write_text("\n".join(rows))
    tats("probe", "knn", place / "run", data, "--k", "40")
    shown = capsys.readouterr().out
    assert "has no video of 2 classes (2, 5)" in shown
    assert "2 videos of" in shown
    assert "using k 18" in shown
    found = results(place, "knn")
    assert found["protocol"]["settings"]["k"] == 18
    predicted = {row["predicted"] for row in found["predictions"].values()}
    assert not {2, 5} & predicted


def test_a_video_that_cannot_be_read_is_left_out_by_name(
    place: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    entries = read_list(place / "data" / "val.csv")
    Path(entries[3].path).write_text("no video")
    tats("probe", "knn", place / "run", place / "data")
    assert f"left out: {entries[3].path}" in capsys.readouterr().out
    found = results(place, "knn")
    assert len(found["predictions"]) == found["protocol"]["val"]["num_videos"] == 7
    assert found["protocol"]["val"]["unreadable"]


def test_class_names_come_from_beside_the_list(
    place: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from tats_ray.evaluation import results as module

    seen: list[Any] = []
    real = module.draw_confusion

    def spy(*args: Any, **options: Any) -> Any:
        seen.append(options["names"])
        return real(*args, **options)

    monkeypatch.setattr(module, "draw_confusion", spy)
    tats("probe", "knn", place / "run", place / "data")
    (place / "data" / "classes.json").write_text("[1, 2]")
    tats("probe", "knn", place / "run", place / "data")
    assert seen == [list(CLASSES), None]


def test_plan_of_the_reference_is_the_default_for_validation(place: Path) -> None:
    """Two clips by three crops: all sets but Kinetics-400 [method section 2.6]."""
    tats("probe", "knn", place / "run", place / "data")
    assert results(place, "knn")["protocol"]["val"]["features"]["views"] == str(ViewPlan(2, 3))


def test_a_place_that_cannot_be_written_is_refused_before_the_work(
    place: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    (place / "file").write_text("")
    monkeypatch.setattr("tats_ray.evaluation.feature_cache.compute", None)
    monkeypatch.setattr("tats_ray.evaluation.extract.compute", None)
    lists = (place / "run", place / "data")
    assert "cannot be made" in refusal(capsys, "probe", "knn", *lists, "--out", place / "file")
    words = ("extract", place / "run", place / "data" / "val.csv", "-o")
    assert "cannot be made" in refusal(capsys, *words, place / "file" / "f.safetensors")


def test_every_probe_and_extraction_of_the_documentation_runs(
    place: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name, there in (("run", "runs/debug_cpu"), ("data", "other/demo"), ("other", "data")):
        (place / there).parent.mkdir(exist_ok=True)
        (place / name).rename(place / there)
    shutil.copytree(place / "runs" / "debug_cpu", place / "runs" / "motion_cpu")
    (place / "data" / "motion").symlink_to("demo")
    shutil.copytree(place / "runs" / "debug_cpu", place / "runs" / "pong_cpu")
    make_atari(place / "data" / "pong", "pong", num_train=24, num_val=24)
    monkeypatch.chdir(place)
    pages = [ROOT / "docs" / name for name in ("quickstart.md", "downstream.md")]
    text = "\n".join(page.read_text() for page in pages)
    commands = set(re.findall(r"^tats ((?:probe|extract) .*)$", text, re.MULTILINE))
    assert {command.split()[1] for command in commands} >= {"linear", "attentive", "knn"}
    for command in sorted(commands):
        tats(*shlex.split(command))
    assert len(list(Path("runs/debug_cpu/probes").iterdir())) == 5
    assert len(list(Path("runs/motion_cpu/probes").iterdir())) == 2
    assert len(list(Path("runs/pong_cpu/probes").glob("state-*"))) == 1
    assert load_file("tokens.safetensors")["features"].shape == (8, 6, 8, 128)
