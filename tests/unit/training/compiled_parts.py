"""Compiles parts of a small run in a process of its own, where no type checker is in the way.

    python -m tests.unit.training.compiled_parts MODE BACKEND

Prints, as JSON, the notes and the largest difference of a gradient from the uncompiled one.
"""

from __future__ import annotations

import json
import sys
from typing import Any

import torch

from tats_ray.core.seeds import stream
from tats_ray.training.compilation import Compiler
from tests.conftest import GRID, WIDTH, random_clips, small_mae, small_policy


def learned(network: Any, loss: torch.Tensor) -> dict[str, torch.Tensor]:
    loss.backward()
    return {name: p.grad for name, p in network.named_parameters() if p.grad is not None}


def furthest(found: Any, expected: Any) -> float:
    """Weights that the loss does not reach have no gradient, or zeros where they are compiled."""
    assert found.keys() >= expected.keys()
    return max(float((g - expected.get(n, torch.zeros(()))).abs().max()) for n, g in found.items())


def main(mode: Any, backend: str) -> None:
    torch.set_num_threads(1)
    notes: list[str] = []
    clips, tokens = random_clips("compiled"), torch.randn(2, GRID.num_tokens, WIDTH)
    visible = torch.rand(2, GRID.num_tokens, generator=stream(0, "v")).topk(8).indices
    runs = []
    for is_compiled in (False, True):
        mae, policy = small_mae(), small_policy()
        if is_compiled:
            Compiler(mode, "the autoencoder", notes.append, backend=backend).mae(mae)
            Compiler(mode, "the policy", notes.append, backend=backend).policy(policy)
        runs.append([
            learned(mae, mae(clips, visible).loss),
            learned(policy, policy.evaluate(tokens).log_prob.square().sum()),
        ])  # fmt: skip
        assert list(mae.state_dict()) == list(small_mae().state_dict())
    told = list(notes)
    with torch.no_grad():
        mae(clips[:1], visible[:1])  # is only looked at, so it is not compiled
    assert notes == told
    for count in (3, 4) if mode == "blocks" else ():
        several = clips[:1].expand(count, -1, -1, -1, -1)
        mae(several, visible[:1].expand(count, -1))
    far = [furthest(*pair) for pair in zip(*reversed(runs), strict=True)]
    print(json.dumps({"notes": told, "far": far, "last": notes[-1]}))


if __name__ == "__main__":
    main(*sys.argv[1:])
