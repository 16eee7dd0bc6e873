"""Plans of fine-tuning, its refusals, and what its runs leave."""

from __future__ import annotations

import json
import shlex
import shutil
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file

import tats_ray
from tats_ray.checkpoints.fine_tuned import read_fine_tuned
from tats_ray.cli import Finetune, ProbeCommand, parse
from tats_ray.config.encoder_flags import EncoderOptions
from tats_ray.config.finetune_schema import FinetuneConfig
from tats_ray.config.load import dump_config, finetune_config, parse_finetune
from tats_ray.core.seeds import stream
from tats_ray.core.types import Position
from tats_ray.data.manifest import read_list
from tats_ray.data.synthetic import CLASSES
from tats_ray.runs.finetune_plan import make_finetune_plan
from tats_ray.runtime.driver.fit import Outcome
from tats_ray.training.finetune_loop import ClassifierLearner
from tats_ray.training.finetune_state import first_weights, save_state
from tests.commands import refusal, tats

ROOT = Path(__file__).parents[3]


@pytest.fixture
def place(fine_tuned: Path, tmp_path: Path) -> Path:
    """A copy that a test may change."""
    return Path(shutil.copytree(fine_tuned, tmp_path / "place"))


def test_fine_tuned_run_is_a_checkpoint_like_any_other(
    place: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    tats("ckpt", "inspect", place / "tuned")
    told = capsys.readouterr().out
    assert "fine-tuned" in told
    assert "8 classes" in told
    out = place / "tuned.pth"
    tats("ckpt", "convert", place / "tuned", out)
    again = tats_ray.load(out, num_frames=4, image_size=16)
    shape = (2, *again.grid.clip_shape)
    clips = torch.randint(256, shape, generator=stream(0, "clips"), dtype=torch.uint8)
    expected = tats_ray.load(place / "tuned").classify(clips)
    assert torch.equal(again.classify(clips), expected)
    tats("export", "hf", place / "tuned", place / "hf")
    from_folder = tats_ray.load(place / "hf").classify(clips)
    torch.testing.assert_close(from_folder, expected)
    assert "has no decoder" in refusal(
        capsys, "show-masks", place / "tuned", next((place / "data" / "val").glob("*.mp4"))
    )


def test_what_fine_tuning_refuses(place: Path, capsys: pytest.CaptureFixture[str]) -> None:
    run, data = place / "run", place / "data"
    for flags, says in (
        (["--model.patch", "16"], r"has patch 8, but model.patch is 16"),
        (["--model.tubelet", "1"], r"has tubelet 2, but model.tubelet is 1"),
        (["--model.size", "base"], r"has size tiny, but model.size is base"),
        (["--data.num_classes", "5"], r"has classes 0 to 7, but data.num_classes is 5"),
        (["--optim.batch_size", "26"], r"24 videos, fewer than one batch of 26"),
        (["--data.image_size", "20"], r"image_size 20 is not a multiple of the patch size 8"),
        (["--optim.layerdecay", "1"], r"did you mean optim.layer_decay?"),
        (["--checkpoint.folder", str(place), "--resume"], r"there is no run to resume"),
        (["--checkpoint.folder", str(place), "--name", "run"], r"already holds a run"),
        (["--cluster.use_gpu", "true"], r"this machine has 0"),
        (["--test.clips", "999"], r"test.clips times test.crops must be at most 1000, got 2997"),
        (
            ["--cluster.num_workers", "2", "--cluster.min_workers", "1"],
            r"cluster.min_workers 1 works only in pre-training",
        ),
    ):
        assert says in refusal(capsys, "finetune", run, data, *flags), flags
    says = refusal(capsys, "finetune", run)
    assert "there is no train list; give a folder with train.csv and val.csv, or" in says
    assert "or, without a folder, --data.train_list LIST --data.val_list LIST" in says
    few = place / "few"
    few.mkdir()
    for name in ("train", "val"):
        entries = read_list(data / f"{name}.csv")
        lines = [f"{e.path}\t{e.label % 4}\n" for e in entries if e.label is not None]
        (few / f"{name}.csv").write_text("".join(lines))
    says = refusal(capsys, "finetune", place / "tuned", few)
    assert "its head has 8 classes" in says
    assert "use --new-head to load only the encoder" in says
    (few / "train.csv").write_text("".join(f"{e.path}\n" for e in read_list(data / "train.csv")))
    assert "has no labels" in refusal(capsys, "finetune", run, few)


def test_plan_warns_of_lists_that_share_videos_and_of_classes_that_count_from_one(
    place: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    entries = read_list(place / "data" / "train.csv")
    lines = [f"{e.path}\t{e.label + 1}\n" for e in entries if e.label is not None]
    for name in ("train", "val"):
        (place / f"{name}.csv").write_text("".join(lines))
    make_finetune_plan(place / "run", place, finetune_config(None, ["--optim.batch_size", "4"]))
    told = capsys.readouterr().out
    assert "24 of the 24 videos in" in told
    assert "the accuracy on them says nothing about new videos" in told
    assert "class ids run from 1 to 8, so class 0 has no video; subtract 1 from each id" in told


def test_plan_takes_clips_and_shape_from_the_checkpoint_and_classes_from_the_lists(
    place: Path,
) -> None:
    flags = ["--optim.batch_size", "4"]
    plan = make_finetune_plan(place / "run", place / "data", finetune_config(None, flags))
    assert plan.config.data.num_classes == len(CLASSES)
    assert (plan.config.data.num_frames, plan.config.data.image_size) == (4, 16)
    assert (plan.config.model.size, plan.config.model.patch, plan.steps_per_epoch) == ("tiny", 8, 6)
    assert plan.notes == ()
    assert "note" not in dict(plan.lines())
    short = finetune_config(None, [*flags, "--optim.epochs", "5"])
    said = dict(make_finetune_plan(place / "run", place / "data", short).lines())["note"]
    assert "the learning rate never reaches" in said
    assert parse_finetune(parse_yaml_of(plan.config)) == plan.config
    wider = [*flags, "--data.num_frames", "8", "--data.image_size", "32"]
    plan = make_finetune_plan(place / "run", place / "data", finetune_config(None, wider))
    (note,) = plan.notes
    assert "recomputed for 8 frames of 32 pixels, 64 tokens" in note
    assert "4 frames of 16 pixels, 8 tokens" in note
    few = [*flags, "--eval.num_videos", "3"]
    plan = make_finetune_plan(place / "run", place / "data", finetune_config(None, few))
    assert "24 to train on, 3 to validate" in dict(plan.lines())["videos"]
    encoder = make_finetune_plan(
        place / "enc.safetensors", place / "data", finetune_config(None, flags)
    )
    assert encoder.config.data.image_size == 224  # the file does not say


def ended(monkeypatch: pytest.MonkeyPatch, *, is_finished: bool) -> None:
    """Stands in for the training: no Ray, and the weights before the first step."""

    def train(config: FinetuneConfig, folder: Path, *args: object, **how: object) -> Outcome:
        learner = ClassifierLearner(first_weights(config, folder), config, steps_per_epoch=1)
        save_state(folder, learner, Position(step=1), dump_config(config), keep_last=1)
        (folder / "metrics.jsonl").write_text('{"step": 1, "epoch": 1, "val/top1": 0.5}\n')
        return Outcome(is_finished, "stopped after step 1", 1)

    monkeypatch.setattr("tats_ray.runtime.driver.launch.run", train)


def printed_command(capsys: pytest.CaptureFixture[str]) -> list[str]:
    """The last line that a person would copy, without `tats`."""
    lines = [line for line in capsys.readouterr().out.splitlines() if line.startswith("  tats ")]
    return shlex.split(lines[-1])[1:]


def test_lists_apart_from_their_videos_are_trained_on_tested_and_probed(
    place: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    data, lists = place / "data", place / "my lists"
    lists.mkdir()
    shutil.copy(data / "train.csv", lists / "train.csv")
    shutil.copy(data / "val.csv", lists / "held out.csv")
    (lists / "test.csv").write_text("another.mp4\t0\n")
    assert "set the root folder" in refusal(
        capsys, "probe", "knn", place / "run", "--train", lists / "train.csv",
        "--val", lists / "held out.csv",
    )  # fmt: skip
    ended(monkeypatch, is_finished=True)
    tats(
        *("finetune", place / "run", "--checkpoint.folder", place, "--name", "new"),
        *("--data.train_list", lists / "train.csv", "--data.val_list", lists / "held out.csv"),
        *("--data.root", data, "--optim.batch_size", "4"),
    )
    command = printed_command(capsys)
    assert command == ["test", str(place / "new"), "--list", str(lists / "held out.csv")]
    tats(*command)  # the root is the run's own
    (folder,) = (place / "new" / "tests").iterdir()
    assert len(json.loads((folder / "predictions.json").read_text())) == 8
    by_hand = (place / "tuned", "--list", lists / "held out.csv", "--root", data)
    tats("test", *by_hand)
    tats(
        *("probe", "knn", place / "run", "--train", lists / "train.csv"),
        *("--val", lists / "held out.csv", "--root", data),
    )
    out = place / "features.safetensors"
    tats("extract", place / "run", lists / "held out.csv", "--root", data, "-o", out)
    assert out.is_file()


def test_fields_need_no_folder_of_data_before_them(
    place: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    parsed, left = parse(["finetune", "c.pth", "--name", "n", "--resume", "--optim.betas=0.9,1"])
    assert parsed == Finetune(Path("c.pth"), resume=True)
    assert left == ["--name", "n", "--optim.betas=0.9,1"]
    assert parse(["finetune", "c", "d", "--seed", "1"]) == (
        Finetune(Path("c"), Path("d")),
        ["--seed", "1"],
    )
    parsed, left = parse(["probe", "knn", "c", "--vews", "2x3", "--device", "cpu", "--stride=4"])
    assert isinstance(parsed, ProbeCommand)
    assert parsed.encoder == EncoderOptions(device="cpu", stride=4)
    assert left == ["--vews", "2x3"]
    says = refusal(
        capsys, "finetune", place / "run", "--data.train_list", "a", "--optim.epoch", "1"
    )
    assert "did you mean optim.epochs?" in says
    assert "unexpected --vews 2x3" in refusal(capsys, "test", place / "tuned", "--vews", "2x3")


def test_folder_stands_before_the_lists_of_a_file_and_a_note_names_these(
    place: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    run, data, file = place / "run", place / "data", place / "mine.yaml"
    file.write_text(
        "data: {train_list: my/train.csv, val_list: my/val.csv}\noptim: {batch_size: 4}\n"
    )
    ended(monkeypatch, is_finished=True)
    tats("finetune", run, data, "--config", file, "--checkpoint.folder", place)
    note = (
        f"the lists of {data} are used; ignored: data.train_list my/train.csv, "
        "data.val_list my/val.csv"
    )
    assert f"note  {note}\n" in capsys.readouterr().out
    plan = make_finetune_plan(run, data, finetune_config(file))
    assert plan.config.data.train_list == str(data / "train.csv")
    assert plan.notes == (note,)
    assert make_finetune_plan(run, data, plan.config).notes == ()  # the same lists


@pytest.mark.parametrize("name", ["train", "val"])
def test_folder_and_lists_that_were_both_typed_are_refused(
    place: Path, name: str, capsys: pytest.CaptureFixture[str]
) -> None:
    data, mine = place / "data", place / "my.csv"
    flags = ["--optim.batch_size=4", f"--data.{name}_list={mine}"]
    assert refusal(capsys, "finetune", place / "run", data, *flags) == (
        f"tats: {data} and --data.{name}_list {mine} both name videos; leave out "
        f"{data}, or --data.{name}_list\n"
    )


def test_new_head_is_still_new_when_the_run_goes_on(
    place: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    data = place / "data"
    for name in ("train", "val"):
        entries = read_list(data / f"{name}.csv")
        lines = [f"{e.path}\t{e.label % 4}\n" for e in entries if e.label is not None]
        (data / f"{name}.csv").write_text("".join(lines))
    ended(monkeypatch, is_finished=False)
    flags = ("--checkpoint.folder", place, "--name", "new", "--optim.batch_size", "4")
    tats("finetune", place / "tuned", data, *flags, "--new-head")
    command = printed_command(capsys)
    for words in ([], command):
        if words:
            tats(*words)
        names = set(load_file(place / "new" / "start.safetensors"))
        assert "encoder.patch_embed.proj.weight" in names
        assert not [name for name in names if not name.startswith("encoder.")]
        assert read_fine_tuned(place / "new").config.new_head


def test_dry_run_of_a_run_that_goes_on_is_of_what_is_left(
    place: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr("tats_ray.runs.forecast._step_s", lambda step: 3600.0)
    words = ["finetune", place / "run", place / "data", "--checkpoint.folder", place]
    words += ["--name", "new", "--optim.batch_size", "4", "--optim.epochs", "3"]
    tats(*words, "--dry-run")
    assert "time  about 18h00m of training" in capsys.readouterr().out  # 6 steps an epoch
    ended(monkeypatch, is_finished=False)
    tats(*words)
    config = read_fine_tuned(place / "new").config
    learner = ClassifierLearner(first_weights(config, place / "new"), config, steps_per_epoch=6)
    for epoch, says in ((2, "time  about 6h00m of training"), (3, "new is complete: 3 epochs")):
        at = Position(step=6 * epoch, epoch=epoch)
        save_state(place / "new", learner, at, dump_config(config), keep_last=1)
        capsys.readouterr()
        tats(*words, "--resume", "--dry-run")
        said = capsys.readouterr().out
        assert says in said
    assert "time  " not in said


def parse_yaml_of(config: Any) -> dict[str, Any]:
    import yaml

    found: dict[str, Any] = yaml.safe_load(dump_config(config))
    return found


@pytest.mark.parametrize("name", ["ucf101", "hmdb51", "kinetics400", "ssv2"])
def test_presets_have_the_values_of_the_supplements_table_4(name: str) -> None:
    config = finetune_config(ROOT / "tune_configs" / f"finetune_{name}.yaml")
    optim, how = config.optim, config.augment
    assert (optim.betas, optim.batch_size, optim.weight_decay) == ((0.9, 0.999), 8, 0.05)
    assert (optim.base_lr, optim.layer_decay, optim.warmup_epochs) == (1e-3, 0.75, 5)
    assert (how.rand_magnitude, how.rand_std, how.label_smoothing) == (9, 0.5, 0.1)
    assert (how.mixup, how.cutmix, optim.drop_path) == (0.8, 1.0, 0.1)
    assert (config.test.clips, config.test.crops) == (5 if name == "kinetics400" else 2, 3)
    assert config.data.stride == (4 if name == "kinetics400" else 2)
    assert (how.flip, config.data.sampling) == (
        (0.0, "segments") if name == "ssv2" else (0.5, "dense")
    )
