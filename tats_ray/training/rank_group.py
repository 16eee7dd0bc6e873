"""Processes as one policy learner [DD-PPO: Wijmans et al. 2019; Podracer: Hessel 2021]."""

from __future__ import annotations

import datetime
from typing import Any

import torch.distributed as dist
from torch import Tensor

from tats_ray.core.arrays import Bool
from tats_ray.core.errors import PeerLostError


def holds_everywhere(holds: Bool[Tensor, ""]) -> Bool[Tensor, ""]:
    """Whether something holds on every rank, as the devices find among themselves."""
    against = (~holds).float()
    dist.all_reduce(against)
    return against == 0


class RankGroup:
    """All ranks of the process group that this process is in [see `Group`].

    It meets on connections of its own, so that its sums never wait for those of other parts.

    Args:
        share: of all clips of an update, those of this rank.
        timeout_s: for which a rank waits for the others.
    """

    def __init__(self, *, share: float, timeout_s: float) -> None:
        self.share = share
        self.size = dist.get_world_size()
        self.num_bytes = 0
        """That this rank has had summed."""
        self._ranks: Any = dist.new_group(timeout=datetime.timedelta(seconds=timeout_s))

    def sum(self, values: Tensor) -> Tensor:
        """As in `Group`.

        Raises:
            PeerLostError: where another member has gone.
        """
        total, lost = values.detach().clone(), ""
        try:
            dist.all_reduce(total, group=self._ranks)
        except RuntimeError as error:
            lost = str(error)
        if lost:
            self.leave()  # out here, where no traceback keeps the connections
            raise PeerLostError(f"lost its connection to another learner: {lost}")
        self.num_bytes += total.nbytes
        return total

    def leave(self) -> None:
        """Let go of its connections: members that wait at their far ends then learn of it."""
        self._ranks = None
