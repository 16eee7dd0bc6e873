"""A run whose processes are killed at random, and what must be true of it at the end.

`make chaos` kills for five minutes; the test suite has a short form of it.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import random
import sys
import tempfile
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

import ray
import torch
from ray.util.placement_group import placement_group_table

from tats_ray.checkpoints import format as checkpoints
from tats_ray.config.schema import EnvConfig
from tats_ray.data.synthetic import synthesize
from tats_ray.runs.pretrain_plan import make_plan
from tats_ray.runtime.driver import launch
from tats_ray.runtime.driver.causes import ROOMS
from tats_ray.runtime.driver.ray_cluster import cluster_settings
from tats_ray.view.tracking import RunFiles, read_metrics
from tests.runtime.gate import ENV_ID, Gate, kill_process, living_actors
from tests.runtime.test_recipe import recipe, small_config
from tests.runtime.test_workers import recipe as recipe_with_workers

SHARED_MEMORY = Path("/dev/shm")
LOADER = "video loader"
WORKER = "RolloutWorkerActor"
RAYS_OWN = {"TrainStateActor", "_AutoscalingCoordinatorActor"}
"""Ray Train's records: one of each for a cluster, there as long as that is."""


class Killer:
    """Kills a random process of the run every few seconds, and lets the run end afterwards.

    Where all of them died before the learners first trained, one more does, which is a restart.
    """

    def __init__(self, seed: int, seconds: float, every: float) -> None:
        self._random = random.Random(seed)
        self._seconds, self._every = seconds, every
        self._began = time.monotonic()
        self._next = every
        self.killed: list[str] = []
        self.has_started = False
        """Whether the learners have trained."""
        self._has_hit = False
        """Whether one was killed since."""
        self.gate: Gate | None = None

    @property
    def now(self) -> float:
        return time.monotonic() - self._began

    def on_tick(self) -> None:
        assert self.gate is not None
        if self.now >= self._seconds and self._has_hit:
            self.gate.on_tick()  # which opens the last batch
        elif self.now >= self._next and (self.now < self._seconds or self.has_started):
            self._next = self.now + self._every
            self._kill_one(self.gate)

    def _kill_one(self, gate: Gate) -> None:
        """One of the kinds that are there, each as likely as the others."""
        found = {kind: pids for kind, pids in gate.run_pids().items() if kind in KINDS}
        learners = found.get("RayTrainWorker", [])
        loaders = [pid for learner in learners for pid in children(learner)]
        if loaders:
            found[LOADER] = loaders
        if not found:
            return
        kind = self._random.choice(sorted(found))
        pid = self._random.choice(sorted(found[kind]))
        try:
            kill_process(pid)
        except ProcessLookupError:
            return  # it went just now
        self.killed.append(kind)
        # A rollout worker is replaced without a restart.
        self._has_hit |= self.has_started and kind != WORKER
        print(f"{self.now:5.0f} s  killed  {KINDS[kind]}", flush=True)


KINDS = {**ROOMS, "RayTrainWorker": "MAE learner", WORKER: "rollout worker", LOADER: LOADER}


def children(pid: int) -> list[int]:
    """Processes that a process started."""
    found = []
    for task in Path(f"/proc/{pid}/task").glob("*/children"):
        try:
            found += [int(word) for word in task.read_text().split()]
        except OSError:
            continue  # it went just now
    return found


