"""The documentation is true: commands parse, tables match the code, links and files exist.

Tables between `<!-- generated: NAME -->` and `<!-- end -->` come from the code, by `doc_tables.py`.
To write them anew: `UPDATE_DOCS=1 python -m pytest tests/test_docs.py`.
"""

from __future__ import annotations

import importlib
import os
import re
import shlex
import subprocess
from pathlib import Path
from typing import Any

import gymnasium
import numpy as np
import pytest
import torch
import yaml

from tats_ray.__main__ import main
from tats_ray.algorithms.grpo import GRPOConfig
from tats_ray.checkpoints import format as checkpoints
from tats_ray.checkpoints.format import Checkpoint
from tats_ray.cli import Demo, Finetune, Pretrain, Submit, Tune, parse
from tats_ray.config.finetune_schema import FinetuneConfig
from tats_ray.config.load import (
    OFFICIAL_FLAGS,
    dump_config,
    field_docs,
    finetune_config,
    load_config,
    parse_config,
    parse_flags,
)
from tats_ray.config.plugins import ALGORITHMS
from tats_ray.config.schema import AlgorithmConfig, LoopConfig, ModelConfig, SamplerConfig
from tats_ray.config.sweep_schema import load_sweep
from tats_ray.core.grid import TokenGrid
from tats_ray.core.seeds import stream
from tats_ray.core.types import Position, Rollout
from tats_ray.data.atari.atari_set import make_atari
from tats_ray.data.encode import write_video
from tats_ray.data.synthetic import synthesize
from tats_ray.evaluation.mask_evaluator import Evaluator, ValidationSet
from tats_ray.models.policy import SamplerPolicy
from tats_ray.models.samplers.dry_run import check_sampler
from tats_ray.models.samplers.registry import find_sampler
from tats_ray.models.zoo import build_learned_policy, build_mae, build_policy, token_grid
from tats_ray.training.mae_learner import MAELearner
from tats_ray.view.glossary import GLOSSARY
from tests.doc_tables import PAPER, TABLES, algorithm_fields, shown
from tests.test_layers import FLOORS

ROOT = Path(__file__).parents[1]
PAGES = [ROOT / "README.md", ROOT / "CONTRIBUTING.md", ROOT / "CHANGELOG.md"]
PAGES += sorted((ROOT / "docs").glob("*.md"))
LINKED = [*PAGES, ROOT / "benchmarks" / "README.md", *(ROOT / "docs" / "results").glob("*.md")]
SITE_TOOLS = ROOT / ".venv-docs" / "bin" / "python"
"""Of the environment that `make docs` makes."""

# Every flag of pretrain.sh in the official README, the launcher's included.
OFFICIAL = tuple(
    """
    nproc_per_node master_port data_path mask_type mask_ratio model decoder_depth batch_size
    num_frames sampling_rate opt opt_betas warmup_epochs save_ckpt_freq epochs log_dir output_dir
    traj_attention num_traj_attn_blocks num_epochs_train_mae_only policy_loss_coefficient
    value_loss_coefficient entropy_coefficient update_steps_mae update_steps_ppo softmax_temp
    """.split()  # noqa: SIM905
)

OTHERS = ("time/fps",)
"""Metrics of other projects that look like ours."""

_BLOCK = re.compile(r"<!-- generated: (\w+) -->\n(.*?)<!-- end -->", re.DOTALL)
_FENCE = re.compile(r"^```(\w*)\n(.*?)^```", re.DOTALL | re.MULTILINE)


def fences(page: Path, language: str) -> list[str]:
    return [body for found, body in _FENCE.findall(page.read_text()) if found == language]


def commands() -> list[tuple[str, str]]:
    """(page, command) of every line of shell that the pages show."""
    found = []
    for page in PAGES:
        for body in fences(page, "sh"):
            for line in body.replace("\\\n", " ").splitlines():
                if line.strip():
                    found.append((page.name, line.split("  #")[0].strip()))
    return found


def test_generated_tables_are_what_the_code_says() -> None:
    seen = set()
    for page in PAGES:
        text = page.read_text()
        seen |= {name for name, _ in _BLOCK.findall(text)}
        fresh = _BLOCK.sub(
            lambda m: f"<!-- generated: {m[1]} -->\n{TABLES[m[1]]()}<!-- end -->", text
        )
        if os.environ.get("UPDATE_DOCS"):
            page.write_text(fresh)
        assert page.read_text() == fresh, f"{page.name} is old; run with UPDATE_DOCS=1"
    assert seen == set(TABLES)


