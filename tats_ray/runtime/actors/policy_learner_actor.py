"""The policy learner as an actor of its own."""

from __future__ import annotations

import time
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import timedelta
from typing import Any

import ray
import torch
import torch.distributed as dist

from tats_ray.config.load import parse_config
from tats_ray.core.errors import PeerLostError, StaleError
from tats_ray.core.group import ALONE, Group
from tats_ray.core.types import Rollout
from tats_ray.models.kernel_choice import use_faster_form
from tats_ray.models.zoo import build_learned_policy, token_grid
from tats_ray.runtime.actors.calls import GRACE_S, replaced
from tats_ray.runtime.actors.transfer import to_arrays, to_tensors
from tats_ray.runtime.actors.weight_store import policy_of
from tats_ray.runtime.resources.placement import threads_of
from tats_ray.training.compilation import Compiler
from tats_ray.training.policy_learner import PolicyLearner
from tats_ray.training.rank_group import RankGroup


@dataclass(frozen=True)
class Membership:
    """Where a policy learner stands among those that learn one policy together."""

    rank: int
    size: int
    share: float
    """Of all clips, those of its shard."""
    meeting: tuple[str, int]
    """Address and port at which they find each other."""


class PolicyLearnerActor:
    """Takes rollouts from the buffer, improves the policy, publishes the new weights.

    Where it is one of several, each takes those of its own shard, and they average their gradients.
    All of them have the same weights then, and each publishes them for those who are near.

    Args:
        device: named outright: Ray does not hide GPUs from actors that reserve none.
        threads: torch threads; 0 takes all cores of its node.
        num_neighbours: policy learners on its node, which share them.
    """

    def __init__(
        self, config: Mapping[str, Any], *, device: str, threads: int, num_neighbours: int = 1
    ) -> None:
        torch.set_num_threads(threads_of(threads, num_neighbours))
        self._config = parse_config(config)
        self._buffer: Any = None
        self._store: Any = None
        self._device = torch.device(device)
        self._incarnation = ""
        self._rank = 0
        self._meeting: Any = None
        self._learner = self._fresh(ALONE)
        self._idle_since = time.monotonic()

    def _fresh(self, group: Group) -> PolicyLearner:
        config = self._config
        grid = token_grid(config.data, config.model)
        policy = build_learned_policy(config.sampler, config.model, grid, seed=config.seed)
        policy.to(self._device)
        clips = config.clips_per_rollout * config.cluster.num_workers
        use_faster_form(policy, clips, grid.num_tokens, config.loop.precision, print)
        is_gpu = self._device.type == "cuda"
        Compiler(config.loop.compile, "the policy", print, graphs=is_gpu).policy(policy)
        return PolicyLearner(
            policy,
            config.algorithm.build(policy),
            seed=config.seed,
            precision=config.loop.precision,
            group=group,
        )

    def is_up(self) -> bool:
        """Whether it answers, which an actor does that is not being started anew."""
        return True

    def open_meeting(self) -> tuple[str, int]:
        """Let the others of a new group find this one; address and port."""
        self._part()
        address = ray.util.get_node_ip_address()
        wait = timedelta(seconds=self._config.cluster.timeout_s)
        self._meeting = dist.TCPStore(  # type: ignore[attr-defined]
            address, 0, is_master=True, wait_for_workers=False, timeout=wait
        )
        return address, self._meeting.port

    def reset(
        self,
        incarnation: str,
        state: Mapping[str, Any] | None,
        *,
        buffer: Any,
        store: Any,
        member: Membership | None = None,
    ) -> None:
        """Begin an incarnation of the run, from a checkpoint's state or from the seed.

        The peers are told here and not at the start: Ray can start an actor anew only from
        arguments that hold no handles.

        Args:
            buffer: that it takes from.
            member: of a group, all members of which begin together.
        """
        self._incarnation = incarnation
        self._buffer, self._store = buffer, store
        self._rank = member.rank if member is not None else 0
        self._learner = self._fresh(self._join(member) if member is not None else ALONE)
        if state is not None:
            self._learner.load_state_dict(to_tensors(state))
        self._publish()
        self._idle_since = time.monotonic()

    def update(self, incarnation: str, version: int, num_rollouts: int, timeout_s: float) -> Any:
        """Learn from the next `num_rollouts`, publish, and return scalars.

        Raises:
            StaleError: from another incarnation, or when the policy is not at `version`.
        """
        self._check(incarnation)
        if version != self._learner.version:
            raise StaleError(
                f"update of version {version}, the policy is at {self._learner.version}"
            )
        try:
            reply = self._buffer.take.remote(incarnation, version, num_rollouts, timeout_s)
            arrived = ray.get(reply, timeout=timeout_s + GRACE_S)
            waited = time.monotonic() - self._idle_since
            rollouts = [Rollout.from_arrays(arrays).to(self._device) for arrays in arrived]
            metrics = self._learner.update(rollouts)
            self._publish()
        except Exception as error:
            self._tell_why(incarnation, error)
            raise
        now = time.monotonic()
        share = waited / max(now - self._idle_since, 1e-9)
        self._idle_since = now
        return {**metrics, "wait/policy": share}

    def state(self, incarnation: str) -> dict[str, Any]:
        """All that a checkpoint needs.

        Raises:
            StaleError: from another incarnation, whose checkpoint would mix two pasts.
        """
        self._check(incarnation)
        return to_arrays(self._learner.state_dict())

    def _publish(self) -> None:
        weights = ray.put(to_arrays(self._learner.weights()))
        version = self._learner.version
        reply = self._store.publish.remote(
            self._incarnation, policy_of(self._rank), version, [weights]
        )
        ray.get(reply, timeout=self._config.cluster.timeout_s)

    def _tell_why(self, incarnation: str, error: Exception) -> None:
        """The ranks wait for weights that will not come, and other members for this one."""
        self._part()
        if isinstance(error, PeerLostError) or not getattr(error, "is_own", True):
            return  # whose fault it is tells it
        cause = getattr(error, "cause", None) or error
        # Nobody waits for the word to arrive: the store may be what has died.
        self._store.close.remote(incarnation, f"policy learner: {cause}")

    def _join(self, member: Membership) -> RankGroup:
        """Meet the other members, in a process group of their own."""
        timeout_s = self._config.cluster.timeout_s
        wait = timedelta(seconds=timeout_s)
        if member.rank != 0:
            self._part()
            self._meeting = dist.TCPStore(  # type: ignore[attr-defined]
                *member.meeting, is_master=False, timeout=wait
            )
        dist.init_process_group(
            # Two processes on one GPU cannot talk by NCCL.
            "nccl" if self._config.cluster.policy_gpus >= 1 else "gloo",
            store=self._meeting,
            rank=member.rank,
            world_size=member.size,
            timeout=wait,
        )
        return RankGroup(share=member.share, timeout_s=timeout_s)

    def _part(self) -> None:
        """Leave the group: members that wait for this one then learn of it at once."""
        if isinstance(self._learner.group, RankGroup):
            self._learner.group.leave()
        if dist.is_initialized():
            dist.destroy_process_group()

    def _check(self, incarnation: str) -> None:
        if incarnation != self._incarnation:
            raise StaleError(replaced("policy learner", incarnation, self._incarnation))
