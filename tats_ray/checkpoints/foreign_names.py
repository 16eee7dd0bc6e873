"""Tensor names of one model in three projects: ours, the official code, transformers.

Our autoencoder's names are those of VideoMAE, VideoMAEv2 and AdaMAE. What differs: AdaMAE keeps its
sampler inside the encoder, fine-tuned models drop the `encoder.` prefix, and transformers cuts the
joint projection into query, key and value. Functions from dict to dict; tensors are not copied
unless they are cut or joined.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

Weights = Mapping[str, Tensor]

_ADAMAE = (
    ("encoder.pos_embed_probs", "sampler.pos_embed"),
    ("encoder.get_token_probs.0.", "sampler.blocks.0."),
    ("encoder.get_token_probs.1.", "sampler.actor."),
)
"""AdaMAE's sampler: position code, block, linear; and the same in a policy of ours."""

_HF_TOP = (
    ("videomae.embeddings.patch_embeddings.projection.", "encoder.patch_embed.proj."),
    ("videomae.layernorm.", "encoder.norm."),
    ("classifier.", "head."),
)
_HF_STACKS = (
    ("videomae.encoder.layer.", "encoder.blocks."),
    ("decoder.decoder_layers.", "decoder.blocks."),
)
_HF_BLOCK = (
    ("layernorm_before.", "norm1."),
    ("layernorm_after.", "norm2."),
    ("attention.output.dense.", "attn.proj."),
    ("intermediate.dense.", "mlp.fc1."),
    ("output.dense.", "mlp.fc2."),
    ("attention.attention.q_bias", "attn.q_bias"),
    ("attention.attention.v_bias", "attn.v_bias"),
)
_QKV = ("query", "key", "value")
# What transformers 5 calls these in memory; versions that save it so are read, too.
_HF_ALIASES = (("query.bias", "q_bias"), ("value.bias", "v_bias"))
_MAE = re.compile(
    r"(encoder\.(patch_embed|blocks|norm)|decoder\.(blocks|norm|head)|encoder_to_decoder)\."
    r"|mask_token$"
)
_STACK = re.compile(r"(.+?)\.(\d+)\.(.+)")


@dataclass(frozen=True)
class Named:
    """The parts of a file under our names; `ignored` tensors belong to none of them."""

    mae: Weights
    sampler: Weights
    """Of a `SamplerPolicy`: AdaMAE's, as far as it goes."""
    head: Weights
    """`fc_norm.*` and `head.*` of a classifier."""
    ignored: tuple[str, ...] = ()


def from_official(tensors: Weights) -> Named:
    """VideoMAE's, VideoMAEv2's and AdaMAE's names, pre-trained, fine-tuned or encoder only."""
    mae, sampler, head, ignored = {}, {}, {}, []
    for name, value in tensors.items():
        ours = _swap(name, _ADAMAE)
        if ours != name:
            sampler[ours] = value
        elif re.match(r"(patch_embed|blocks|norm)\.", name):
            mae[f"encoder.{name}"] = value
        elif re.match(r"(fc_norm|head)\.", name):
            head[name] = value
        elif _MAE.match(name):
            mae[name] = value
        else:
            ignored.append(name)
    return Named(mae, sampler, head, tuple(ignored))


def to_official(mae: Weights, policy: Weights, head: Weights) -> dict[str, Tensor]:
    """What the official code loads: a classifier where there is a head, else an autoencoder.

    A policy takes part where it is AdaMAE's, less its value head, which AdaMAE does not have.
    """
    if head:
        kept = {n.removeprefix("encoder."): v for n, v in mae.items() if n.startswith("encoder.")}
        return {**{n: v for n, v in kept.items() if not n.startswith("norm.")}, **head}
    sampler = {n: v for n, v in policy.items() if n.startswith("sampler.")}
    return {**mae, **{_swap(name, _back(_ADAMAE)): value for name, value in sampler.items()}}


def from_transformers(tensors: Weights) -> Named:
    """Names of transformers' VideoMAE, for pre-training, classification, or the bare model."""
    if not any(name.startswith("videomae.") for name in tensors):
        tensors = {f"videomae.{name}": value for name, value in tensors.items()}
    mae: dict[str, Tensor] = {}
    head, ignored, third = {}, [], {}
    for name, value in tensors.items():
        ours = _ours(name)
        cut = re.fullmatch(r"(.+\.attn)\.(query|key|value)\.weight", ours)
        if cut:
            third[cut[1], cut[2]] = value
        elif re.match(r"(fc_norm|head)\.", ours):
            head[ours] = value
        elif _MAE.match(ours):
            mae[ours] = value
        else:
            ignored.append(name)
    for stem in {stem for stem, _ in third}:
        if all((stem, part) in third for part in _QKV):
            mae[f"{stem}.qkv.weight"] = torch.cat([third[stem, part] for part in _QKV])
    return Named(mae, {}, head, tuple(ignored))


def to_transformers(mae: Weights, head: Weights) -> dict[str, Tensor]:
    """`VideoMAEForPreTraining`, or `VideoMAEForVideoClassification` where there is a head.

    Biases are called `q_bias` and `v_bias`, the names that every sound version of transformers
    loads; its versions 5.8 to 5.16 load these as zeros and go on.
    """
    found: dict[str, Tensor] = {}
    for name, value in {**mae, **head}.items():
        if head and not name.startswith(
            ("encoder.patch_embed.", "encoder.blocks.", "fc_", "head.")
        ):
            continue
        for theirs, part in _theirs(name, value):
            found[_swap(theirs, _back(_HF_TOP))] = part
    return found


def _theirs(name: str, value: Tensor) -> Iterator[tuple[str, Tensor]]:
    """A tensor of a block under transformers' name, the joint projection in three."""
    stack = _STACK.fullmatch(name)
    if stack is None:
        yield name, value
        return
    where = f"{_swap(f'{stack[1]}.', _back(_HF_STACKS))}{stack[2]}"
    if stack[3] == "attn.qkv.weight":
        for part, third in zip(_QKV, value.chunk(3), strict=True):
            yield f"{where}.attention.attention.{part}.weight", third
        return
    yield f"{where}.{_swap(stack[3], _back(_HF_BLOCK))}", value


def _ours(name: str) -> str:
    stack = _STACK.fullmatch(name)
    where = _swap(f"{stack[1]}.", _HF_STACKS) if stack else ""
    if stack is None or where == f"{stack[1]}.":
        return _swap(name, _HF_TOP)
    part = stack[3]
    for alias, safe in _HF_ALIASES:
        part = part.replace(f"attention.attention.{alias}", f"attention.attention.{safe}")
    part = _swap(part, _HF_BLOCK).replace("attention.attention.", "attn.")
    return f"{where}{stack[2]}.{part}"


def _back(pairs: Sequence[tuple[str, str]]) -> list[tuple[str, str]]:
    return [(new, old) for old, new in pairs]


def _swap(name: str, pairs: Sequence[tuple[str, str]]) -> str:
    """`name` with the beginning that matches replaced; without a final dot, all of it must."""
    for old, new in pairs:
        if name == old or (old.endswith(".") and name.startswith(old)):
            return new + name[len(old) :]
    return name
