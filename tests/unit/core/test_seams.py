"""The seams are kept: whoever stands behind one takes the arguments that it declares."""

from __future__ import annotations

import inspect
from typing import Any

import pytest

from tats_ray.algorithms.base import PolicyGradient
from tats_ray.algorithms.ppo import PPO, PPOConfig
from tats_ray.algorithms.reinforce import Reinforce, ReinforceConfig
from tats_ray.checkpoints.frozen_scorer import FrozenScorer
from tats_ray.config.schema import AlgorithmConfig
from tats_ray.core.protocols import Algorithm, LearningScorer, MaskPolicy, Scorer
from tats_ray.models.policy import FixedPolicy, SamplerPolicy
from tats_ray.models.samplers.learned import LearnedSampler
from tats_ray.training.mae_learner import MAELearner
from tats_ray.training.policy_learner import LocalPolicyClient, PolicyClient
from tats_ray.training.pretrain_loop import Environment


@pytest.mark.parametrize(
    ("seam", "implementation"),
    [
        (Scorer, FrozenScorer),
        (Scorer, MAELearner),
        (LearningScorer, MAELearner),
        (MaskPolicy, SamplerPolicy),
        (MaskPolicy, FixedPolicy),
        (Algorithm, PolicyGradient),
        (Algorithm, PPO),
        (Algorithm, Reinforce),
        (PolicyClient, LocalPolicyClient),
    ],
)
def test_methods_behind_a_seam_have_the_parameters_that_it_declares(
    seam: Any, implementation: Any
) -> None:
    methods = [name for name, value in vars(seam).items() if inspect.isfunction(value)]
    declared = [name for name in methods if not name.startswith("_")]
    assert declared
    for name in declared:
        expected = inspect.signature(getattr(seam, name)).parameters
        found = inspect.signature(getattr(implementation, name)).parameters
        assert [(p.name, p.kind) for p in expected.values()] == [
            (p.name, p.kind) for p in found.values()
        ], name


def test_environment_takes_what_the_loop_hands_it() -> None:
    from tats_ray.envs import TokenSelectionVectorEnv

    for name in ("reset", "step"):
        expected = inspect.signature(getattr(Environment, name)).parameters
        found = inspect.signature(getattr(TokenSelectionVectorEnv, name)).parameters
        assert set(expected) <= set(found), name
        extra = [found[p] for p in set(found) - set(expected)]
        assert all(p.default is not inspect.Parameter.empty for p in extra)


@pytest.mark.parametrize("config", [PPOConfig(), ReinforceConfig()])
def test_built_parts_stand_behind_their_seams(
    config: AlgorithmConfig, policy: SamplerPolicy
) -> None:
    assert isinstance(config.build(policy), Algorithm)
    assert isinstance(policy, MaskPolicy)
    assert isinstance(policy.sampler, LearnedSampler)
