"""A folder that transformers loads: config.json, weights, preprocessor, card, and the sampler."""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from tats_ray.checkpoints.foreign_names import Weights, to_transformers
from tats_ray.checkpoints.weight_files import save_tensors, writing
from tats_ray.config.schema import ModelConfig, SamplerConfig
from tats_ray.core.errors import UsageError
from tats_ray.core.grid import TokenGrid
from tats_ray.core.storage import whole_folder
from tats_ray.models.zoo import SIZES
from tats_ray.ops.patches import IMAGENET_MEAN, IMAGENET_STD

SAMPLER_WEIGHTS = "sampler.safetensors"
SAMPLER_CONFIG = "sampler_config.json"


@dataclass(frozen=True, kw_only=True)
class Export:
    """What goes into a folder.

    Args:
        mae: state of the autoencoder; of a classifier only its encoder is used.
        head: state of a `ClassifierHead`; with one, the folder is a classifier's.
        policy: state of a policy that learned, with `sampler` its configuration.
        origin: where the weights come from, for the card.
        missing: tensors that did not come from there and are random, for the card.
    """

    model: ModelConfig
    grid: TokenGrid
    mae: Weights
    head: Weights | None = None
    policy: Weights | None = None
    sampler: SamplerConfig | None = None
    origin: str = ""
    missing: tuple[str, ...] = ()

    @property
    def architecture(self) -> str:
        return "VideoMAEForVideoClassification" if self.head else "VideoMAEForPreTraining"


def require_flat_positions(model: ModelConfig, source: str) -> None:
    """Only the flat sinusoid exists elsewhere, and no file has a field for another table.

    Raises:
        UsageError: naming the table.
    """
    if model.pos_embed != "sincos_1d":
        raise UsageError(
            f"{source} has model.pos_embed {model.pos_embed!r}, as the demo does; transformers and "
            "the official code "
            "have the flat sinusoid only and no field for another, so its features would be wrong "
            "there; use tats_ray.load in Python, or train with "
            "--model.pos_embed sincos_1d to export"
        )


def is_exported(name: str, has_head: bool) -> bool:
    """Whether a tensor of the autoencoder goes into a folder: see `to_transformers`."""
    return not has_head or name.startswith(("encoder.patch_embed.", "encoder.blocks."))


def write_folder(out: Path, export: Export) -> None:
    """Write all files into `out`, which is there with all of them or not at all.

    Raises:
        UsageError: for positions that transformers does not have, or an unwritable place.
    """
    require_flat_positions(export.model, export.origin)
    with writing(out), whole_folder(out) as draft:
        save_tensors(draft / "model.safetensors", to_transformers(export.mae, export.head or {}))
        _write_json(draft / "config.json", model_config(export))
        _write_json(draft / "preprocessor_config.json", preprocessor_config(export.grid))
        if export.policy is not None and export.sampler is not None:
            save_tensors(draft / SAMPLER_WEIGHTS, export.policy)
            _write_json(draft / SAMPLER_CONFIG, asdict(export.sampler))
        (draft / "README.md").write_text(_card(export))


def model_config(export: Export) -> dict[str, Any]:
    """config.json. LayerNorm eps is the original code's 1e-6; published configs say 1e-12."""
    model, grid, size = export.model, export.grid, SIZES[export.model.size]
    config: dict[str, Any] = {
        "architectures": [export.architecture],
        "model_type": "videomae",
        "image_size": grid.image_size,
        "patch_size": grid.patch,
        "num_channels": 3,
        "num_frames": grid.num_frames,
        "tubelet_size": grid.tubelet,
        "hidden_size": size.width,
        "num_hidden_layers": model.depth or size.depth,
        "num_attention_heads": size.num_heads,
        "intermediate_size": 4 * size.width,
        "hidden_act": "gelu",
        "hidden_dropout_prob": 0.0,
        "attention_probs_dropout_prob": 0.0,
        "layer_norm_eps": 1e-6,
        "qkv_bias": True,
        "use_mean_pooling": export.head is not None,
        "decoder_hidden_size": size.decoder_width,
        "decoder_num_hidden_layers": model.decoder_depth or size.decoder_depth,
        "decoder_num_attention_heads": size.decoder_num_heads,
        "decoder_intermediate_size": 4 * size.decoder_width,
        "norm_pix_loss": model.normalize_targets,
    }
    if export.head is not None:
        names = [f"LABEL_{index}" for index in range(export.head["head.weight"].shape[0])]
        config["id2label"] = {str(index): name for index, name in enumerate(names)}
        config["label2id"] = {name: index for index, name in enumerate(names)}
    return config


def preprocessor_config(grid: TokenGrid) -> dict[str, Any]:
    """preprocessor_config.json: shorter side to the clip's size, centre crop, ImageNet's norm."""
    return {
        "image_processor_type": "VideoMAEImageProcessor",
        "do_resize": True,
        "size": {"shortest_edge": grid.image_size},
        "resample": 2,
        "do_center_crop": True,
        "crop_size": {"height": grid.image_size, "width": grid.image_size},
        "do_rescale": True,
        "rescale_factor": 1 / 255,
        "do_normalize": True,
        "image_mean": list(IMAGENET_MEAN),
        "image_std": list(IMAGENET_STD),
    }


def _write_json(path: Path, content: dict[str, Any]) -> None:
    path.write_text(json.dumps(content, indent=2) + "\n")


def _card(export: Export) -> str:
    grid, sampler = export.grid, export.sampler
    use = "video-classification" if export.head is not None else "feature-extraction"
    lines = [
        "---",
        "library_name: transformers",
        f"pipeline_tag: {use}",
        "tags: [video, videomae, masked-autoencoder, tats]",
        "---",
        "",
        f"# {export.origin}",
        "",
        f"`{export.architecture}`, size {export.model.size}: {grid.num_frames} frames of "
        f"{grid.image_size} x {grid.image_size} pixels, tokens of {grid.tubelet} x {grid.patch} x "
        f"{grid.patch}. Exported by tats_ray, an independent implementation of "
        "[TATS](https://arxiv.org/abs/2505.08561).",
        "",
        "```python",
        f"from transformers import AutoImageProcessor, {export.architecture}",
        "",
        f'model = {export.architecture}.from_pretrained("FOLDER")',
        'processor = AutoImageProcessor.from_pretrained("FOLDER")',
        "```",
        "",
        "**Use transformers 4.57, or 5.18 and newer.** Versions 5.8 to 5.16 load the query and "
        "value biases of every VideoMAE as zeros and continue.",
        "",
    ]
    if export.policy is not None and sampler is not None:
        lines += [
            f"`{SAMPLER_WEIGHTS}` and `{SAMPLER_CONFIG}` hold the token sampler it was trained "
            f"with (`{sampler.name}`, mask ratio {sampler.mask_ratio}); transformers ignores them, "
            '`tats_ray.load("FOLDER").policy` has it.',
            "",
        ]
    if export.missing:
        lines += [
            "**Missing in the source, and random here:** "
            f"{', '.join(f'`{name}`' for name in export.missing)}.",
            "",
        ]
    lines += ["Licence, training data and results are for whoever publishes this to add.", ""]
    return "\n".join(lines)
