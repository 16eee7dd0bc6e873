"""Networks compiled by torch where a run asks for it (`loop.compile`), and eager where that fails.

Only what learns is compiled: a call with gradients, whose shapes are the same in every step.
Measuring, and drawing without a graph, stay as they are: their shapes are others.
"""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from typing import Any, Literal

import torch
from torch import nn
from torch._inductor.runtime.cache_dir_utils import default_cache_dir

from tats_ray.core.types import Reconstruction
from tats_ray.core.words import counted
from tats_ray.models.mae import MaskedAutoencoder
from tats_ray.models.policy import SamplerPolicy

CompileMode = Literal["off", "blocks", "step"]

_MOST_SHAPES = 4
"""An update has some shapes: whole entries, and what an epoch leaves. More would never end."""


class Compiler:
    """Compiles the parts of one network, each at its first call.

    Args:
        mode: `blocks` compiles one block of each kind, which is enough for all of its kind; `step`
            the whole forward and backward pass.
        what: the network, for notes.
        tell: takes one line: how long it took, or why the network goes on uncompiled.
        graphs: replay the kernels as CUDA graphs. Nothing that a call returns may then be read
            after the next call, and no gradient may wait for the next step.
        backend: of `torch.compile`.
    """

    def __init__(
        self,
        mode: CompileMode,
        what: str,
        tell: Callable[[str], None],
        *,
        graphs: bool = False,
        backend: str = "inductor",
    ) -> None:
        self.mode = mode
        self.is_on = mode != "off"
        self.graphs = graphs and mode == "step"
        self._what, self._tell = what, tell
        self._options = {"backend": backend, "mode": "reduce-overhead" if self.graphs else None}
        self._shapes: set[tuple[torch.Size, ...]] = set()

    def mae(self, mae: MaskedAutoencoder) -> None:
        """Have this autoencoder compiled, in place; names of weights stay."""
        if self.mode == "step":
            mae.forward = self._compiled(mae.forward)  # type: ignore[method-assign]
        self._blocks(mae)

    def policy(self, policy: SamplerPolicy) -> None:
        """Have this policy compiled, in place."""
        if self.mode == "step":
            policy.judge = self._compiled(policy.judge)  # type: ignore[method-assign]
        self._blocks(policy)

    def _blocks(self, network: nn.Module) -> None:
        if self.mode == "blocks":
            for block in _repeated(network):
                block.forward = self._compiled(block.forward)

    def _compiled(self, plain: Callable[..., Any]) -> Callable[..., Any]:
        options: Any = self._options
        fast: Any = torch.compile(plain, fullgraph=True, dynamic=False, **options)

        def call(*given: torch.Tensor) -> Any:
            if not self.is_on or not torch.is_grad_enabled():
                return plain(*given)
            try:
                found = self._timed(fast, given)
                return _kept(found) if self.graphs else found
            # A compiler may fail in any way. What fails for another reason fails again below.
            except Exception as error:
                self._give_up(f"{type(error).__name__}: {error}")
                return plain(*given)

        return call

    def _timed(self, fast: Callable[..., Any], given: tuple[torch.Tensor, ...]) -> Any:
        shapes = tuple(tensor.shape for tensor in given)
        if shapes in self._shapes:
            return fast(*given)
        if len(self._shapes) == _MOST_SHAPES:
            sizes = " and ".join("x".join(map(str, shape)) for shape in shapes)
            raise ValueError(f"{sizes} is one shape more than the {_MOST_SHAPES} compiled for")
        self._shapes.add(shapes)
        start = time.perf_counter()
        found = fast(*given)
        spent = time.perf_counter() - start
        self._tell(f"compiled {self._what} ({self.mode}) in {counted(round(spent), 'second')}")
        return found

    def _give_up(self, why: str) -> None:
        self.is_on = False
        first = next(iter(why.strip().splitlines()))
        self._tell(f"{self._what} goes on uncompiled, as with loop.compile off: {first[:300]}")


def _repeated(network: nn.Module) -> Iterator[Any]:
    """The blocks of which a network has stacks."""
    for stack in network.modules():
        blocks = getattr(stack, "blocks", None)
        if isinstance(blocks, nn.ModuleList):
            yield from blocks


def _kept(found: Any) -> Any:
    """What outlives the next replay of a CUDA graph, which writes to the same memory."""
    if isinstance(found, Reconstruction):
        return replace(found, error=found.error.clone())
    return tuple(part.clone() for part in found)


def cache_folder() -> str:
    """Where torch keeps compiled code between runs, on this machine."""
    return os.environ.get("TORCHINDUCTOR_CACHE_DIR") or default_cache_dir()
