"""`data.reader: ray`: the clips of a learner, decoded by actors anywhere in the cluster.

A clip is a function of (seed, epoch, index), whoever decodes it. So what a dead actor has not
delivered is asked of another one, and the clips and their order are those of the local reader.
"""

from __future__ import annotations

import time
from collections import Counter, deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from itertools import islice
from typing import Any, NamedTuple

import ray
from ray.exceptions import (
    GetTimeoutError,
    ObjectLostError,
    OutOfMemoryError,
    RayActorError,
    RayTaskError,
)

from tats_ray.core.errors import TatsError
from tats_ray.data.dataset import ClipBatch, Key
from tats_ray.data.sampler import ClipSampler
from tats_ray.runtime.actors.clip_decoder import to_batch

AHEAD = 2
"""Batches for each actor that are under way or wait for the learner, as in a local loader."""
_REST_S = 5.0
"""For which a lost actor is asked only if all are lost: it is being started anew."""
_PAUSE_S = 0.5
"""Between two questions then."""
_LOST = (RayActorError, ObjectLostError, OutOfMemoryError)
"""The actor has died, or its node with what it had delivered."""


class _Asked(NamedTuple):
    keys: list[Key]
    actor: int
    answer: Any


class RayReader(Iterable[ClipBatch]):
    """A learner's batches, in the order of its sampler.

    A batch is asked for only when another one is taken. So fast actors wait for the learner, and
    object stores hold `AHEAD` batches for each actor at most. Of several actors, the one with the
    least to do is asked.

    Args:
        sampler: the order of the clips.
        decoders: handles of the actors.
        timeout_s: for a batch to come, once the learner waits for it.
        pins: whether batches go to page-locked memory.
        name: path of a video by its place in the list, for messages.

    Raises:
        TatsError: from iteration, what ended the decoding of a batch, as in the local reader.
        TimeoutError: for a batch that does not come, whatever happens to the actors.
    """

    def __init__(
        self,
        sampler: ClipSampler,
        decoders: Sequence[Any],
        *,
        timeout_s: float,
        pins: bool,
        name: Callable[[int], str],
    ) -> None:
        self._sampler, self._decoders = sampler, decoders
        self._timeout_s, self._pins, self._name = timeout_s, pins, name
        self._asked: deque[_Asked] = deque()
        self._rests_until = [0.0] * len(decoders)

    def __iter__(self) -> Iterator[ClipBatch]:
        left = iter(self._sampler)
        self._asked.clear()
        while True:
            room = AHEAD * len(self._decoders) - len(self._asked)
            for keys in islice(left, room):
                self._asked.append(self._ask(keys))
            if not self._asked:
                return
            batch = self._taken(self._asked.popleft())
            yield batch.pin_memory() if self._pins else batch

    def _ask(self, keys: list[Key]) -> _Asked:
        busy: Counter[int] = Counter()
        if self._asked:
            answers = {asked.answer: asked.actor for asked in self._asked}
            # This also has those that are ready brought here.
            _, late = ray.wait([*answers], num_returns=len(answers), timeout=0)
            busy.update(answers[answer] for answer in late)
        rests_s = [max(until - time.monotonic(), 0.0) for until in self._rests_until]
        actor = min(range(len(rests_s)), key=lambda each: (rests_s[each], busy[each]))
        return _Asked(keys, actor, self._decoders[actor].decode.remote(keys))

    def _taken(self, asked: _Asked) -> ClipBatch:
        deadline = time.monotonic() + self._timeout_s
        while (left_s := deadline - time.monotonic()) > 0:
            try:
                return to_batch(ray.get(asked.answer, timeout=left_s))
            except _LOST:
                self._rests_until[asked.actor] = time.monotonic() + _REST_S
                if min(self._rests_until) > time.monotonic():
                    time.sleep(_PAUSE_S)
                asked = self._ask(asked.keys)
            except GetTimeoutError:
                break
            except RayTaskError as error:
                if isinstance(error.cause, TatsError):
                    raise error.cause from error
                raise
        videos = [self._name(index) for _, index in asked.keys]
        more = f" and {len(videos) - 4} more" * (len(videos) > 4)
        raise TimeoutError(
            f"no decode actor delivered the clips of {', '.join(videos[:4])}{more} within "
            f"{self._timeout_s:g} s (cluster.timeout_s); "
            "`tats data check` finds videos that stall or crash a decoder"
        )
