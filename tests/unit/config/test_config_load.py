"""The strict reader: what is accepted, what is refused, and how helpfully."""

from __future__ import annotations

import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st

from tats_ray.algorithms.grpo import GRPOConfig
from tats_ray.algorithms.ppo import PPOConfig
from tats_ray.algorithms.reinforce import ReinforceConfig
from tats_ray.config.load import (
    OFFICIAL_FLAGS,
    dump_config,
    field_docs,
    load_config,
    parse_config,
    parse_flags,
)
from tats_ray.config.parts import algorithm_class
from tats_ray.config.schema import RunConfig
from tats_ray.core.errors import UsageError

BRANCHES = {
    "data": "num_frame",
    "model": "sise",
    "sampler": "mask_ration",
    "env": "rewards",
    "algorithm": "clip_esp",
    "loop": "epoch",
    "optim": "base_rl",
    "eval": "num_clip",
    "checkpoint": "keep_lats",
    "log": "every_step",
    "cluster": "num_worker",
}
NEAREST = {
    "data": "num_frames",
    "model": "size",
    "sampler": "mask_ratio",
    "env": "reward",
    "algorithm": "clip_eps",
    "loop": "epochs",
    "optim": "base_lr",
    "eval": "num_clips",
    "checkpoint": "keep_last",
    "log": "every_steps",
    "cluster": "num_workers",
}


def write(folder: Path, text: str, name: str = "run.yaml") -> Path:
    path = folder / name
    path.write_text(text)
    return path


def refusal(raw: dict[str, Any]) -> str:
    with pytest.raises(UsageError) as error:
        parse_config(raw)
    return str(error.value)


def test_empty_config_is_the_papers_recipe() -> None:
    config = parse_config({})
    assert config.algorithm == PPOConfig()
    assert replace(config, algorithm=RunConfig().algorithm) == RunConfig()


@pytest.mark.parametrize("branch", list(BRANCHES))
def test_unknown_field_of_any_branch_is_refused_with_the_nearest_known_one(branch: str) -> None:
    message = refusal({branch: {BRANCHES[branch]: 1}})
    expected = f"unknown field {branch}.{BRANCHES[branch]}; did you mean {branch}.{NEAREST[branch]}"
    assert expected in message
    assert "\n" not in message


def test_every_branch_of_the_config_was_tried() -> None:
    plain = {"name", "seed", "init"}
    assert set(BRANCHES) == {dotted.split(".")[0] for dotted, _, _ in field_docs()} - plain


def test_unknown_branch_is_refused_with_the_nearest_known_one() -> None:
    assert "unknown field modle; did you mean model?" in refusal({"modle": {}})


def test_field_of_another_branch_is_refused_with_the_place_where_it_belongs() -> None:
    assert "did you mean sampler.mask_ratio?" in refusal({"data": {"mask_ratio": 0.9}})


def test_field_like_no_other_is_refused_with_those_that_are_known_there() -> None:
    assert "known fields: every_epochs, num_clips" in refusal({"eval": {"xyzzy": 1}})


def test_several_mistakes_are_counted_and_the_first_is_named() -> None:
    message = refusal({"data": {"stide": 2, "frames": 1}, "loop": {"epochs": "many"}})
    assert "data.stide" in message
    assert "(and 2 more)" in message


@pytest.mark.parametrize(
    ("raw", "message"),
    [
        ({"loop": {"epochs": "many"}}, "loop.epochs must be a whole number, got 'many'"),
        ({"loop": {"epochs": 1.5}}, "loop.epochs must be a whole number, got 1.5"),
        ({"sampler": {"mask_ratio": None}}, "sampler.mask_ratio must be a number, got None"),
        ({"model": {"size": "giant"}}, "model.size must be .*'tiny'.*got 'giant'"),
        ({"optim": {"betas": [0.9]}}, r"optim.betas"),
        ({"data": 3}, "data must be a mapping of fields, got 3"),
        ({"algorithm": "ppo"}, "algorithm must be a mapping of fields, got 'ppo'"),
        (
            {"cluster": {"use_gpu": "perhaps"}},
            "cluster.use_gpu must be true or false, got 'perhaps'",
        ),
        ({"sampler": {"mask_ratio": 1.2}}, r"sampler.mask_ratio must be inside \(0, 1\), got 1.2"),
    ],
)
def test_value_of_the_wrong_type_is_refused_by_field_and_value(
    raw: dict[str, Any], message: str
) -> None:
    with pytest.raises(UsageError, match=message):
        parse_config(raw, source="run.yaml")


