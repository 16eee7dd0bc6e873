"""Trajectory attention against section 7.1 of the method, written with its N x N scores."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor
from torch.autograd.graph import saved_tensors_hooks

from tats_ray.models import trajectory
from tats_ray.models.trajectory import TrajectoryAttention, TrajectoryBlock

FORMS = [(project, bias) for project in (True, False) for bias in (True, False)]


def attend_naively(attention: TrajectoryAttention, x: Tensor) -> Tensor:
    """Section 7.1 step by step: N x N scores, then keys and values of every trajectory token."""
    batch, tokens, width = x.shape
    slots, heads = attention.num_slots, attention.num_heads
    per_slot, depth = tokens // slots, width // heads
    q, k, v = attention.qkv(x).reshape(batch, tokens, 3, heads, depth).permute(2, 0, 3, 1, 4)
    scores = q @ k.transpose(-1, -2) / depth**0.5  # B h N N
    weight = scores.unflatten(-1, (slots, per_slot)).softmax(-1)  # by itself in each slot
    paths = torch.einsum("bhntp,bhtpd->bnthd", weight, v.unflatten(2, (slots, per_slot)))
    paths = paths.flatten(-2)  # B N t D
    index = torch.arange(tokens)
    own = paths[:, index, index // per_slot]
    query = attention.proj_q(own).unflatten(-1, (heads, depth))
    key, value = attention.proj_kv(paths).chunk(2, -1)
    if not attention.project_values:
        value = paths
    key, value = key.unflatten(-1, (heads, depth)), value.unflatten(-1, (heads, depth))
    among = (torch.einsum("bnhd,bnthd->bnht", query, key) / depth**0.5).softmax(-1)
    return attention.proj(torch.einsum("bnht,bnthd->bnhd", among, value).flatten(-2))


def make(width: int = 12, heads: int = 3, slots: int = 4, **options: Any) -> TrajectoryAttention:
    with torch.random.fork_rng():
        torch.manual_seed(0)
        attention = TrajectoryAttention(width, heads, slots, **options).double()
        for parameter in attention.parameters():
            torch.nn.init.normal_(parameter, std=0.5)  # sharp attention, biases that matter
    return attention


def noise(*shape: int, seed: int = 1) -> Tensor:
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(shape, dtype=torch.float64, generator=generator)


def with_gradients(attention: TrajectoryAttention, run: Any, x: Tensor) -> dict[str, Tensor]:
    """Output, and the gradient of input and parameters of a random projection of it."""
    x = x.clone().requires_grad_()
    attention.zero_grad(set_to_none=True)
    output = run(x)
    (output * noise(*output.shape, seed=2)).sum().backward()
    assert x.grad is not None
    found = {"output": output.detach(), "input": x.grad}
    for name, parameter in attention.named_parameters():
        # What takes no part has no gradient, where the written-out form gives zeros.
        found[name] = torch.zeros_like(parameter) if parameter.grad is None else parameter.grad
    return found


@pytest.mark.parametrize(("project_values", "qkv_bias"), FORMS)
@pytest.mark.parametrize("recompute", [True, False])
def test_output_and_all_gradients_equal_the_form_with_n_by_n_scores(
    project_values: bool, qkv_bias: bool, recompute: bool
) -> None:
    attention = make(project_values=project_values, qkv_bias=qkv_bias, recompute=recompute)
    x = noise(2, 4 * 5, 12)
    ours = with_gradients(attention, attention, x)
    naive = with_gradients(attention, lambda x: attend_naively(attention, x), x)
    assert ours.keys() == naive.keys()
    for name, expected in naive.items():
        torch.testing.assert_close(ours[name], expected, atol=1e-12, rtol=0, msg=name)
    assert ours["input"].abs().max() > 1e-3
    value_half = ours["proj_kv.weight"][12:]
    assert value_half.any() == project_values  # Motionformer's slip leaves it untrained


@pytest.mark.parametrize(("project_values", "qkv_bias"), FORMS)
def test_recomputing_in_the_backward_pass_changes_nothing(
    project_values: bool, qkv_bias: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    x = noise(2, 12, 12)
    at_once, by_slots = (
        make(project_values=project_values, qkv_bias=qkv_bias, recompute=recompute)
        for recompute in (False, True)
    )
    recomputed = with_gradients(by_slots, by_slots, x)
    together = with_gradients(at_once, at_once, x)
    monkeypatch.setattr(trajectory, "checkpoint", lambda run, *inputs, **_: run(*inputs))
    kept = with_gradients(by_slots, by_slots, x)
    for name in kept:
        assert torch.equal(kept[name], recomputed[name]), name
        torch.testing.assert_close(together[name], recomputed[name], atol=1e-12, rtol=0)


@pytest.mark.parametrize(("recompute", "calls"), [(True, [4, 8]), (False, [1, 1])])
def test_slots_are_taken_one_by_one_and_computed_again_only_when_asked_to(
    recompute: bool, calls: list[int], monkeypatch: pytest.MonkeyPatch
) -> None:
    attention, seen = make(recompute=recompute), [0]
    compute = attention._look

    def spy(*inputs: Any) -> Tensor:
        seen[0] += 1
        return compute(*inputs)

    monkeypatch.setattr(attention, "_look", spy)
    with torch.no_grad():
        attention(noise(1, 20, 12))
    assert seen == calls[:1]
    seen[0] = 0
    attention(noise(1, 20, 12)).sum().backward()
    assert seen == calls[1:]


@pytest.mark.parametrize("recompute", [True, False])
def test_cutting_the_second_stage_into_parts_changes_only_the_rounding(
    recompute: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    attention, x = make(recompute=recompute), noise(2, 20, 12)
    whole = with_gradients(attention, attention, x)
    monkeypatch.setitem(trajectory._VALUES_AT_ONCE, "cpu", 3 * 12 * 7)  # 7 of 40 or 10 rows
    for name, part in with_gradients(attention, attention, x).items():
        torch.testing.assert_close(part, whole[name], atol=1e-12, rtol=0, msg=name)


def test_gradients_of_the_second_stage_in_half_precision_are_summed_in_float32() -> None:
    """Over many parts: sums in bfloat16 would stop growing."""
    generator = torch.Generator().manual_seed(0)
    sizes = ((3, 4000, 8), (8, 8), (8,), (2, 4, 8), (2, 4, 8))
    exact = [torch.rand(size, generator=generator).requires_grad_() for size in sizes]
    rough = [x.detach().bfloat16().requires_grad_() for x in exact]
    with pytest.MonkeyPatch.context() as patch:
        patch.setitem(trajectory._VALUES_AT_ONCE, "cpu", 16 * 10)
        for inputs in (exact, rough):
            trajectory._SecondStage.apply(*inputs, (4000, 0), False).float().sum().backward()
    assert exact[4].grad is not None
    assert rough[4].grad is not None
    torch.testing.assert_close(rough[4].grad.float(), exact[4].grad, atol=0, rtol=0.02)


def test_no_larger_part_of_the_update_is_kept_than_the_trajectories() -> None:
    """Of ViT-B's proportions: 12 heads of 64. Folded queries would take 12 rows a token."""
    attention = make(width=96, heads=12, slots=8)
    assert largest_saved(lambda: attention(noise(1, 8 * 24, 96))) == 192 * 8 * 96


