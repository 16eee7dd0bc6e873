"""How a training step is computed, as far as a plan can say it: precision and compilation."""

from __future__ import annotations

from dataclasses import replace

import torch

from tats_ray.config.schema import LoopConfig, RunConfig
from tats_ray.core.devices import decided
from tats_ray.core.errors import UsageError
from tats_ray.models.zoo import SIZES
from tats_ray.training.compilation import cache_folder

_NARROW = 256
"""Widths below this are not faster in bfloat16 on a CPU: conversions cost what products save."""


def decided_loop(config: RunConfig, device: torch.device) -> LoopConfig:
    """With the precision that `auto` comes to on the device of the MAE learners."""
    precision = decided(config.loop.precision, device)
    is_narrow = SIZES[config.model.size].width < _NARROW
    if config.loop.precision == "auto" and device.type == "cpu" and is_narrow:
        precision = "float32"
    return replace(config.loop, precision=precision)


def check_compilation(config: RunConfig) -> None:
    """Sharded weights are gathered block by block, by hooks that a compiled pass would not see."""
    if config.loop.compile != "off" and config.cluster.sharding == "fsdp":
        raise UsageError(
            f"loop.compile {config.loop.compile} cannot be combined with cluster.sharding fsdp; "
            "use --loop.compile off, or --cluster.sharding ddp"
        )


def compilation_in_words(loop: LoopConfig) -> str:
    """What is compiled, how long that takes, and where the result is kept."""
    part = {"blocks": "one block of each kind", "step": "whole passes"}[loop.compile]
    return (
        f"{part} (loop.compile), in the first step of each stage: a minute or more on idle cores, "
        f"less where {cache_folder()} has the code already"
    )


def decoding_in_words(share: float, num_hidden: int) -> str:
    """How many hidden tokens a training step decodes, where not all."""
    if share == 1:
        return ""
    return f", {max(1, round(share * num_hidden))} of {num_hidden} hidden ones decoded"
