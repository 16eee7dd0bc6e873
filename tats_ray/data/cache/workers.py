"""Processes that carry out tasks over videos, and may be lost to a file that kills or stalls them.

A worker, `python -m MODULE`, reads a task a line from standard input, as JSON, and answers with
JSON objects, one a line. The last answer to a task has `"done": true`. An empty line says that the
process is ready.
"""

from __future__ import annotations

import json
import os
import selectors
import subprocess
import sys
import time
from collections import deque
from collections.abc import Callable, Iterator
from contextlib import suppress
from typing import Any

Task = dict[str, Any]
Answer = dict[str, Any]

_STARTUP_S = 120.0
"""What a new process may take before the time of its first task counts."""
_DEATH_S = 30.0
"""For a process that has closed its end of the pipe to be gone."""


class Workers:
    """At most `jobs` processes over a queue of tasks; iterate to run them.

    Args:
        module: what each process runs.
        limit_s: the longest time between two answers; then the process is ended.
    """

    def __init__(self, module: str, jobs: int, limit_s: float) -> None:
        self.queue: deque[Task] = deque()
        """Tasks that wait; more may be added at any time."""
        self._module, self._jobs, self._limit_s = module, jobs, limit_s

    def __iter__(self) -> Iterator[tuple[Task, Answer]]:
        """Each task with each answer; `{"lost": how}` where the process died or took too long."""
        with selectors.DefaultSelector() as selector:
            try:
                while True:
                    self._fill(selector)
                    busy = [key.data for key in selector.get_map().values()]
                    if not busy:
                        return
                    soonest = min(child.deadline for child in busy) - time.monotonic()
                    ready = {key.data for key, _ in selector.select(max(soonest, 0.0))}
                    for child in busy:
                        answers = child.answers() if child in ready else child.overdue()
                        for answer in answers:
                            yield child.task, answer
                        if answers and (answers[-1].get("done") or "lost" in answers[-1]):
                            self._next(selector, child)
            finally:
                for key in list(selector.get_map().values()):
                    key.data.close()

    def _fill(self, selector: selectors.BaseSelector) -> None:
        while self.queue and len(selector.get_map()) < self._jobs:
            child = _Worker(self._module, self._limit_s)
            selector.register(child.output, selectors.EVENT_READ, child)
            child.begin(self.queue.popleft())

    def _next(self, selector: selectors.BaseSelector, child: _Worker) -> None:
        if child.process.poll() is None and self.queue:
            child.begin(self.queue.popleft())
        else:
            selector.unregister(child.output)
            child.close()


class _Worker:
    """One process, with the task that it works on."""

    def __init__(self, module: str, limit_s: float) -> None:
        self._limit_s, self._is_ready, self._said = limit_s, False, b""
        self.task: Task = {}
        self.deadline = 0.0
        # A session of its own: Ctrl-C is for the parent, which ends it.
        # No buffer of Python's: what lies in one is nothing that a selector sees.
        self.process = subprocess.Popen(
            [sys.executable, "-m", module],
            bufsize=0,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            start_new_session=True,
            env={**os.environ, "OMP_NUM_THREADS": "1"},
        )
        assert self.process.stdout is not None
        self.output = self.process.stdout

    def begin(self, task: Task) -> None:
        assert self.process.stdin is not None
        self.task = task
        self.deadline = time.monotonic() + self._limit_s + _STARTUP_S * (not self._is_ready)
        with suppress(BrokenPipeError):  # it has died, and `answers` says so
            self.process.stdin.write(json.dumps(task).encode() + b"\n")

    def answers(self) -> list[Answer]:
        said = os.read(self.output.fileno(), 1 << 16)
        if not said:
            code = self.process.wait(_DEATH_S)
            what = f"signal {-code}" if code < 0 else f"exit code {code}"
            return [{"lost": f"crashes ({what})"}]
        self.deadline = time.monotonic() + self._limit_s
        *lines, self._said = (self._said + said).split(b"\n")
        if lines and not self._is_ready:
            self._is_ready = True
            del lines[0]
        return [json.loads(line) for line in lines]

    def overdue(self) -> list[Answer]:
        if time.monotonic() < self.deadline:
            return []
        self.close()
        return [{"lost": f"takes over {self._limit_s:g} s"}]

    def close(self) -> None:
        self.process.kill()
        self.process.communicate()


def serve(carry_out: Callable[[Task], Iterator[Answer]]) -> None:
    """What a worker's process does: answer tasks until there are no more."""
    answers = os.fdopen(os.dup(sys.stdout.fileno()), "w", encoding="utf-8")
    os.dup2(sys.stderr.fileno(), sys.stdout.fileno())  # what libraries print is no answer
    print(file=answers, flush=True)
    for line in sys.stdin:
        for answer in carry_out(json.loads(line)):
            print(json.dumps(answer), file=answers, flush=True)
