"""Clips that actors decode, in real Ray processes, against those of the local reader."""

from __future__ import annotations

import os
import signal
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import ray
import torch
from ray.util.state import list_actors

from tats_ray.checkpoints import format as checkpoints
from tats_ray.config.schema import RunConfig
from tats_ray.core.errors import UsageError
from tats_ray.data.clip_lists import read_lists
from tats_ray.data.dataset import ClipBatch
from tats_ray.data.synthetic import SyntheticSet
from tats_ray.runs.pretrain_plan import make_plan
from tats_ray.runtime.actors.peers import Peers
from tats_ray.runtime.driver import launch
from tats_ray.runtime.driver.side_actors import start_peers
from tats_ray.runtime.workers.ray_reader import AHEAD, RayReader
from tats_ray.training.pretrain_build import Batches
from tests.marks import IN_CLUSTER
from tests.runtime.test_recipe import small_config

pytestmark = [*IN_CLUSTER, pytest.mark.timeout(300)]


@pytest.fixture(scope="module")
def config(videos: SyntheticSet, tmp_path_factory: pytest.TempPathFactory) -> RunConfig:
    """Eighteen videos, of which one cannot be read, and two decode actors."""
    path = tmp_path_factory.mktemp("lists") / "train.csv"
    path.with_name("empty.mp4").touch()
    lines = videos.train_list.read_text().splitlines()
    found = [f"{videos.train_list.parent}/{line}" for line in lines[1:]]
    path.write_text("\n".join(["empty.mp4\t0", *found]) + "\n")
    return small_config(
        videos,
        path.with_name("run"),
        data={"train_list": str(path), "reader": "ray", "num_workers": 2},
        sampler={"name": "random", "mask_ratio": 0.75},
        cluster={"cpus_per_worker": 0, "timeout_s": 60, "threads": 1},
    )


def started(config: RunConfig) -> Peers:
    """The side actors of a run, without CPUs of their own: other tests want those."""
    placement = make_plan(config).placement
    decode = replace(placement.request.decode, cpu=0.0)
    request = replace(placement.request, decode=decode)
    return start_peers(config, replace(placement, request=request))


def end(peers: Peers) -> None:
    for actor in (*peers.decoders, peers.log):
        ray.kill(actor)


@pytest.fixture(scope="module")
def peers(cluster: None, config: RunConfig) -> Iterator[Peers]:
    found = started(config)
    yield found
    end(found)


def by_actors(config: RunConfig, peers: Peers, *, timeout_s: float = 60.0) -> Batches:
    entries = read_lists(config.data).train
    return Batches(
        config,
        entries,
        source=lambda sampler: RayReader(
            sampler,
            peers.decoders,
            timeout_s=timeout_s,
            pins=False,
            name=lambda index: entries[index].path,
        ),
    )


def local(config: RunConfig) -> Batches:
    data = replace(config.data, reader="local", num_workers=0)
    return Batches(replace(config, data=data), read_lists(data).train)


def assert_same(found: list[ClipBatch], expected: list[ClipBatch]) -> None:
    assert len(found) == len(expected) > 0
    for one, other in zip(found, expected, strict=True):
        assert torch.equal(one.pixels, other.pixels)
        assert one.index.tolist() == other.index.tolist()
        assert one.label.tolist() == other.label.tolist()
        assert (one.num_replaced, one.unreadable) == (other.num_replaced, other.unreadable)


def process_of(actor: Any) -> int:
    return int(ray.get(actor.__ray_call__.remote(lambda self: os.getpid()), timeout=60))


def test_clips_are_those_of_the_local_reader_in_any_epoch_from_any_step(
    config: RunConfig, peers: Peers
) -> None:
    batches, expected = by_actors(config, peers), local(config)
    for epoch, step in ((3, 2), (1, 4), (0, 0)):
        whole = list(batches(epoch, step))
        assert_same(whole, list(expected(epoch, step)))
    assert sum(batch.num_replaced for batch in whole) == 1
    assert [Path(path).name for batch in whole for path in batch.unreadable] == ["empty.mp4"]
    whole[0].pixels.add_(1)  # in memory of its own, which a learner may write to


