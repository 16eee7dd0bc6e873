"""Features in safetensors files, never reused for other weights or other videos."""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor

from tats_ray.core.errors import UsageError
from tats_ray.core.storage import follow_umask, make_folder
from tats_ray.evaluation.features import FeatureRequest, Features, Say, compute


def cached(request: FeatureRequest, folder: Path, *, num_workers: int, say: Say) -> Features:
    """The same from a file in `folder`, or computed and left there."""
    key = request.key()
    path = folder / f"{request.pool}-{key[:16]}.safetensors"
    if path.is_file():
        try:
            found = _read(path, key)
        except (SafetensorError, OSError, KeyError, ValueError, TypeError) as error:
            say(f"{path} is damaged ({str(error).splitlines()[0]}): recomputed")
        else:
            say(f"from {path}")
            return found
    found = compute(request, num_workers=num_workers, say=say)
    write(path, found, {"key": key, **request.settings()})
    return found


def write(path: Path, features: Features, about: dict[str, Any], **more: Tensor) -> None:
    """Features as a safetensors file; `about` goes into its metadata as JSON."""
    tensors = {"features": features.values, "index": features.index, **more}
    words = {**about, "unreadable": features.unreadable, "sha256": _digest(features)}
    write_tensors(path, tensors, words)


def write_tensors(path: Path, tensors: Mapping[str, Tensor], about: Mapping[str, Any]) -> None:
    """A safetensors file that is complete or not there.

    Raises:
        UsageError: when it cannot be written.
    """
    make_folder(path.parent)
    partial = path.with_name(f".{path.name}.{os.getpid()}.partial")
    try:
        whole = {name: value.detach().cpu().contiguous() for name, value in tensors.items()}
        save_file(whole, partial, metadata={"about": json.dumps(about)})
        follow_umask(partial)
        partial.replace(path)
    except (OSError, SafetensorError) as error:
        partial.unlink(missing_ok=True)
        reason = str(error).splitlines()[0]
        raise UsageError(f"{path} cannot be written ({reason}); choose another path") from error


def _read(path: Path, key: str) -> Features:
    """Raises one of the errors that `cached` knows when the file is not what was written."""
    with safe_open(path, framework="pt") as file:
        about = json.loads((file.metadata() or {})["about"])
        values, index = file.get_tensor("features"), file.get_tensor("index")
        found = Features(values, index, tuple(about["unreadable"]))
    if about["key"] != key or about["sha256"] != _digest(found):
        raise ValueError("its contents are corrupt")
    return found


def _digest(features: Features) -> str:
    digest = hashlib.sha256()
    for value in (features.values, features.index):
        digest.update(value.contiguous().flatten().view(torch.uint8).numpy().data)
    return digest.hexdigest()