def test_attention_weights_sum_to_one_within_every_slot_by_itself() -> None:
    # Values that are constant within a slot, whatever the token: pooling must give them back,
    # which it does only when each slot's weights sum to one. Stage 2 then mixes known vectors.
    attention = make()
    with torch.no_grad():
        attention.qkv.weight[24:] = 0.0
        attention.qkv.bias[24:] = noise(12, seed=3)
    everywhere = attention.qkv.bias[24:]
    expected = attention.proj(attention.proj_kv(everywhere)[12:])
    found = attention(noise(2, 20, 12))
    torch.testing.assert_close(found, expected.expand_as(found), atol=1e-12, rtol=0)


def test_one_slot_is_softmax_attention_followed_by_the_value_projection() -> None:
    attention = make(slots=1)
    x = noise(2, 7, 12)
    q, k, v = attention.qkv(x).chunk(3, -1)
    pooled = []
    for head in range(3):
        part = slice(4 * head, 4 * head + 4)
        scores = q[..., part] @ k[..., part].transpose(1, 2) / 2.0
        pooled.append(scores.softmax(-1) @ v[..., part])
    expected = attention.proj(attention.proj_kv(torch.cat(pooled, -1))[..., 12:])
    torch.testing.assert_close(attention(x), expected, atol=1e-12, rtol=0)


