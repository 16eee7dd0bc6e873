"""`--init`: a new run that starts from the weights of a checkpoint, and from nothing else of it."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tats_ray.checkpoints import format as checkpoints
from tats_ray.checkpoints.foreign_networks import some
from tats_ray.checkpoints.open import open_checkpoint
from tats_ray.checkpoints.restore import Restored
from tats_ray.config.load import dump_config
from tats_ray.config.schema import ModelConfig, RunConfig
from tats_ray.core.errors import CheckpointError
from tats_ray.core.types import Position
from tats_ray.models.policy import is_learned
from tats_ray.models.zoo import SIZES, build_mae, build_policy, token_grid
from tats_ray.training.mae_learner import MAELearner
from tats_ray.training.policy_learner import PolicyLearner


@dataclass(frozen=True)
class FirstState:
    """The checkpoint of step 0 that a run goes on from, and what is in it."""

    checkpoint: checkpoints.Checkpoint
    words: str

    def save(self, run: Path) -> None:
        """Make it the newest of a run that has none."""
        checkpoints.save(run, self.checkpoint, keep_last=1)


def first_state(config: RunConfig) -> FirstState:
    """The weights that `init` names in the networks of `config`, before the first step.

    Raises:
        CheckpointError: when there are none, or they are of another network.
    """
    found = open_checkpoint(config.init, need="encoder")
    _check_network(found, config)
    mae = build_mae(config.model, token_grid(config.data, config.model), seed=config.seed)
    brought = {k: v for k, v in found.mae.state_dict().items() if k not in found.missing}
    checkpoints.load_weights(mae, {**mae.state_dict(), **brought}, source=found.origin)
    words = found.origin
    if found.missing:
        words += f"; {len(found.missing)} tensors at random ({some(found.missing)})"
    policy, how = _policy(found, config)
    # Schedules are made by the run; only the form of the state matters here.
    learner = MAELearner(mae, config.optim, steps_per_epoch=1, total_steps=1, global_batch=1)
    state = checkpoints.Checkpoint(Position(), learner.state_dict(), policy, dump_config(config))
    return FirstState(state, words + how)


def _check_network(found: Restored, config: RunConfig) -> None:
    """Weights go into a network of the same form; frames and pixels of its clips may differ."""
    there, here = _form(found.config.model), _form(config.model)
    differing = [
        f"model.{name} {there[name]} -> {value}"
        for name, value in here.items()
        if there[name] != value
    ]
    if differing:
        raise CheckpointError(
            f"init {config.init} is of another network: {', '.join(differing)}; set these fields "
            "as in the checkpoint, or use another one"
        )


def _form(model: ModelConfig) -> dict[str, object]:
    size = SIZES[model.size]
    return {
        "size": model.size,
        "depth": model.depth or size.depth,
        "decoder_depth": model.decoder_depth or size.decoder_depth,
        "tubelet": model.tubelet,
        "patch": model.patch,
        "pos_embed": model.pos_embed,
    }


def _policy(found: Restored, config: RunConfig) -> tuple[dict[str, Any] | None, str]:
    """The state of a policy learner with the sampler's weights, where they fit."""
    grid = token_grid(config.data, config.model)
    policy = build_policy(config.sampler, config.model, grid, seed=config.seed)
    if not is_learned(policy):
        return None, ""
    parts = checkpoints.part_names(found.folder)  # none in a checkpoint of others
    has_weights = "policy" in parts or not parts
    if not is_learned(found.policy) or not has_weights:
        return None, "; it has no sampler that learns, so the run's starts anew"
    weights, own = found.policy.state_dict(), policy.state_dict()
    shapes = [{name: value.shape for name, value in side.items()} for side in (weights, own)]
    if found.config.sampler.name != config.sampler.name or shapes[0] != shapes[1]:
        return None, "; its sampler does not fit, so the run's starts anew"
    policy.load_state_dict(weights)
    algorithm = config.algorithm.build(policy)
    return PolicyLearner(policy, algorithm, seed=config.seed).state_dict(), "; its sampler too"