def test_number_that_yaml_reads_as_a_string_is_a_number_where_one_is_declared(
    tmp_path: Path,
) -> None:
    path = write(tmp_path, "optim:\n  base_lr: 1e-3\nalgorithm:\n  lr: 1e-4\n  name: reinforce\n")
    assert yaml.safe_load(path.read_text())["optim"]["base_lr"] == "1e-3"
    config = load_config(path)
    assert config.optim.base_lr == 1e-3
    assert config.algorithm == ReinforceConfig(lr=1e-4)


def test_run_is_named_after_its_file_unless_it_has_a_name(tmp_path: Path) -> None:
    assert load_config(write(tmp_path, "seed: 3\n", "ucf101_tats.yaml")).name == "ucf101_tats"
    assert load_config(write(tmp_path, "name: mine\n")).name == "mine"
    assert load_config(write(tmp_path, "")).algorithm == PPOConfig()


def test_flags_win_over_the_file_and_the_last_flag_over_the_first(tmp_path: Path) -> None:
    path = write(tmp_path, "loop:\n  epochs: 5\n")
    flags = ["--loop.epochs", "6", "--loop.epochs=7", "--sampler.mask-ratio", "0.95"]
    config = load_config(path, flags)
    assert config.loop.epochs == 7
    assert config.sampler.mask_ratio == 0.95


def test_flag_values_keep_their_spaces_and_equals_signs(tmp_path: Path) -> None:
    flags = ["--data.train_list=/my data/a=b.csv", "--name", "two words"]
    config = load_config(write(tmp_path, ""), flags)
    assert config.data.train_list == "/my data/a=b.csv"
    assert config.name == "two words"


@pytest.mark.parametrize("flags", [["0.9", "0.99"], ["0.9,0.99"], ["0.9 0.99"]])
def test_pair_of_betas_may_be_written_in_any_way(tmp_path: Path, flags: list[str]) -> None:
    config = load_config(write(tmp_path, ""), ["--optim.betas", *flags])
    assert config.optim.betas == (0.9, 0.99)


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        (["epochs", "3"], "unexpected argument 'epochs'"),
        (["--loop.epochs"], "flag --loop.epochs has no value"),
        (["--loop.epochs", "--seed", "1"], "flag --loop.epochs has no value"),
        (["--name.x", "1"], "name is a single value"),
        (["--loop.epoch", "1"], "unknown field loop.epoch; did you mean loop.epochs?"),
    ],
)
def test_flag_that_cannot_be_meant_is_refused(
    tmp_path: Path, flags: list[str], message: str
) -> None:
    with pytest.raises(UsageError, match=message):
        load_config(write(tmp_path, ""), flags)


@pytest.mark.parametrize(
    ("text", "flags", "says"),
    [
        ("", ["--loop.epochs", "many"], "command line: loop.epochs must be"),
        ("", ["--epochs", "many"], "command line: loop.epochs must be"),
        ("loop: {epochs: many}", ["--seed", "1"], "{path}: loop.epochs must be"),
        ("loop: {epochs: many}", ["--loop.m", "1"], "{path}: loop.epochs must be"),
        ("", ["--loop.epoch", "1"], "command line: unknown field loop.epoch; did"),
        ("loop: {epoch: 1}", ["--loop.epochs", "1"], "{path}: unknown field loop.epoch;"),
        ("", ["--sampler.mask_ratio", "2"], "command line: sampler.mask_ratio must be inside"),
        ("", ["--sampler.options.a", "2"], "command line: sampler.options must be empty"),
        ("", ["--sampler.name", "tatz"], "command line: sampler.name 'tatz' is not known"),
        ("sampler: {name: tatz}", ["--seed", "1"], "{path}: sampler.name 'tatz' is not known"),
        ("", ["--algorithm.name", "poo"], "command line: algorithm.name 'poo' is not known"),
        ("algorithm: {lr: 1}", ["--algorithm.name", "poo"], "command line: algorithm.name 'poo'"),
        ("algorithm: {name: poo}", ["--algorithm.lr", "1"], "{path}: algorithm.name 'poo'"),
        ("", ["--algorithm.lr", "x"], "command line: algorithm.lr must be a number"),
    ],
)
def test_error_begins_with_the_place_where_the_field_was_set(
    tmp_path: Path, text: str, flags: list[str], says: str
) -> None:
    path = write(tmp_path, text)
    with pytest.raises(UsageError) as refused:
        load_config(path, flags)
    assert str(refused.value).startswith(says.format(path=path))


