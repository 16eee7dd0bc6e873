"""Checkpoints: folders of safetensors and JSON, written atomically and loaded safely.

```
<run>/checkpoints/step_00001200/
    mae.safetensors  mae_optimizer.safetensors  policy.safetensors  policy_optimizer.safetensors
    state.json   position, versions, counters, checksums        config.yaml   the configuration
                 (fine-tuning has other parts: classifier, average)
<run>/checkpoints/latest        the newest folder's name
<run>/checkpoints/best          the name of the one with the lowest validation error
```
Nothing in it is pickled. Random streams are named by (seed, purpose, step, rank), so the position
is their whole state.
"""

from __future__ import annotations

import hashlib
import json
import os
import shutil
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, TypeVar

from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor, nn

from tats_ray.checkpoints.folders import (
    STATE_FILE,
    candidates,
    commit,
    find,
    retire,
    sweep,
)
from tats_ray.checkpoints.weight_files import save_tensors
from tats_ray.core.errors import CheckpointError
from tats_ray.core.types import Position
from tats_ray.models.sharding import load_whole

__all__ = [
    "Checkpoint",
    "Parts",
    "find",
    "load",
    "load_newest",
    "load_parts",
    "load_weights",
    "newest_reached",
    "part_names",
    "save",
    "save_parts",
    "saved_epoch",
]

T = TypeVar("T")
FORMAT = 1
_NOT_PARTS = frozenset({"format", "position", "validation_error", "files", "sha256"})
"""Keys of state.json; every other one is the name of a part."""
_WAY_OUT = "; use an older one"


@dataclass(frozen=True)
class Checkpoint:
    """What a run needs to continue exactly where it stopped."""

    position: Position
    mae: Mapping[str, Any]
    """`network`, `optimizer` and `numbers` of the MAE learner."""
    policy: Mapping[str, Any] | None
    """The same of the policy learner; None where the sampler does not learn."""
    config_yaml: str
    validation_error: float | None = None
    """`eval/error` at this position, where it was measured: under masks that never change."""


@dataclass(frozen=True)
class Parts:
    """What any kind of run continues from: networks with their optimisers, by name."""

    position: Position
    parts: Mapping[str, Mapping[str, Any]]
    """Name -> `network`, `optimizer` and `numbers`."""
    config_yaml: str
    validation_error: float | None = None
    """As `Checkpoint.validation_error`."""
    source: str = ""
    """Folder that it was read from."""


def save(run: Path, checkpoint: Checkpoint, *, keep_last: int, keep_best: bool = True) -> Path:
    """`save_parts` of a pre-training run."""
    parts = {"mae": checkpoint.mae, "policy": checkpoint.policy}
    whole = Parts(
        position=checkpoint.position,
        parts={name: part for name, part in parts.items() if part is not None},
        config_yaml=checkpoint.config_yaml,
        validation_error=checkpoint.validation_error,
    )
    return save_parts(run, whole, keep_last=keep_last, keep_best=keep_best)


def save_parts(run: Path, checkpoint: Parts, *, keep_last: int, keep_best: bool = True) -> Path:
    """Write a checkpoint into `run/checkpoints`; drop the oldest beyond `keep_last`, not the best.

    Raises:
        OSError: when the storage refuses; nothing is left of the attempt, and older ones stand.
    """
    root = run / "checkpoints"
    root.mkdir(parents=True, exist_ok=True)
    sweep(root)
    final = root / f"step_{checkpoint.position.step:08d}"
    partial = root / f".{final.name}.{os.getpid()}.partial"
    try:
        _write(partial, checkpoint)
        commit(partial, final)
    except SafetensorError as error:
        raise OSError(f"{partial}: {error}") from error
    finally:
        shutil.rmtree(partial, ignore_errors=True)
    retire(final, keep_last=keep_last, keep_best=keep_best)
    return final


def load(path: str | Path) -> Checkpoint:
    """Read a checkpoint of pre-training; tensors on the CPU.

    Raises:
        CheckpointError: for a missing, damaged or newer-format checkpoint, or another kind.
    """
    found = load_parts(path)
    if "mae" not in found.parts:
        raise CheckpointError(
            f"{found.source} is not a pre-training checkpoint: it holds {', '.join(found.parts)}"
        )
    return Checkpoint(
        position=found.position,
        mae=found.parts["mae"],
        policy=found.parts.get("policy"),
        config_yaml=found.config_yaml,
        validation_error=found.validation_error,
    )


