"""Networks back from a checkpoint, for looking at them and measuring them."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from tats_ray.config.load import parse_config, parse_yaml
from tats_ray.config.schema import RunConfig
from tats_ray.core.grid import TokenGrid
from tats_ray.learning import checkpoint as checkpoints
from tats_ray.models.head import ClassifierHead
from tats_ray.models.mae import MaskedAutoencoder
from tats_ray.models.policy import FixedPolicy, SamplerPolicy
from tats_ray.models.zoo import build_mae, build_policy, token_grid


@dataclass(frozen=True)
class Restored:
    """What a checkpoint holds, ready to use on the CPU."""

    folder: Path
    config: RunConfig
    grid: TokenGrid
    mae: MaskedAutoencoder
    policy: SamplerPolicy | FixedPolicy
    head: ClassifierHead | None = None
    """Of a fine-tuned model, which has no `encoder.norm`."""
    origin: str = ""
    """What it is, in words."""
    missing: tuple[str, ...] = ()
    """Tensors of the autoencoder that no checkpoint brought: at their random start."""


def restore(path: str | Path) -> Restored:
    """Load a checkpoint, or the newest of a run folder.

    Raises:
        CheckpointError: when there is none, or its tensors do not fit its configuration.
    """
    folder = checkpoints.find(path)
    found = checkpoints.load(folder)
    raw = parse_yaml(found.config_yaml, source=str(folder / "config.yaml"))
    config = parse_config(raw, source=str(folder / "config.yaml"))
    grid = token_grid(config.data, config.model)
    mae = build_mae(config.model, grid, seed=config.seed)
    checkpoints.load_weights(mae, found.mae["network"], source=str(folder / "mae.safetensors"))
    policy = build_policy(config.sampler, config.model, grid, seed=config.seed)
    if isinstance(policy, SamplerPolicy) and found.policy is not None:
        weights = found.policy["network"]
        checkpoints.load_weights(policy, weights, source=str(folder / "policy.safetensors"))
    origin = f"tats_ray run {config.name}, step {found.position.step}"
    return Restored(folder, config, grid, mae.eval(), policy, origin=origin)
