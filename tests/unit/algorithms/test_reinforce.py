"""AdaMAE's sampling loss against its closed form."""

from __future__ import annotations

import pytest
import torch

from tats_ray.algorithms.reinforce import ReinforceConfig
from tats_ray.core.types import Evaluation, Rollout
from tats_ray.models.policy import SamplerPolicy

BATCH, TOKENS = 3, 10
VISIBLE = torch.tensor([[0, 4, 9], [1, 2, 3], [8, 6, 7]])


def test_logit_gradient_is_the_closed_form_of_the_method(policy: SamplerPolicy) -> None:
    generator = torch.Generator().manual_seed(0)
    logits = torch.randn(BATCH, TOKENS, dtype=torch.float64, generator=generator)
    error = torch.rand(BATCH, TOKENS, dtype=torch.float64, generator=generator)
    error.scatter_(1, VISIBLE, 0.0)
    logits.requires_grad_()
    log_prob = logits.log_softmax(1)
    memory = Rollout(
        tokens=torch.zeros(BATCH, TOKENS, 1),
        visible_idx=VISIBLE,
        log_prob=log_prob.detach(),
        value=torch.full((BATCH,), 123.0),  # takes no part
        reward=error,
        policy_version=0,
        step=0,
        rank=0,
    )
    algorithm = ReinforceConfig(policy_coef=0.3).build(policy)
    loss, _ = algorithm.loss(memory, Evaluation(log_prob, memory.value))
    loss.backward()
    expected = torch.zeros(BATCH, TOKENS, dtype=torch.float64)
    total = 0.0
    for b in range(BATCH):
        hidden = [j for j in range(TOKENS) if j not in VISIBLE[b].tolist()]
        p = logits[b].detach().softmax(0)
        for j in range(TOKENS):
            own = error[b, j] if j in hidden else 0.0
            expected[b, j] = -(own - p[j] * error[b, hidden].sum()) / len(hidden) / BATCH
        total -= float((p[hidden].log() * error[b, hidden]).mean()) / BATCH
    assert logits.grad is not None
    torch.testing.assert_close(logits.grad, 0.3 * expected, atol=1e-16, rtol=0)
    assert loss.item() == pytest.approx(0.3 * total)


def test_adamaes_coefficient_is_the_default() -> None:
    assert ReinforceConfig().policy_coef == 1e-4


def test_value_head_is_not_trained(policy: SamplerPolicy) -> None:
    before = {k: v.clone() for k, v in policy.value_head.state_dict().items()}
    generator = torch.Generator().manual_seed(0)
    tokens = torch.randn(2, 32, 16, generator=generator)
    drawn = policy.act(tokens, 8, generator=generator)
    memory = Rollout(
        tokens=tokens,
        visible_idx=drawn.visible_idx,
        log_prob=drawn.log_prob,
        value=drawn.value,
        reward=torch.rand(2, 32, generator=generator),
        policy_version=0,
        step=0,
        rank=0,
    )
    actor = policy.sampler.actor.weight.clone()
    algorithm = ReinforceConfig(lr=1e-2).build(policy)
    algorithm.update([memory], generator=generator)
    after = policy.value_head.state_dict()
    assert all(torch.equal(before[name], after[name]) for name in before)
    assert not torch.equal(policy.sampler.actor.weight, actor)