def test_every_official_flag_is_a_field_or_is_explained() -> None:
    page = (ROOT / "docs" / "configuration.md").read_text()
    known = {name for name, _, _ in field_docs()}
    for flag in OFFICIAL:
        assert f"`--{flag}`" in page, flag
        assert flag in ("opt", "master_port") or OFFICIAL_FLAGS[flag] in known
    assert set(OFFICIAL_FLAGS) <= set(OFFICIAL)


TATS_COMMANDS = [pair for pair in commands() if pair[1].startswith("tats ")]


@pytest.mark.parametrize(("page", "command"), TATS_COMMANDS)
def test_documented_command_is_understood(page: str, command: str) -> None:
    parsed, left = parse(shlex.split(command)[1:])
    if isinstance(parsed, Submit):
        parsed, left = parse(left)
    if isinstance(parsed, Tune):
        load_sweep(ROOT / parsed.sweep, left)
        return
    if isinstance(parsed, Finetune):
        is_preset = parsed.config is not None and parsed.config.parts[0] == "tune_configs"
        finetune_config(ROOT / parsed.config if is_preset else None, left)  # type: ignore[operator]
        return
    if isinstance(parsed, Demo) and "my_" in command:  # a plug-in that the reader is to write
        assert {name for name, _ in parse_flags(left)} <= {name for name, _, _ in field_docs()}
        return
    if not isinstance(parsed, Pretrain):
        assert left == []
        return
    config = ROOT / parsed.config
    if not config.is_file():  # the configuration that a run leaves behind is the preset's, resolved
        assert parsed.config.parts[0] == "runs"
        config = PAPER
    load_config(config, left)


def test_documented_make_targets_exist() -> None:
    targets = re.findall(r"^([\w-]+):", (ROOT / "Makefile").read_text(), re.MULTILINE)
    used = [command.split()[1] for _, command in commands() if command.startswith("make ")]
    assert {"demo", "test", "check"} <= set(used) <= set(targets)
    assert len(TATS_COMMANDS) > 10


def anchors(page: Path) -> set[str]:
    """What may follow a # in a link to a page: its headings, as GitHub spells them."""
    titles = re.findall(r"^#+ (.*)$", _FENCE.sub("", page.read_text()), re.MULTILINE)
    return {re.sub(r"[^\w -]", "", title).lower().replace(" ", "-") for title in titles}


@pytest.mark.parametrize("page", LINKED, ids=lambda page: str(page.relative_to(ROOT)))
def test_links_and_named_files_exist(page: Path) -> None:
    text = page.read_text()
    for target, anchor in re.findall(r"\]\((?!https?:)([^)#]*)(#[^)]*)?\)", text):
        there = page.parent / target if target else page
        # The picture of the demo is made by the demo.
        assert there.exists() or target == "docs/demo_masks.png", target
        if anchor:
            assert anchor[1:] in anchors(there)
    for name in re.findall(r"\b(?:tune_configs|tests|tats_ray)/[\w/]+\.(?:yaml|py)\b", text):
        assert (ROOT / name).is_file(), name


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_named_fields_and_metrics_exist(page: Path) -> None:
    names = {name for docs in (None, FinetuneConfig()) for name, _, _ in field_docs(docs)}
    branches = {name.split(".")[0] for name in names if "." in name} - {"data"}
    names |= {f"algorithm.{field}" for name in ALGORITHMS for field in algorithm_fields(name)}
    for word in re.findall(r"`(\w+\.\w+)(?::[^`]*)?`", page.read_text()):
        if word.split(".")[0] in branches and not word.endswith(
            (".py", ".yaml", ".csv", ".protocols")
        ):
            assert word in names, word
    rooms = "|".join({name.split("/")[0] for name in GLOSSARY})
    for metric in re.findall(rf"`((?:{rooms})/\w+)`", page.read_text()):
        assert metric in GLOSSARY or metric in OTHERS, metric


def test_glossary_holds_the_metrics_of_a_run_and_no_others(small_run: Any) -> None:
    logged: set[str] = set()
    for algorithm in (None, GRPOConfig(lr=1e-2, group_size=2)):
        run = small_run(loop=LoopConfig(epochs=1, mae_only_epochs=0), algorithm=algorithm)
        run.loop.run()
        logged = logged.union(*run.metrics)
    rooms = ("mae/", "env/", "policy/")
    assert logged == {name for name in GLOSSARY if name.startswith(rooms)}
    clips = torch.zeros(2, *run.grid.clip_shape, dtype=torch.uint8)
    moving = torch.arange(run.grid.num_tokens).expand(2, -1) < 4
    evaluator = Evaluator(ValidationSet(clips, moving), 8, batch_size=2)
    for _ in range(2):
        measures = evaluator.measure(run.learner.mae, run.acting)
    in_glossary = {name for name in GLOSSARY if name.startswith("eval/")}
    assert {f"eval/{name}" for name in measures} == in_glossary


