from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from tats_ray.config.finetune_schema import FinetuneConfig
from tats_ray.config.load import parse_finetune
from tats_ray.data.manifest import VideoEntry, read_list
from tats_ray.data.synthetic import synthesize
from tats_ray.data.views import ViewPlan
from tats_ray.models.zoo import new_classifier
from tats_ray.training.finetune_build import view_dataset
from tats_ray.training.finetune_loop import ClassifierLearner
from tats_ray.training.finetune_validation import count_right


@pytest.fixture(scope="module")
def entries(tmp_path_factory: pytest.TempPathFactory) -> list[VideoEntry]:
    folder = tmp_path_factory.mktemp("videos")
    made = synthesize(folder, num_train=1, num_val=7, num_frames=8, size=32, workers=1)
    return read_list(made.val_list)


def small_config() -> FinetuneConfig:
    return parse_finetune(
        {
            "data": {
                "num_frames": 4, "image_size": 16, "stride": 1, "num_classes": 8, "num_workers": 0
            },
            "model": {
                "size": "tiny", "depth": 1, "patch": 8, "tubelet": 2, "pos_embed": "sincos_3d"
            },
            "optim": {"batch_size": 2, "head_scale": 20.0},
        }
    )  # fmt: skip


def test_right_answers_are_those_of_one_centred_clip_of_each_video(
    entries: list[VideoEntry], tmp_path: Path
) -> None:
    config = small_config()
    learner = ClassifierLearner(new_classifier(config), config, steps_per_epoch=1)
    clips = view_dataset(config, entries, ViewPlan(1, 1))
    said = [int(learner.logits(clips[at].pixels).argmax()) for at in range(7)]  # type: ignore[arg-type]
    # Labels that make some of them right, whatever the network says.
    told = [VideoEntry(e.path, said[at] if at < 3 else (said[at] + 1) % 8) for at, e in
            enumerate(entries)]  # fmt: skip
    assert count_right(learner, config, told) == (3.0, 7.0)
    broken = tmp_path / "broken.mp4"
    broken.write_text("no video")
    more, named = [*told, VideoEntry(str(broken), 0)], {}
    assert count_right(learner, config, more, tell_unreadable=named.update) == (3.0, 7.0)
    assert list(named) == [str(broken)]
    assert count_right(learner, config, []) == (0.0, 0.0)
    first = replace(config, eval=replace(config.eval, num_videos=4))
    assert count_right(learner, first, told) == (3.0, 4.0)
    # The list is cut before the ranks share it.
    shares = [count_right(learner, first, told, rank=rank, world_size=3) for rank in range(3)]
    assert [num for _, num in shares] == [2.0, 1.0, 1.0]
    assert sum(right for right, _ in shares) == 3.0
    assert not learner.network.training
