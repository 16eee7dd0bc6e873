"""Several policy learners, each with a shard of the buffer: they learn what one would."""

from __future__ import annotations

import re
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import pytest

from tats_ray.data.synthetic import SyntheticSet
from tests.marks import IN_CLUSTER
from tests.runtime.gate import kill_process
from tests.runtime.test_faults import Story, computed
from tests.runtime.test_recipe import (
    assert_close,
    assert_close_to_recipe,
    assert_same_checkpoint,
    small_config,
    train,
)
from tests.runtime.test_workers import recipe as recipe_with_workers

pytestmark = [*IN_CLUSTER, pytest.mark.long, pytest.mark.timeout(600)]
GROUP = {"num_workers": 2, "policy_learners": 2, "threads": 1, "timeout_s": 150}


def test_two_policy_learners_follow_the_recipe_of_one_and_repeat_bit_for_bit(
    videos: SyntheticSet, tmp_path: Path
) -> None:
    runs = [tmp_path / "run", tmp_path / "again"]
    told = []
    for run in runs:
        run.mkdir()
        config = small_config(
            videos,
            run,
            cluster=GROUP,
            loop={"max_staleness": 1},
            sampler={"whiten_tokens": True},
            log={"every_steps": 1},
        )
        outcome, events = train(config, run)
        assert outcome.is_finished
        told.append([e["metrics"] for e in events if "policy/staleness" in e.get("metrics", {})])
    assert_close_to_recipe(runs[0], config)
    assert_same_checkpoint(*runs)
    assert max(m["policy/staleness"] for m in told[0]) == 1
    assert max(m["buffer/bytes"] for m in told[0]) > 0


def test_killed_policy_learner_and_shard_cost_the_steps_since_the_checkpoint_and_nothing_else(
    videos: SyntheticSet, tmp_path: Path
) -> None:
    """The second of each, which publishes nothing and which no caller knows by itself."""

    def kill(victim: str, story: Story) -> None:
        kill_process(story.gate.pids(victim)[-1])

    def story_of(name: str, act: dict[int, Callable[[Story], None]]) -> Story:
        (tmp_path / name).mkdir()
        loop = {"mae_steps_per_update": 1}
        return Story(videos, tmp_path / name, act, num_ranks=2, cluster=GROUP, loop=loop)

    calm = story_of("calm", {})
    assert calm.run().is_finished
    victims = {4: "PolicyLearnerActor", 7: "RolloutBuffer"}
    story = story_of("run", {step: partial(kill, victim) for step, victim in victims.items()})
    outcome = story.run()
    assert (outcome.is_finished, outcome.step) == (True, 9)
    assert story.starts == [0, 3, 6]
    told = [note for note in story.notes if note.startswith("lost ")]
    for number, (died, line) in enumerate(
        zip(("policy learner", "rollout buffer"), told, strict=True), start=1
    ):
        assert re.fullmatch(
            rf"lost [0-3] steps?: restarted from step {3 * number}, \d+ s after the {died} died"
            rf".*; restart {number} of at most 3",
            line,
        ), line
    assert_same_checkpoint(story.folder, calm.folder)
    assert computed(story.folder) == computed(calm.folder)


@pytest.mark.parametrize("source", ["learner", "workers"])
def test_a_stopped_group_continues_to_the_same_weights(
    source: str, videos: SyntheticSet, tmp_path: Path
) -> None:
    """From the checkpoint after the first epoch with the policy; rollouts of either source."""
    straight, resumed = tmp_path / "straight", tmp_path / "resumed"
    cluster = {**GROUP, "cpus_per_worker": 0.5}
    for run in (straight, resumed):
        run.mkdir()
    fields: dict[str, Any] = {"cluster": cluster, "loop": {"source": source}}
    train(small_config(videos, straight, **fields), straight)
    (resumed / "checkpoints").mkdir()
    folder = straight / "checkpoints" / "step_00000006"
    folder.rename(resumed / "checkpoints" / folder.name)
    (resumed / "checkpoints" / "latest").write_text(folder.name + "\n")
    config = small_config(videos, resumed, **fields)
    outcome, _ = train(config, resumed)
    assert outcome.is_finished
    assert_same_checkpoint(resumed, straight)
    if source == "workers":
        mae, policy, _ = recipe_with_workers(config)
        assert_close(resumed, mae, policy)
    else:
        assert_close_to_recipe(resumed, config)
