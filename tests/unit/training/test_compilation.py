"""Compiled networks: no graph break, the same gradients, and eager where compiling fails."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

ROOT = Path(__file__).parents[3]
NETWORKS = ("the autoencoder", "the policy")


def compiled(mode: str, backend: str, **variables: str) -> dict[str, Any]:
    return printed("compiled_parts", mode, backend, **variables)


def printed(program: str, *words: str, **variables: str) -> dict[str, Any]:
    done = subprocess.run(
        [sys.executable, "-m", f"tests.unit.training.{program}", *words],
        cwd=ROOT,
        env={**os.environ, **variables},
        capture_output=True,
        text=True,
        timeout=600,
    )
    assert done.returncode == 0, done.stderr
    found: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    return found


# torch's compiler takes ten seconds to load and to trace, in a process of its own.
@pytest.mark.long
@pytest.mark.parametrize("mode", ["blocks", "step"])
def test_what_learns_is_traced_without_a_break_and_has_the_same_gradients(mode: str) -> None:
    """`fullgraph=True` turns a break into an error, which would be a note here."""
    found = compiled(mode, "aot_eager")
    kinds = {"blocks": 3, "step": 2}[mode]  # encoder, decoder and sampler blocks
    assert len(found["notes"]) == kinds
    assert all(note.startswith("compiled the ") for note in found["notes"])
    assert max(found["far"]) < 1e-6
    if mode == "blocks":  # two shapes for each number of clips
        assert "goes on uncompiled" in found["last"]
        assert "is one shape more than the 4 compiled for" in found["last"]


@pytest.mark.long
def test_without_a_compiler_a_note_is_told_and_the_network_goes_on_as_it_is(tmp_path: Path) -> None:
    found = compiled(
        "blocks", "inductor", CXX="/nowhere/g++", TORCHINDUCTOR_CACHE_DIR=str(tmp_path)
    )
    assert found["far"] == [0.0, 0.0]
    assert len(found["notes"]) == 2
    for note, what in zip(found["notes"], ("the autoencoder", "the policy"), strict=True):
        assert note.startswith(f"{what} goes on uncompiled, as with loop.compile off: ")
        assert "\n" not in note


@pytest.mark.long  # torch's compiler takes a minute or more for each network where cores are busy
@pytest.mark.timeout(1500)
def test_compiled_run_is_near_the_eager_one_and_goes_on_to_the_last_bit_in_another_process(
    tmp_path: Path,
) -> None:
    eager, straight, resumed = (
        printed("compiled_run", mode, str(tmp_path / folder))
        for mode, folder in (("off", "eager"), ("blocks", "compiled"), ("blocks", "compiled"))
    )
    for found in (straight, resumed):
        told = {note.split(" in ")[0] for note in found["notes"]}
        assert told == {f"compiled {what} (blocks)" for what in NETWORKS}
    assert len(straight["losses"]) == 8
    assert straight["losses"] == pytest.approx(eager["losses"], rel=1e-4)
    assert straight["digest"] != eager["digest"]  # so it was another code
    assert resumed["losses"] == straight["losses"][4:]
    assert resumed["digest"] == straight["digest"]
