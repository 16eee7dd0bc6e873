"""What a fine-tuning run writes and reads: lists, first weights, checkpoints."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from tats_ray.checkpoints import format as checkpoints
from tats_ray.checkpoints.fine_tuned import AVERAGE, PART, START_FILE
from tats_ray.config.finetune_schema import FinetuneConfig
from tats_ray.core.types import Position
from tats_ray.models.classifier import VideoClassifier
from tats_ray.models.zoo import new_classifier
from tats_ray.training.finetune_loop import ClassifierLearner


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
