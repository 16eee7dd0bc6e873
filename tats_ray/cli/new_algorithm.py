"""`tats new algorithm`: a file to start from, which works as it is, and its test."""

from __future__ import annotations

import importlib.util
import keyword
import re
import shlex
from dataclasses import dataclass
from pathlib import Path

from tats_ray.config.load import ALGORITHMS
from tats_ray.core.errors import UsageError

# Longer ones would not fit into the lines of the templates.
_LONGEST_NAME = 30


@dataclass(frozen=True)
class NewAlgorithm:
    """What was written."""

    name: str
    source: Path
    test: Path

    @property
    def reference(self) -> str:
        """What `algorithm.name` takes."""
        return f"{self.name}:{class_name(self.name)}Config"

    @property
    def train_command(self) -> str:
        """What to type. Every process of a run imports the module, hence the path."""
        folder = shlex.quote(str(self.source.parent.resolve()))
        return f"PYTHONPATH={folder} tats pretrain CONFIG --algorithm.name {self.reference}"


def new_algorithm(name: str, folder: Path = Path()) -> NewAlgorithm:
    """Write `<folder>/<name>.py` and `<folder>/test_<name>.py`.

    Raises:
        UsageError: for a name that is no module name or is taken, a folder that is missing, and
            files that are already there.
    """
    made = NewAlgorithm(name, folder / f"{name}.py", folder / f"test_{name}.py")
    if not re.fullmatch(r"[a-z][a-z0-9_]*", name):
        raise UsageError(f"algorithm name {name!r} is no module name; use a name like my_algorithm")
    if len(name) > _LONGEST_NAME:
        raise UsageError(f"algorithm name {name!r} is longer than {_LONGEST_NAME} characters")
    if not folder.is_dir():
        raise UsageError(f"folder {folder} does not exist; make it first")
    for path in (made.source, made.test):
        if path.exists():
            raise UsageError(f"{path} already exists; choose another name or another --folder")
    if keyword.iskeyword(name) or name in ALGORITHMS or importlib.util.find_spec(name):
        raise UsageError(f"algorithm name {name!r} is taken, by Python, a package or this one")
    made.source.write_text(_filled(_SOURCE, name), encoding="utf-8")
    made.test.write_text(_filled(_TEST, name), encoding="utf-8")
    return made


def class_name(name: str) -> str:
    """my_algorithm -> MyAlgorithm."""
    return "".join(word.capitalize() for word in name.split("_"))


def _filled(template: str, name: str) -> str:
    return template.replace("CLASS", class_name(name)).replace("MODULE", name)


_SOURCE = '''"""Each hidden token becomes likelier by the error that it turned out to have."""

from dataclasses import dataclass

from tats_ray.algorithms.base import PolicyGradient
from tats_ray.config.schema import AlgorithmConfig
from tats_ray.core.types import Evaluation, Metrics, Rollout
from tats_ray.models.policy import SamplerPolicy
from tats_ray.ops.losses import advantages, scored_sum
from tats_ray.ops.selection import entropy, is_visible
from torch import Tensor


@dataclass(frozen=True, kw_only=True, slots=True)
class CLASSConfig(AlgorithmConfig):
    """Fields are checked, and can be set as --algorithm.FIELD like all others."""

    name: str = "MODULE:CLASSConfig"
    policy_coef: float = 1.0
    """Weight of the policy term."""
    entropy_coef: float = 0.01
    """Weight of the entropy, which keeps the choice varied."""

    def build(self, policy: SamplerPolicy) -> "CLASS":
        return CLASS(self, policy)


class CLASS(PolicyGradient):
    """The base has optimiser, walk over the memory, diagnostics and checkpoints."""

    def __init__(
        self,
        config: CLASSConfig,
        policy: SamplerPolicy,
    ) -> None:
        super().__init__(config, policy)
        self.config = config

    def loss(self, rollout: Rollout, now: Evaluation) -> tuple[Tensor, Metrics]:
        """What to minimise on a batch of drawn masks, and scalars to log."""
        hidden = ~is_visible(rollout.visible_idx, rollout.log_prob.shape[1])
        advantage = advantages(rollout.reward, rollout.value, hidden, "relative")
        gain = scored_sum(now.log_prob * advantage, hidden, "mean")
        spread = entropy(now.log_prob).mean()
        loss = -self.config.policy_coef * gain - self.config.entropy_coef * spread
        return loss, {"surrogate": gain.item()}
'''

