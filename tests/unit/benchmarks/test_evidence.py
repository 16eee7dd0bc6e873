"""The study: rows that repeat, that are refused or tried again, and tables from their files."""

from __future__ import annotations

import json
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from tats_ray.benchmarks.evidence import __main__ as command
from tats_ray.benchmarks.evidence import measuring, plan, row_files, run_row, tables
from tats_ray.benchmarks.evidence.plan import ARMS, PARTS, TASKS, StudyRow, rows
from tats_ray.benchmarks.evidence.row_files import Finished, read_rows, to_do

from tats_ray.core.errors import UsageError
from tats_ray.evaluation.probe_protocols import recipe
from tats_ray.evaluation.states.targets import Targets

ROW = StudyRow("motion", 0.75, "tats", 0)
SETTINGS = {"algorithm.lr": 1.0, "seed": 0}


def finished(row: StudyRow = ROW, **changes: Any) -> Finished:
    base = Finished(row, SETTINGS, "c0de", {"attentive": 0.5, "cpu_s": 10.0})
    return replace(base, **changes)


def test_all_rows_have_names_of_their_own_and_settings_that_load() -> None:
    wanted = [row for part in PARTS for row in rows(part)]
    assert len({row.name for row in wanted}) == len(set(wanted))
    for row in dict.fromkeys(replace(row, seed=0) for row in wanted):
        settings = run_row.settings_of(row)
        task, steps = TASKS[row.task], settings["loop.epochs"] * {"grpo": 4}.get(row.arm, 1)
        times = row.length * {"random_time": task.equal_time}.get(row.arm, 1)
        assert abs(steps - times * task.epochs) < 1, row.name
        assert not any(str(row_files.ROOT) in str(value) for value in settings.values())
    assert {row.arm for row in wanted} == set(ARMS)


def test_arms_differ_from_each_other_in_what_their_names_say() -> None:
    seen = {json.dumps(run_row.settings_of(StudyRow("motion", 0.9, arm, 0))): arm for arm in ARMS}
    # Untrained rows have the settings of random ones, and the name says what was done with them.
    assert len(seen) == len(ARMS) - 1


def test_row_is_run_once_and_again_where_it_failed(tmp_path: Path) -> None:
    others = [StudyRow("motion", 0.75, "tats", seed) for seed in (1, 2)]
    finished().write(tmp_path)
    finished(others[0], results={}, failed="ValueError: no").write(tmp_path)
    wanted = [(row, SETTINGS) for row in (ROW, *others)]
    left = list(to_do(wanted, read_rows(tmp_path), "c0de"))
    assert left == [(others[0], "failed before: ValueError: no"), (others[1], "new")]
    assert list(to_do(wanted[:1], read_rows(tmp_path), "other code")) == []


def test_row_with_other_settings_is_refused_with_the_first_of_them(tmp_path: Path) -> None:
    finished().write(tmp_path)
    changed = [(ROW, {**SETTINGS, "algorithm.lr": 2.0})]
    with pytest.raises(UsageError, match=r"motion-0\.75-tats-0 .* algorithm\.lr was 1\.0 and is 2"):
        list(to_do(changed, read_rows(tmp_path), "c0de"))


def test_field_that_came_after_a_row_had_its_default_in_it(tmp_path: Path) -> None:
    finished().write(tmp_path)
    done = read_rows(tmp_path)
    assert list(to_do([(ROW, {**SETTINGS, "optim.betas": (0.9, 0.95)})], done, "c0de")) == []
    with pytest.raises(UsageError, match=r"optim\.betas was \[0\.9, 0\.95\] and is \[0\.5, 0\.9"):
        list(to_do([(ROW, {**SETTINGS, "optim.betas": (0.5, 0.95)})], done, "c0de"))


