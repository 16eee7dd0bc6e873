"""What a person gets for a wrong request: one line that names value, place and way out; code 2."""

from __future__ import annotations

import re
import shutil
from pathlib import Path

import pytest

from tats_ray.cli import parse
from tats_ray.data.synthetic import SyntheticSet, synthesize
from tests.commands import refusal

REPO = Path(__file__).parents[2]
DEMO = str(REPO / "tune_configs" / "debug_cpu.yaml")


@pytest.fixture(scope="module")
def videos(tmp_path_factory: pytest.TempPathFactory) -> SyntheticSet:
    folder = tmp_path_factory.mktemp("videos")
    return synthesize(folder, num_train=4, num_val=2, num_frames=8, size=32, workers=1)


def pretrain(videos: SyntheticSet, tmp_path: Path, *flags: str) -> list[str]:
    return [
        "pretrain",
        DEMO,
        "--data.train_list",
        str(videos.train_list),
        "--data.val_list",
        str(videos.val_list),
        "--optim.batch_size",
        "2",
        "--checkpoint.folder",
        str(tmp_path),
        *flags,
    ]


def write_list(tmp_path: Path, text: str) -> str:
    path = tmp_path / "list.csv"
    path.write_text(text)
    return str(path)


@pytest.mark.parametrize(
    ("flags", "says"),
    [
        (
            ["--data.train_list", "/nowhere/train.csv"],
            r"/nowhere/train\.csv: the list cannot be read",
        ),
        (["--sampler.mask_ratio", "1.5"], r"sampler\.mask_ratio must be inside \(0, 1\), got 1\.5"),
        (["--sampler.mask_ratio", "0.999"], r"0\.999 leaves none of the 256 tokens visible"),
        (["--data.image_size", "60"], r"image_size 60 is not a multiple of the patch size 8"),
        (["--data.num_frames", "7"], r"num_frames 7 is not a multiple of the tubelet size 2"),
        (
            ["--cluster.use_gpu", "true"],
            r"needs 1 GPU .*, this machine has 0; set cluster\.use_gpu false, or join",
        ),
        (
            ["--cluster.use_gpu", "true", "--cluster.policy_gpus", "0.5"],
            r"this machine has 0; set cluster\.use_gpu false and cluster\.policy_gpus 0, or join",
        ),
        (
            ["--cluster.num_workers", "999"],
            r"needs 999 CPU .*, this machine has \d+; lower cluster\.num_workers",
        ),
        (["--sampler.mask_ration", "0.9"], r"unknown field sampler\.mask_ration; did you mean"),
        (["--mask_ration", "0.9"], r"unknown field mask_ration; did you mean"),
        (["--algorithm.name", "poo"], r"'poo' is not known; did you mean ppo\?"),
        (
            ["--sampler.name", "tatz"],
            r"sampler\.name 'tatz' is not known; did you mean tats\?; known: tats, adamae, random",
        ),
        (
            ["--sampler.name", "no_such_module:Net"],
            r"'no_such_module:Net' cannot be loaded: .*; add its folder to PYTHONPATH",
        ),
        (
            ["--sampler.name", "torch.nn:Identity"],
            r"sampler\.name torch\.nn:Identity is a .* so it learns, but it has no parameters",
        ),
        (
            ["--sampler.name", "torch.nn:LayerNorm"],
            r"sampler\.name torch\.nn:LayerNorm fails on random tokens: TypeError: ",
        ),
        (
            ["--sampler.name", "tube", "--sampler.options.hidden", "2"],
            r"sampler\.options must be empty for sampler tube, got \{'hidden': 2\}",
        ),
        (["--env.reward", "speed"], r"env\.reward 'speed' is not known; known: token_error"),
        (["--loop.epochs", "many"], r"loop\.epochs must be a whole number, got 'many'"),
        (["--loop.epochs"], r"flag --loop\.epochs has no value"),
        (["--dri-run"], r"there is no flag --dri-run; `tats fields` lists all fields"),
        (["--loop.epoch"], r"there is no flag --loop\.epoch; did you mean --loop\.epochs\?"),
        (["--optim.batch_size", "64"], r"4 videos, fewer than one batch of 64"),
        (["--data.num_classes", "3"], r"train\.csv.*line \d+.*class id"),
        (
            ["--cluster.buffer_mb", "1", "--loop.mae_steps_per_update", "9"],
            r"buffer_mb 1 cannot hold the rollouts of 9 MAE steps .* use --cluster\.buffer_mb 2",
        ),
        (["--env.reward", "clip_eror"], r"'clip_eror' is not known; did you mean clip_error\?"),
        (
            ["--algorithm.name", "grpo", "--env.reward", "token_error"],
            r"joint.*token_error.*negative_clip_error",
        ),
        (
            ["--algorithm.scored", "visible", "--algorithm.sharpness", "1"],
            r"algorithm\.advantage must be raw or standardized if .*visible, got 'relative'",
        ),
        (
            ["--sampler.name", "frame", "--sampler.mask_ratio", "0.2"],
            r"0\.2 hides none of the 4 time",
        ),
        (
            ["--algorithm.name", "rloo", "--algorithm.group_size", "3"],
            r"batch_size 2 is not a multiple of the 3 masks.*try --optim\.batch_size 3",
        ),
        (
            ["--algorithm.name", "grpo", "--algorithm.group_size", "1"],
            r"algorithm\.group_size must be at least 2, got 1",
        ),
        (["--name", "a/b"], r"name 'a/b' is not a folder name"),
        (["--resume"], r"there is no run to resume"),
    ],
    ids=lambda value: value[0].lstrip("-") if isinstance(value, list) else "",
)
def test_a_wrong_request_is_refused_before_anything_starts(
    flags: list[str],
    says: str,
    videos: SyntheticSet,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    error = refusal(capsys, *pretrain(videos, tmp_path, *flags))
    assert re.search(says, error), error
    assert not list(tmp_path.iterdir())


def test_a_sampler_that_gives_nan_is_refused_before_anything_starts(
    videos: SyntheticSet,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    example = (REPO / "examples" / "custom_sampler.py").read_text()
    broken = example.replace("return logits", "return logits / 0")
    assert broken != example
    plug_ins = tmp_path / "plug_ins"
    plug_ins.mkdir()
    (plug_ins / "nan_sampler.py").write_text(broken)
    monkeypatch.syspath_prepend(str(plug_ins))
    flags = ["--sampler.name", "nan_sampler:CustomSampler", "--sampler.options.hidden", "8"]
    error = refusal(capsys, *pretrain(videos, tmp_path / "runs", *flags))
    assert re.search(r"nan_sampler:CustomSampler returned NaN or infinite logits", error), error
    assert not (tmp_path / "runs").exists()


@pytest.mark.parametrize("flags", [["--sampler.name", "oracle"], ["--env.reward", "motion_share"]])
def test_true_motion_that_is_missing_is_named_before_anything_starts(
    flags: list[str], videos: SyntheticSet, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    bare = tmp_path / "bare.mp4"
    shutil.copy(next(videos.train_list.parent.rglob("*.mp4")), bare)
    path = write_list(tmp_path, f"{bare}\t0\n")
    words = pretrain(videos, tmp_path, "--data.train_list", path, "--optim.batch_size", "1", *flags)
    error = refusal(capsys, *words)
    assert re.search(rf"{flags[1]} needs .*bare\.motion\.npz, the true motion", error), error


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("", r"list\.csv.*no videos|list\.csv.*empty"),
        ("{train}\t0\nno label here\tx\n", r"list\.csv.*line 2"),
        ("missing.mp4\t0\n", r"list\.csv.*line 1.*missing\.mp4"),
    ],
    ids=["empty", "bad line", "missing video"],
)
def test_a_bad_list_is_refused_with_its_line(
    text: str,
    says: str,
    videos: SyntheticSet,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    first = videos.train_list.read_text().split("\t")[0]
    path = write_list(tmp_path, text.format(train=videos.train_list.parent / first))
    error = refusal(capsys, *pretrain(videos, tmp_path, "--data.train_list", path))
    assert re.search(says, error), error


def test_a_missing_config_names_what_is_there(capsys: pytest.CaptureFixture[str]) -> None:
    error = refusal(capsys, "pretrain", str(REPO / "tune_configs" / "nope.yaml"))
    assert "nope.yaml does not exist" in error
    assert "ucf101_tats.yaml" in error


def test_a_folder_without_a_checkpoint_cannot_be_shown(
    tmp_path: Path, videos: SyntheticSet, capsys: pytest.CaptureFixture[str]
) -> None:
    error = refusal(capsys, "show-masks", str(tmp_path), "video.mp4")
    assert "holds no checkpoint" in error


def test_unknown_words_after_a_command_without_fields_are_refused(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    error = refusal(capsys, "data", "synth", str(tmp_path / "v"), "--nope", "1")
    assert "--nope" in error


@pytest.mark.parametrize(
    ("words", "says"),
    [
        (["pretrian", "x.yaml"], "there is no command 'pretrian', did you mean `tats pretrain`?"),
        (["data", "synth", "/proc/here/shapes"], "folder /proc/here cannot be made"),
        (["data", "atari", "pong", "/proc/here/pong"], "folder /proc/here cannot be made"),
        (["data", "atari", "pongg", "x"], "ale-py has no game 'pongg'; did you mean pong"),
    ],
)
def test_command_that_cannot_begin_ends_in_one_line(
    capsys: pytest.CaptureFixture[str], words: list[str], says: str
) -> None:
    assert says in refusal(capsys, *words)


@pytest.mark.parametrize(
    ("flags", "says"),
    [
        (["--checkpoint.folder", "/proc/here"], r"folder /proc/here/debug_cpu cannot be made"),
        (["--name", "x" * 300], r"is not a folder name, which has no / and at most 200 bytes"),
        (["--name", "nowhere", "--resume"], r"there is no run to resume: .*/nowhere has neither"),
    ],
)
def test_place_of_a_run_that_cannot_be_used_is_told_before_anything_starts(
    videos: SyntheticSet,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    flags: list[str],
    says: str,
) -> None:
    assert re.search(says, refusal(capsys, *pretrain(videos, tmp_path, *flags)))


@pytest.mark.parametrize(
    ("flags", "says"),
    [
        (
            ["--name", "zz", "sampler.mask_ratio=0.8"],
            r"unexpected argument 'sampler\.mask_ratio=0\.8' after --name zz",
        ),
        (["--loop.epochs", "2", "-lr", "1"], r"unexpected argument '-lr' after --loop\.epochs 2"),
        (["--loop.epochs", "2", "3"], r"unexpected argument '3' after --loop\.epochs 2"),
        (["--lr", "1e-3"], r"unknown field lr; did you mean optim\.base_lr, the autoencoder's, or"),
        (["--optim.lr", "1e-3"], r"unknown field optim\.lr; did you mean optim\.base_lr"),
    ],
)
def test_words_that_belong_to_no_flag_and_rates_of_two_meanings_are_told(
    videos: SyntheticSet,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    flags: list[str],
    says: str,
) -> None:
    assert re.search(says, refusal(capsys, *pretrain(videos, tmp_path, *flags)))


def test_flag_that_takes_a_number_or_none_says_so(capsys: pytest.CaptureFixture[str]) -> None:
    words = ["show-masks", "run", "video.mp4", "--mask-ratio"]
    with pytest.raises(SystemExit):
        parse([*words, "many"])
    error = capsys.readouterr().err
    assert "--mask-ratio: 'many' is not a number; give a number or none" in error
    assert [parse([*words, word])[0].mask_ratio for word in ("0.5", "none")] == [0.5, None]  # type: ignore[attr-defined]
