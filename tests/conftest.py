"""What tests share: one torch thread, quiet hypothesis, and a whole run small enough to repeat."""

from __future__ import annotations

import datetime
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field

import gymnasium
import pytest
import torch
import torch.distributed as dist
from hypothesis import settings
from torch import Tensor

from tats_ray.algorithms.ppo import PPOConfig
from tats_ray.checkpoints.format import Checkpoint
from tats_ray.config.schema import AlgorithmConfig, EnvConfig, LoopConfig, OptimConfig
from tats_ray.core.grid import TokenGrid
from tats_ray.core.seeds import stream
from tats_ray.models.mae import MaskedAutoencoder
from tats_ray.models.policy import FixedPolicy, SamplerPolicy
from tats_ray.models.samplers.tats import tats_sampler
from tats_ray.training.mae_learner import MAELearner
from tats_ray.training.policy_learner import LocalPolicyClient, PolicyLearner, PolicyUpdate
from tats_ray.training.pretrain_loop import Batch, PretrainLoop, Stage
from tests.budget import Budget

settings.register_profile("project", deadline=None, derandomize=True, max_examples=40)
settings.load_profile("project")

GRID = TokenGrid(num_frames=4, image_size=16, tubelet=2, patch=4)  # 2 x 4 x 4 = 32 tokens
WIDTH = 16


def pytest_configure(config: pytest.Config) -> None:
    config.pluginmanager.register(Budget())
    torch.set_num_threads(1)


@pytest.fixture(autouse=True)
def one_thread() -> Iterator[None]:
    """Sums in one order, so that equal means bit for bit; and cores left for others.

    Two threads add up in another order than one. So a test that leaves another number behind
    changes the last digit of tests that run after it, and fails here.
    """
    yield
    left = torch.get_num_threads()
    torch.set_num_threads(1)
    assert left == 1, "restore the number of threads [see `torch_threads`]"


def small_mae(seed: int = 0) -> MaskedAutoencoder:
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        return MaskedAutoencoder(
            GRID,
            width=WIDTH,
            depth=2,
            num_heads=2,
            decoder_width=8,
            decoder_depth=1,
            decoder_num_heads=2,
            pos_embed="sincos_3d",
        )


def small_policy(seed: int = 0, *, is_flat: bool = False) -> SamplerPolicy:
    """A TATS policy; `is_flat` keeps the zero-initialised actor, else it prefers some tokens."""
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        sampler = tats_sampler(WIDTH, GRID, num_heads=2, actor_init="zero" if is_flat else "xavier")
        return SamplerPolicy(sampler, WIDTH)


def random_clips(*name: str | int, count: int = 2) -> Tensor:
    """uint8 noise, the same for the same name."""
    shape = (count, *GRID.clip_shape)
    return torch.randint(256, shape, generator=stream(0, *name), dtype=torch.uint8)


@dataclass(frozen=True)
class SmallBatch:
    pixels: Tensor
    num_replaced: int = 0
    motion: Tensor | None = None
    unreadable: Mapping[str, str] = field(default_factory=dict)


class CountingClient(LocalPolicyClient):
    """The in-process client; `updates` holds (entries announced, rollouts in the memory)."""

    def __init__(self, learner: PolicyLearner, *, max_staleness: int = 0) -> None:
        super().__init__(learner, max_staleness=max_staleness)
        self.updates: list[tuple[int, int]] = []

    def update(self, num_entries: int) -> PolicyUpdate | None:
        self.updates.append((num_entries, len(self.memory)))
        return super().update(num_entries)


def join_pair(rank: int, folder: str) -> None:
    """Make this process, of one thread, one of two that meet over gloo."""
    torch.set_num_threads(1)
    dist.init_process_group(
        "gloo",
        init_method=f"file://{folder}/meet",
        rank=rank,
        world_size=2,
        timeout=datetime.timedelta(seconds=60),
    )


