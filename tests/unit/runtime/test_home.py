"""Where relative paths begin in the processes of a run."""

from __future__ import annotations

from pathlib import Path

import pytest

from tats_ray.runtime import home


def test_process_goes_to_the_drivers_folder_where_its_node_has_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    home.go_to(str(tmp_path / "upload"))  # of a job, which lies elsewhere on every node
    assert home.here() == str(tmp_path)
    (tmp_path / "upload").mkdir()
    (tmp_path / "upload" / "list.csv").write_text("here")
    assert home.call_from(str(tmp_path / "upload"), Path("list.csv").read_text) == "here"
