"""Where relative paths begin in the processes of a run."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from tats_ray.runtime.driver import home


def test_process_goes_to_the_drivers_folder_where_its_node_has_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    away = str(tmp_path / "upload")
    assert home.go_to(away) is None
    assert home.go_to(away, {"root": "", "train_list": "/data/train.csv"}) is None
    said = home.go_to(away, {"root": "", "train_list": "/data/train.csv", "val_list": "val.csv"})
    says = rf"\S+ cannot enter {away} \(No such .*\); val.csv starts in its {tmp_path}"
    assert re.fullmatch(says, str(said))
    assert home.here() == str(tmp_path)
    (tmp_path / "upload").mkdir()
    (tmp_path / "upload" / "list.csv").write_text("here")
    assert home.call_from(str(tmp_path / "upload"), Path("list.csv").read_text) == "here"
