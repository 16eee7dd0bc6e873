"""Names that are not ASCII, where the locale says nothing of UTF-8."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path


def test_names_of_any_script_work_in_the_c_locale(tmp_path: Path) -> None:
    folder = tmp_path / "видео"
    folder.mkdir()
    (folder / "mädchen.mp4").touch()
    (folder / "список.csv").write_text("mädchen.mp4 0\nfehlt ü.mp4 1\n", encoding="utf-8")
    config = folder / "größe.yaml"
    config.write_text(f"data: {{train_list: {folder}/список.csv}}  # 日本\n", encoding="utf-8")
    environment = {k: v for k, v in os.environ.items() if k not in ("PYTHONUTF8", "LANG")}
    words = ["pretrain", config, "--name", "läuft", "--checkpoint.folder", tmp_path]
    done = subprocess.run(
        [sys.executable, "-m", "tats_ray", *words],
        env={**environment, "LC_ALL": "C"},
        capture_output=True,
        timeout=200,
    )
    said = done.stderr.decode("utf-8")
    assert done.returncode == 2, said
    assert said == (
        f"tats: {folder}/список.csv, line 2: no such file {folder}/fehlt ü.mp4 (1 of 2 videos is "
        "missing); correct the list, or set the root folder\n"
    )
