"""What a fine-tuning run writes and reads: lists, first weights, checkpoints."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tats_ray.config.finetune import FinetuneConfig
from tats_ray.config.load import parse_finetune, parse_yaml
from tats_ray.core.errors import CheckpointError, UsageError
from tats_ray.data.manifest import VideoEntry, read_list
from tats_ray.learning import checkpoint as checkpoints
from tats_ray.learning.finetune import ClassifierLearner
from tats_ray.learning.finetune_build import new_classifier
from tats_ray.learning.loop import Position
from tats_ray.models.classifier import VideoClassifier

START_FILE = "start.safetensors"
"""In the run's folder: the weights before the first step."""
PART, AVERAGE = "classifier", "average"
"""Parts of a checkpoint: the network that learns, and the moving average where there is one."""


@dataclass(frozen=True)
class LabelledLists:
    """The videos of a run, checked."""

    train: list[VideoEntry]
    val: list[VideoEntry]


def read_labelled_lists(config: FinetuneConfig) -> LabelledLists:
    """The lists that a resolved configuration names.

    Raises:
        UsageError: for what is wrong with a list, its first bad line named.
    """
    data = config.data

    def read(path: str) -> list[VideoEntry]:
        found = read_list(path, root=data.root or None, num_classes=data.num_classes or None)
        if found[0].label is None:
            raise UsageError(f"{path} has no labels; write a class id after each path")
        return found

    return LabelledLists(read(data.train_list), read(data.val_list) if data.val_list else [])


def first_weights(config: FinetuneConfig, run: Path) -> VideoClassifier:
    """The classifier before its first step: the run's start weights in it, where there are some.

    Raises:
        CheckpointError: when they do not fit.
    """
    network = new_classifier(config)
    path = run / START_FILE
    if path.is_file():
        # A head is not in it, unless that of a fine-tuned checkpoint is taken on.
        found = {**network.state_dict(), **checkpoints.read_tensors(path)}
        checkpoints.load_weights(network, found, source=str(path))
    return network


def save_state(
    run: Path,
    learner: ClassifierLearner,
    position: Position,
    config_yaml: str,
    *,
    keep_last: int,
    keep_best: bool = True,
    validation_error: float | None = None,
) -> Path:
    """A checkpoint that the run goes on from exactly.

    Args:
        validation_error: share of validation videos named wrongly here, where it was measured.

    Raises:
        OSError: when the storage refuses.
    """
    parts = {PART: learner.state_dict()}
    if learner.average is not None:
        empty: dict[str, Any] = {"state": {}, "param_groups": []}
        network = learner.average.state_dict()
        parts[AVERAGE] = {"network": network, "optimizer": empty, "numbers": {}}
    whole = checkpoints.Parts(position, parts, config_yaml, validation_error)
    return checkpoints.save_parts(run, whole, keep_last=keep_last, keep_best=keep_best)


def load_state(learner: ClassifierLearner, found: checkpoints.Parts) -> Position:
    """Put a checkpoint's state into `learner`; returns where it stood.

    Raises:
        CheckpointError: when it does not fit.
    """
    weights = found.parts[PART]["network"]
    checkpoints.load_weights(learner.network, weights, source=found.source)
    learner.load_state_dict(found.parts[PART])
    if learner.average is not None:
        checkpoints.load_weights(
            learner.average, found.parts[AVERAGE]["network"], source=found.source
        )
    return found.position


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