def chaos(folder: Path, temporary: Path, *, seed: int, seconds: float, every: float, learners: int,
          epochs: int, pace_s: float, is_overlapped: bool, is_inside: bool,
          is_grouped: bool) -> dict[str, Any]:  # fmt: skip
    """Run, kill, and look at what is left.

    Args:
        folder: of the run.
        temporary: empty, for temporary files of the run. Those of Ray's dashboard, which leaves
            some, lie elsewhere.
        seconds: that processes are killed for.
        every: seconds from one to the next.
        pace_s: rest before each batch.
        is_overlapped: rollouts are a worker's, and one update late.
        is_inside: the policy learns inside the MAE learners.
        is_grouped: as many policy learners as MAE learners, each with a shard of the buffer.
    """
    videos = synthesize(folder.parent / "videos", num_train=18, num_val=4, num_frames=12, size=48,
                        workers=1)  # fmt: skip
    config = small_config(
        videos,
        folder,
        env={"id": ENV_ID},
        data={"num_workers": 1},
        loop={
            "epochs": epochs,
            **({"source": "workers", "max_staleness": 1} if is_overlapped else {}),
        },
        log={"every_steps": 1},
        checkpoint={"keep_last": 2},
        # Each death is a failure; killing while it restarts makes it one more at the most.
        cluster={
            "num_workers": learners,
            "cpus_per_worker": 0.5 if is_overlapped else 1,
            "policy_place": "learner" if is_inside else "actor",
            "policy_learners": learners if is_grouped else 1,
            "threads": 1,
            "timeout_s": 120,
            "max_failures": 2 * int(seconds / every) + 2,
        },
    )
    plan = make_plan(config)
    # The comparison in this process needs no loader, which would have temporary files, too.
    alone = replace(config, data=replace(config.data, num_workers=0))
    before = set(SHARED_MEMORY.iterdir())
    cluster_settings()
    # Ray's workers would yield to whatever else runs on this machine, and not get anywhere.
    os.environ.setdefault("RAY_worker_niceness", "0")
    ray.init(address="local", num_cpus=2, log_to_driver=False, logging_level="ERROR",
             object_store_memory=200 * 2**20, include_dashboard=True,
             runtime_env={"env_vars": {"TMPDIR": str(temporary)}})  # fmt: skip
    os.environ["TMPDIR"] = tempfile.tempdir = str(temporary)
    killer = Killer(seed, seconds, every)
    last = plan.total_steps - 1
    gate = Gate({last: lambda: None}, num_ranks=learners, pace_s=pace_s)
    killer.gate = gate
    heard: list[launch.Event] = []

    def on_event(event: launch.Event) -> None:
        files.on_event(event)
        heard.append(event)
        if event["kind"] == "start":
            killer.has_started = True
        if event["kind"] == "note":
            print(f"{killer.now:5.0f} s  {event['text']}", flush=True)

    with RunFiles(folder) as files:
        outcome = launch.run(
            config, folder, plan.placement, on_event=on_event, on_tick=killer.on_tick
        )
    took = killer.now
    gate.close()
    actors, groups = leaked_in_cluster()
    if (
        is_inside or is_grouped
    ) and learners > 1:  # they add up in another order than the recipe's one process
        calm = folder.parent / "calm"
        calm.mkdir()
        whole = replace(config, env=replace(config.env, id=EnvConfig().id))
        launch.run(whole, calm, plan.placement, on_event=lambda event: None)
        expected = weights_of(calm)
    else:
        expected = recipe_with_workers(alone)[:2] if is_overlapped else recipe(alone)
    ray.shutdown()
    rows = [record["step"] for record in read_metrics(folder) if "mae/loss" in record]
    measured = [record["epoch"] for record in read_metrics(folder) if "eval/error" in record]
    return {
        "took_s": round(took),
        "killed": killer.killed,
        "restarts": sum(event["kind"] == "start" for event in heard) - 1,
        "finished": outcome.is_finished,
        "steps": [outcome.step, plan.total_steps],
        "rows_missing": sorted(set(range(1, plan.total_steps + 1)) - set(rows)),
        "rows_twice": sorted({step for step in rows if rows.count(step) > 1}),
        "measured": [measured, list(range(1, epochs + 1))],
        "weights_differ": differing(folder, expected),
        "actors": actors,
        "placement_groups": groups,
        "shared_memory": left_in_shared_memory(before),
        "temporary": [str(path) for path in [*folder.rglob(".*"), *folder.glob("ray")]]
        + [
            path.name
            for path in temporary.iterdir()
            if not path.name.startswith("torchinductor_")  # a cache of torch's, made on import
        ],
    }


Weights = tuple[dict[str, torch.Tensor], dict[str, torch.Tensor]]


def weights_of(folder: Path) -> Weights:
    """Of the autoencoder and the policy of a run."""
    found = checkpoints.load(folder)
    assert found.policy is not None
    return found.mae["network"], found.policy["network"]


