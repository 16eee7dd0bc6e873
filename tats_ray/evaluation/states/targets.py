"""The true states of clips, as numbers and as classes."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
import torch
from torch import Tensor

from tats_ray.core.arrays import Float, Int
from tats_ray.core.errors import UsageError
from tats_ray.core.words import counted
from tats_ray.data.atari.states import read_states, states_path
from tats_ray.data.decode import probe
from tats_ray.data.manifest import VideoEntry
from tats_ray.data.views import ViewPlan

MAX_CLASSES = 16
_FEWEST = 20  # examples with a known value, in either list


@dataclass(frozen=True)
class Targets:
    """What is to be read off the features of each clip."""

    names: tuple[str, ...]
    values: Float[Tensor, "n T"]
    """NaN where unknown."""
    edges: tuple[Float[Tensor, " _"], ...] = ()
    """Borders between the classes of each value; none before `binned`."""

    @property
    def num_classes(self) -> Int[Tensor, " T"]:
        return torch.tensor([len(edges) + 1 for edges in self.edges])

    @property
    def classes(self) -> Int[Tensor, "n T"]:
        """-1 where unknown."""
        columns = zip(self.values.T.contiguous(), self.edges, strict=True)
        classes = torch.stack([torch.bucketize(values, edges) for values, edges in columns], 1)
        return torch.where(self.values.isnan(), -1, classes)

    def take(self, index: Tensor) -> Targets:
        return replace(self, values=self.values[index])


def read_targets(
    entries: Sequence[VideoEntry],
    plan: ViewPlan,
    *,
    num_frames: int,
    stride: int,
    change: int = 0,
) -> Targets:
    """The states at the middle frame of every view of every video, in this order.

    Args:
        change: frames; above 0, how much each state changes in this many frames after the middle
            one instead. It is unknown where the video ends before.

    Raises:
        UsageError: for a video without states, or with those of another one.
    """
    rows: list[Float[np.ndarray, "V T"]] = []
    names: tuple[str, ...] = ()
    for entry in entries:
        path = states_path(entry.path)
        if (states := read_states(entry.path)) is None:
            raise UsageError(
                f"{entry.path} has no {path.name} beside it, the true states; `tats data atari` "
                "writes them for the games whose memory is annotated"
            )
        table = np.stack([*states.values()], axis=1)
        names = names or tuple(states)
        if tuple(states) != names or len(table) != probe(entry.path).num_frames:
            raise UsageError(
                f"{path} does not have the columns {', '.join(names)} and a row for each frame of "
                "the video; make it again"
            )
        clips = np.array(plan.frames(len(table), num_frames, stride)).reshape(-1, num_frames)
        if change:
            table = np.concatenate([table[change:], np.full_like(table[:change], np.nan)]) - table
        rows.append(table[clips[:, num_frames // 2]].repeat(plan.num_crops, axis=0))
    return Targets(names, torch.from_numpy(np.concatenate(rows)))


def binned(train: Targets, val: Targets) -> tuple[Targets, Targets, tuple[str, ...]]:
    """Both with classes, made from the training values alone, and the names of what is left out.

    Up to 16 different values are classes of their own; more are cut into 16 that are as frequent.
    A value that does not vary in both lists tells nothing.

    Raises:
        UsageError: when nothing is left.
    """
    kept, edges = [], []
    for at in range(len(train.names)):
        known, tested = (part.values[:, at] for part in (train, val))
        known, tested = known[~known.isnan()], tested[~tested.isnan()]
        distinct = known.unique()
        if min(len(distinct), len(tested.unique())) < 2 or min(len(known), len(tested)) < _FEWEST:
            continue
        if len(distinct) <= MAX_CLASSES:
            borders = (distinct[1:] + distinct[:-1]) / 2
        else:
            shares = torch.linspace(0, 1, MAX_CLASSES + 1, dtype=known.dtype)[1:-1]
            borders = known.quantile(shares, interpolation="lower").unique()
        kept.append(at)
        edges.append(borders)
    if not kept:
        raise UsageError(
            f"none of {', '.join(train.names)} varies in at least "
            f"{counted(_FEWEST, 'clip')} of both lists; take more videos"
        )
    names = tuple(train.names[at] for at in kept)
    left_out = tuple(name for name in train.names if name not in names)
    train, val = (Targets(names, part.values[:, kept], tuple(edges)) for part in (train, val))
    return train, val, left_out
