"""Checkpoints: a folder of safetensors and JSON, written whole or not at all, loaded safely.

```
<run>/checkpoints/step_00001200/
    mae.safetensors  mae_optimizer.safetensors  policy.safetensors  policy_optimizer.safetensors
    state.json   position, versions, counters        config.yaml   the resolved configuration
<run>/checkpoints/latest        the newest folder's name
```
Nothing in it is pickled. Random streams are named by (seed, purpose, step, rank), so the position
is their whole state.
"""

from __future__ import annotations

import json
import os
import re
import shutil
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from tats_ray.core.errors import CheckpointError
from tats_ray.learning.loop import Position

FORMAT = 1
_NOT_PARTS = frozenset({"format", "position"})
_FOLDER = re.compile(r"step_\d{8}$")


@dataclass(frozen=True)
class Checkpoint:
    """What a run needs to go on exactly where it stood."""

    position: Position
    mae: Mapping[str, Any]
    """`network`, `optimizer` and `numbers` of the MAE learner."""
    policy: Mapping[str, Any] | None
    """The same of the policy learner; None where the sampler does not learn."""
    config_yaml: str


def save(run: Path, checkpoint: Checkpoint, *, keep_last: int) -> Path:
    """Write a checkpoint into `run/checkpoints` and drop the oldest beyond `keep_last`.

    The folder gets its name only when all of it is on disk.
    """
    parts = {"mae": checkpoint.mae, "policy": checkpoint.policy}
    there = {name: part for name, part in parts.items() if part is not None}
    return save_parts(run, checkpoint.position, there, checkpoint.config_yaml, keep_last=keep_last)


def save_parts(
    run: Path,
    position: Position,
    parts: Mapping[str, Mapping[str, Any]],
    config_yaml: str,
    *,
    keep_last: int,
) -> Path:
    """`save` for any parts, each of `network`, `optimizer` and `numbers`."""
    root = run / "checkpoints"
    root.mkdir(parents=True, exist_ok=True)
    final = root / f"step_{position.step:08d}"
    partial = root / f".{final.name}.{os.getpid()}.partial"
    for left_over in root.glob(".step_*.partial"):  # by a process that was killed while writing
        shutil.rmtree(left_over)
    partial.mkdir()
    state: dict[str, Any] = {"format": FORMAT, "position": asdict(position)}
    for name, part in parts.items():
        state[name] = _write_part(partial, name, part)
    (partial / "state.json").write_text(json.dumps(state, indent=1))
    (partial / "config.yaml").write_text(config_yaml)
    for file in partial.iterdir():
        with file.open("rb") as handle:
            os.fsync(handle.fileno())
    shutil.rmtree(final, ignore_errors=True)
    partial.rename(final)
    pointer = root / ".latest.partial"
    pointer.write_text(final.name + "\n")
    pointer.rename(root / "latest")
    # Newer folders belong to a future that was given up for an older checkpoint: they do not count.
    past = sorted(p for p in root.iterdir() if _FOLDER.match(p.name) and p.name <= final.name)
    for old in past[:-keep_last]:
        shutil.rmtree(old)
    return final


def find(path: str | Path) -> Path:
    """The checkpoint folder that `path` means: itself, or the newest of a run's folder.

    Raises:
        CheckpointError: when there is none.
    """
    path = Path(path)
    if (path / "state.json").is_file():
        return path
    root = path if (path / "latest").is_file() else path / "checkpoints"
    pointer = root / "latest"
    if pointer.is_file() and (root / pointer.read_text().strip() / "state.json").is_file():
        return root / pointer.read_text().strip()
    raise CheckpointError(
        f"{path} holds no checkpoint; give a run folder, or one of its checkpoints/step_... folders"
    )


def load(path: str | Path) -> Checkpoint:
    """Read a checkpoint; tensors on the CPU.

    Raises:
        CheckpointError: for a missing, damaged or newer-format checkpoint.
    """
    found = load_parts(path)
    if "mae" not in found.parts:
        raise CheckpointError(
            f"{found.folder} is no pre-training checkpoint: {', '.join(found.parts)}"
        )
    return Checkpoint(
        position=found.position,
        mae=found.parts["mae"],
        policy=found.parts.get("policy"),
        config_yaml=found.config_yaml,
    )


@dataclass(frozen=True)
class Parts:
    """A checkpoint of any kind of run."""

    folder: Path
    position: Position
    parts: Mapping[str, Mapping[str, Any]]
    config_yaml: str


