"""What every rank does, whatever it trains: agree, report to the driver, save, fail cleanly."""

from __future__ import annotations

import time
import uuid
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, Protocol, TypeVar, runtime_checkable

import ray
import ray.train
import torch
import torch.distributed as dist
from ray.train.collective import broadcast_from_rank_zero
from torch import nn
from torch.distributed.algorithms.ddp_comm_hooks.default_hooks import bf16_compress_hook
from torch.nn.parallel import DistributedDataParallel

from tats_ray.checkpoints import format as checkpoints
from tats_ray.config.cluster_schema import ClusterConfig
from tats_ray.config.finetune_schema import Clustered, storage_retry_s
from tats_ray.core.errors import NonFiniteError, PeerFailedError, StaleError, TatsError, UsageError
from tats_ray.core.storage import persist
from tats_ray.core.types import Position
from tats_ray.core.words import counted, first_few
from tats_ray.data.clip_lists import Lists
from tats_ray.data.clip_loader import ClipLoader
from tats_ray.runtime.actors.calls import GRACE_S, call_restarting
from tats_ray.runtime.actors.peers import Peers
from tats_ray.runtime.driver import home
from tats_ray.runtime.driver.scratch import temporary_files_of
from tats_ray.runtime.resources.placement import threads_of
from tats_ray.training.finetune_loop import LabelledBatch
from tats_ray.training.pretrain_loop import Batch, Halt
from tats_ray.training.stopwatch import Stopwatch
from tats_ray.view.records import BAD_VIDEOS_FILE

T = TypeVar("T")


def run_worker(
    job: dict[str, Any], cluster: ClusterConfig, body: Callable[[Peers], dict[str, Any]]
) -> dict[str, Any]:
    """Run a rank's `body`; errors that a restart would only repeat end the run.

    Args:
        job: `id` of the run, `home` (the driver's folder), `config`, `threads` (0: the node's
            own), and `peers` (a reference to them).
        body: returns `status`, `message` and `step`.

    Returns:
        `status`: finished, stopped or failed; `message`; `step`.
    """
    astray = home.go_to(job["home"], job["config"]["data"])
    timeout_s = cluster.timeout_s
    peers: Peers = ray.get(job["peers"], timeout=timeout_s)
    log = peers.log
    if astray:
        log.remark.remote(astray, time.time())
    context = ray.train.get_context()
    rank = context.get_world_rank()
    fatal = call_restarting(log.fatal, timeout_s=timeout_s)
    if fatal is not None:
        return {"status": "failed", "message": fatal, "step": 0}
    torch.set_num_threads(threads_of(job["threads"], context.get_local_world_size()))
    try:
        with temporary_files_of(job["id"], rank):
            return body(peers)
    except (StaleError, PeerFailedError):
        raise  # another process died or failed: a restart heals it, or its own message counts
    except TatsError as error:
        remote = error.cause if isinstance(error, ray.exceptions.RayTaskError) else None
        if isinstance(error, NonFiniteError) and remote is None:
            # All ranks are here: whether a loss is finite is agreed.
            return {"status": "failed", "message": str(error), "step": 0}
        # Only this rank is here. The restart finds the message and ends the run.
        message = str(error) if remote is None else f"policy learner: {remote}"
        call_restarting(log.set_fatal, f"rank {rank}: {message}", timeout_s=timeout_s)
        raise


@runtime_checkable
class Loop(Protocol):
    """A training loop that can continue from a position."""

    at: Position

    def run(self) -> None:
        """To the last epoch, unless a hook raises `Halt`."""


