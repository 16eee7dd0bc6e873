"""Algorithms from another package, tried before a run: what is accepted, and what is refused."""

from __future__ import annotations

import importlib
from pathlib import Path
from typing import Any

import pytest
import torch

from tats_ray.config.load import parse_config
from tats_ray.config.schema import RunConfig
from tats_ray.core.errors import PeerFailedError, UsageError
from tats_ray.core.types import Rollout
from tats_ray.models.policy import SamplerPolicy
from tats_ray.models.zoo import token_grid
from tats_ray.training.algorithm_trial import check_algorithm
from tats_ray.training.policy_learner import PolicyLearner
from tests.conftest import small_policy

PLUG_IN = '''
from dataclasses import dataclass

import torch

from tats_ray.algorithms.base import PolicyGradient
from tats_ray.config.schema import AlgorithmConfig


class Fine(PolicyGradient):
    def loss(self, rollout, now):
        return self.minimise(rollout, now), {"surrogate": 1.0}

    def minimise(self, rollout, now):
        return -(now.log_prob * rollout.reward).mean()

class KeyMissing(Fine):
    def minimise(self, rollout, now):
        return {}["missing"]

class PerClip(Fine):
    def minimise(self, rollout, now):
        return now.log_prob.mean(1)

class Nan(Fine):
    def minimise(self, rollout, now):
        return super().minimise(rollout, now) * torch.nan

class OfTheRollout(Fine):
    def minimise(self, rollout, now):
        return rollout.log_prob.mean()

class OfTheValue(Fine):
    def minimise(self, rollout, now):
        return now.value.square().mean()

class LossAlone(Fine):
    def loss(self, rollout, now):
        return self.minimise(rollout, now)

class LogsTensors(Fine):
    def loss(self, rollout, now):
        return self.minimise(rollout, now), {"spread": now.log_prob.std(1)}

class KeepsTensors(Fine):
    def state_dict(self):
        return {**super().state_dict(), "numbers": {"mean": torch.zeros(3)}}

class Counts(Fine):
    count = 0

    def minimise(self, rollout, now):
        self.count += 1
        return super().minimise(rollout, now)

    def state_dict(self):
        return {**super().state_dict(), "numbers": {"count": self.count}}

    def load_state_dict(self, state):
        super().load_state_dict(state)
        self.count = state["numbers"]["count"]


class OfItsOwn:
    """No policy gradient."""

    def __init__(self, policy):
        self.optimizer = torch.optim.SGD(policy.parameters(), lr=0.1)

    def update(self, rollouts, *, generator):
        return {"loss": 0.5}

    def state_dict(self):
        return {"optimizer": self.optimizer.state_dict(), "numbers": {}}

    def load_state_dict(self, state):
        self.optimizer.load_state_dict(state["optimizer"])


class LogsNothing(OfItsOwn):
    def update(self, rollouts, *, generator):
        return None


def settings(algorithm, *given):
    @dataclass(frozen=True, kw_only=True, slots=True)
    class Config(AlgorithmConfig):
        def build(self, policy):
            return algorithm(*given, policy)

    return Config


class NoBuild(AlgorithmConfig):
    pass


class BuildsNone(AlgorithmConfig):
    def build(self, policy):
        pass


class BuildFails(AlgorithmConfig):
    def build(self, policy):
        raise ValueError("no such width")


@dataclass(frozen=True, kw_only=True, slots=True)
class Groups(AlgorithmConfig):
    @property
    def masks_per_clip(self):
        return 0


FineConfig = settings(Fine, AlgorithmConfig())
OfItsOwnConfig = settings(OfItsOwn)
LogsNothingConfig = settings(LogsNothing)
for one in (KeyMissing, PerClip, Nan, OfTheRollout, OfTheValue, LossAlone, LogsTensors,
            KeepsTensors, Counts):
    globals()[one.__name__ + "Config"] = settings(one, AlgorithmConfig())
'''


@pytest.fixture(autouse=True)
def module(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "algorithm_plug_in.py").write_text(PLUG_IN)
    monkeypatch.syspath_prepend(str(tmp_path))
    importlib.invalidate_caches()


