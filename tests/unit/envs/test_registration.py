"""How the ids become known, and what that costs."""

from __future__ import annotations

import subprocess
import sys

import gymnasium
import pytest
import tats_ray.envs
from tats_ray.envs import TOKEN_SELECTION, TokenSelectionEnv

from tats_ray.config.schema import EnvConfig


def python(script: str) -> str:
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    return done.stdout


@pytest.mark.parametrize("module", ["tats_ray", "tats_ray.envs"])
@pytest.mark.parametrize("task", ["TokenSelection", "SequentialTokenSelection"])
def test_importing_a_module_registers_both_ids_without_torch(module: str, task: str) -> None:
    said = python(
        "import sys, gymnasium\n"
        f"import {module}\n"
        f"print(gymnasium.spec('TATS/{task}-v0').id, 'torch' in sys.modules)\n"
    )
    assert said == f"TATS/{task}-v0 False\n"


def test_package_imports_without_gymnasium() -> None:
    assert python("import sys; sys.modules['gymnasium'] = None; import tats_ray; print(1)") == "1\n"


def test_ids_that_name_either_module_build_the_environment() -> None:
    for env_id in (f"tats_ray:{TOKEN_SELECTION}", EnvConfig().id):
        assert isinstance(gymnasium.make(env_id).unwrapped, TokenSelectionEnv)


def test_module_says_what_it_does_not_have() -> None:
    with pytest.raises(AttributeError, match=r"'tats_ray\.envs' has no attribute 'Nothing'"):
        tats_ray.envs.Nothing  # noqa: B018