class Rank:
    """One rank's place among the others, and its line to the driver.

    Args:
        run: folder of the run.
    """

    lists: Lists
    batches: ClipLoader

    def __init__(self, config: Clustered, run: Path, peers: Peers) -> None:
        context = ray.train.get_context()
        self.run_folder = run
        self.peers = peers
        self.rank = context.get_world_rank()
        self.world_size = context.get_world_size()
        self.num_slots = config.cluster.num_workers
        """Batches of a step over all ranks: one for each, unless an elastic run has lost some."""
        on_gpu = config.cluster.use_gpu
        self.device = ray.train.torch.get_device() if on_gpu else torch.device("cpu")
        self.timeout_s = config.cluster.timeout_s
        self._retry_s = storage_retry_s(config)
        self._gradient_precision = config.cluster.gradient_precision
        self._incarnation = ""
        self._num_told = 0
        self._told: list[Any] = []
        """Events whose arrival at the log is not certain yet."""

    def wrapped(self, network: nn.Module) -> nn.Module:
        """`network`; where there are several ranks, with gradients averaged over them."""
        if self.world_size == 1:
            return network
        shared = DistributedDataParallel(
            network,
            device_ids=[self.device] if self.device.type == "cuda" else None,
            broadcast_buffers=False,  # position codes, the same everywhere
        )
        if self._gradient_precision == "bfloat16":
            shared.register_comm_hook(None, bf16_compress_hook)
        return shared

    def all_true(self, value: bool) -> bool:
        """Whether `value` holds on every rank."""
        return self.sum(0.0 if value else 1.0) == 0.0

    def sum(self, value: float) -> float:
        """Sum of `value` over the ranks."""
        if self.world_size == 1:
            return value
        total = torch.tensor([value], dtype=torch.float64, device=self.device)
        dist.all_reduce(total)
        return float(total)

    def newest(self, read: Callable[[Path], T]) -> tuple[T | None, list[str]]:
        """The newest good checkpoint, the same on all ranks, and lines about damaged ones."""
        folder, found = None, None
        passed_over: list[str] = []
        if self.rank == 0 and any((self.run_folder / "checkpoints").glob("step_*")):
            path, found, passed_over = checkpoints.load_newest(self.run_folder, read)
            folder = str(path)
        folder = broadcast_from_rank_zero(folder)
        if folder is not None and found is None:
            found = read(Path(folder))
        return found, passed_over

    def begin(self) -> str:
        """Begin an incarnation of the run at the log; returns its id, the same on all ranks."""
        self._incarnation = broadcast_from_rank_zero(uuid.uuid4().hex)
        if self.rank == 0:
            call_restarting(self.peers.log.reset, self._incarnation, timeout_s=self.timeout_s)
        return self._incarnation

    def tell_start(self, step: int, *, is_resumed: bool, passed_over: Sequence[str]) -> None:
        """Tell where the run goes on, and which damaged checkpoints it does not go on from."""
        for line in passed_over:
            self.tell("note", text=f"{line}; using the one before")
        self.tell("start", step=step, is_resumed=is_resumed, num_learners=self.world_size)
        if self.world_size < self.num_slots:
            self.tell(
                "note",
                text=f"{self.world_size} of {counted(self.num_slots, 'learner')} share the "
                f"{self.num_slots} batches of each step: slower, with the same results",
            )

    def tell(self, kind: str, **event: Any) -> None:
        """Send the driver an event, from rank 0 only; `flush` waits for those that were sent."""
        if self.rank == 0:
            whole = {"kind": kind, "time": time.time(), **event}
            self._told.append(self.peers.log.add.remote(self._incarnation, self._num_told, whole))
            self._num_told += 1

    def tell_metrics(self, at: Position, metrics: Mapping[str, float]) -> None:
        self.tell("metrics", step=at.step, epoch=at.epoch, metrics=dict(metrics))

    def reached(self, step: int) -> None:
        """Tell that a step is done, so that a restart can say how many were lost."""
        if self.rank == 0:
            self._told.append(self.peers.log.reached.remote(self._incarnation, step))

    def tell_unreadable(self, videos: Mapping[str, str]) -> None:
        """Name videos that cannot be read; every rank tells of its own."""
        if videos:
            log = self.peers.log
            call_restarting(log.unreadable, dict(videos), time.time(), timeout_s=self.timeout_s)

    def flush(self) -> None:
        """Wait until the log has all that was told.

        Raises:
            StaleError: when the log was started anew meanwhile, and may have lost something.
        """
        told, self._told = self._told, []
        ray.get(told, timeout=self.timeout_s)

    def asks_to_stop(self) -> bool:
        """Whether the driver wishes the run to stop; all ranks ask together."""
        self.flush()
        log = self.peers.log
        wish = self.rank == 0 and ray.get(log.should_stop.remote(), timeout=self.timeout_s)
        return not self.all_true(not wish)

    def persist(self, write: Callable[[], Path], *, step: int) -> Path:
        """`write` a checkpoint, on rank 0, once the driver has all that was told before."""
        self.flush()
        settled = self.peers.log.settle.remote(self._incarnation, self.timeout_s)
        ray.get(settled, timeout=self.timeout_s + GRACE_S)
        folder = persist(
            write,
            what=f"the checkpoint of step {step}",
            retry_s=self._retry_s,
            on_note=lambda text: self.tell("note", text=text),
        )
        self.tell("checkpoint", step=step, path=str(folder))
        return folder

    def carry_out(self, loop: Loop, *, save: Callable[[], object]) -> dict[str, Any]:
        """Run `loop`, and say how it ended.

        Args:
            save: called where the loss is not finite, before the error goes on.
        """
        try:
            loop.run()
            self.flush()
        except Halt as halt:
            self.flush()
            return {"status": "stopped", "message": str(halt), "step": loop.at.step}
        except NonFiniteError as error:
            if isinstance(error, ray.exceptions.RayTaskError):
                raise TatsError(self.blamed(error.cause)) from error  # the policy learner's
            save()
            own = f"{error}; {self._clips_of(loop.at)}" if error.is_own else None
            raise NonFiniteError(self._first_told(own) or str(error)) from error
        return {"status": "finished", "message": "", "step": loop.at.step}

    def blamed(self, error: NonFiniteError) -> str:
        """A policy learner's error, with the clips that it can come from."""
        return f"policy learner: {error}"

    def _first_told(self, own: str | None) -> str | None:
        """What the first rank that has something to tell tells; all ranks ask together."""
        return next((words for words in self.gathered(own) if words is not None), None)

    def gathered(self, own: T) -> list[T]:
        """What every rank has; all of them ask together."""
        told: list[Any] = [own]
        if self.world_size > 1:
            told = [None] * self.world_size
            dist.all_gather_object(told, own)
        return told

    def _clips_of(self, at: Position) -> str:
        """This rank's clips of the present step in words."""
        keys = self.batches.keys(at.epoch, at.batch)
        paths = [self.lists.train[index].path for _, index in keys]
        more = f" and {len(paths) - 4} more" if len(paths) > 4 else ""
        return f"the clips of rank {self.rank} were from {', '.join(paths[:4])}{more}"


