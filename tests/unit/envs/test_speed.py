"""Many clips in one step are worth it: the environment's own work is shared by the batch."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[3]


@pytest.mark.long
def test_vector_form_outruns_a_loop_over_the_single_one() -> None:
    """In a process without type checks, processor time, best of some rounds.

    Around a scorer that costs nothing the ratio is about 10; with one that costs the same per clip
    in any batch it nears 1, so there the bound only says that the batch is one forward pass.
    """
    done = subprocess.run(
        [sys.executable, ROOT / "benchmarks" / "env.py", "--rounds", "3"],
        capture_output=True,
        text=True,
        cwd=ROOT,
    )
    assert done.returncode == 0, done.stderr
    found = json.loads(done.stdout)
    for task in ("TokenSelection-v0", "SequentialTokenSelection-v0"):
        assert found[task]["environment alone"]["ratio"][-1] > 8
        assert found[task]["tiny autoencoder"]["ratio"][-1] > 1.5