def test_class_that_is_no_algorithms_settings_is_refused_with_what_to_name() -> None:
    with pytest.raises(UsageError, match=r"PPO' is not a subclass of AlgorithmConfig; name the c"):
        parse_config({"algorithm": {"name": "tats_ray.algorithms.ppo:PPO"}})


def test_every_official_flag_names_a_field_that_exists() -> None:
    known = {dotted for dotted, _, _ in field_docs()}
    assert set(OFFICIAL_FLAGS.values()) <= known


# README of the paper's repository, method section 16; values changed where the default would hide.
OFFICIAL_COMMAND = """
    --data_path list.csv --mask_type learnable --mask_ratio 0.95
    --model adaptive_pretrain_videomae_base_patch16_224 --decoder_depth 4 --batch_size 16
    --num_frames 16 --sampling_rate 4 --opt_betas 0.9 0.95 --warmup_epochs 40
    --save_ckpt_freq 5 --epochs 201 --log_dir logs --output_dir out --nproc_per_node 2
    --traj_attention False --num_traj_attn_blocks 2 --num_epochs_train_mae_only 10
    --policy_loss_coefficient 1e-3 --value_loss_coefficient 1e-4
    --entropy_coefficient 1e-5 --update_steps_mae 3 --update_steps_ppo 2 --softmax_temp 1.5
"""


def test_official_command_line_gives_the_configuration_that_it_means(tmp_path: Path) -> None:
    flags = OFFICIAL_COMMAND.split()
    assert {flag[2:] for flag in flags if flag.startswith("--")} == set(OFFICIAL_FLAGS)
    config = load_config(write(tmp_path, ""), flags)
    assert config.data.train_list == "list.csv"
    assert (config.sampler.name, config.sampler.mask_ratio) == ("tats", 0.95)
    assert (config.model.size, config.model.decoder_depth) == ("base", 4)
    assert (config.optim.batch_size, config.optim.betas) == (16, (0.9, 0.95))
    assert config.optim.warmup_epochs == 40
    assert (config.data.num_frames, config.data.stride) == (16, 4)
    assert (config.checkpoint.every_epochs, config.checkpoint.folder) == (5, "out")
    assert (config.loop.epochs, config.loop.mae_only_epochs) == (201, 10)
    assert config.loop.mae_steps_per_update == 3
    assert config.cluster.num_workers == 2
    assert config.sampler.trajectory_attention is False  # not a truthy word
    assert (config.sampler.num_blocks, config.sampler.temperature) == (2, 1.5)
    assert config.algorithm == PPOConfig(
        policy_coef=1e-3, value_coef=1e-4, entropy_coef=1e-5, update_steps=2
    )


@pytest.mark.parametrize(("word", "truth"), [("True", True), ("False", False), ("0", False)])
def test_words_for_true_and_false_mean_what_they_say(
    tmp_path: Path, word: str, truth: bool
) -> None:
    config = load_config(write(tmp_path, ""), ["--traj_attention", word])
    assert config.sampler.trajectory_attention is truth


def test_official_mask_types_that_are_not_learned_stay_as_they_are() -> None:
    assert parse_flags(["--mask_type", "tube"]) == [("sampler.name", "tube")]
    assert parse_flags(["--mask_type=random"]) == [("sampler.name", "random")]


