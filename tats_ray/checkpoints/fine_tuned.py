"""Checkpoints of fine-tuning, and how to restore the classifier from one."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from tats_ray.checkpoints import format as checkpoints
from tats_ray.config.finetune_schema import FinetuneConfig
from tats_ray.config.load import parse_finetune, parse_yaml
from tats_ray.core.errors import CheckpointError
from tats_ray.models.classifier import VideoClassifier
from tats_ray.models.zoo import new_classifier

START_FILE = "start.safetensors"
"""In the run's folder: the weights before the first step."""


PART = "classifier"
"""The part of a checkpoint that learns."""


AVERAGE = "average"
"""The moving average of its weights, where one is kept."""


@dataclass(frozen=True)
class FineTuned:
    """What a fine-tuned checkpoint holds."""

    folder: Path
    config: FinetuneConfig
    network: VideoClassifier
    """The moving average where one was kept; in evaluation mode."""
    step: int


def read_fine_tuned(path: str | Path) -> FineTuned:
    """A fine-tuning run's newest checkpoint, or the one that is named.

    Raises:
        CheckpointError: for one that is missing, damaged, or of another kind.
    """
    folder = checkpoints.find(path)
    found = checkpoints.load_parts(folder)
    source = str(folder / "config.yaml")
    config = parse_finetune(parse_yaml(found.config_yaml, source=source), source=source)
    network = new_classifier(config)
    weights = found.parts[AVERAGE if AVERAGE in found.parts else PART]["network"]
    checkpoints.load_weights(network, weights, source=found.source)
    return FineTuned(folder, config, network.eval(), found.position.step)


def is_fine_tuned(path: str | Path) -> bool:
    """Whether `path` means a checkpoint of fine-tuning; False also where there is none."""
    try:
        return PART in checkpoints.part_names(checkpoints.find(path))
    except CheckpointError:
        return False
