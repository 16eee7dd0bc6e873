"""Weight files of any project, read without running anything that is in them.

A `.pth` file is a pickle, that is, a program. Tensors, plain values and `argparse.Namespace`, which
the official files keep their settings in, are let through; everything else is refused by name.
"""

from __future__ import annotations

import argparse
import pickle
import re
import warnings
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor
from torch.serialization import safe_globals

from tats_ray.core.errors import CheckpointError, UsageError

_WRAPPERS = ("model", "module", "state_dict", "model_state")
"""Keys under which training scripts keep the state dict, the likeliest first."""

_PREFIXES = ("module.", "_orig_mod.", "backbone.")
"""What wrappers (DistributedDataParallel, torch.compile, mmaction) put before every name."""

PICKLED = (".pth", ".pt", ".bin", ".ckpt")


@dataclass(frozen=True)
class WeightFile:
    """The tensors of a file under their own names, less wrappers' prefixes."""

    tensors: Mapping[str, Tensor]
    wrapper: str = ""
    """Key that the tensors lay under; empty for a bare state dict."""
    args: Mapping[str, Any] = field(default_factory=dict)
    """Settings of the script that wrote it, where it left any."""


def read_weights(path: str | Path) -> WeightFile:
    """Tensors of a `.safetensors` or `.pth` file, on the CPU.

    Raises:
        CheckpointError: for a file that is missing, damaged, no state dict, or wants code run.
    """
    path = Path(path)
    try:
        if path.suffix == ".safetensors":
            return WeightFile(_without_prefix(load_file(path)))
        return _unwrap(path, _unpickle(path))
    except FileNotFoundError:
        raise CheckpointError(f"{path} does not exist") from None
    except (OSError, SafetensorError) as error:
        raise CheckpointError(f"{path} cannot be read: {_first_line(error)}") from None


def write_weights(path: Path, tensors: Mapping[str, Tensor]) -> None:
    """One file of tensors: `{"model": ...}` in a `.pth`, else safetensors; whole or not at all."""
    own = {
        name: value.detach().to("cpu", copy=True).contiguous() for name, value in tensors.items()
    }
    path.parent.mkdir(parents=True, exist_ok=True)
    partial = path.with_name(f".{path.name}.partial")
    if path.suffix in PICKLED:
        torch.save({"model": own}, partial)
    else:
        save_file(own, partial, metadata={"format": "pt"})
    partial.rename(path)


def refuse_existing(path: Path) -> None:
    """Nothing is overwritten.

    Raises:
        UsageError: when there is something of that name.
    """
    if path.exists():
        raise UsageError(f"{path} already exists; name another place, or remove it")


def _unpickle(path: Path) -> Any:
    try:
        with safe_globals([argparse.Namespace]), warnings.catch_warnings():
            # About pickle protocols of others; what comes of them is raised.
            warnings.simplefilter("ignore")
            return torch.load(path, map_location="cpu", weights_only=True)
    except pickle.UnpicklingError as error:
        wanted = re.search(r"(?:GLOBAL |Unsupported class |class )([\w.]+\.\w+)", str(error))
        if wanted is None:
            raise CheckpointError(f"{path} is damaged, or no PyTorch file") from None
        raise CheckpointError(
            f"{path} asks to run {wanted[1]} when loaded, which weights do not need; nothing was "
            "run. If you trust it, save its state dict alone where it was made"
        ) from None
    except (RuntimeError, EOFError, ValueError, KeyError, TypeError, AttributeError) as error:
        raise CheckpointError(
            f"{path} is damaged, or no PyTorch file: {_first_line(error)}"
        ) from None


def _unwrap(path: Path, loaded: Any) -> WeightFile:
    if not isinstance(loaded, Mapping):
        raise CheckpointError(f"{path} holds a {type(loaded).__name__}, not a state dict")
    found = next((key for key in _WRAPPERS if isinstance(loaded.get(key), Mapping)), "")
    state = loaded[found] if found else loaded
    tensors = {str(name): value for name, value in state.items() if isinstance(value, Tensor)}
    if not tensors:
        keys = ", ".join(str(key) for key in list(loaded)[:5]) or "nothing"
        raise CheckpointError(f"{path} holds no state dict; its keys are {keys}")
    args = loaded.get("args", {})
    noted = vars(args) if isinstance(args, argparse.Namespace) else args
    return WeightFile(
        _without_prefix(tensors), found, dict(noted) if isinstance(noted, Mapping) else {}
    )


def _without_prefix(tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    for prefix in _PREFIXES:
        if all(name.startswith(prefix) for name in tensors):
            return _without_prefix({n.removeprefix(prefix): v for n, v in tensors.items()})
    return dict(tensors)


def _first_line(error: BaseException) -> str:
    return str(error).strip().split("\n")[0][:200]