_TEST = '''"""Shape and gradient of the loss; does it find the hard tokens? Run with pytest."""

import torch
from tats_ray.core.grid import TokenGrid
from tats_ray.core.types import Evaluation, Rollout
from tats_ray.models.policy import SamplerPolicy
from tats_ray.models.samplers.learned import LearnedSampler
from torch import Tensor

from MODULE import CLASSConfig

GRID = TokenGrid(num_frames=2, image_size=8, tubelet=2, patch=1)  # 64 tokens
HARD = torch.arange(64) % 8 == 3
CLIPS, VISIBLE = 16, 6


def one_logit_per_token() -> SamplerPolicy:
    """It starts uniform; on one-hot tokens the actor's weights are the logits."""
    return SamplerPolicy(LearnedSampler([], 64, GRID), 64)


def play(policy: SamplerPolicy, step: int) -> Rollout:
    """One drawn mask for each clip; hidden tokens err by 0.9 if hard, else by 0.35."""
    tokens = torch.eye(64).expand(CLIPS, 64, 64)
    generator = torch.Generator().manual_seed(step)
    drawn = policy.act(tokens, VISIBLE, generator=generator)
    error = torch.where(HARD, 0.9, 0.35).expand(CLIPS, 64)
    return Rollout(
        tokens=tokens,
        visible_idx=drawn.visible_idx,
        log_prob=drawn.log_prob,
        value=drawn.value,
        reward=error.scatter(1, drawn.visible_idx, 0.0),
        policy_version=step,
        step=step,
        rank=0,
    )


def gradient(logits: Tensor, rollout: Rollout, policy: SamplerPolicy) -> Tensor:
    logits = logits.clone().requires_grad_()
    algorithm = CLASSConfig(entropy_coef=0.0).build(policy)
    now = Evaluation(logits.log_softmax(1), rollout.value)
    loss, _ = algorithm.loss(rollout, now)
    return torch.autograd.grad(loss, logits)[0]


def test_loss_is_one_finite_number_and_metrics_are_floats() -> None:
    policy = one_logit_per_token()
    rollout = play(policy, 0)
    algorithm = CLASSConfig().build(policy)
    loss, metrics = algorithm.loss(rollout, policy(rollout.tokens))
    assert loss.shape == ()
    assert torch.isfinite(loss)
    assert all(isinstance(value, float) for value in metrics.values())


def test_logit_gradient_is_the_closed_form() -> None:
    """By logit j: -(A_j - p_j sum A) / (B M). Write down your own here."""
    policy = one_logit_per_token()
    rollout = play(policy, 0)
    logits = torch.randn(CLIPS, 64, generator=torch.Generator().manual_seed(1))
    share = rollout.reward / rollout.reward.sum(1, keepdim=True)  # 0 where visible
    advantage = share * (64 - VISIBLE)
    pull = advantage - logits.softmax(1) * advantage.sum(1, keepdim=True)
    expected = -pull / (CLIPS * (64 - VISIBLE))
    torch.testing.assert_close(gradient(logits, rollout, policy), expected)


def test_hard_tokens_become_likelier_than_easy_ones() -> None:
    policy = one_logit_per_token()
    algorithm = CLASSConfig(lr=3e-2).build(policy)
    for step in range(100):
        generator = torch.Generator().manual_seed(step)
        algorithm.update([play(policy, step)], generator=generator)
    with torch.no_grad():
        probability = policy.evaluate(torch.eye(64)[None]).log_prob[0].exp()
    assert probability[HARD].mean() > 1.5 * probability[~HARD].mean()
'''
