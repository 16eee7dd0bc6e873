"""The card says what the environment's own spaces and rewards say, and what was measured."""

from __future__ import annotations

import re

import gymnasium
import pytest

from tats_ray.cli.envs import Card
from tats_ray.core.errors import UsageError
from tats_ray.ops.rewards import error_reduction


def card(capsys: pytest.CaptureFixture[str], env_id: str) -> str:
    Card(env_id).carry_out()
    return " ".join(capsys.readouterr().out.split())


def test_card_of_the_one_shot_task(capsys: pytest.CaptureFixture[str]) -> None:
    text = card(capsys, "TATS/TokenSelection-v0")
    space = gymnasium.make("TATS/TokenSelection-v0").observation_space
    assert f"{space.shape} float32, {4 * space.shape[0]:,} bytes, in [0, 1]" in text
    assert "features per token: motion energy, contrast, brightness" in text
    assert "16 of 144 tokens" in text
    assert f"error_reduction: {(error_reduction.__doc__ or '').splitlines()[0]}" in text
    assert "1 step, then terminated" in text
    assert "same seed, same episode: bit for bit" in text
    found = re.search(r"(\d+\.\d\d) at B = 1, (\d+\.\d\d) at B = 32", text)
    assert found
    assert float(found[2]) < 32 * float(found[1])


def test_card_measures_which_way_the_reward_pushes(capsys: pytest.CaptureFixture[str]) -> None:
    gymnasium.register(
        "TATS/CardMotion-v0",
        entry_point="tats_ray.envs:TokenSelectionEnv",
        vector_entry_point="tats_ray.envs:TokenSelectionVectorEnv",
        kwargs={"reward": "motion_share"},
    )
    gymnasium.register(
        "TATS/CardError-v0",
        entry_point="tats_ray.envs:TokenSelectionEnv",
        vector_entry_point="tats_ray.envs:TokenSelectionVectorEnv",
        kwargs={"reward": "clip_error"},
    )
    try:
        assert "pushes the policy towards motion" in card(capsys, "TATS/CardMotion-v0")
        # Tokens in one place leave the rest of the clip unexplained: its error rises.
        assert "pushes the policy towards motion" in card(capsys, "TATS/CardError-v0")
        assert "pushes the policy away from motion" in card(capsys, "TATS/TokenSelection-v0")
    finally:
        for name in ("CardMotion", "CardError"):
            del gymnasium.registry[f"TATS/{name}-v0"]


def test_card_of_the_sequential_task_has_its_rounds(capsys: pytest.CaptureFixture[str]) -> None:
    text = card(capsys, "TATS/SequentialTokenSelection-v0")
    assert "is visible, last error" in text
    assert "4 of 144 tokens in each of 4 rounds" in text
    assert "4 steps, then it ends" in text


def test_card_of_an_environment_of_others_says_what_its_spaces_say(
    capsys: pytest.CaptureFixture[str],
) -> None:
    text = card(capsys, "CartPole-v1")
    assert "(4,) float32, 16 bytes" in text
    assert "Discrete(2)" in text
    assert "which way" not in text


def test_card_of_an_environment_without_a_single_form_says_what_it_lacks() -> None:
    gymnasium.register(
        "TATS/CardVector-v0", vector_entry_point="tats_ray.envs:TokenSelectionVectorEnv"
    )
    try:
        with pytest.raises(
            UsageError, match=r"has only a vector form, .*; register an entry_point"
        ):
            Card("tats_ray.envs:TATS/CardVector-v0").carry_out()
    finally:
        del gymnasium.registry["TATS/CardVector-v0"]


@pytest.mark.parametrize(
    ("env_id", "says"),
    [
        ("TATS/TokenSelektion-v0", r"cannot be made: .*TokenSelection.*known: TATS/TokenSel"),
        ("nowhere:TATS/TokenSelection-v0", r"cannot be made: .*nowhere"),
        ("no id", r"'no id' cannot be made"),
    ],
)
def test_environment_that_cannot_be_made_is_refused_in_one_line(env_id: str, says: str) -> None:
    with pytest.raises(UsageError, match=says) as refused:
        Card(env_id).carry_out()
    assert "\n" not in str(refused.value)