def part_names(folder: Path) -> frozenset[str]:
    """What a checkpoint holds, without reading its tensors; empty when it cannot be read."""
    try:
        return frozenset(json.loads((folder / "state.json").read_text())) - _NOT_PARTS
    except (OSError, ValueError, TypeError):
        return frozenset()


def load_parts(path: str | Path) -> Parts:
    """All parts of a checkpoint; tensors on the CPU.

    Raises:
        CheckpointError: for a missing, damaged or newer-format checkpoint.
    """
    folder = find(path)
    try:
        state = json.loads((folder / "state.json").read_text())
        if state["format"] != FORMAT:
            raise CheckpointError(
                f"{folder} has checkpoint format {state['format']}, this version reads {FORMAT}"
            )
        names = [name for name in state if name not in _NOT_PARTS]
        return Parts(
            folder=folder,
            position=Position(**state["position"]),
            parts={name: _read_part(folder, name, state[name]) for name in names},
            config_yaml=(folder / "config.yaml").read_text(),
        )
    except (OSError, ValueError, KeyError, TypeError, SafetensorError) as error:
        if isinstance(error, CheckpointError):
            raise
        raise CheckpointError(f"{folder} is damaged: {error}; use an older one") from error


def load_weights(network: nn.Module, weights: Mapping[str, Tensor], *, source: str) -> None:
    """Put `weights` into `network`, all of them, or say what does not match.

    Raises:
        CheckpointError: naming counts and the first few of missing, unexpected and reshaped keys.
    """
    own = network.state_dict()
    missing = sorted(own.keys() - weights.keys())
    unexpected = sorted(weights.keys() - own.keys())
    reshaped = [
        f"{k} {tuple(weights[k].shape)} in the file, {tuple(own[k].shape)} in the model"
        for k in sorted(own.keys() & weights.keys())
        if own[k].shape != weights[k].shape
    ]
    problems = [
        f"{len(keys)} {what} ({', '.join(keys[:3])}{', ...' if len(keys) > 3 else ''})"
        for what, keys in (
            ("of another size", reshaped),
            ("missing", missing),
            ("unexpected", unexpected),
        )
        if keys
    ]
    if problems:
        fitting = len(own) - len(missing) - len(reshaped)
        raise CheckpointError(
            f"{source} does not fit: {fitting}/{len(own)} tensors match; {'; '.join(problems)}; "
            "use the config.yaml beside the checkpoint"
        )
    network.load_state_dict(dict(weights))


def read_tensors(path: Path) -> dict[str, Tensor]:
    """The tensors of a safetensors file, on the CPU.

    Raises:
        CheckpointError: for a missing or damaged file.
    """
    try:
        return load_file(path)
    except (OSError, SafetensorError) as error:
        raise CheckpointError(f"{path} cannot be read: {error}") from error


def write_tensors(path: Path, tensors: Mapping[str, Tensor]) -> None:
    """Tensors to a safetensors file."""
    save_file(_own_memory(tensors), path)


def _write_part(folder: Path, name: str, part: Mapping[str, Any]) -> dict[str, Any]:
    """Tensors to safetensors; returns the numbers, for state.json."""
    save_file(_own_memory(part["network"]), folder / f"{name}.safetensors")
    optimizer = part["optimizer"]
    moments = {
        f"{index}.{key}": value
        for index, slots in optimizer["state"].items()
        for key, value in slots.items()
    }
    save_file(_own_memory(moments), folder / f"{name}_optimizer.safetensors")
    return {"numbers": part["numbers"], "param_groups": optimizer["param_groups"]}


def _read_part(folder: Path, name: str, state: Mapping[str, Any]) -> dict[str, Any]:
    slots: dict[int, dict[str, Tensor]] = {}
    for key, value in load_file(folder / f"{name}_optimizer.safetensors").items():
        index, _, slot = key.partition(".")
        slots.setdefault(int(index), {})[slot] = value
    return {
        "network": load_file(folder / f"{name}.safetensors"),
        "optimizer": {"state": slots, "param_groups": state["param_groups"]},
        "numbers": state["numbers"],
    }


def _own_memory(tensors: Mapping[str, Any]) -> dict[str, Tensor]:
    """Copies on the CPU: safetensors refuses tensors that share memory."""
    return {
        name: torch.as_tensor(value).detach().to("cpu", copy=True).contiguous()
        for name, value in tensors.items()
    }