TEXT = st.text(st.characters(exclude_categories=["Cs"]), max_size=12)
POSITIVE = st.floats(1e-12, 1e6)
BETAS = st.tuples(st.floats(0, 0.999), st.floats(0, 0.999))
PPO = st.fixed_dictionaries(
    {"name": st.just("ppo")},
    optional={
        "lr": POSITIVE,
        "betas": BETAS,
        "entropy_coef": st.floats(0, 1),
        "clip_eps": st.floats(0.01, 0.99),
        "update_steps": st.integers(1, 9),
        "minibatch": st.sampled_from(["entry", "all"]),
        "scored": st.sampled_from(["hidden", "visible", "joint"]),
        "advantage": st.sampled_from(["raw", "standardized", "relative"]),
        "reduction": st.sampled_from(["mean", "sum"]),
    },
).filter(lambda ppo: ppo.get("advantage") != "relative" or ppo.get("scored", "hidden") == "hidden")
REINFORCE = st.fixed_dictionaries({"name": st.just("reinforce")}, optional={"lr": POSITIVE})
RUNS = st.fixed_dictionaries(
    {},
    optional={
        "name": TEXT | st.sampled_from(["yes", "null", "1e-4", "[1]", "# x", "- y", " "]),
        "seed": st.integers(-(2**63), 2**63),
        "data": st.fixed_dictionaries(
            {}, optional={"train_list": TEXT, "root": TEXT, "stride": st.integers(1, 9)}
        ),
        "model": st.fixed_dictionaries({}, optional={"size": st.sampled_from(["tiny", "huge"])}),
        "sampler": st.fixed_dictionaries(
            {},
            optional={
                "mask_ratio": st.floats(0.01, 0.99),
                "qkv_bias": st.booleans(),
                "temperature": POSITIVE,
            },
        ),
        "algorithm": PPO | REINFORCE,
        "optim": st.fixed_dictionaries({}, optional={"base_lr": POSITIVE, "betas": BETAS}),
        "cluster": st.fixed_dictionaries({}, optional={"cpus_per_worker": st.floats(0, 64)}),
    },
)


@given(raw=RUNS)
def test_dumped_config_reads_back_equal(raw: dict[str, Any]) -> None:
    config = parse_config(raw)
    assert parse_config(yaml.safe_load(dump_config(config))) == config


def test_dumped_config_is_complete_and_survives_a_file(tmp_path: Path) -> None:
    config = load_config(write(tmp_path, "optim:\n  base_lr: 1e-3\n"))
    text = dump_config(config)
    assert load_config(write(tmp_path, text, "again.yaml")) == config
    for dotted, _, _ in field_docs():
        assert f"{dotted.rsplit('.', 1)[-1]}:" in text


PLUG_IN = '''
from dataclasses import dataclass
from tats_ray.config.schema import AlgorithmConfig

@dataclass(frozen=True, kw_only=True, slots=True)
class MyConfig(AlgorithmConfig):
    """A plug-in."""
    name: str = "mine"
    strength: float = 2.0
    """How strong."""

    def build(self, policy):
        return ("built", self.strength)

class NotAConfig:
    pass
'''


@pytest.fixture
def plug_in_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.syspath_prepend(tmp_path)
    for name in ("my_plug_in", "my_broken_plug_in", "my_rude_plug_in"):
        monkeypatch.delitem(sys.modules, name, raising=False)
    write(tmp_path, PLUG_IN, "my_plug_in.py")
    return tmp_path


def test_fields_that_a_flags_algorithm_lacks_are_left_out_and_named(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    text = "algorithm: {name: ppo, lr: 1e-3, entropy_coef: 0.5, advantage: relative, sharpness: 2}"
    path = write(tmp_path, text)
    config = load_config(path, ["--algorithm.name", "grpo", "--algorithm.group_size", "3"])
    assert config.algorithm == GRPOConfig(lr=1e-3, entropy_coef=0.5, group_size=3)
    said = capsys.readouterr().out
    assert (
        said.split()
        == f"note algorithm grpo has no advantage, sharpness: ignoring what {path} sets".split()
    )
    load_config(path, ["--algorithm.name", "ppo"])
    assert capsys.readouterr().out == ""
    typo = write(tmp_path, "algorithm: {name: ppo, group_sise: 2}", "typo.yaml")
    with pytest.raises(UsageError, match=r"group_sise; did you mean algorithm\.group_size\?"):
        load_config(typo, ["--algorithm.name", "grpo"])


@pytest.mark.usefixtures("plug_in_folder")
def test_algorithm_of_another_package_needs_no_edit_here() -> None:
    raw = {"algorithm": {"name": "my_plug_in:MyConfig", "strength": "3e0", "lr": "1e-2"}}
    config = parse_config(raw)
    assert type(config.algorithm).__name__ == "MyConfig"
    assert config.algorithm.lr == 1e-2
    assert config.algorithm.build(None) == ("built", 3.0)
    assert parse_config(yaml.safe_load(dump_config(config))) == config
    message = refusal({"algorithm": {"name": "my_plug_in:MyConfig", "strenght": 1}})
    assert "did you mean algorithm.strength?" in message


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("my_plug_in:Missing", "cannot be loaded: module 'my_plug_in' has no attribute 'Missing'"),
        ("my_plug_in:NotAConfig", "is not a subclass of AlgorithmConfig"),
        ("no_such_plug_in:Config", "cannot be loaded: No module named 'no_such_plug_in'"),
        (
            "my_broken_plug_in:Config",
            r"cannot be loaded: .*: No module named 'no_such_dependency' \(.*_in\.py, line 1\)$",
        ),
        (
            "my_rude_plug_in:Config",
            r"cannot be loaded: RuntimeError: not on this machine \(.*_in\.py, line 1\)$",
        ),
        (":Config", "cannot be loaded: ValueError: Empty module name"),
        (".relative:Config", "cannot be loaded: "),
        ("json:loads", "is not a subclass of AlgorithmConfig"),
        ("pop", "is not known; did you mean ppo.*known: ppo, a2c, .*, or module:Class"),
    ],
)
def test_plug_in_that_cannot_be_used_is_refused_with_the_reason(
    plug_in_folder: Path, name: str, message: str
) -> None:
    write(plug_in_folder, "import no_such_dependency", "my_broken_plug_in.py")
    write(plug_in_folder, "raise RuntimeError('not on this machine')", "my_rude_plug_in.py")
    with pytest.raises(UsageError, match=f"algorithm.name '{name}' {message}"):
        algorithm_class(name)


