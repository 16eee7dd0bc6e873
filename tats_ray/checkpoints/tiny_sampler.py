"""The sampler that comes with the package, for `tats select` without a run of one's own."""

from __future__ import annotations

from pathlib import Path

from torch import Tensor

from tats_ray.checkpoints import format as checkpoints
from tats_ray.checkpoints.restore import Restored
from tats_ray.config.schema import DataConfig, ModelConfig, RunConfig, SamplerConfig
from tats_ray.models.zoo import build_learned_policy, build_mae, token_grid

TINY_SAMPLER = Path(__file__).with_name("tiny_sampler.safetensors")
"""float16, written by benchmarks/tiny_sampler.py."""
TINY_CONFIG = RunConfig(
    name="tiny_sampler",
    data=DataConfig(num_frames=8, image_size=96, stride=2),
    model=ModelConfig(
        size="tiny",
        patch=12,  # 4 x 8 x 8 = 256 tokens
        pos_embed="sincos_3d",
        head_init="zero",
        normalize_targets=False,
    ),
    sampler=SamplerConfig(name="tats", mask_ratio=0.9, whiten_tokens=True, pos_embed="sincos_3d"),
)
KNOWS = (
    "the tiny network of the package has seen Pong and textured shapes, drawn by a program, and no "
    "real video; it prefers what is hard to guess from the rest, such as contrast and motion, and "
    "knows no objects"
)
_TOKENIZER = "encoder.patch_embed."
_SAMPLER = "sampler."
_LEFT_OUT = "norm.covariance"  # what the whitening matrix came from


def write_tiny(path: Path, mae: dict[str, Tensor], policy: dict[str, Tensor]) -> None:
    """Tokenizer and sampler of a run, in half precision; the rest is not needed to draw."""
    kept = {
        name: value
        for name, value in (mae | policy).items()
        if name.startswith((_TOKENIZER, _SAMPLER)) and not name.endswith(_LEFT_OUT)
    }
    checkpoints.write_tensors(path, {name: value.half() for name, value in kept.items()})


def tiny_sampler() -> Restored:
    """Its networks. The encoder, the decoder and the value network are at their random start."""
    grid = token_grid(TINY_CONFIG.data, TINY_CONFIG.model)
    mae = build_mae(TINY_CONFIG.model, grid, seed=0)
    policy = build_learned_policy(TINY_CONFIG.sampler, TINY_CONFIG.model, grid, seed=0)
    weights = {n: w.float() for n, w in checkpoints.read_tensors(TINY_SAMPLER).items()}
    for network, part in ((mae, _TOKENIZER), (policy, _SAMPLER)):
        own = {name: weight for name, weight in weights.items() if name.startswith(part)}
        start = {
            name: weight
            for name, weight in network.state_dict().items()
            if not name.startswith(part) or name.endswith(_LEFT_OUT)
        }
        checkpoints.load_weights(network, start | own, source=str(TINY_SAMPLER))
    missing = tuple(name for name in mae.state_dict() if not name.startswith(_TOKENIZER))
    return Restored(
        TINY_SAMPLER.parent, TINY_CONFIG, grid, mae.eval(), policy.eval(),
        origin="the tiny sampler of the package", missing=missing,
    )  # fmt: skip
