"""What tests of fine-tuning and of testing share: videos, a run, and a fine-tuned one."""

from __future__ import annotations

from pathlib import Path

import pytest
from safetensors.torch import save_file

from tats_ray.checkpoints import format as checkpoints
from tats_ray.checkpoints.format import Checkpoint
from tats_ray.config.load import dump_config, parse_config, parse_finetune
from tats_ray.core.types import Position
from tats_ray.data.synthetic import synthesize
from tats_ray.models.zoo import build_mae, new_classifier, token_grid
from tats_ray.training.finetune_loop import ClassifierLearner
from tats_ray.training.finetune_state import save_state
from tats_ray.training.mae_learner import MAELearner

DATA = {"num_frames": 4, "image_size": 16, "stride": 1}


@pytest.fixture(scope="session")
def fine_tuned(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Videos in data/, a pre-training run, and a fine-tuned one that tells classes by chance."""
    folder = tmp_path_factory.mktemp("fine_tuned")
    synthesize(folder / "data", num_train=24, num_val=8, num_frames=10, size=32, workers=1)
    config = parse_config(
        {"name": "run", "data": DATA, "model": {"size": "tiny", "patch": 8, "depth": 1}}
    )
    mae = build_mae(config.model, token_grid(config.data, config.model), seed=0)
    learner = MAELearner(mae, config.optim, steps_per_epoch=1, total_steps=1, global_batch=1)
    state = Checkpoint(Position(step=5), learner.state_dict(), None, dump_config(config))
    checkpoints.save(folder / "run", state, keep_last=1)
    encoder = {n: v for n, v in mae.state_dict().items() if n.startswith("encoder.")}
    save_file(
        {n.removeprefix("encoder."): v for n, v in encoder.items()}, folder / "enc.safetensors"
    )
    tuned = parse_finetune(
        {
            "name": "tuned",
            "data": {**DATA, "num_classes": 8},
            "model": {
                "size": "tiny",
                "depth": 1,
                "patch": 8,
                "tubelet": 2,
                "pos_embed": "sincos_1d",
            },
            "optim": {"head_scale": 20.0},
        }
    )
    classifier = ClassifierLearner(new_classifier(tuned), tuned, steps_per_epoch=1)
    save_state(folder / "tuned", classifier, Position(step=9), dump_config(tuned), keep_last=1)
    return folder
