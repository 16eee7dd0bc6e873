"""`tats env baseline`: every algorithm on the same fixed clips, against the same frozen scorer.

All learners have one network, a small one that reads the environment's features token by token,
and see the same other clips in the same order, so that rows differ in the algorithm alone.
"""

from __future__ import annotations

import math
import sys
import time
from collections.abc import Mapping, Sequence

import torch
from tats_ray.envs import TokenSelectionVectorEnv
from tats_ray.envs.yardstick import NUM_FEATURES, Measures, Yardstick, observed
from torch import Tensor, nn

from tats_ray.algorithms.a2c import A2CConfig
from tats_ray.algorithms.grpo import GRPOConfig
from tats_ray.algorithms.ppo import PPOConfig
from tats_ray.algorithms.reinforce import ReinforceConfig
from tats_ray.algorithms.rloo import RLOOConfig
from tats_ray.checkpoints.frozen_scorer import FrozenScorer
from tats_ray.config.schema import AlgorithmConfig
from tats_ray.core.arrays import Float, UInt8
from tats_ray.core.devices import torch_threads
from tats_ray.core.errors import UsageError
from tats_ray.core.protocols import MaskPolicy
from tats_ray.core.seeds import derive, stream
from tats_ray.core.types import Rollout
from tats_ray.core.words import counted
from tats_ray.data.clips import SyntheticClips
from tats_ray.models.policy import FixedPolicy, SamplerPolicy
from tats_ray.models.samplers.fixed_masks import multi_block_mask, tube_mask
from tats_ray.models.samplers.learned import LearnedSampler
from tats_ray.models.samplers.oracle import MotionOracle
from tats_ray.ops.selection import draw_visible
from tats_ray.ops.statistics import standard_error
from tats_ray.training.policy_learner import PolicyLearner
from tats_ray.view.tables import print_table

NUM_VISIBLE = 16
_BATCH = 32
"""Clips per update, where an algorithm draws one mask for each; with G masks, 128 / G."""
_GROUP_ROWS = 128
_HIDDEN = 32
_POOL = 1024
"""Clips to learn from; none of them is measured on."""

LEARNERS: Mapping[str, AlgorithmConfig] = {
    "AdaMAE (reinforce)": ReinforceConfig(lr=4e-3, policy_coef=1.0),
    "PPO": PPOConfig(
        lr=4e-3,
        policy_coef=1.0,
        value_coef=0.5,
        entropy_coef=0.01,
        advantage="relative",
        sharpness=4.0,
        update_steps=2,
    ),
    "A2C": A2CConfig(
        lr=4e-3, policy_coef=1.0, value_coef=0.5, entropy_coef=1.0, advantage="standardized"
    ),
    "GRPO": GRPOConfig(lr=2e-3, policy_coef=1.0, entropy_coef=0.0, group_size=16),
    "RLOO": RLOOConfig(lr=2e-3, policy_coef=1.0, entropy_coef=0.0, group_size=16),
}
"""Rates and weights for hundreds of updates, not hundreds of epochs."""


HEAD = (
    "",
    "trained on",
    "hidden error",
    "less than random",
    "picked error",
    "motion",
    "beats random",
)
_MEASURE = {"token_error": "picked_error", "negative_clip_error": "reduction"}
"""Reward -> the measure that a learner should raise with it."""


@torch_threads(1)  # with tensors this small, more threads wait for each other
def env_baseline(*, num_clips: int = 256, num_steps: int = 100, num_seeds: int = 3) -> None:
    """Print the table; the progress goes to stderr.

    Raises:
        UsageError: for numbers too small to give a standard error.
    """
    _check("--clips", num_clips, 2)
    _check("--steps", num_steps, 1)
    _check("--seeds", num_seeds, 1)
    scorer = FrozenScorer.tiny()
    yardstick = Yardstick(scorer, num_clips, NUM_VISIBLE)
    rules: Mapping[str, MaskPolicy] = {
        "random": FixedPolicy(scorer.grid),
        "tube": FixedPolicy(scorer.grid, tube_mask),
        "multi-block": FixedPolicy(scorer.grid, multi_block_mask),
        "motion oracle": MotionOracle(scorer.grid, yardstick.motion),
    }
    measured = {name: [yardstick.measure(policy)] for name, policy in rules.items()}
    clips, began = training_clips(scorer), time.perf_counter()
    for name, config in LEARNERS.items():
        measured[name] = []
        for seed in range(num_seeds):
            policy = train(config, scorer, clips, num_steps=num_steps, seed=seed)
            measured[name].append(yardstick.measure(policy))
            spent = time.perf_counter() - began
            print(
                f"{spent:5.0f} s  {name}, seed {seed + 1} of {num_seeds}",
                file=sys.stderr,
                flush=True,
            )
    random = measured["random"][0]
    print_table(
        HEAD,
        [_row(name, found, random) for name, found in measured.items()],
        title=f"{counted(num_clips, 'fixed clip')}, {NUM_VISIBLE} of {scorer.grid.num_tokens} "
        f"tokens visible; {counted(num_steps, 'update')}, {counted(num_seeds, 'seed')}; mean +- "
        "standard error",
    )


