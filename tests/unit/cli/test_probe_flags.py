"""A flag that this kind of probe would ignore is refused, before anything is read."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from tats_ray.cli.downstream import ProbeCommand
from tats_ray.core.errors import UsageError


@pytest.mark.parametrize(
    ("kind", "flag", "value", "message"),
    [
        ("state", "k", 5, "--k 5 is for knn probes, not for state; leave it out"),
        ("state", "epochs", 3, "--epochs 3 is for linear and attentive probes, not for state"),
        ("state", "untrained", True, "--untrained True is for linear and attentive and knn probes"),
        ("knn", "lrs", (0.1,), "for linear and attentive probes, not for knn"),
        ("linear", "temperature", 0.1, "for knn probes, not for linear"),
        ("attentive", "preset", "ft-like", "for linear probes, not for attentive"),
    ],
)
def test_flag_of_another_probe_is_refused(kind: Any, flag: str, value: Any, message: str) -> None:
    command = ProbeCommand(kind, Path("no such run"), Path("no such data"), **{flag: value})
    with pytest.raises(UsageError, match=message):
        command.carry_out()


def test_flags_of_its_own_are_not(tmp_path: Path) -> None:
    command = ProbeCommand("knn", Path("no such run"), tmp_path, k=5, temperature=0.1)
    with pytest.raises(UsageError, match=r"train\.csv"):
        command.carry_out()
