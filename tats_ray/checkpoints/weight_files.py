"""Weight files of any project, read without running anything that is in them.

A `.pth` file is a pickle, that is, a program. Tensors, plain values and `argparse.Namespace`, which
the official files keep their settings in, are let through; single numbers of numpy's are dropped
unread; everything else is refused by name.
"""

from __future__ import annotations

import argparse
import pickle
import re
import warnings
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor
from torch.serialization import safe_globals

from tats_ray.core.errors import CheckpointError, UsageError
from tats_ray.core.storage import follow_umask

_TEXT = (".yaml", ".yml", ".csv", ".txt", ".json")
_WRAPPERS = ("model", "module", "state_dict", "model_state")
"""Keys under which training scripts keep the state dict, the likeliest first."""

_WRAPPER_PARTS = frozenset(
    {"module", "_orig_mod", "_checkpoint_wrapped_module", "_fsdp_wrapped_module"}
)
"""Parts that wrappers put into names, wherever they wrap: DistributedDataParallel, torch.compile,
activation checkpointing, FSDP."""
_PREFIX = "backbone."
"""What mmaction puts before every name."""

PICKLED = (".pth", ".pt", ".bin", ".ckpt")
_LONGEST_NAME = 256
"""Letters of a tensor's name; names come back in messages, which are one line."""


class Dropped:
    """Stands in for a NumPy number and drops its value.

    The official scripts set learning rates to such numbers, and their files hold the optimiser.
    Rebuilding one would run numpy's code; this runs none.
    """

    def __init__(self, *parts: object) -> None:
        pass

    def __setstate__(self, state: object) -> None:
        pass


_ADMITTED: list[Callable[..., Any] | tuple[Callable[..., Any], str]] = [
    argparse.Namespace,
    # The module's name before and since numpy 2.
    (Dropped, "numpy.core.multiarray.scalar"),
    (Dropped, "numpy._core.multiarray.scalar"),
    (Dropped, "numpy.dtype"),
]


@dataclass(frozen=True)
class WeightFile:
    """The tensors of a file under their own names, without prefixes of wrappers."""

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
    if path.suffix in _TEXT and path.is_file():
        raise CheckpointError(
            f"{path} is a {path.suffix} file, not a checkpoint; give a run folder, or a "
            ".safetensors or .pth file"
        )
    try:
        if path.suffix == ".safetensors":
            tensors = load_file(path)
            if not tensors:
                raise CheckpointError(f"{path} holds no tensors")
            return WeightFile(_without_wrappers(path, _dense(path, tensors)))
        return _unwrap(path, _unpickle(path))
    except FileNotFoundError:
        raise CheckpointError(f"{path} does not exist") from None
    except (OSError, SafetensorError) as error:
        raise CheckpointError(f"{path} cannot be read: {_reason(error)}") from error


def write_weights(path: Path, tensors: Mapping[str, Tensor]) -> None:
    """One file of tensors: `{"model": ...}` in a `.pth`, else safetensors; whole or not at all.

    Raises:
        UsageError: when it cannot be written.
    """
    with writing(path):
        path.parent.mkdir(parents=True, exist_ok=True)
        partial = path.with_name(f".{path.name}.partial")
        try:
            if path.suffix in PICKLED:
                _pickle(partial, {"model": own_memory(tensors)})
            else:
                save_tensors(partial, tensors)
            partial.rename(path)
        except BaseException:
            partial.unlink(missing_ok=True)
            raise


def own_memory(tensors: Mapping[str, Any]) -> dict[str, Tensor]:
    """Copies on the CPU: safetensors refuses tensors that share memory."""
    return {
        name: torch.as_tensor(value).detach().to("cpu", copy=True).contiguous()
        for name, value in tensors.items()
    }


def save_tensors(path: Path, tensors: Mapping[str, Tensor]) -> None:
    """A safetensors file as transformers reads it, where a half-written one is seen to.

    Raises:
        OSError, SafetensorError: when the storage refuses; `writing` puts them into words.
    """
    save_file(own_memory(tensors), path, metadata={"format": "pt"})
    follow_umask(path)


@contextmanager
def writing(path: Path) -> Iterator[None]:
    """Around what writes `path`, or files into it.

    Raises:
        UsageError: when the storage refuses.
    """
    try:
        yield
    except (OSError, SafetensorError) as error:
        raise UsageError(
            f"{path} cannot be written ({_reason(error)}); choose another path"
        ) from error


def refuse_existing(path: Path) -> None:
    """Nothing is overwritten.

    Raises:
        UsageError: when there is something of that name.
    """
    with writing(path):
        is_there = path.exists()
    if is_there:
        raise UsageError(f"{path} already exists; choose another path, or remove it")


def one_line(value: object, *, most: int) -> str:
    """The first letters of anything that a file holds, fit to print."""
    text = str(value)[: 10 * most]
    return " ".join("".join(x if x.isprintable() else " " for x in text).split())[:most]


