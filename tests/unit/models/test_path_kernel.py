"""The Triton kernel of stage 2 of trajectory attention: what it computes, and when it is used."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch

from tats_ray.models import kernel_choice
from tats_ray.models.trajectory import TrajectoryAttention

ROOT = Path(__file__).parents[3]


def printed(*command: str, **variables: str) -> Any:
    done = subprocess.run(
        [sys.executable, *command],
        cwd=ROOT,
        env={**os.environ, **variables},
        capture_output=True,
        text=True,
        timeout=280,
    )
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout.splitlines()[-1])


@pytest.fixture(scope="module")
def interpreted() -> Any:
    """One process: torch, Triton and torch's compiler take ten seconds to load."""
    pytest.importorskip("triton")
    return printed("-m", "tests.unit.models.interpreted_kernel", TRITON_INTERPRET="1")


TOLERANCES = {"float64": 1e-12, "float32": 1e-5, "bfloat16": 0.15}


@pytest.mark.long
@pytest.mark.parametrize("dtype", TOLERANCES)
def test_kernel_has_the_output_and_all_gradients_of_the_form_in_torch(
    interpreted: Any, dtype: str
) -> None:
    rows = [row for row in interpreted["rows"] if row["dtype"] == dtype]
    assert len(rows) >= 6
    for row in rows:
        assert row["fused"] < TOLERANCES[dtype], row
        assert row["fused"] < 3 * row["plain"] + 1e-14, row  # as near to the truth


@pytest.mark.long
def test_kernel_is_traced_without_a_break_where_the_policy_is_compiled(interpreted: Any) -> None:
    assert interpreted["traced"] < 1e-12


@pytest.mark.long
def test_kernel_that_is_measured_slower_is_not_used(interpreted: Any) -> None:
    """Interpreted, it takes a hundred times as long."""
    is_faster, why = interpreted["slow"]
    assert not is_faster
    assert re.fullmatch(r"stays in torch: [\d.e+]+ ms with its Triton kernel, [\d.]+ ms .*", why)


COMPILE = """
import json
import triton
import triton.language as tl
from triton.backends.compiler import GPUTarget
from tats_ray.models import path_kernel

spilled = {}
for chip in (80, 90):
    for kernel in (path_kernel._mix, path_kernel._unmix):
        types = {n: "constexpr" if n.isupper() else "*bf16" for n in kernel.arg_names}
        numbers = ("slot_stride", "along_stride", "tokens", "heads", "slots", "width")
        types |= {n: "i32" for n in numbers if n in types} | {"share": "*fp32"}
        fixed = {"SLOTS": 8, "WIDTH": 1024, "WIDE": tl.float32}
        source = triton.compiler.ASTSource(kernel, types, fixed)
        options = {"num_warps": 8, "enable_fp_fusion": True}
        made = triton.compile(source, target=GPUTarget("cuda", chip, 32), options=options)
        spilled[f"{chip} {kernel.__name__}"] = "st.local" in made.asm["ptx"], len(made.asm["cubin"])
print(json.dumps(spilled))
"""


@pytest.mark.long
def test_both_directions_compile_for_ampere_and_hopper_at_the_papers_size(tmp_path: Path) -> None:
    """Down to machine code, which needs no GPU."""
    pytest.importorskip("triton")
    found = printed("-c", COMPILE, TRITON_CACHE_DIR=str(tmp_path))
    assert len(found) == 4
    assert all(not spills and size > 1000 for spills, size in found.values())


def attention() -> TrajectoryAttention:
    return TrajectoryAttention(12, 3, 2)


def test_policy_on_a_cpu_is_left_alone_and_nothing_is_said() -> None:
    said: list[str] = []
    kernel_choice.use_faster_form(attention(), 1, 8, "float32", said.append)
    assert said == []


@pytest.mark.parametrize("is_missing", [True, False])
def test_where_triton_is_missing_or_refuses_the_chip_torch_goes_on_and_one_line_says_why(
    is_missing: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Compiled for real, a kernel cannot run on a CPU."""
    block, said = attention(), []
    if is_missing:
        monkeypatch.setitem(sys.modules, "tats_ray.models.path_kernel", None)
    else:
        pytest.importorskip("triton")
    monkeypatch.setattr(kernel_choice, "_LEARNS_ON", "cpu")
    kernel_choice.use_faster_form(block, 1, 8, "float32", said.append)
    assert not block.is_fused
    reason = "ModuleNotFoundError: import of tats_ray" if is_missing else "(Runtime|Value)Error: "
    start = "stage 2 of trajectory attention stays in torch, without its Triton kernel: "
    assert re.match(start + reason, said[0])
    assert "\n" not in said[0]
    assert len(said) == 1
    block(torch.randn(1, 8, 12)).sum().backward()


def test_form_that_takes_less_time_is_chosen_for_all_blocks(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(kernel_choice, "_LEARNS_ON", "cpu")
    blocks, said = torch.nn.ModuleList([attention(), attention()]), []
    for fused, is_faster in ((1.234, True), (1.99, False)):
        monkeypatch.setattr(kernel_choice, "form_ms", lambda *_, fused=fused: (fused, 2.0))
        kernel_choice.use_faster_form(blocks, 1, 8, "float32", said.append)
        assert [block.is_fused for block in blocks] == [is_faster] * 2  # type: ignore[comparison-overlap]
    assert said == [
        "stage 2 of trajectory attention uses the kernel: 1.23 ms with its Triton kernel, 2 ms in "
        "torch",
        "stage 2 of trajectory attention stays in torch: 1.99 ms with its Triton kernel, 2 ms in "
        "torch",
    ]


def test_form_in_torch_that_weighs_trajectories_themselves_has_no_kernel(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(kernel_choice, "_LEARNS_ON", "cpu")
    block, said = TrajectoryAttention(12, 3, 2, project_values=False), []
    kernel_choice.use_faster_form(block, 1, 8, "float32", said.append)
    assert said == []