def test_command_runs_rows_in_processes_and_names_what_failed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """A program stands in for a row: it fails for the oracle, and writes nothing."""
    words = "import sys; sys.exit('no oracle' if 'oracle' in sys.argv[4] else 0)"
    program = tmp_path / "row.sh"
    program.write_text(f'#!/bin/sh\nexec {sys.executable} -c "{words}" "$@"\n')
    program.chmod(0o755)
    monkeypatch.setattr(command.sys, "executable", str(program))
    monkeypatch.setattr(sys, "argv", ["evidence", "quick", "--folder", str(tmp_path / "rows")])
    with pytest.raises(SystemExit) as ended:
        command.main()
    assert ended.value.code == 1
    said = capsys.readouterr().out
    assert "7 rows, 7 to run, 0 made by other code" in said
    assert said.count(" done, ") == 6
    assert said.count("no oracle") == 1
    assert said.splitlines()[-1].startswith(f"failed: {plan.CHOSEN[0]}-0.9-oracle-x0.5-0; the same")
    monkeypatch.setattr(sys, "argv", ["evidence", "quik"])
    with pytest.raises(
        SystemExit, match="evidence: no part is called 'quik'; known: quick, finding"
    ):
        command.main()


def test_file_that_is_no_row_is_refused(tmp_path: Path) -> None:
    (tmp_path / "half.json").write_text('{"row": ')
    with pytest.raises(UsageError, match=r"half\.json is not a row of the study .*; delete it"):
        read_rows(tmp_path)


def test_table_names_failed_rows_counts_codes_and_claims_nothing_of_few_seeds(
    tmp_path: Path,
) -> None:
    game = plan.CHOSEN[0]
    for seed, value in enumerate((0.30, 0.31, 0.32, 0.33)):
        random = StudyRow(game, 0.9, "random", seed)
        results = {TASKS[game].primary: value, "cpu_s": 10.0}
        finished(random, results=results).write(tmp_path)
        tats = StudyRow(game, 0.9, "tats", seed)
        better = finished(
            tats, results={TASKS[game].primary: value + 0.2, "cpu_s": 16.0}, code="new"
        )
        (finished(tats, results={}, failed="OSError: full") if seed == 3 else better).write(
            tmp_path
        )
    text = tables.part_tables("main", tmp_path)
    line = next(line for line in text.splitlines() if ARMS["tats"][0] in line)
    # Seed 3 is no part of the comparison: three and four cannot be told apart at 5 %.
    assert "| 3 | 0.51 [0.5, 0.52] | +0.195 [+0.178, +0.212], too few seeds |" in line
    assert "They come from 2 codes: c0de; new." in text
    untouched = next(line for line in text.splitlines() if ARMS["oracle"][0] in line)
    assert untouched.split("|")[2:5] == [" 0 ", " - ", " - "]
    for row in rows("main"):
        finished(row, results={}, failed="OSError: full").write(tmp_path)
    assert f"Failed: `{game}-0.9-tats-2` (OSError: full)." in tables.part_tables("main", tmp_path)


def test_choice_puts_the_game_with_the_most_room_first_and_says_what_is_missing(
    tmp_path: Path,
) -> None:
    def game(pixels: float, untrained: float) -> dict[str, float]:
        return {"states": 0.5, "pixels": pixels, "untrained": untrained, "values": 9.0}

    path = tmp_path / "choice.json"
    assert tables.choice_table(path) == "Not measured yet.\n"
    found = {"ms_pacman": game(0.8, 0.7), "seaquest": game(0.1, 0.3)}
    path.write_text(json.dumps({"games": found}))
    text = tables.choice_table(path)
    assert text.index("| seaquest | 9 | 0.50 | 0.10 | 0.30 | 0.70 |") < text.index("| ms_pacman |")
    assert text.endswith("\nNot measured yet: freeway.\n")
    path.write_text(json.dumps({"games": {**found, "freeway": game(0.2, 0.2)}}))
    assert tables.choice_table(path).endswith(f"\nThe plan has {', '.join(plan.CHOSEN)}.\n")


