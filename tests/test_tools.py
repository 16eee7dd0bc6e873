"""The small commands as typed: what they print, and the one line for a wrong request."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

from tats_ray.__main__ import main
from tats_ray.cli import Fields
from tats_ray.config.load import dump_config, parse_config


@pytest.mark.parametrize(
    ("words", "says"),
    [
        (["compare"], r"compare needs run folders; use tats compare RUN RUN"),
        (["compare", "nowhere"], r"nowhere is not a run"),
        (["compare", "nowhere", "--metrik", "x"], r"unexpected --metrik"),
        (["new", "algorithm", "no-name"], r"'no-name' is not a module name"),
        (["new", "algorithm", "mine", "--folder", "nowhere"], r"folder nowhere does not exist"),
        (["env", "card", "--id", "TATS/Nothing-v0"], r"'TATS/Nothing-v0' cannot be made"),
        (["env", "card", "--name", "x"], r"unexpected --name x; see tats --help"),
        (["bench", "scale", "--size", "2"], r"unexpected --size 2; see tats bench --help"),
        (["env", "baseline", "--clips", "1"], r"--clips must be at least 2, got 1"),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, list) else "",
)
def test_wrong_request_ends_in_one_line_and_code_two(
    words: list[str], says: str, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit) as ended:
        main(words)
    assert ended.value.code == 2
    error = capsys.readouterr().err
    assert re.search(says, error), error
    assert error.startswith("tats: ")
    assert error.count("\n") == 1


def test_help_says_in_its_own_words_what_is_missing_and_what_holds_then(
    capsys: pytest.CaptureFixture[str],
) -> None:
    """No `{None}|PATH`, and nothing after "default" that is no value."""
    commands = (
        "probe finetune test extract show-masks export ckpt_convert compare tune-report submit"
    )
    for command in commands.split():
        with pytest.raises(SystemExit):
            main([*command.split("_"), "--help"])
        shown = capsys.readouterr().out
        assert not re.search(r"None|default: \)", shown), shown
    with pytest.raises(SystemExit):
        main(["probe", "--help"])
    assert "{linear,attentive,knn,state} CHECKPOINT [DATA]" in capsys.readouterr().out
    for words, usage in (
        (
            ["probe", "linear"],
            "usage: tats probe [-h] [PROBE OPTIONS] {linear,attentive,knn,state} CHECK",
        ),
        (["export", "hf"], "usage: tats export [-h] {hf} CHECKPOINT OUT"),
    ):
        with pytest.raises(SystemExit):
            main([*words, "--help"])
        assert capsys.readouterr().out.startswith(usage)


@pytest.mark.parametrize(
    "words",
    [
        ["fields"],
        ["compare", "--help"],
        ["data", "synth", "{tmp}", "--num-train", "1", "--num-val", "1", "--size", "32"],
    ],
)
def test_reader_that_hangs_up_ends_a_command_without_a_traceback(
    words: list[str], tmp_path: Path
) -> None:
    reader, writer = os.pipe()
    os.close(reader)
    line = [sys.executable, "-m", "tats_ray", *(word.format(tmp=tmp_path / "x") for word in words)]
    done = subprocess.run(line, stdout=writer, stderr=subprocess.PIPE, text=True, timeout=100)
    os.close(writer)
    assert (done.returncode, done.stderr) == (141, "")


def test_compare_takes_runs_and_a_metric(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    for seed in (0, 1):
        run = tmp_path / str(seed)
        run.mkdir()
        (run / "config.yaml").write_text(dump_config(parse_config({"name": "x", "seed": seed})))
        record = f'{{"step": 5, "epoch": 0, "time": 1.0, "mae/loss": {seed}.5}}\n'
        (run / "metrics.jsonl").write_text(record)
    main(["compare", str(tmp_path / "0"), str(tmp_path / "1"), "--metric", "mae/loss"])
    assert "1 [0.5, 1.5]" in capsys.readouterr().out


def test_broken_pipe_of_something_else_is_not_taken_for_a_reader_that_hangs_up(
    monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    def carry_out(self: object) -> None:
        raise BrokenPipeError("of a connection")

    monkeypatch.setattr(Fields, "carry_out", carry_out)
    with pytest.raises(BrokenPipeError, match="of a connection"):
        main(["fields"])
