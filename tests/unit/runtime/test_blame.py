"""Clips are named for rollouts that only their step and slot are known of."""

from __future__ import annotations

from pathlib import Path

import pytest

from tats_ray.config.load import parse_config
from tats_ray.core.errors import NonFiniteError
from tats_ray.data.clip_lists import read_lists
from tats_ray.runtime.workers.blame import clips_in_words
from tats_ray.training.pretrain_build import Batches
from tats_ray.training.rollouts import rollout_order


@pytest.mark.parametrize("source", ["learner", "workers"])
def test_the_videos_of_a_rollout_are_those_that_were_shown(source: str, tmp_path: Path) -> None:
    for index in range(14):
        (tmp_path / f"v{index}.mp4").touch()
    (tmp_path / "train.csv").write_text("".join(f"v{i}.mp4\t0\n" for i in range(14)))
    config = parse_config(
        {
            "data": {
                "train_list": str(tmp_path / "train.csv"),
                "num_frames": 4,
                "image_size": 32,
                "num_workers": 0,
            },
            "model": {"size": "tiny", "patch": 8},
            "optim": {"batch_size": 3},
            "loop": {"source": source, "mae_steps_per_update": 2, "rollout_fraction": 0.6},
            "cluster": {"num_workers": 2},
        }
    )
    videos = read_lists(config.data).train
    ranks = [Batches(config, videos, rank=rank, world_size=2) for rank in range(2)]
    error = NonFiniteError("the policy loss is nan")
    error.version, error.rollouts = 1, ((1, 3, 1),)
    said = clips_in_words(error, config, ranks[0], videos)
    if source == "learner":
        epoch, batch = divmod(3, ranks[0].steps_per_epoch)
        assert (epoch, batch) == (1, 1)
        shown = ranks[1].keys(epoch, batch)[:2]  # the fraction of the batch that is learned from
    else:
        number = 1 * 4 + 1 * 2 + 1  # of update 1, the second step's rollout of slot 1
        order = rollout_order(config, len(videos))
        epoch, batch = divmod(number, order.steps_per_epoch)
        order.set_epoch(epoch, batch)
        shown = next(iter(order))
    assert said == "the clips of 1 rollout were from " + ", ".join(videos[i].path for _, i in shown)