def test_answers_to_the_open_questions_name_fields_with_their_defaults() -> None:
    text = (ROOT / "docs" / "fidelity.md").read_text()
    both = [*field_docs(FinetuneConfig()), *field_docs()]  # of equal names, pre-training's
    defaults = {name: shown(default) for name, _, default in both}
    stated = re.findall(r"`(\w+\.\w+)` = `([^`]*)`", text)
    assert len(stated) > 15
    for name, value in stated:
        assert defaults[name] == value, name
    for number in range(1, 25):
        row = next(line for line in text.splitlines() if line.startswith(f"| A{number} |"))
        assert "` = `" in row or "fixed: " in row or "not built yet" in row, row


def test_every_deviation_in_the_code_is_listed() -> None:
    text = (ROOT / "docs" / "fidelity.md").read_text()
    for path in [*(ROOT / "tats_ray").rglob("*.py"), *(ROOT / "envs").glob("*.py")]:
        if "Deviation:" in path.read_text():
            assert f"(../{path.relative_to(ROOT)})" in text, path


def test_plug_in_of_the_algorithms_page_trains(
    flat_policy: SamplerPolicy, grid: TokenGrid, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    page = ROOT / "docs" / "algorithms.md"
    source = next(body for body in fences(page, "python") if "class" in body)
    example = (ROOT / "examples" / "custom_algorithm.py").read_text()
    assert source.rstrip() == example.partition("\n\n\nif __name__")[0]
    (tmp_path / "custom_algorithm.py").write_text(source)
    monkeypatch.syspath_prepend(str(tmp_path))
    importlib.invalidate_caches()
    selected = next(body for body in fences(page, "yaml") if "custom_algorithm:" in body)
    config = parse_config(yaml.safe_load(selected))
    assert config.algorithm.lr == 1e-3
    learner = config.algorithm.build(flat_policy)
    generator = stream(0, "docs")
    tokens = torch.randn(2, grid.num_tokens, 16, generator=generator)
    hard = torch.arange(grid.num_tokens) % 4 == 0
    for step in range(60):
        drawn = flat_policy.act(tokens, 8, generator=generator)
        reward = torch.where(hard, 1.0, 0.4).expand(2, -1).scatter(1, drawn.visible_idx, 0.0)
        memory = Rollout(
            tokens=tokens,
            visible_idx=drawn.visible_idx,
            log_prob=drawn.log_prob,
            value=drawn.value,
            reward=reward,
            policy_version=step,
            step=step,
            rank=0,
        )
        metrics = learner.update([memory], generator=generator)
    assert {f"policy/{name}" for name in metrics} <= set(GLOSSARY)
    # Uniform would give the hard quarter of the tokens a quarter of the probability.
    assert flat_policy.evaluate(tokens).log_prob.exp()[:, hard].sum(1).mean() > 0.3


def test_environment_of_its_page_is_the_example() -> None:
    source = fences(ROOT / "docs" / "environments.md", "python")[1]
    example = (ROOT / "examples" / "custom_environment.py").read_text()
    assert source.rstrip() == example.partition("\n\n\nif __name__")[0]


def test_subclass_of_the_environments_page_has_a_single_form() -> None:
    source = fences(ROOT / "docs" / "environments.md", "python")[2]
    try:
        exec(compile(source, "environments.md", "exec"), {"__name__": "page"})
        rewards = []
        for name in ("Mine/Doubled-v0", "TATS/TokenSelection-v0"):
            env = gymnasium.make(name)
            env.reset(seed=0)
            rewards.append(env.step(np.linspace(-1, 1, 144, dtype=np.float32))[1])
        assert rewards[0] == pytest.approx(2 * rewards[1]) != 0
    finally:
        gymnasium.registry.pop("Mine/Doubled-v0", None)


def test_state_of_the_algorithms_page_survives_a_checkpoint(
    policy: SamplerPolicy, grid: TokenGrid
) -> None:
    (source,) = (
        body for body in fences(ROOT / "docs" / "algorithms.md", "python") if "WithBaseline" in body
    )
    names: dict[str, Any] = {}
    exec(compile(source, "algorithms.md", "exec"), names)
    first, second = (names["WithBaseline"](AlgorithmConfig(), policy) for _ in range(2))
    drawn = policy.act(torch.zeros(2, grid.num_tokens, 16), 8, generator=stream(0, "docs"))
    rollout = Rollout(
        tokens=torch.zeros(2, grid.num_tokens, 16),
        visible_idx=drawn.visible_idx,
        log_prob=drawn.log_prob,
        value=drawn.value,
        reward=torch.ones(2, grid.num_tokens),
        policy_version=0,
        step=0,
        rank=0,
    )
    first.update([rollout], generator=stream(0, "docs"))
    second.load_state_dict(first.state_dict())
    assert second.mean_reward == pytest.approx(0.1)


def test_samplers_of_their_page_are_accepted_and_draw_what_they_say(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    page = ROOT / "docs" / "samplers.md"
    learned, function, rule = fences(page, "python")
    (tmp_path / "my_sampler.py").write_text(learned)
    (tmp_path / "my_rule.py").write_text(f"{function}\n\n{rule}")
    monkeypatch.syspath_prepend(str(tmp_path))
    importlib.invalidate_caches()
    shown = [parse_config(yaml.safe_load(body)).sampler for body in fences(page, "yaml")]
    shown.append(SamplerConfig(name="my_rule:OneSlot"))
    size, grid = ModelConfig(size="tiny"), TokenGrid(num_frames=4, image_size=32, patch=8)
    for sampler in shown:
        check_sampler(sampler, size, grid, seed=0)
    assert [find_sampler(sampler).learns for sampler in shown] == [True, False, False]
    assert build_learned_policy(shown[0], size, grid, seed=0).sampler.out.in_features == 128
    policy, tokens = build_policy(shown[1], size, grid, seed=0), torch.zeros(400, 32, 128)
    drawn = policy.act(tokens, 8, generator=stream(0, "docs")).visible_idx
    is_odd = (drawn // 4 + drawn % 4) % 2
    assert 0.7 < is_odd.float().mean() < 1  # half a bonus: 8 of 32 are mostly of one colour
    slot = build_policy(shown[2], size, grid, seed=0).act(tokens, 16, generator=stream(0, "docs"))
    assert {tuple(row) for row in slot.visible_idx.tolist()} == {
        tuple(range(16)),
        tuple(range(16, 32)),
    }


@pytest.mark.parametrize("page", ["docs/quickstart.md", "docs/checkpoints.md"])
def test_python_about_checkpoints_runs(
    page: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """On a folder that holds a checkpoint of the demo's model, and one of its videos."""
    monkeypatch.chdir(tmp_path)
    preset, videos = (
        ("debug_cpu", "demo") if page == "docs/checkpoints.md" else ("pong_cpu", "pong")
    )
    config = load_config(ROOT / "tune_configs" / f"{preset}.yaml")
    grid = token_grid(config.data, config.model)
    folder = tmp_path / "data" / videos
    if videos == "pong":
        make_atari(folder, "pong", num_train=1, num_val=1, workers=1)
    else:
        synthesize(folder, num_train=1, num_val=1, num_frames=16, workers=1)
    mae = build_mae(config.model, grid, seed=0)
    learner = MAELearner(mae, config.optim, steps_per_epoch=1, total_steps=1, global_batch=1)
    found = Checkpoint(Position(), learner.state_dict(), None, dump_config(config))
    checkpoints.save(tmp_path / "runs" / preset, found, keep_last=1)
    names: dict[str, Any] = {}
    (source,) = (body for body in fences(ROOT / page, "python") if "tats_ray.load(" in body)
    exec(compile(source, page, "exec"), names)
    if page == "docs/checkpoints.md":
        assert names["features"].shape == (2, mae.width)
        assert names["mask"].visible_idx.shape == (2, 25)
        assert names["mask"].probability.shape == (2, grid.num_tokens)
    else:
        assert names["features"].shape == (1, mae.width)
        assert len(source.splitlines()) <= 5
        assert names["tokens"].shape == (1, grid.num_tokens, mae.width)


@pytest.mark.parametrize("kind", ["ucf101", "folder"])
def test_walk_from_a_download_to_the_first_batch_is_as_shown(
    kind: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """The commands of the data page and its Python, on three small videos."""
    monkeypatch.chdir(tmp_path)
    lists = tmp_path / "UCF101" / "ucfTrainTestlist"
    lists.mkdir(parents=True)
    names = [f"Class{number}" for number in range(101)]
    (lists / "classInd.txt").write_text("".join(f"{i} {n}\r\n" for i, n in enumerate(names, 1)))
    (lists / "trainlist01.txt").write_text("Class0/v_a.mp4 1\r\nClass1/v_b.mp4 2\r\n")
    (lists / "testlist01.txt").write_text("Class1/v_c.mp4\r\n")
    for name in ("Class0/v_a.mp4", "Class1/v_b.mp4", "Class1/v_c.mp4"):
        for folder in (tmp_path / "UCF101" / "UCF-101", tmp_path / "videos"):
            (folder / name).parent.mkdir(parents=True, exist_ok=True)
            write_video(folder / name, np.full((20, 32, 32, 3), 90, np.uint8))
    page = [command for name, command in TATS_COMMANDS if name == "data.md"]
    root = "UCF101" if kind == "ucf101" else "videos"
    walk = [c for c in page if re.search(rf"tats data (index|check) .*\b{root}\b", c)]
    assert len(walk) == 2
    for command in walk:
        main(shlex.split(command)[1:])
    assert "sound" in capsys.readouterr().out
    if kind == "ucf101":
        (source,) = fences(ROOT / "docs" / "data.md", "python")
        exec(compile(source, "data.md", "exec"), {})
        assert "torch.Size([2, 3, 16, 224, 224]) tensor([0, 1])" in capsys.readouterr().out
    else:
        assert len((tmp_path / root / "train_ok.csv").read_text().splitlines()) == 2


def test_python_of_every_page_compiles() -> None:
    found = [(page.name, body) for page in PAGES for body in fences(page, "python")]
    assert len(found) >= 4
    for name, body in found:
        compile(body, name, "exec")


def test_yaml_of_the_quickstart_is_a_valid_algorithm() -> None:
    (body,) = fences(ROOT / "docs" / "quickstart.md", "yaml")
    assert parse_config(yaml.safe_load(body)).algorithm.lr == 1e-3


def test_official_command_gives_the_preset_itself() -> None:
    """The official flags of the documentation say what the preset of UCF101 says."""
    command = next(c for _, c in TATS_COMMANDS if "--policy_loss_coefficient" in c)
    _, left = parse(shlex.split(command)[1:])
    assert len(parse_flags(left)) > 20
    assert load_config(PAPER, left) == load_config(PAPER)


def test_floors_of_the_architecture_page_are_those_of_the_code() -> None:
    text = (ROOT / "docs" / "architecture.md").read_text()
    rows = re.findall(r"^\| (\d+) \| `(\w+)` \| \w.*\|$", text, re.MULTILINE)
    assert {name: int(floor) for floor, name in rows} == FLOORS
    floors = [int(floor) for floor, _ in rows]
    assert floors == sorted(floors, reverse=True)


def test_readme_fits_on_a_landing_page() -> None:
    assert len((ROOT / "README.md").read_text().splitlines()) <= 120


def prose(page: Path) -> str:
    """What a person wrote: no code, and no tables that come from the code."""
    text = _FENCE.sub("\n", _BLOCK.sub("\n", page.read_text()))
    return re.sub(r"`[^`]*`", "code", text)


def sentences(text: str) -> list[str]:
    """Stretches of three words or more; a table cell, a list item and a heading end one, too."""
    parts = re.split(r"[.!?](?=\W*\s)|\||\n\s*\n|\n\s*(?:[-*#]+|\d+\.) ", text)
    return [part for part in parts if len(part.split()) >= 3]


def test_sentences_are_counted_as_a_reader_would() -> None:
    text = "A cat sat. It (the cat) slept.\n\n- so did I\n- one; two three\n\n| a b c | d e f |\n"
    assert len(sentences(text)) == 6


READ = [page for page in PAGES if page.name not in ("CHANGELOG.md", "CONTRIBUTING.md")]


@pytest.mark.parametrize("page", READ, ids=lambda page: page.name)
def test_semicolons_are_rare(page: Path) -> None:
    text = prose(page)
    assert len(sentences(text)) >= 15
    assert 100 * text.count(";") <= 5 * len(sentences(text))


@pytest.mark.long
@pytest.mark.skipif(not SITE_TOOLS.is_file(), reason="`make docs` was not run here")
def test_site_is_built_without_a_warning(tmp_path: Path) -> None:
    command = [SITE_TOOLS, "-m", "mkdocs", "build", "--strict", "--site-dir", tmp_path / "site"]
    quiet = {**os.environ, "NO_MKDOCS_2_WARNING": "1"}
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=240, env=quiet)
    assert done.returncode == 0, done.stderr
    assert "WARNING" not in done.stderr
    for page in PAGES:
        if page.parent.name == "docs" and page.stem != "index":
            assert (tmp_path / "site" / page.stem / "index.html").is_file()
    reference = (tmp_path / "site" / "api" / "protocols" / "index.html").read_text()
    assert 'id="tats_ray.core.protocols.Scorer.score"' in reference