class ClipCount:
    """Clips shown, and those of them that could not be read and were replaced.

    Args:
        max_bad_share: the run ends beyond it, but never for a single clip.
    """

    def __init__(self, rank: Rank, max_bad_share: float) -> None:
        self._rank = rank
        self._limit = max_bad_share
        self.shown = self.replaced = 0
        """Of this rank, since the last record."""
        self._all_shown = self._all_replaced = 0.0
        self._unreadable: dict[str, str] = {}
        """Of this rank, since the last record."""

    def add(self, batch: Batch | LabelledBatch) -> None:
        self.shown += len(batch.pixels)
        self.replaced += batch.num_replaced
        self._unreadable.update(batch.unreadable)

    def read(self, stopwatch: Stopwatch) -> dict[str, float]:
        """Clips over all ranks since the last record, and where this rank's time went."""
        seconds, shares = stopwatch.read()
        self._rank.tell_unreadable(self._unreadable)  # before the sums, at which all ranks meet
        self._unreadable = {}
        shown, replaced = self._rank.sum(self.shown), self._rank.sum(self.replaced)
        self.shown = self.replaced = 0
        self._all_shown += shown
        self._all_replaced += replaced
        times = {f"time/{room}": share for room, share in shares.items()}
        return {**times, "data/clips_per_s": shown / seconds, "data/replaced": replaced}

    def check(self, step: int) -> None:
        """End the run when too many videos cannot be read; a single one never does.

        Raises:
            UsageError: with counts and the way out.
        """
        if self._all_replaced > max(1.0, self._limit * self._all_shown):
            log = self._rank.peers.log
            known = call_restarting(log.all_unreadable, timeout_s=self._rank.timeout_s)
            raise UsageError(
                f"{self._all_replaced:.0f} of {counted(self._all_shown, 'clip')} until step {step} "
                f"could not be read, more than data.max_bad_share {self._limit:g}: "
                f"{first_few(known)}; repair the list or raise the share; "
                f"{self._rank.run_folder / BAD_VIDEOS_FILE} names all of them"
            )
