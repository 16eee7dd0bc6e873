"""What a step leaves on the device: numbers, checks, and the graph of the draw."""

from __future__ import annotations

import json
import math
import re
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
import torch.distributed as dist
from torch.multiprocessing.spawn import spawn
from torch.nn.parallel import DistributedDataParallel
from torch.utils._python_dispatch import TorchDispatchMode

from tats_ray.algorithms.grpo import GRPOConfig
from tats_ray.algorithms.ppo import PPOConfig
from tats_ray.config.schema import LoopConfig
from tats_ray.core.errors import NonFiniteError
from tats_ray.core.types import Rollout
from tats_ray.training.pretrain_loop import PretrainLoop
from tats_ray.training.rank_group import holds_everywhere
from tests.conftest import SmallRun, join_pair

ROOT = Path(__file__).parents[3]


class Syncs(TorchDispatchMode):
    """Counts what makes the host wait for a device: a number, or a size that depends on values."""

    count = 0

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        waits = (torch.ops.aten._local_scalar_dense.default, torch.ops.aten.nonzero.default)
        self.count += func in waits
        return func(*args, **(kwargs or {}))


class Silent:
    """Hooks that read nothing until they are told to."""

    def __init__(self) -> None:
        self.metrics: list[Any] = []

    def on_step(self, loop: PretrainLoop, metrics: Any, batches: Any) -> None:
        self.metrics.append(metrics)

    def on_epoch(self, loop: PretrainLoop) -> None:
        pass


@pytest.mark.parametrize(
    "algorithm",
    [
        PPOConfig(),
        PPOConfig(advantage="standardized"),
        PPOConfig(update_steps=2),
        GRPOConfig(group_size=2),
    ],
)
@pytest.mark.parametrize("steps_per_update", [1, 2])
def test_no_number_is_fetched_between_two_records(
    small_run: Any, algorithm: Any, steps_per_update: int
) -> None:
    """Of learners in one process: an epoch of random masks, then one with the policy."""
    run = small_run(
        loop=LoopConfig(epochs=2, mae_only_epochs=1, mae_steps_per_update=steps_per_update),
        algorithm=algorithm,
    )
    run.loop.hooks = Silent()
    with Syncs() as syncs:
        run.loop.run()
        assert syncs.count == 0
    read = [dict(metrics) for metrics in run.loop.hooks.metrics]
    assert len(read) == 8
    assert all(math.isfinite(value) for metrics in read for value in metrics.values())
    assert "policy/approx_kl" in read[-1]


FETCHES = """
import torch
from tats_ray.config.schema import LoopConfig
from tats_ray.core import late
from tests.conftest import SmallRun
fetch, counts = late.fetch, []
late.fetch = lambda some: (counts.append(len(some)), fetch(some))[1]
run = SmallRun(loop=LoopConfig(epochs=2, mae_only_epochs=1))
run.on_step = lambda *told: None
run.loop.run()
print(len(counts))
"""


def test_checks_are_looked_at_once_in_an_epoch_and_metrics_that_nobody_reads_never() -> None:
    """In a process of its own: the type checker of these tests looks into what is returned."""
    done = subprocess.run(
        [sys.executable, "-c", FETCHES], cwd=ROOT, capture_output=True, text=True, timeout=120
    )
    assert done.stdout.strip() == "2", done.stderr


def poisoned(run: Any, call: int) -> None:
    """Have the autoencoder's loss be NaN in one call."""
    network = run.learner.network

    class Poisoned(torch.nn.Module):
        calls = 0

        def forward(self, *args: torch.Tensor) -> Any:
            seen = network(*args)
            self.calls += 1
            return replace(seen, error=seen.error * math.nan) if self.calls == call else seen

    run.learner.network = Poisoned()


def of_two(rank: int, folder: str) -> None:
    """Two epochs of one of two ranks; the loss of rank 1 is NaN in the second one."""
    join_pair(rank, folder)
    loop = LoopConfig(epochs=2, mae_only_epochs=2)
    healthy, run = SmallRun(loop=loop), SmallRun(loop=loop)
    weights = []
    for one in (healthy, run):
        one.learner.network = DistributedDataParallel(one.learner.mae)
        one.learner.all_finite = holds_everywhere
    healthy.after_batch = lambda loop: weights.append(healthy.weights())
    healthy.loop.run()
    run.loop.hooks, told = Silent(), None
    if rank == 1:
        poisoned(run, 6)
    with Syncs() as syncs:
        try:
            run.loop.run()
        except NonFiniteError as error:
            told = str(error), error.is_own
    after = run.weights()
    is_same = all(torch.equal(after[name], value) for name, value in weights[4].items())
    steps = len(run.loop.hooks.metrics)
    outcome = (told, steps, run.loop.at.step, is_same, syncs.count)
    Path(folder, f"{rank}.json").write_text(json.dumps(outcome))
    dist.destroy_process_group()