def differing(folder: Path, expected: Weights) -> list[str]:
    """Tensors that are not those of a run that nobody disturbed, to the bit."""
    return [
        name
        for found, tensors in zip(weights_of(folder), expected, strict=True)
        for name, tensor in tensors.items()
        if not torch.equal(found[name], tensor)
    ]


def leaked_in_cluster() -> tuple[list[str], list[str]]:
    """What is still there when Ray has had a minute to clean up."""
    deadline = time.monotonic() + 60
    while True:
        actors = [a.class_name for a in living_actors() if a.class_name not in RAYS_OWN]
        groups = [g["state"] for g in placement_group_table().values() if g["state"] != "REMOVED"]
        if not (actors or groups) or time.monotonic() > deadline:
            return actors, groups
        time.sleep(0.5)


def left_in_shared_memory(before: set[Path]) -> list[str]:
    """Segments of this user that were not there before and that no process has open any more."""
    deadline = time.monotonic() + 30
    while True:
        new = [path for path in set(SHARED_MEMORY.iterdir()) - before if is_orphan(path)]
        if not new or time.monotonic() > deadline:
            return sorted(map(str, new))
        time.sleep(0.5)


def is_orphan(segment: Path) -> bool:
    """Whether nobody has a segment open or mapped; others may run on this machine, too."""
    try:
        status = segment.stat()
    except FileNotFoundError:
        return False
    if status.st_uid != os.getuid():
        return False
    return not any(has_open(process, segment, status) for process in Path("/proc").glob("[0-9]*"))


def has_open(process: Path, segment: Path, status: os.stat_result) -> bool:
    """Whether a process, by its folder in /proc, has a file open or mapped."""
    try:
        if str(segment) in (process / "maps").read_text():
            return True
        handles = list((process / "fd").iterdir())
    except OSError:
        return False  # it ended, or is of another user
    for handle in handles:
        with contextlib.suppress(OSError):  # closed meanwhile
            if os.path.samestat(handle.stat(), status):
                return True
    return False


def faults_of(result: dict[str, Any]) -> list[str]:
    """What is not as it must be."""
    wrong = [name for name in ("rows_missing", "rows_twice", "weights_differ", "actors",
                               "placement_groups", "shared_memory", "temporary")
             if result[name]]  # fmt: skip
    wrong += [name for name in ("steps", "measured") if result[name][0] != result[name][1]]
    return wrong + ["finished"] * (not result["finished"])


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--seconds", type=float, default=300)
    parser.add_argument("--every", type=float, default=20)
    parser.add_argument("--learners", type=int, default=2)
    parser.add_argument("--epochs", type=int, default=150)
    parser.add_argument("--pace-s", type=float, default=0.25)
    parser.add_argument("--overlapped", dest="is_overlapped", action="store_true",
                        help="rollouts are a worker's, and one update late")  # fmt: skip
    parser.add_argument("--inside", dest="is_inside", action="store_true",
                        help="the policy learns inside the MAE learners")  # fmt: skip
    parser.add_argument("--grouped", dest="is_grouped", action="store_true",
                        help="as many policy learners as MAE learners")  # fmt: skip
    words = vars(parser.parse_args())
    os.environ.setdefault("RAY_AUTH_MODE", "disabled")
    torch.set_num_threads(1)
    with tempfile.TemporaryDirectory() as top:
        for name in ("run", "tmp"):
            (Path(top) / name).mkdir()
        # Ray keeps its sockets where paths are short.
        os.environ.setdefault("RAY_TMPDIR", tempfile.gettempdir())
        result = chaos(Path(top) / "run", Path(top) / "tmp", **words)
    wrong = faults_of(result)
    print("RESULT " + json.dumps(result))
    print(
        f"chaos: {len(result['killed'])} kills, {result['restarts']} restarts in "
        f"{result['took_s']} s, steps {result['steps'][0]}/{result['steps'][1]}, "
        + (f"WRONG: {', '.join(wrong)}" if wrong else "nothing lost, doubled or left behind")
    )
    sys.exit(bool(wrong))


if __name__ == "__main__":
    main()