def test_ridge_reads_what_is_linear_and_counts_what_it_cannot_read_as_nothing() -> None:
    draw = torch.Generator().manual_seed(0)
    features = torch.randn(200, 300, generator=draw)
    features[:, 1:] *= 0.02  # more features than examples, nearly all of them noise
    values = torch.randn(200, 3, generator=draw, dtype=torch.float64)
    values[:, 0] = 5 + 3 * features[:, 0].double()
    values[::7, 0] = float("nan")
    values[150:, 2] = float("nan")  # nothing to score
    targets = Targets(("linear", "noise", "unknown"), values)
    parts = features[:150], features[150:]
    halves = targets.take(torch.arange(150)), targets.take(torch.arange(150, 200))
    assert measuring.ridge(*parts, *halves) == pytest.approx(1 / 3, abs=0.02)
    # The same as the textbook's normal equations, for one value without gaps.
    one = Targets(("noise",), values[:, 1:2])
    x, y = features[:150].double(), one.values[:150, 0]
    kernel, cross = x @ x.T, features[150:].double() @ x.T
    dual = measuring._r2(kernel, cross, y, one.values[150:, 0], 0.3)
    weights = torch.linalg.solve(x.T @ x + 0.3 * torch.eye(300), x.T @ (y - y.mean()))
    left = one.values[150:, 0] - y.mean() - features[150:].double() @ weights
    total = (one.values[150:, 0] - one.values[150:, 0].mean()).square().sum()
    assert dual == pytest.approx(float(1 - left.square().sum() / total))


@pytest.fixture
def small(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A study of a few steps on a few videos, in a folder of its own."""
    tiny = {"model.depth": 1, "model.decoder_depth": 1, "optim.batch_size": 4, "eval.num_clips": 4}
    motion = TASKS["motion"]
    videos = {**motion.videos, "num_train": 40, "num_val": 8, "num_frames": 24, "size": 32}
    fields = {**motion.fields, **tiny}
    monkeypatch.setitem(TASKS, "motion", replace(motion, fields=fields, videos=videos, epochs=3))
    seaquest = plan.atari("pong")
    videos = {**seaquest.videos, "num_train": 24, "num_val": 24}
    fields = {**seaquest.fields, **tiny, "data.image_size": 40}
    game = replace(seaquest, fields=fields, videos=videos, epochs=2)
    monkeypatch.setitem(TASKS, "pong", game)
    monkeypatch.setattr(measuring, "FINETUNE_EPOCHS", 1)
    monkeypatch.setattr(measuring, "recipe", lambda kind: recipe(kind, epochs=2, lrs=(0.1,)))
    monkeypatch.setattr(run_row, "DATA", tmp_path / "data")
    monkeypatch.setattr(run_row, "RUNS", tmp_path / "runs")
    return tmp_path


@pytest.mark.long  # three whole rows, with all their probes
@pytest.mark.parametrize(("task", "ratio"), [("motion", 0.75), ("pong", 0.9)])
def test_row_repeats_to_the_digit(small: Path, task: str, ratio: float) -> None:
    row = StudyRow(task, ratio, "tats", 0)
    for folder in ("first", "again"):
        run_row.run_row(row, small / folder)
    first, again = (read_rows(small / folder)[row.name] for folder in ("first", "again"))
    assert {**first.results, "cpu_s": 0.0} == {**again.results, "cpu_s": 0.0}
    assert {"motion_auc", "steps", TASKS[task].primary} <= set(first.results)
    assert first.settings == json.loads(json.dumps(run_row.settings_of(row)))
    assert {"machine", "torch", "version"} <= set(first.origin)
    other = replace(row, seed=1)
    run_row.run_row(other, small / "first")
    assert read_rows(small / "first")[other.name].results["error"] != first.results["error"]


def test_failed_row_leaves_its_error(small: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*args: object, **kwargs: object) -> None:
        raise ValueError("no")

    monkeypatch.setattr(run_row, "train", fail)
    with pytest.raises(ValueError, match="no"):
        run_row.run_row(ROW, small)
    assert read_rows(small)[ROW.name].failed == "ValueError: no"


def test_row_of_code_that_changed_meanwhile_is_not_kept(
    small: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    digests = iter(("before", "after"))
    monkeypatch.setattr(run_row, "code_digest", lambda: next(digests))
    monkeypatch.setattr(run_row, "results_of", lambda row, run: {"attentive": 1.0})
    with pytest.raises(UsageError, match="the code changed while row motion-0.75-tats-0 ran"):
        run_row.run_row(ROW, small)
    assert read_rows(small) == {}


def test_code_digest_sees_a_changed_byte(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for room in row_files.ROOMS:
        place = tmp_path / room
        file = place if place.suffix else place / "module.py"
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text("x = 1\n")
    monkeypatch.setattr(row_files, "ROOT", tmp_path)
    before = row_files.code_digest()
    assert before == row_files.code_digest()
    (tmp_path / "tats_ray" / "ops" / "module.py").write_text("x = 2\n")
    assert row_files.code_digest() != before