def test_moving_tokens_within_their_slot_moves_the_output_with_them() -> None:
    attention, x = make(), noise(2, 20, 12)
    generator = torch.Generator().manual_seed(4)
    order = torch.cat([5 * slot + torch.randperm(5, generator=generator) for slot in range(4)])
    torch.testing.assert_close(attention(x[:, order]), attention(x)[:, order], atol=1e-12, rtol=0)
    across = torch.roll(torch.arange(20), 1)  # tokens that change their slot are another clip
    assert (attention(x[:, across]) - attention(x)[:, across]).abs().max() > 1e-3


def test_clips_of_a_batch_do_not_see_each_other() -> None:
    attention, x = make(), noise(3, 20, 12)
    torch.testing.assert_close(attention(x)[1:2], attention(x[1:2]), atol=1e-12, rtol=0)


def test_block_is_two_residual_branches_with_norms_of_eps_1e_6() -> None:
    block = TrajectoryBlock(12, 3, 4).double()
    x = noise(2, 20, 12)

    def norm(x: Tensor) -> Tensor:
        return torch.nn.functional.layer_norm(x, (12,), eps=1e-6)

    middle = x + attend_naively(block.attn, norm(x))
    hidden = torch.nn.functional.gelu(block.mlp.fc1(norm(middle)))
    torch.testing.assert_close(block(x), middle + block.mlp.fc2(hidden), atol=1e-10, rtol=0)


def largest_saved(run: Any) -> int:
    """Elements of the largest tensor that autograd keeps for the backward pass."""
    sizes = [0]

    def pack(tensor: Tensor) -> Tensor:
        sizes.append(tensor.numel())
        return tensor

    with saved_tensors_hooks(pack, lambda tensor: tensor):
        run()
    return max(sizes)


@pytest.mark.parametrize("recompute", [True, False])
def test_nothing_as_large_as_n_by_n_is_kept_for_the_backward_pass(recompute: bool) -> None:
    attention = make(width=8, heads=2, slots=8, recompute=recompute)
    x = noise(1, 8 * 24, 8)
    assert largest_saved(lambda: attention(x)) < 192**2
    assert largest_saved(lambda: attend_naively(attention, x)) >= 2 * 192**2


MEASURE = """
import sys
import torch
from tats_ray.models.trajectory import TrajectoryBlock
sys.path.insert(0, sys.argv[2])
import test_trajectory

def peak_mb():
    status = open("/proc/self/status").read()
    return int(status.split("VmHWM:")[1].split()[0]) * 1024 / 1e6

torch.set_num_threads(1)
block = TrajectoryBlock(768, 12, 8, recompute=sys.argv[1] == "recomputed")
if sys.argv[1] == "naive":
    block.attn.forward = lambda x: test_trajectory.attend_naively(block.attn, x)
block(torch.randn(1, 16, 768)).sum().backward()
block.zero_grad(set_to_none=True)
before = peak_mb()
block(torch.randn(1, 1568, 768)).square().sum().backward()
print(peak_mb() - before)
"""


def peak_mb(form: str) -> float:
    """MB that one clip of ViT-B size adds to the peak of a fresh process, forward and backward.

    The kernel's high-water mark of the process's own memory: `ru_maxrss` would be inherited from
    this process, which is larger.
    """
    here = str(Path(__file__).parent)
    command = [sys.executable, "-c", MEASURE, form, here]
    return float(subprocess.run(command, check=True, capture_output=True, text=True).stdout)


@pytest.mark.skipif(not Path("/proc/self/status").exists(), reason="needs Linux's /proc")
def test_block_of_vit_b_size_trains_on_a_clip_within_its_bounds_where_the_naive_form_does_not() -> (
    None
):
    naive, kept, recomputed = (peak_mb(form) for form in ("naive", "kept", "recomputed"))
    print(f"peak over baseline: {kept:.0f} and {recomputed:.0f} MB, naive form {naive:.0f} MB")
    assert kept < 340
    assert recomputed < 210
    assert naive > 500  # so the measure does see N x N scores
