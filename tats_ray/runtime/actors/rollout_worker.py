"""A rollout worker: it takes a ticket, fetches weights, makes a rollout, and repeats."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from typing import Any, Literal

import ray
import torch
from ray.exceptions import GetTimeoutError, ObjectLostError, RayActorError

from tats_ray.config.load import parse_config
from tats_ray.core.errors import PeerFailedError, StaleError
from tats_ray.data.clip_lists import read_lists
from tats_ray.runtime.actors.calls import GRACE_S, call_restarting
from tats_ray.runtime.actors.credits import Ticket
from tats_ray.runtime.actors.peers import Peers
from tats_ray.runtime.actors.transfer import to_tensors
from tats_ray.runtime.actors.weight_store import MAE, policy_of
from tats_ray.runtime.driver import home
from tats_ray.runtime.resources.buffer_shards import shard_beside
from tats_ray.training.rollouts import RolloutMaker

_PATIENCE_S = 5.0
"""Between two questions for a ticket; so long may one be held by a worker that died waiting."""
_PAUSE_S = 0.5
"""Before asking again where a peer is being started anew."""
_PEER_GONE = (
    StaleError,
    PeerFailedError,
    TimeoutError,
    GetTimeoutError,
    ObjectLostError,
    RayActorError,
)
"""The run begins a new incarnation, or has ended: the ticket is worth nothing any more."""


class RolloutWorkerActor:
    """Plays the environment with frozen copies of the MAE and the policy.

    It holds nothing that cannot be made anew: its successor asks for a ticket, and goes on.

    Args:
        index: its name towards the ticket desk.
        device: named outright: Ray does not hide GPUs from actors that reserve none.
        threads: torch threads.
        started_in: the driver's folder.
    """

    def __init__(
        self,
        config: Mapping[str, Any],
        *,
        index: int,
        device: str,
        threads: int,
        started_in: str,
    ) -> None:
        self._astray = home.go_to(started_in, config["data"])
        torch.set_num_threads(threads)
        parsed = parse_config(config)
        self._index, self._timeout_s = index, parsed.cluster.timeout_s
        entries = read_lists(parsed.data).train
        self._maker = RolloutMaker(parsed, entries, device=torch.device(device))
        self._place: int | None = None
        """The shard on this node, once it is known."""
        self._loaded: dict[str, tuple[str, int]] = {}
        """Network -> incarnation and version of its weights."""

    def run(self, peers: Peers) -> None:
        """Make rollouts until the driver ends this actor.

        Raises:
            Exception: what no other attempt would mend; the run is told, and ends with it.
        """
        log = peers.log
        if ray.get_runtime_context().was_current_actor_reconstructed:
            note = f"rollout worker {self._index} was lost and has been restarted"
            log.remark.remote(note, time.time())
        if self._astray:
            log.remark.remote(self._astray, time.time())
        while True:
            try:
                self._serve(peers)
                self._tell_unreadable(log)
            except _PEER_GONE:
                self._place = None  # a shard may come back elsewhere
                time.sleep(_PAUSE_S)
            except Exception as error:
                cause = f"rollout worker {self._index}: {error}"
                for tell in (log.set_fatal, peers.desk.fail):
                    call_restarting(tell, cause, timeout_s=self._timeout_s)
                raise

    def _serve(self, peers: Peers) -> None:
        """One rollout, where one may be begun."""
        place = self._place_beside(peers.shards)
        granted = ray.get(
            peers.desk.acquire.remote(self._index, place, _PATIENCE_S),
            timeout=_PATIENCE_S + self._timeout_s,
        )
        if granted is None:
            return
        incarnation: str = granted[0]
        ticket: Ticket = granted[1]
        policy = policy_of(place)
        self._refresh(peers.store, incarnation, "policy", policy, ticket.policy_version)
        self._refresh(peers.store, incarnation, "mae", MAE, ticket.mae_step)
        rollout = self._maker.make(
            ticket.cycle,
            ticket.index,
            step=ticket.step,
            policy_version=ticket.policy_version,
            mae_step=ticket.mae_step,
        )
        push = peers.shards[ticket.place].push.remote(
            incarnation, ticket.cycle, rollout.to_arrays(), rollout.num_bytes, self._timeout_s
        )
        ray.get(push, timeout=self._timeout_s + GRACE_S)
        ray.get(peers.desk.finish.remote(incarnation, ticket), timeout=self._timeout_s)

    def _place_beside(self, shards: Sequence[Any]) -> int:
        """The shard on this node."""
        if self._place is None:
            nodes = [""]
            if len(shards) > 1:
                asked = [shard.node.remote() for shard in shards]
                nodes = ray.get(asked, timeout=self._timeout_s)
            here = ray.get_runtime_context().get_node_id()
            self._place = shard_beside(here, self._index, nodes)
        return self._place

    def _tell_unreadable(self, log: Any) -> None:
        """Pass on the videos that have turned out bad; the log knows which are new."""
        found, self._maker.unreadable = self._maker.unreadable, {}
        if found:
            log.unreadable.remote(found, time.time())

    def _refresh(
        self,
        store: Any,
        incarnation: str,
        network: Literal["mae", "policy"],
        name: str,
        version: int,
    ) -> None:
        if self._loaded.get(network) == (incarnation, version):
            return
        reply = store.fetch.remote(incarnation, name, version, self._timeout_s)
        found, (weights,) = ray.get(reply, timeout=self._timeout_s + GRACE_S)
        if found != version:  # the store keeps every version that a ticket can name
            raise StaleError(f"{network} version {version} was followed by {found}: learned from")
        self._maker.load(network, to_tensors(ray.get(weights, timeout=self._timeout_s)))
        self._loaded[network] = (incarnation, version)