def test_several_clips_of_an_opened_video_are_those_of_the_local_reader(
    config: RunConfig, peers: Peers
) -> None:
    asked = replace(config, data=replace(config.data, clips_per_open=3))
    assert_same(list(by_actors(asked, peers)(0, 0)), list(local(asked)(0, 0)))


def test_fast_actors_wait_for_a_slow_learner(
    config: RunConfig, peers: Peers, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: list[int] = []
    ask = RayReader._ask

    def counting(self: RayReader, keys: list[tuple[int, int]]) -> Any:
        found = ask(self, keys)
        asked.append(found.actor)
        return found

    monkeypatch.setattr(RayReader, "_ask", counting)
    small = replace(config, optim=replace(config.optim, batch_size=1))
    batches = by_actors(small, peers)(0, 0)
    for taken in range(8):
        next(batches)
        assert len(asked) == taken + AHEAD * 2
    assert set(asked) == {0, 1}
    assert len([None for _ in batches]) == 10
    assert len(asked) == 18


def test_batch_that_does_not_come_ends_in_one_line(config: RunConfig, peers: Peers) -> None:
    processes = [process_of(actor) for actor in peers.decoders]
    for process in processes:
        os.kill(process, signal.SIGSTOP)
    try:
        with pytest.raises(TimeoutError, match=r"no decode actor .* of .*\.mp4.* within 0\.5 s"):
            next(by_actors(config, peers, timeout_s=0.5)(0, 0))
    finally:
        for process in processes:
            os.kill(process, signal.SIGCONT)


def test_error_of_an_actor_ends_the_epoch_in_the_words_of_the_local_reader(
    config: RunConfig,
) -> None:
    path = Path(config.data.train_list).with_name("changed.csv")
    path.write_text(Path(config.data.train_list).read_text())
    alone = replace(config, data=replace(config.data, train_list=str(path), num_workers=1))
    batches = by_actors(alone, peers := started(alone))
    path.write_text("gone.mp4\t0\n")
    try:
        with pytest.raises(UsageError, match=r"changed\.csv, line 1: no such file .*gone\.mp4"):
            next(batches(0, 0))
    finally:
        end(peers)


def test_dead_decode_actor_costs_no_clip_and_changes_none(config: RunConfig, peers: Peers) -> None:
    """Its batches under way, those that come back for it, and those of the next epoch."""
    found = []
    batches = by_actors(config, peers)
    for number, batch in enumerate(batches(0, 0)):
        found.append(batch)
        if number == 1:
            os.kill(process_of(peers.decoders[0]), signal.SIGKILL)
    assert_same(found, list(local(config)(0, 0)))
    assert_same(list(batches(1, 0)), list(local(config)(1, 0)))


def kill_decoder(spared: Peers) -> None:
    actors = list_actors(address=ray.get_runtime_context().gcs_address, limit=10_000)
    alive = [a for a in actors if a.class_name == "ClipDecoderActor" and a.state == "ALIVE"]
    (one,) = [a for a in alive if a.actor_id not in spared.rooms()]
    os.kill(one.pid, signal.SIGKILL)


@pytest.mark.long  # two whole runs
def test_run_is_the_same_with_either_reader_and_when_its_only_decode_actor_dies(
    config: RunConfig, peers: Peers, tmp_path: Path
) -> None:
    asked = replace(config, cluster=replace(config.cluster, cpus_per_worker=0.5))
    notes: list[str] = []
    killed: list[int] = []

    def watch(event: launch.Event) -> None:
        if event["kind"] == "note":
            notes.append(event["text"])
        if event["kind"] == "metrics" and not killed:
            killed.append(event["step"])
            kill_decoder(peers)

    weights = []
    for reader, num_workers in (("ray", 1), ("local", 0)):
        folder = tmp_path / reader
        folder.mkdir()
        data = replace(asked.data, reader=reader, num_workers=num_workers, max_bad_share=0.5)
        plan = make_plan(replace(asked, name=reader, data=data))
        assert ("decode actor" in dict(plan.lines())["actors"]) == (reader == "ray")
        outcome = launch.run(plan.config, folder, plan.placement, on_event=watch)
        assert outcome.is_finished
        weights.append(checkpoints.load(folder).mae["network"])
    assert "a decode actor was lost and has been restarted; others decoded its clips" in notes
    for name, tensor in weights[0].items():
        assert torch.equal(tensor, weights[1][name]), name
