"""What the table measures, by hand; and that every learner beats random on the tiny autoencoder."""

from __future__ import annotations

import math
import re
from typing import Any

import numpy as np
import pytest
import torch
from tats_ray.envs.baseline import (
    LEARNERS,
    NUM_VISIBLE,
    advantage_over_random,
    env_baseline,
    new_policy,
    train,
    training_clips,
)
from tats_ray.envs.yardstick import Measures, Yardstick
from torch import Tensor

from tats_ray.checkpoints.frozen_scorer import FrozenScorer
from tats_ray.core.errors import UsageError
from tats_ray.core.types import Selection
from tats_ray.models.policy import FixedPolicy
from tats_ray.models.samplers.oracle import MotionOracle
from tats_ray.ops.selection import entropy


@pytest.fixture(scope="module")
def scorer() -> FrozenScorer:
    return FrozenScorer.tiny()


@pytest.fixture(scope="module")
def yardstick(scorer: FrozenScorer) -> Yardstick:
    return Yardstick(scorer, 64, NUM_VISIBLE)


@pytest.fixture(scope="module")
def clips(scorer: FrozenScorer) -> Tensor:
    return training_clips(scorer, 256)


class Always:
    """Shows what it is told to."""

    def __init__(self, visible_idx: Tensor) -> None:
        self.visible_idx = visible_idx

    def act(self, tokens: Tensor, num_visible: int, *, generator: torch.Generator) -> Selection:
        assert num_visible == self.visible_idx.shape[1]
        flat = torch.zeros(tokens.shape[:2])
        return Selection(self.visible_idx, flat, flat[:, 0])

    def evaluate(self, tokens: Tensor) -> Any:
        raise NotImplementedError


def test_measures_of_a_known_mask_are_those_worked_out_with_the_autoencoder_itself(
    scorer: FrozenScorer, yardstick: Yardstick
) -> None:
    shown = torch.arange(NUM_VISIBLE).expand(64, -1) * 5
    found = yardstick.measure(Always(shown))
    clips = torch.stack([yardstick.env.task.source[index].pixels for index in range(64)])
    error = scorer.mae(clips, shown).error
    hidden = scorer.grid.num_tokens - NUM_VISIBLE
    torch.testing.assert_close(found.hidden_error, error.sum(1) / hidden)
    torch.testing.assert_close(found.reduction, yardstick.random_error - error.sum(1) / hidden)
    motion = yardstick.motion[:, 0 : 5 * NUM_VISIBLE : 5].mean(1) / yardstick.motion.mean(1)
    torch.testing.assert_close(found.motion, motion)


def test_random_masks_measure_as_chance(scorer: FrozenScorer, yardstick: Yardstick) -> None:
    found = yardstick.measure(FixedPolicy(scorer.grid))
    for values, chance in ((found.reduction, 0.0), (found.picked_error, 1.0), (found.motion, 1.0)):
        assert abs(float(values.mean()) - chance) < 4 * float(values.std()) / 8


def test_showing_the_hardest_or_the_moving_tokens_is_measured_as_such(
    scorer: FrozenScorer, yardstick: Yardstick
) -> None:
    hardest = yardstick.measure(Always(yardstick.difficulty.topk(NUM_VISIBLE).indices))
    oracle = yardstick.measure(MotionOracle(scorer.grid, yardstick.motion))
    assert hardest.picked_error.mean() > 1.5 > oracle.picked_error.mean() > 1.1
    assert oracle.motion.mean() > 2.0


def test_learners_start_uniform(scorer: FrozenScorer, yardstick: Yardstick) -> None:
    log_prob = new_policy(scorer, 0).evaluate(yardstick.tokens).log_prob
    torch.testing.assert_close(entropy(log_prob), torch.full((64,), math.log(144)))


def test_learning_repeats_with_its_seed(scorer: FrozenScorer, clips: Tensor) -> None:
    config = LEARNERS["GRPO"]
    one, again, other = (
        train(config, scorer, clips, num_steps=2, seed=seed).sampler.actor.weight
        for seed in (0, 0, 1)
    )
    assert torch.equal(one, again)
    assert not torch.equal(one, other)


@pytest.mark.parametrize("name", LEARNERS)
def test_learner_beats_random_by_more_than_two_standard_errors(
    name: str, scorer: FrozenScorer, yardstick: Yardstick, clips: Tensor
) -> None:
    """A shorter run of `tats env baseline`; measured on clips that were not learned from."""
    policy = train(LEARNERS[name], scorer, clips, num_steps=60, seed=0)
    random = yardstick.measure(FixedPolicy(scorer.grid))
    gain, error = advantage_over_random(name, [yardstick.measure(policy)], random)
    assert gain > 2 * error > 0


def test_advantage_is_the_paired_mean_with_an_error_over_clips_and_seeds() -> None:
    def measures(picked: list[float]) -> Measures:
        values = torch.tensor(picked)
        return Measures(values * 0, values * 0, values, values * 0)

    random = measures([1.0, 5.0, 9.0])
    one = measures([2.0, 6.0, 11.0])  # above random by 1, 1, 2
    other = measures([4.0, 8.0, 13.0])  # by 3, 3, 4
    gain, error = advantage_over_random("PPO", [one, other], random)
    assert gain == pytest.approx((1 + 1 + 2 + 3 + 3 + 4) / 6)
    of_clips = np.std([2, 2, 3], ddof=1) / math.sqrt(3)
    of_seeds = np.std([4 / 3, 10 / 3], ddof=1) / math.sqrt(2)
    assert error == pytest.approx(math.hypot(of_clips, of_seeds))


def test_table_has_a_line_for_every_rule_and_learner(capsys: pytest.CaptureFixture[str]) -> None:
    env_baseline(num_clips=8, num_steps=1, num_seeds=2)
    out, err = capsys.readouterr()
    title, head, *rows = out.splitlines()
    assert "8 fixed clips, 16 of 144 tokens visible; 1 update, 2 seeds" in title
    assert re.findall(r"\S+(?: \S+)*", head)[-1] == "beats random"
    names = ["random", "tube", "multi-block", "motion oracle", *LEARNERS]
    assert [row.split("  ")[0] for row in rows] == names
    for row in rows[4:]:
        assert re.search(r"token_error|negative_clip_error", row)
        assert re.search(r"(yes|no), [+-]\d+\.\d s\.e\.$", row)
    assert "PPO, seed 2 of 2" in err


@pytest.mark.parametrize(("field", "least"), [("num_clips", 2), ("num_steps", 1), ("num_seeds", 1)])
def test_too_small_numbers_are_refused(field: str, least: int) -> None:
    given: dict[str, int] = {field: least - 1}
    flag = field.replace("num_", "--")
    with pytest.raises(UsageError, match=rf"{flag} must be at least {least}, got {least - 1}"):
        env_baseline(**given)