def named(name: str, **branches: Any) -> RunConfig:
    raw: dict[str, Any] = {
        "data": {"num_frames": 4, "image_size": 16},
        "model": {"size": "tiny", "patch": 4},
        "algorithm": {"name": name},
        **branches,
    }
    return parse_config(raw)


def check(name: str, **branches: Any) -> None:
    config = named(f"algorithm_plug_in:{name}", **branches)
    check_algorithm(config, token_grid(config.data, config.model))


@pytest.mark.parametrize("name", ["FineConfig", "CountsConfig", "OfItsOwnConfig"])
@pytest.mark.parametrize("sampler", [{}, {"name": "adamae", "whiten_tokens": True}])
def test_algorithm_that_works_is_accepted(name: str, sampler: dict[str, Any]) -> None:
    check(name, sampler=sampler)


@pytest.mark.parametrize("reward", ["error_reduction", "motion_share", "negative_clip_error"])
def test_algorithm_is_paid_with_the_runs_reward(reward: str) -> None:
    check("FineConfig", env={"reward": reward})


def test_algorithm_of_this_package_is_not_tried(monkeypatch: pytest.MonkeyPatch) -> None:
    config = named("ppo")
    monkeypatch.setattr(type(config.algorithm), "build", None)
    check_algorithm(config, token_grid(config.data, config.model))


@pytest.mark.parametrize(
    ("name", "says"),
    [
        (
            "KeyMissingConfig",
            r"loss of a random rollout fails: KeyError: 'missing' \(.*\.py, line 19\)$",
        ),
        ("PerClipConfig", r"loss returned float32 of shape \(2,\) to minimise; return a tensor of"),
        ("NanConfig", r"loss is nan on a random rollout; return a finite one$"),
        ("OfTheRolloutConfig", r"loss has no gradient to the sampler; compute it from now"),
        ("OfTheValueConfig", r"loss has no gradient to the sampler; compute it from now"),
        ("LossAloneConfig", r"loss returned float32 of shape \(\); return the scalar and a dict"),
        ("LogsTensorsConfig", r"loss logs float32 of shape \(2,\) as 'spread'; log a number"),
        ("KeepsTensorsConfig", r"state_dict or load_state_dict fails: TypeError: .*JSON"),
        ("LogsNothingConfig", r"update returned a NoneType to log; return a dictionary of floats"),
        ("NoBuild", r"builds no algorithm; use ppo, or give your class the method build\(policy\)"),
        ("BuildsNone", r"build\(policy\) returned a NoneType; return an object with update, "),
        ("BuildFails", r"build\(policy\) fails: ValueError: no such width \(.*, line \d+\)$"),
        ("Groups", r"masks_per_clip is 0; return a whole number, 1 or more"),
    ],
)
def test_what_cannot_train_is_refused_in_one_line_that_names_it(name: str, says: str) -> None:
    with pytest.raises(UsageError, match=says) as refused:
        check(name)
    assert "\n" not in str(refused.value)
    assert f"algorithm_plug_in:{name}" in str(refused.value)


def test_error_in_an_update_names_the_algorithm_and_the_line(policy: SamplerPolicy) -> None:
    algorithm = named("algorithm_plug_in:KeyMissingConfig").algorithm.build(policy)
    tokens = torch.zeros(2, 32, 16)
    drawn = small_policy().act(tokens, 8, generator=torch.Generator())
    rollout = Rollout(
        tokens=tokens,
        visible_idx=drawn.visible_idx,
        log_prob=drawn.log_prob,
        value=drawn.value,
        reward=drawn.log_prob,
        policy_version=0,
        step=0,
        rank=0,
    )
    says = (
        r"^algorithm algorithm_plug_in:KeyMissing failed in update 0: "
        r"KeyError: 'missing' \(.*algorithm_plug_in\.py, line 19\)$"
    )
    with pytest.raises(PeerFailedError, match=says):
        PolicyLearner(policy, algorithm, seed=0).update([rollout])