@pytest.mark.timeout(120)
def test_ranks_agree_on_their_devices_and_all_stop_where_the_loss_of_one_was_not_finite(
    tmp_path: Path,
) -> None:
    spawn(of_two, args=(str(tmp_path),), nprocs=2)
    for rank in range(2):
        told, *found = json.loads((tmp_path / f"{rank}.json").read_text())
        assert re.fullmatch(r"the MAE loss is (nan|0\.\d+|1\.\d+) at its step 5", told[0])
        assert told[1] == (rank == 1)
        # Nobody looked before the end of the epoch. Then both fetched the loss, and whose it was.
        assert found == [8, 5, True, 2]


@pytest.mark.parametrize("recipe", [{}, {"mae_steps_per_update": 2}])
def test_a_loss_that_is_not_finite_is_told_late_and_leaves_all_as_it_was_before_its_step(
    small_run: Any, recipe: dict[str, int]
) -> None:
    loop = LoopConfig(epochs=2, mae_only_epochs=1, **recipe)
    healthy, run = small_run(loop=loop), small_run(loop=loop)
    weights = {}

    def look(loop: PretrainLoop) -> None:
        weights[loop.at.step] = healthy.weights()

    healthy.after_batch = look
    healthy.loop.run()
    run.loop.hooks = Silent()
    poisoned(run, 6)
    with pytest.raises(NonFiniteError, match="the MAE loss is nan at its step 5$"):
        run.loop.run()
    assert len(run.loop.hooks.metrics) == 8  # nobody looked before the end of the epoch
    assert (run.loop.at.epoch, run.loop.at.batch, run.loop.at.step) == (1, 1, 5)
    assert run.learner.step == 5
    for name, value in run.weights().items():
        if name.startswith("mae."):
            assert torch.equal(value, weights[5][name]), name


def test_a_policy_loss_that_is_not_finite_is_told_late_and_stops_the_policy(small_run: Any) -> None:
    run = small_run(loop=LoopConfig(epochs=2, mae_only_epochs=0))
    run.loop.hooks, push, weights = Silent(), run.client.push, []

    def bad(rollout: Rollout) -> None:
        if rollout.step == 2:
            weights.append(run.weights())
            rollout = replace(rollout, reward=rollout.reward * math.inf)
        push(rollout)

    run.client.push = bad
    with pytest.raises(NonFiniteError, match="the policy loss is .* at MAE step 2; lower"):
        run.loop.run()
    assert run.loop.at.step == 3  # the autoencoder had taken that step
    for name, value in run.weights().items():
        if name.startswith("policy."):
            assert torch.equal(value, weights[0][name]), name


@pytest.mark.parametrize("algorithm", [PPOConfig(lr=1e-2), PPOConfig(lr=1e-2, update_steps=3)])
def test_learning_from_the_graph_of_the_draw_equals_evaluating_again(
    small_run: Any, algorithm: Any
) -> None:
    found, calls = [], []
    for keeps_graphs in (True, False):
        run = small_run(loop=LoopConfig(epochs=2, mae_only_epochs=1), algorithm=algorithm)
        assert run.client.keeps_graphs
        run.client.keeps_graphs = keeps_graphs
        count = [0]
        forward = run.policy_learner.policy.sampler.features

        def spy(tokens: torch.Tensor, forward: Any = forward, count: list[int] = count) -> Any:
            count[0] += torch.is_grad_enabled()
            return forward(tokens)

        run.policy_learner.policy.sampler.features = spy
        run.loop.run()
        found.append((run.weights(), run.metrics))
        calls.append(count[0])
    (first, told), (second, expected) = found
    assert told == expected
    for name, value in first.items():
        assert torch.equal(value, second[name]), name
    assert calls == [4 * algorithm.update_steps] * 2


@pytest.mark.parametrize(("recipe", "algorithm"), [
    ({"mae_steps_per_update": 2}, PPOConfig()), ({"rollout_fraction": 0.5}, PPOConfig()),
    ({"max_staleness": 1}, PPOConfig()), ({}, GRPOConfig(group_size=2)),
])  # fmt: skip
def test_graphs_of_draws_that_no_update_is_of_alone_are_not_kept(
    small_run: Any, recipe: Any, algorithm: Any
) -> None:
    run = small_run(loop=LoopConfig(epochs=1, mae_only_epochs=0, **recipe), algorithm=algorithm)
    push, seen = run.client.push, []
    run.client.push = lambda rollout: (seen.append(rollout.drawn), push(rollout))
    run.loop.run()
    assert seen == [None] * 4