def load_parts(path: str | Path) -> Parts:
    """All parts of a checkpoint of any kind; tensors on the CPU.

    Raises:
        CheckpointError: for a missing, damaged or newer-format checkpoint.
    """
    folder = find(path)
    try:
        state = json.loads((folder / STATE_FILE).read_text())
        if state["format"] != FORMAT:
            raise CheckpointError(
                f"{folder} has checkpoint format {state['format']}, this version reads {FORMAT}"
            )
        _verify(folder, state)
        names = [name for name in state if name not in _NOT_PARTS]
        return Parts(
            position=Position(**state["position"]),
            parts={name: _read_part(folder, name, state[name]) for name in names},
            config_yaml=(folder / "config.yaml").read_text(),
            validation_error=state.get("validation_error"),
            source=str(folder),
        )
    except (OSError, ValueError, KeyError, TypeError, SafetensorError) as error:
        if isinstance(error, CheckpointError):
            raise
        raise CheckpointError(f"{folder} is damaged: {error}{_WAY_OUT}") from error


def part_names(folder: Path) -> frozenset[str]:
    """What a checkpoint holds, without reading its tensors; empty when it cannot be read."""
    try:
        return frozenset(json.loads((folder / STATE_FILE).read_text())) - _NOT_PARTS
    except (OSError, ValueError, TypeError):
        return frozenset()


@dataclass(frozen=True)
class Reached:
    """How far a run has come, without its tensors."""

    folder: Path
    """Its newest checkpoint that is not damaged."""
    position: Position
    optimizer_steps: int
    """Of the first part, which is the network that the schedule is of."""


def newest_reached(run: Path) -> Reached | None:
    """Where a run would go on; None where it has no checkpoint that is not damaged."""
    for folder in candidates(run / "checkpoints"):
        with suppress(OSError, ValueError, KeyError, TypeError):
            state = json.loads((folder / STATE_FILE).read_text())
            _verify(folder, state)
            first = next((name for name in state if name not in _NOT_PARTS), "")
            position = Position(**state["position"])
            return Reached(folder, position, int(state[first]["numbers"]["step"]))
    return None


def saved_epoch(run: Path) -> int:
    """The epoch of a run's newest checkpoint, by what it says of itself; 0 without one."""
    for folder in candidates(run / "checkpoints"):
        with suppress(OSError, ValueError, KeyError, TypeError):
            return int(json.loads((folder / STATE_FILE).read_text())["position"]["epoch"])
    return 0


def load_newest(run: Path, read: Callable[[Path], T]) -> tuple[Path, T, list[str]]:
    """The newest checkpoint of a run that is not damaged.

    Args:
        read: `load` or `load_parts`.

    Returns:
        Its folder, what it holds, and a line about each newer one that had to be passed over.

    Raises:
        CheckpointError: when there is none, or all are damaged.
    """
    passed_over: list[str] = []
    for folder in candidates(run / "checkpoints"):
        try:
            return folder, read(folder), passed_over
        except CheckpointError as error:
            passed_over.append(str(error).removesuffix(_WAY_OUT))
    if passed_over:
        raise CheckpointError(f"no checkpoint of {run} is complete: {'; '.join(passed_over)}")
    raise CheckpointError(f"{run} holds no checkpoint")


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
            ("of a different size", reshaped),
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
    load_whole(network, weights)


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
    save_tensors(path, tensors)


def _write(partial: Path, checkpoint: Parts) -> None:
    partial.mkdir()
    state: dict[str, Any] = {"format": FORMAT, "position": asdict(checkpoint.position)}
    if checkpoint.validation_error is not None:
        state["validation_error"] = checkpoint.validation_error
    for name, part in checkpoint.parts.items():
        state[name] = _write_part(partial, name, part)
    (partial / "config.yaml").write_text(checkpoint.config_yaml)
    state["files"] = {file.name: _checksum(file) for file in sorted(partial.iterdir())}
    state["sha256"] = _checksum_of_state(state)
    (partial / STATE_FILE).write_text(json.dumps(state, indent=1))


def _verify(folder: Path, state: Mapping[str, Any]) -> None:
    """Compare with the checksums of when it was written; older checkpoints have none."""
    if "files" not in state:
        return
    if state["sha256"] != _checksum_of_state(state):
        raise ValueError(f"{STATE_FILE} is not what was written")
    for name, expected in state["files"].items():
        if _checksum(folder / name) != expected:
            raise ValueError(f"{name} is not what was written")


def _checksum(file: Path) -> str:
    with file.open("rb") as handle:
        digest = hashlib.sha256()
        while block := handle.read(2**20):
            digest.update(block)
        return digest.hexdigest()


def _checksum_of_state(state: Mapping[str, Any]) -> str:
    rest = {name: value for name, value in state.items() if name != "sha256"}
    as_read = json.loads(json.dumps(rest))
    return hashlib.sha256(json.dumps(as_read, sort_keys=True).encode()).hexdigest()


def _write_part(folder: Path, name: str, part: Mapping[str, Any]) -> dict[str, Any]:
    """Tensors to safetensors; returns the numbers, for state.json."""
    save_tensors(folder / f"{name}.safetensors", part["network"])
    optimizer = part["optimizer"]
    moments = {
        f"{index}.{key}": value
        for index, slots in optimizer["state"].items()
        for key, value in slots.items()
    }
    save_tensors(folder / f"{name}_optimizer.safetensors", moments)
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