def training_clips(scorer: FrozenScorer, count: int = _POOL) -> UInt8[Tensor, "B C F H W"]:
    source = SyntheticClips(scorer.grid, count, split="baseline")
    return torch.stack([source[index].pixels for index in range(count)])


def train(
    config: AlgorithmConfig,
    scorer: FrozenScorer,
    clips: UInt8[Tensor, "B C F H W"],
    *,
    num_steps: int,
    seed: int,
) -> SamplerPolicy:
    """A policy after `num_steps` updates in the environment, paid with the algorithm's reward."""
    policy = new_policy(scorer, seed)
    learner = PolicyLearner(policy, config.build(policy), seed=seed)
    masks = config.masks_per_clip
    per_step = _BATCH if masks == 1 else _GROUP_ROWS // masks
    env = TokenSelectionVectorEnv(
        per_step * masks,
        scorer=scorer,
        num_visible=NUM_VISIBLE,
        reward=config.default_reward,
        observation="features",
        arrays="torch",
    )
    for step in range(num_steps):
        rows = torch.arange(step * per_step, (step + 1) * per_step) % len(clips)
        features, _ = env.reset(options={"clips": clips[rows].repeat_interleave(masks, 0)})
        tokens = observed(features, scorer.grid.num_tokens)
        with torch.no_grad():
            seen = policy.evaluate(tokens[::masks])
        log_prob = seen.log_prob.repeat_interleave(masks, 0)
        drawn = draw_visible(log_prob, NUM_VISIBLE, generator=stream(seed, "draw", step))
        _, _, _, _, info = env.step(drawn)
        rollout = Rollout(
            tokens=tokens,
            visible_idx=drawn,
            log_prob=log_prob,
            value=seen.value.repeat_interleave(masks, 0),
            reward=info["token_reward"].clone(),
            policy_version=step,
            step=step,
            rank=0,
            masks_per_clip=masks,
        )
        learner.update([rollout])
    return policy


def new_policy(scorer: FrozenScorer, seed: int) -> SamplerPolicy:
    """Starts uniform; the global stream is lent to the constructors."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(derive(seed, "init", "policy"))
        block = nn.Sequential(
            nn.Linear(NUM_FEATURES, _HIDDEN), nn.GELU(), nn.Linear(_HIDDEN, NUM_FEATURES)
        )
        network = LearnedSampler([block], NUM_FEATURES, scorer.grid)
        network.pos_embed.requires_grad_(False)  # stays 0: a place alone says nothing here
        return SamplerPolicy(network, NUM_FEATURES)


def advantage_over_random(
    name: str, found: Sequence[Measures], random: Measures
) -> tuple[float, float]:
    """Mean and standard error of what a learner is trained to raise, against random masks.

    Differences are taken clip by clip. The error covers both the choice of clips and of seeds.
    """
    measure = _MEASURE[LEARNERS[name].default_reward]
    return _spread([getattr(one, measure) - getattr(random, measure) for one in found])


def _row(name: str, found: Sequence[Measures], random: Measures) -> tuple[str, ...]:
    reward, verdict = "-", "-"
    if name in LEARNERS:
        reward = LEARNERS[name].default_reward
        gain, error = advantage_over_random(name, found, random)
        verdict = f"{'yes' if gain > 2 * error else 'no'}, {gain / error:+.1f} s.e."
    columns = []
    for measure, digits in (
        ("hidden_error", 4),
        ("reduction", 4),
        ("picked_error", 3),
        ("motion", 2),
    ):
        mean, error = _spread([getattr(one, measure) for one in found])
        sign = "+" if measure == "reduction" else ""
        columns.append(f"{mean:{sign}.{digits}f} +- {error:.{digits}f}")
    return name, reward, *columns, verdict


def _spread(per_seed: Sequence[Float[Tensor, " C"]]) -> tuple[float, float]:
    """Mean over clips and seeds, and its standard error."""
    values = torch.stack(list(per_seed)).double().numpy()
    of_clips = standard_error(values.mean(0))
    of_seeds = standard_error(values.mean(1)) if len(values) > 1 else 0.0
    return float(values.mean()), math.hypot(of_clips, of_seeds)


def _check(flag: str, value: int, least: int) -> None:
    if value < least:
        raise UsageError(f"{flag} must be at least {least}, got {value}")