def test_file_that_does_not_exist_is_refused_with_those_that_do(tmp_path: Path) -> None:
    write(tmp_path, "", "debug_cpu.yaml")
    with pytest.raises(UsageError, match=r"nope.yaml does not exist; .* has debug_cpu.yaml"):
        load_config(tmp_path / "nope.yaml")
    with pytest.raises(UsageError, match="does not exist$"):
        load_config(tmp_path / "no_folder" / "nope.yaml")


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("loop:\n  epochs: [3\n", "run.yaml line 3 is not YAML"),
        ("- a\n- b\n", "must be a mapping of fields, not a list"),
        ("just words", "must be a mapping of fields, not a str"),
        ("a: !!python/object/apply:os.getcwd []\n", "is not YAML"),
    ],
)
def test_file_that_is_not_a_mapping_of_plain_values_is_refused(
    tmp_path: Path, text: str, message: str
) -> None:
    with pytest.raises(UsageError, match=message) as error:
        load_config(write(tmp_path, text))
    assert "\n" not in str(error.value)


def test_file_that_is_not_text_is_refused(tmp_path: Path) -> None:
    (tmp_path / "run.yaml").write_bytes(b"\xff\xfe\x00\x80")
    with pytest.raises(UsageError, match="is not text in UTF-8"):
        load_config(tmp_path / "run.yaml")


def test_folder_stands_for_the_configuration_in_it(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match=f"{tmp_path} is a folder without a config.yaml; give a"):
        load_config(tmp_path)
    write(tmp_path, "seed: 1", "config.yaml")
    assert load_config(tmp_path) == load_config(tmp_path / "config.yaml")


def test_configuration_of_a_run_folder_means_that_folder_wherever_it_lies(tmp_path: Path) -> None:
    path = write(tmp_path, "name: old\ncheckpoint: {folder: /elsewhere}", "config.yaml")
    assert load_config(path).name == "old"  # no run: a configuration like any other
    (tmp_path / "run.json").write_text("{}")
    for place in (path, tmp_path):
        found = load_config(place)
        assert (found.checkpoint.folder, found.name) == (str(tmp_path.parent), tmp_path.name)
    assert load_config(path, ["--name", "new"]).name == "new"


def test_source_of_a_mistake_is_named(tmp_path: Path) -> None:
    path = write(tmp_path, "loop:\n  epoch: 3\n")
    with pytest.raises(UsageError, match=str(path)):
        load_config(path)


def test_element_of_a_typed_list_is_blamed_on_the_command_line(tmp_path: Path) -> None:
    file = write(tmp_path, "name: a\n")
    with pytest.raises(UsageError, match=r"^command line: optim\.betas\.1 must be a number"):
        load_config(file, ["--optim.betas", "0.9,abc"])


def test_folder_of_dots_means_the_run_it_leads_to(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    run = tmp_path / "runs" / "mine"
    (run / "checkpoints").mkdir(parents=True)
    (run / "config.yaml").write_text("name: other\n")
    (run / "run.json").write_text("{}")
    monkeypatch.chdir(run / "checkpoints")
    found = load_config("..")
    assert (found.name, found.checkpoint.folder) == ("mine", str(tmp_path / "runs"))
    with pytest.raises(UsageError, match="cannot be read"):
        load_config("a" * 300)
