"""Restore networks from a checkpoint, to inspect and measure them."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from pathlib import Path

from tats_ray.checkpoints import format as checkpoints
from tats_ray.checkpoints.fine_tuned import is_fine_tuned, read_fine_tuned
from tats_ray.config.finetune_schema import clip_config, model_config
from tats_ray.config.load import parse_config, parse_yaml
from tats_ray.config.schema import RunConfig
from tats_ray.core.grid import TokenGrid
from tats_ray.core.protocols import MaskPolicy
from tats_ray.core.words import counted
from tats_ray.models.head import ClassifierHead
from tats_ray.models.mae import MaskedAutoencoder
from tats_ray.models.policy import is_learned
from tats_ray.models.zoo import build_mae, build_policy, token_grid


@dataclass(frozen=True)
class Restored:
    """What a checkpoint holds, ready to use on the CPU."""

    folder: Path
    config: RunConfig
    grid: TokenGrid
    mae: MaskedAutoencoder
    policy: MaskPolicy
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
    if is_fine_tuned(folder):
        return _fine_tuned(folder)
    found = checkpoints.load(folder)
    raw = parse_yaml(found.config_yaml, source=str(folder / "config.yaml"))
    config = parse_config(raw, source=str(folder / "config.yaml"))
    grid = token_grid(config.data, config.model)
    mae = build_mae(config.model, grid, seed=config.seed)
    checkpoints.load_weights(mae, found.mae["network"], source=str(folder / "mae.safetensors"))
    policy = build_policy(config.sampler, config.model, grid, seed=config.seed)
    if is_learned(policy) and found.policy is not None:
        weights = found.policy["network"]
        checkpoints.load_weights(policy, weights, source=str(folder / "policy.safetensors"))
    origin = f"tats_ray run {config.name}, step {found.position.step}"
    return Restored(folder, config, grid, mae.eval(), policy, origin=origin)


def _fine_tuned(folder: Path) -> Restored:
    """Encoder and head of a fine-tuning run; its decoder never was."""
    found = read_fine_tuned(folder)
    config = parse_config(
        {
            "name": found.config.name,
            "seed": found.config.seed,
            "data": asdict(clip_config(found.config)),
            "model": asdict(model_config(found.config)),
            "sampler": {"name": "random"},
        },
        source=str(folder / "config.yaml"),
    )
    grid = token_grid(config.data, config.model)
    mae = build_mae(config.model, grid, seed=config.seed)
    weights = found.network.encoder.state_dict()
    mae.encoder.load_state_dict(weights, strict=False)
    head = ClassifierHead(mae.width, found.network.num_classes)
    head.fc_norm, head.head = found.network.fc_norm, found.network.head
    brought = {*(f"encoder.{name}" for name in weights), "encoder.norm.weight", "encoder.norm.bias"}
    return Restored(
        folder,
        config,
        grid,
        mae.eval(),
        build_policy(config.sampler, config.model, grid, seed=config.seed),
        head=head.eval(),
        origin=(
            f"tats_ray fine-tuning {found.config.name}, step {found.step}, "
            f"{counted(found.network.num_classes, 'class')}"
        ),
        # Its head brings the norm, so none is missed.
        missing=tuple(name for name in mae.state_dict() if name not in brought),
    )