class SmallRun:
    """Every part of a run in one process: real environment, learners and loop, on noise clips.

    It is its own hooks; `after_batch` may be set to look, or to raise `Halt`.
    """

    grid = GRID

    def __init__(
        self,
        *,
        loop: LoopConfig,
        algorithm: AlgorithmConfig | None = None,
        optim: OptimConfig | None = None,
        batches_per_epoch: int = 4,
        num_visible: int = 8,
        seed: int = 0,
        slots: int = 1,
        device: str = "cpu",
        env_id: str = EnvConfig().id,
    ) -> None:
        optim = optim or OptimConfig(batch_size=2, base_lr=0.1, warmup_epochs=0.5)
        self.batches_per_epoch = batches_per_epoch
        algorithm = algorithm or PPOConfig(lr=1e-2)
        self.num_slots = slots
        self.clips_per_step = optim.batch_size // algorithm.masks_per_clip
        self.learner = MAELearner(
            small_mae(seed).to(device),
            optim,
            steps_per_epoch=batches_per_epoch,
            total_steps=batches_per_epoch * loop.epochs,
            global_batch=optim.batch_size * slots,
            precision=loop.precision,
            weight=1 / slots,
        )
        owned = small_policy(seed).to(device)
        self.policy_learner = PolicyLearner(
            owned, algorithm.build(owned), seed=seed, precision=loop.precision
        )
        self.acting = small_policy(seed).to(device)
        self.client = CountingClient(self.policy_learner, max_staleness=loop.max_staleness)
        env = gymnasium.make_vec(
            env_id,
            num_envs=optim.batch_size,
            scorer=self.learner,
            grid=GRID,
            width=WIDTH,
            num_visible=num_visible,
            reward=algorithm.default_reward,
            arrays="torch",
        )
        self.loop = PretrainLoop(
            loop,
            seed=seed,
            slots=range(slots),
            batches=self.batches,
            learner=self.learner,
            warmup=Stage(FixedPolicy(GRID), env, num_visible),
            main=Stage(self.acting, env, num_visible),
            client=self.client,
            hooks=self,
            masks_per_clip=algorithm.masks_per_clip,
        )
        self.metrics: list[dict[str, float]] = []
        self.epochs_ended = 0
        self.after_batch: Callable[[PretrainLoop], None] = lambda loop: None

    def batches(self, epoch: int, first: int) -> Iterator[SmallBatch]:
        for index in range(first, self.batches_per_epoch):
            for slot in range(self.num_slots):
                name = ("batch", epoch, index, slot) if slot else ("batch", epoch, index)
                yield SmallBatch(random_clips(*name, count=self.clips_per_step))

    def on_step(
        self, loop: PretrainLoop, metrics: Mapping[str, float], batches: Sequence[Batch]
    ) -> None:
        self.metrics.append(dict(metrics))
        self.after_batch(loop)

    def on_epoch(self, loop: PretrainLoop) -> None:
        self.epochs_ended += 1

    def checkpoint(self) -> Checkpoint:
        return Checkpoint(
            position=self.loop.at,
            mae=self.learner.state_dict(),
            policy=self.client.state_dict(),
            config_yaml="name: small\n",
        )

    def restore(self, found: Checkpoint) -> None:
        assert found.policy is not None
        self.learner.load_state_dict(found.mae)
        self.policy_learner.load_state_dict(found.policy)
        self.acting.load_state_dict(found.policy["network"])
        self.loop.at = found.position

    def weights(self) -> dict[str, Tensor]:
        """Copies of all weights of both networks."""
        parts = {"mae": self.learner.mae, "policy": self.policy_learner.policy}
        return {
            f"{name}.{key}": value.clone()
            for name, part in parts.items()
            for key, value in part.state_dict().items()
        }


@pytest.fixture
def grid() -> TokenGrid:
    return GRID


@pytest.fixture
def mae() -> MaskedAutoencoder:
    return small_mae()


@pytest.fixture
def policy() -> SamplerPolicy:
    """A policy that prefers some tokens."""
    return small_policy()


@pytest.fixture
def flat_policy() -> SamplerPolicy:
    """A policy at its zero initialisation: exactly uniform."""
    return small_policy(is_flat=True)


@pytest.fixture
def clips() -> Tensor:
    """Two clips of noise."""
    return random_clips("fixture")


@pytest.fixture
def small_run() -> type[SmallRun]:
    return SmallRun
