"""One line of the configuration switches the algorithm of a whole run in real Ray processes."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import pytest
import torch

from tats_ray.checkpoints import format as checkpoints
from tats_ray.config.load import parse_config
from tats_ray.config.plugins import ALGORITHMS
from tats_ray.data.synthetic import SyntheticSet
from tats_ray.models.zoo import build_policy, token_grid
from tats_ray.runs.pretrain_plan import make_plan
from tats_ray.runtime.driver import launch
from tats_ray.view.glossary import GLOSSARY
from tests.marks import IN_CLUSTER

pytestmark = [*IN_CLUSTER, pytest.mark.timeout(600)]

ALL = {"loss", "surrogate", "entropy", "effective_tokens", "max_prob_x_n", "approx_kl", "reward"}
ALL |= {"staleness", "mae_lag"}
CRITIC = {"value", "value_loss", "explained_variance"}
LOGGED = {
    "ppo": (ALL | CRITIC | {"clip_fraction"}, 1, "token_error"),
    "a2c": (ALL | CRITIC, 1, "token_error"),
    "reinforce": (ALL, 1, "token_error"),
    "grpo": (ALL | {"clip_fraction", "group_spread"}, 4, "negative_clip_error"),
    "rloo": (ALL | {"group_spread"}, 4, "negative_clip_error"),
}
"""What each says about an update, its masks per clip, and what it is paid with."""


@pytest.mark.long  # `make test` has PPO
@pytest.mark.parametrize("name", ALGORITHMS)
def test_a_run_with_another_algorithm_differs_in_one_line(
    name: str, videos: SyntheticSet, run_folder: Path
) -> None:
    raw: dict[str, Any] = {
        "name": "run",
        "algorithm": {
            "name": name,  # the line
            "lr": 1e-2,
            "policy_coef": 1.0,
            "entropy_coef": 0.01,
        },
        "data": {
            "train_list": str(videos.train_list),
            "num_frames": 4,
            "image_size": 32,
            "stride": 1,
            "num_workers": 0,
        },
        "model": {"size": "tiny", "patch": 8, "depth": 1, "decoder_depth": 1},
        "sampler": {"mask_ratio": 0.75},
        "loop": {"epochs": 2, "mae_only_epochs": 1, "mae_steps_per_update": 2},
        "optim": {"batch_size": 8, "base_lr": 0.1, "warmup_epochs": 1},
        "checkpoint": {"folder": str(run_folder.parent)},
        "cluster": {"threads": 1, "timeout_s": 60},
        "log": {"every_steps": 1},
    }
    config = parse_config(raw)
    names, masks, reward = LOGGED[name]
    plan = make_plan(config)
    assert config.algorithm.masks_per_clip == masks
    assert dict(plan.lines())["algorithm"] == f"{name}, rewarded with {reward}"
    assert plan.steps_per_epoch == 18 // (8 // masks)

    events: list[launch.Event] = []
    outcome = launch.run(config, run_folder, plan.placement, on_event=events.append)
    assert outcome.is_finished
    assert outcome.step == plan.total_steps
    updates = [e["metrics"] for e in events if "policy/loss" in e.get("metrics", {})]
    assert len(updates) == plan.steps_per_epoch // 2
    for metrics in updates:
        policy = {k: v for k, v in metrics.items() if k.startswith("policy/")}
        assert set(policy) == {f"policy/{what}" for what in names}
        assert all(math.isfinite(value) for value in policy.values())
        assert set(metrics) <= set(GLOSSARY)
    assert updates[-1]["policy/approx_kl"] > 0
    signs = {metrics["env/reward"] > 0 for metrics in updates}
    assert signs == {reward == "token_error"}

    found = checkpoints.load(run_folder).policy
    assert found is not None
    start = build_policy(
        config.sampler, config.model, token_grid(config.data, config.model), seed=config.seed
    )
    assert isinstance(start, torch.nn.Module)
    before = start.state_dict()["sampler.actor.weight"]
    assert not torch.equal(found["network"]["sampler.actor.weight"], before)