def _pickle(path: Path, content: Any) -> None:
    """What the storage says passes on, not what torch makes of it.

    Raises:
        OSError: when the storage refuses.
    """
    try:
        with path.open("wb") as file:
            torch.save(content, file)
    except RuntimeError as error:
        # torch ends its archive all the same, and complains that it is too short.
        if isinstance(error.__context__, OSError):
            raise error.__context__ from None
        raise


def _unpickle(path: Path) -> Any:
    try:
        with safe_globals(_ADMITTED), warnings.catch_warnings():
            # About pickle protocols of others; what comes of them is raised.
            warnings.simplefilter("ignore")
            return torch.load(path, map_location="cpu", weights_only=True)
    except OSError:
        raise
    except Exception as error:  # over a damaged file torch raises anything
        wanted = re.search(r"(?:GLOBAL |Unsupported class |class )([\w.]+\.\w+)", str(error))
        if wanted is None or not isinstance(error, pickle.UnpicklingError):
            raise CheckpointError(
                f"{path} is damaged, or not a PyTorch file: {_beginning(path)}"
            ) from error
        raise CheckpointError(
            f"{path} asks to run {wanted[1][:80]} when loaded, which weights do not need; nothing "
            "was run. If you trust it, save its state dict alone where it was made"
        ) from None


def _beginning(path: Path) -> str:
    """What is wrong with a file, as far as it shows: torch's own words are about its insides."""
    with path.open("rb") as file:
        head = file.read(60)
    if not head:
        return "it is empty"
    if head.startswith(b"PK"):
        return "its zip archive is truncated or corrupt"
    if head.startswith(b"\x80"):
        return "it is a pickle that is truncated, or was not written by torch.save"
    line = head.decode("latin-1").splitlines()[0]
    if line and line.isascii() and line.isprintable():
        return f"it begins with {line!r}"
    return f"its first bytes are {head[:8].hex(' ')}"


def _unwrap(path: Path, loaded: Any) -> WeightFile:
    if not isinstance(loaded, Mapping):
        raise CheckpointError(f"{path} holds a {type(loaded).__name__}, not a state dict")
    found = next((key for key in _WRAPPERS if isinstance(loaded.get(key), Mapping)), "")
    state = loaded[found] if found else loaded
    tensors = {str(name): value for name, value in state.items() if isinstance(value, Tensor)}
    if not tensors:
        keys = ", ".join(one_line(key, most=40) for key in list(loaded)[:5]) or "nothing"
        raise CheckpointError(f"{path} holds no state dict; its keys are {keys}")
    args = loaded.get("args", {})
    noted = vars(args) if isinstance(args, argparse.Namespace) else args
    settings = dict(noted) if isinstance(noted, Mapping) else {}
    return WeightFile(
        _without_wrappers(path, _dense(path, tensors)),
        found,
        {name: value for name, value in settings.items() if not isinstance(value, Dropped)},
    )


def _dense(path: Path, tensors: Mapping[str, Tensor]) -> Mapping[str, Tensor]:
    """The same, when each is what a network of ours can take.

    Raises:
        CheckpointError: naming the first that is not.
    """
    for name, value in tensors.items():
        if len(name) > _LONGEST_NAME or not name.isprintable():
            raise CheckpointError(f"{path} has a tensor with a bad name: {name[:40]!r}...")
        odd = _oddity(value)
        if odd:
            raise CheckpointError(
                f"{path}: {name} {odd}; only dense tensors of real numbers are read: save it as "
                "one where it was made"
            )
    return tensors


def _oddity(value: Tensor) -> str:
    if value.layout is not torch.strided:
        return f"is sparse ({str(value.layout).removeprefix('torch.')})"
    if value.device.type != "cpu":
        return f"has no values (device {value.device.type})"
    if value.is_quantized:
        return "is quantized"
    if value.is_complex():
        return "is complex"
    # Strides of 0 or overlapping ones: a few bytes would pass for any size.
    if value.nbytes > value.untyped_storage().nbytes():
        return f"claims shape {tuple(value.shape)}, more than is stored of it"
    return ""


def _without_wrappers(path: Path, tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """The tensors under the names that their modules had before they were wrapped."""
    found: dict[str, Tensor] = {}
    for name, value in tensors.items():
        own = ".".join(part for part in name.split(".") if part not in _WRAPPER_PARTS)
        if own in found:
            raise CheckpointError(f"{path} has two tensors {own}, one of them wrapped; keep one")
        found[own] = value
    if found and all(name.startswith(_PREFIX) for name in found):
        return {name.removeprefix(_PREFIX): value for name, value in found.items()}
    return found


def _reason(error: BaseException) -> str:
    """In one line, and never empty."""
    words = error.strerror if isinstance(error, OSError) else None
    return (words or str(error).strip() or type(error).__name__).split("\n")[0][:200]
