"""Gives back what Ray Train reserved for learners and forgets when its controller is killed.

The controller removes the learners' placement group, and a detached actor, the cleaner, does so for
a controller that is killed. But Ray 2.60 tells the cleaner of the group only once the learners are
up, and to watch only once it is up itself: a controller that is killed before that leaves the
group, or both, for as long as the job lasts, and a new one may wait in vain for what they hold.

Ray's tables say who made what, but only below its public interface.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import grpc
import ray
from ray._private.grpc_utils import init_grpc_channel
from ray._private.ray_constants import GLOBAL_GRPC_OPTIONS
from ray.core.generated import gcs_pb2, gcs_service_pb2, gcs_service_pb2_grpc
from ray.util.placement_group import PlacementGroup, remove_placement_group

__all__ = ["controllers", "in_words", "reap", "started_by", "this_task"]

_CONTROLLER, _CLEANER = "TrainController", "PlacementGroupCleaner"
_TIMEOUT_S = 30.0


def reap(ended: Collection[bytes] = ()) -> None:
    """Remove the placement groups of this job's dead controllers, and end their cleaners.

    Nobody has a use for these: a controller that is dead does not come back, and its learners go
    with it. What a living controller, the user or another job made is left alone. Where the head
    is gone, so is all that was held.

    Args:
        ended: ids of actors; the controllers among them end first.
    """
    with _unless_head_is_gone(), _tables() as tables:
        for controller in tables.actors(_CONTROLLER):
            if controller.actor_id in ended:
                tables.end(controller)
        # After their death, so that they make nothing more.
        dead = {a.actor_id: a for a in tables.actors(_CONTROLLER) if _is_dead(a)}
        for group in tables.groups():
            if group.creator_actor_id in dead:
                remove_placement_group(
                    PlacementGroup(ray.PlacementGroupID(group.placement_group_id))
                )
        processes = {controller.address.worker_id for controller in dead.values()}
        for cleaner in tables.actors(_CLEANER):
            if cleaner.owner_address.worker_id in processes:
                tables.end(cleaner)


def controllers() -> set[bytes]:
    """Ids of this job's that are not dead."""
    with _tables() as tables:
        return {a.actor_id for a in tables.actors(_CONTROLLER) if not _is_dead(a)}


def in_words(rooms: Mapping[str, str]) -> str:
    """How far this job's processes have come: "learner alive (2), policy learner pending creation".

    Args:
        rooms: class name of an actor -> what people call it.
    """
    with _tables() as tables:
        found = Counter(
            f"{room} {gcs_pb2.ActorTableData.ActorState.Name(actor.state).lower()}"
            for name, room in rooms.items()
            for actor in tables.actors(name)
            if not _is_dead(actor)
        )
    counts = [f"{words} ({count})" if count > 1 else words for words, count in found.items()]
    return ", ".join(counts).replace("_", " ") or "none of its processes lives"


def this_task() -> Any:
    """What Ray takes for the caller of all that this thread starts."""
    return ray._private.worker.global_worker.core_worker.get_current_task_id()


def started_by(task: Any) -> set[bytes]:
    """Ids of the actors that a thread waits for, by its `this_task`."""
    core = ray._private.worker.global_worker.core_worker
    return {child.actor_id().binary() for child in core.get_pending_children_task_ids(task)}


class _Tables:
    """Ray's tables, filtered to this job."""

    def __init__(self, channel: Any) -> None:
        self._actors = gcs_service_pb2_grpc.ActorInfoGcsServiceStub(channel)
        self._groups = gcs_service_pb2_grpc.PlacementGroupInfoGcsServiceStub(channel)
        self._job = bytes.fromhex(ray.get_runtime_context().get_job_id())

    def actors(self, class_name: str) -> list[Any]:
        asked = gcs_service_pb2.GetAllActorInfoRequest()
        asked.filters.job_id = self._job
        found = self._actors.GetAllActorInfo(asked, timeout=_TIMEOUT_S).actor_table_data
        return [actor for actor in found if actor.class_name == class_name]

    def groups(self) -> list[Any]:
        """Those that are not removed."""
        asked = gcs_service_pb2.GetAllPlacementGroupRequest()
        found = self._groups.GetAllPlacementGroup(asked, timeout=_TIMEOUT_S)
        removed = gcs_pb2.PlacementGroupTableData.REMOVED
        return [
            group
            for group in found.placement_group_table_data
            if group.creator_job_id == self._job and group.state != removed
        ]

    def end(self, actor: Any) -> None:
        """Nobody has a handle of it, which `ray.kill` would want."""
        if not _is_dead(actor):
            asked = gcs_service_pb2.KillActorViaGcsRequest(
                actor_id=actor.actor_id, force_kill=True, no_restart=True
            )
            self._actors.KillActorViaGcs(asked, timeout=_TIMEOUT_S)


@contextmanager
def _tables() -> Iterator[_Tables]:
    address = ray.get_runtime_context().gcs_address
    # As Ray's own clients: the actors of a long job are more than gRPC would take by itself.
    options = (*GLOBAL_GRPC_OPTIONS, ("grpc.max_receive_message_length", -1))
    channel = init_grpc_channel(address, options=options)
    try:
        yield _Tables(channel)
    finally:
        channel.close()


@contextmanager
def _unless_head_is_gone() -> Iterator[None]:
    """Leaves the error that a run ends with to those who know the cause."""
    try:
        yield
    except grpc.RpcError as error:
        if error.code() is not grpc.StatusCode.UNAVAILABLE:
            raise


def _is_dead(actor: Any) -> bool:
    return bool(actor.state == gcs_pb2.ActorTableData.DEAD)
