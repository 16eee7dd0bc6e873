"""What only a GPU can show: the same numbers as on the CPU, and no detour through the host."""

from __future__ import annotations

import math
import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from tats_ray.envs import SEQUENTIAL_TOKEN_SELECTION, TOKEN_SELECTION
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode

from tats_ray.checkpoints import format as checkpoints
from tats_ray.checkpoints.format import Checkpoint
from tats_ray.config.schema import LoopConfig, OptimConfig
from tats_ray.core.devices import Precision
from tats_ray.core.types import Position
from tats_ray.evaluation.mask_evaluator import Evaluator, ValidationSet
from tats_ray.models.trajectory import TrajectoryBlock
from tats_ray.training.mae_learner import MAELearner
from tests.conftest import GRID, SmallRun, random_clips, small_mae, small_policy
from tests.unit.envs.test_device import played

pytestmark = pytest.mark.skipif(not torch.cuda.is_available(), reason="needs an NVIDIA GPU")


def learner(device: str, precision: Precision = "float32") -> MAELearner:
    return MAELearner(
        small_mae().to(device),
        OptimConfig(batch_size=4, base_lr=0.1, warmup_epochs=0),
        steps_per_epoch=8,
        total_steps=8,
        global_batch=4,
        precision=precision,
    )


def masks(count: int = 4) -> Tensor:
    return torch.arange(8).expand(count, -1)


def arrays(seen: Any) -> Iterator[Any]:
    """What is nested in lists, tuples and dicts."""
    if isinstance(seen, (list, tuple, dict)):
        for part in seen.values() if isinstance(seen, dict) else seen:
            yield from arrays(part)
    else:
        yield seen


class HostCopies(TorchDispatchMode):
    """Bytes of every tensor that went from one device to another."""

    def __init__(self) -> None:
        super().__init__()
        self.down: list[int] = []
        self.up: list[int] = []

    def __torch_dispatch__(
        self, func: Any, types: Any, args: Any = (), kwargs: Any = None
    ) -> object:
        out = func(*args, **(kwargs or {}))
        if func is torch.ops.aten._to_copy.default:
            self._note(args[0], out)
        elif func is torch.ops.aten.copy_.default:
            self._note(args[1], args[0])
        elif func is torch.ops.aten._local_scalar_dense.default and args[0].is_cuda:
            self.down.append(args[0].nbytes)
        return out

    def _note(self, source: Tensor, target: Tensor) -> None:
        if source.device.type != target.device.type:
            (self.down if source.is_cuda else self.up).append(source.nbytes)


@pytest.mark.parametrize(("precision", "tolerance"), [("float32", 1e-3), ("bfloat16", 5e-2)])
def test_autoencoder_learns_on_cuda_as_on_the_cpu(precision: Precision, tolerance: float) -> None:
    clips = random_clips("gpu", count=4)
    here, there = learner("cpu"), learner("cuda", precision)
    for _ in range(6):
        expected, found = here.learn(clips, masks()), there.learn(clips, masks())
        assert found.error.is_cuda
        assert found.error.dtype == torch.float32
        assert found.loss == pytest.approx(expected.loss, rel=tolerance)
    torch.testing.assert_close(
        found.error.cpu(), expected.error, rtol=5 * tolerance, atol=5 * tolerance
    )


def test_checkpoint_made_on_cuda_goes_on_on_the_cpu_and_back(tmp_path: Path) -> None:
    clips, made = random_clips("gpu", count=4), learner("cuda")
    for _ in range(2):
        made.learn(clips, masks())
    state = Checkpoint(Position(), made.state_dict(), None, "seed: 0\n")
    checkpoints.save(tmp_path, state, keep_last=1)
    found = checkpoints.load(checkpoints.find(tmp_path))
    for device in ("cpu", "cuda"):
        again = learner(device)
        again.load_state_dict(found.mae)
        assert again.step == made.step
        error = again.score(clips, masks())
        expected = made.score(clips, masks())
        torch.testing.assert_close(error.cpu(), expected.cpu(), rtol=1e-3, atol=1e-3)


def test_run_with_the_policy_on_the_maes_device_sends_nothing_through_the_host() -> None:
    loop = LoopConfig(epochs=2, mae_only_epochs=1, mae_steps_per_update=2, precision="bfloat16")
    run = SmallRun(loop=loop, device="cuda")
    with HostCopies() as copies:
        run.loop.run()
    assert run.client.updates
    assert all(value.is_cuda for value in run.client.current().values())
    assert max(copies.down) <= 8  # scalars
    clips = run.clips_per_step * math.prod(GRID.clip_shape)
    assert {size for size in copies.up if size > 8} == {clips}


def test_run_on_cuda_repeats_itself() -> None:
    loop = LoopConfig(epochs=2, mae_only_epochs=1)
    runs = [SmallRun(loop=loop, device="cuda") for _ in range(2)]
    for run in runs:
        run.loop.run()
    first, second = (run.policy_learner.weights() for run in runs)
    for name, value in first.items():
        torch.testing.assert_close(value, second[name], rtol=1e-4, atol=1e-5)


def test_forward_and_backward_pass_never_wait_for_the_device() -> None:
    mae, clips = small_mae().cuda(), random_clips("gpu").cuda()
    visible_idx = masks(2).cuda()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # that this mode is a prototype
        torch.cuda.set_sync_debug_mode("error")
    try:
        mae.embed(clips)
        mae(clips, visible_idx).loss.backward()
    finally:
        torch.cuda.set_sync_debug_mode("default")


def test_trajectory_attention_on_cuda_is_that_of_the_cpu() -> None:
    torch.manual_seed(0)
    block = TrajectoryBlock(64, 4, 4)
    x = torch.randn(2, 64, 64)
    found = {}
    for device in ("cpu", "cuda"):
        block.to(device).zero_grad(set_to_none=True)
        out = block(x.to(device))
        out.square().sum().backward()
        grads = {n: p.grad.clone().cpu() for n, p in block.named_parameters() if p.grad is not None}
        found[device] = {"out": out.detach().cpu(), **grads}
    for name, expected in found["cpu"].items():
        scale = float(expected.abs().max())
        torch.testing.assert_close(found["cuda"][name], expected, rtol=0, atol=1e-4 * scale)


@pytest.mark.parametrize("env_id", [TOKEN_SELECTION, SEQUENTIAL_TOKEN_SELECTION])
def test_environment_judged_on_cuda_hands_out_what_one_on_the_cpu_does(env_id: str) -> None:
    here, there = played(env_id), played(env_id, device="cuda")
    for expected, found in zip(arrays(here), arrays(there), strict=True):
        np.testing.assert_allclose(found, expected, rtol=1e-3, atol=1e-4)


@pytest.mark.parametrize("env_id", [TOKEN_SELECTION, SEQUENTIAL_TOKEN_SELECTION])
def test_environment_of_tensors_keeps_them_on_its_device(env_id: str) -> None:
    observation, _ = played(env_id, device="cuda", arrays="torch")[0]
    assert observation.is_cuda
    for observation, reward, *_, info in played(env_id, device="cuda", arrays="torch")[1:]:
        assert observation.is_cuda
        assert reward.is_cuda
        assert info["token_error"].is_cuda


def test_measures_of_networks_on_cuda_are_those_of_the_cpu() -> None:
    data = ValidationSet(random_clips("validation", count=5), None)
    here, there = (
        Evaluator(data, 8, batch_size=2).measure(small_mae().to(d), small_policy().to(d))
        for d in ("cpu", "cuda")
    )
    assert there == pytest.approx(here, rel=1e-2, abs=1e-2)
