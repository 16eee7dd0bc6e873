"""State dicts in the official repositories' names, made from the naming rules and nothing else.

The rules [method sections 3, 6, 9]: a block has norm1, attn (q_bias, v_bias, a joint qkv without
bias, proj), norm2 and mlp (fc1, fc2); an autoencoder has encoder.patch_embed.proj,
encoder.blocks.I, encoder.norm, encoder_to_decoder, mask_token, decoder.blocks.I, decoder.norm and
decoder.head; AdaMAE adds a position code, one block without q and v bias and a linear map to the
encoder; a fine-tuned model drops "encoder." and the norm, and has fc_norm and head.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import torch
from torch import Tensor

from tats_ray.core.seeds import stream

WIDTH, DEPTH, DECODER_WIDTH, DECODER_DEPTH = 128, 4, 64, 2
PATCH, TUBELET, NUM_FRAMES, IMAGE_SIZE = 8, 2, 4, 32
NUM_TOKENS = (NUM_FRAMES // TUBELET) * (IMAGE_SIZE // PATCH) ** 2
NUM_CLASSES = 5

State = dict[str, Tensor]
Shapes = dict[str, tuple[int, ...]]


def norm(name: str, width: int) -> Shapes:
    return {f"{name}.weight": (width,), f"{name}.bias": (width,)}


def linear(name: str, width: int, out: int) -> Shapes:
    return {f"{name}.weight": (out, width), f"{name}.bias": (out,)}


def block(name: str, width: int, *, has_bias: bool = True) -> Shapes:
    biases = {f"{name}.attn.q_bias": (width,), f"{name}.attn.v_bias": (width,)}
    return {
        **norm(f"{name}.norm1", width),
        **(biases if has_bias else {}),
        f"{name}.attn.qkv.weight": (3 * width, width),
        **linear(f"{name}.attn.proj", width, width),
        **norm(f"{name}.norm2", width),
        **linear(f"{name}.mlp.fc1", width, 4 * width),
        **linear(f"{name}.mlp.fc2", 4 * width, width),
    }


def encoder(prefix: str, patch: int = 0) -> Shapes:
    patch = patch or PATCH
    shapes: Shapes = {
        f"{prefix}patch_embed.proj.weight": (WIDTH, 3, TUBELET, patch, patch),
        f"{prefix}patch_embed.proj.bias": (WIDTH,),
    }
    for index in range(DEPTH):
        shapes |= block(f"{prefix}blocks.{index}", WIDTH)
    return shapes


def videomae(patch: int = 0) -> Shapes:
    patch = patch or PATCH
    shapes = {**encoder("encoder.", patch), **norm("encoder.norm", WIDTH)}
    shapes["encoder_to_decoder.weight"] = (DECODER_WIDTH, WIDTH)
    shapes["mask_token"] = (1, 1, DECODER_WIDTH)
    for index in range(DECODER_DEPTH):
        shapes |= block(f"decoder.blocks.{index}", DECODER_WIDTH)
    values = TUBELET * patch**2 * 3
    return {
        **shapes,
        **norm("decoder.norm", DECODER_WIDTH),
        **linear("decoder.head", DECODER_WIDTH, values),
    }


def adamae() -> Shapes:
    return {
        **videomae(),
        "encoder.pos_embed_probs": (1, NUM_TOKENS, WIDTH),
        **block("encoder.get_token_probs.0", WIDTH, has_bias=False),
        **linear("encoder.get_token_probs.1", WIDTH, 1),
    }


def fine_tuned() -> Shapes:
    return {**encoder(""), **norm("fc_norm", WIDTH), **linear("head", WIDTH, NUM_CLASSES)}


def encoder_only() -> Shapes:
    return {**encoder(""), **norm("norm", WIDTH)}


def filled(shapes: Shapes, *name: str | int) -> State:
    """Random values of a trained network's size; no tensor is at a special value."""
    draw = stream(0, "official", *name)
    state = {}
    for key, shape in shapes.items():
        fan = torch.Size(shape[1:]).numel() if len(shape) > 1 else 100
        state[key] = torch.randn(shape, generator=draw) / fan**0.5
        if "norm" in key and key.endswith(".weight"):
            state[key] += 1
    return state


def save(path: Path, state: Mapping[str, Tensor], **others: object) -> Path:
    """As the official scripts do: {"model": ..., "args": ...}."""
    torch.save({"model": dict(state), "epoch": 799, **others}, path)
    return path
