"""Two policy learners in processes of their own against one that takes all rollouts.

The actors themselves meet over gloo; only Ray's calls are made up.
"""

from __future__ import annotations

import json
import time
from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
import torch.distributed as dist
from torch import Tensor
from torch.multiprocessing.spawn import spawn

from tats_ray.config.load import parse_config
from tats_ray.config.schema import RunConfig
from tats_ray.core.types import Rollout
from tats_ray.models.zoo import build_learned_policy, token_grid
from tats_ray.runtime.actors import policy_learner_actor
from tats_ray.runtime.actors.policy_learner_actor import Membership, PolicyLearnerActor
from tats_ray.runtime.actors.transfer import to_arrays, to_tensors
from tats_ray.runtime.resources.buffer_shards import shards_of_slots

SLOTS, ENTRIES, UPDATES = 3, 2, 20
RESUMED, RESUMED_ALGORITHMS = (0, 9), ("ppo", "grpo")
"""Updates after which a run goes on from its checkpoint; 0: never."""
ALGORITHMS: dict[str, dict[str, Any]] = {
    "ppo": {"value_coef": 0.5, "update_steps": 3, "advantage": "standardized"},
    "a2c": {"value_coef": 0.5, "advantage": "standardized"},
    "reinforce": {"baseline": "clip_mean"},
    "grpo": {"group_size": 2, "update_steps": 2},
    "rloo": {"group_size": 3},
}


def config_of(name: str) -> RunConfig:
    return parse_config(
        {
            "data": {"num_frames": 4, "image_size": 16},
            "model": {"size": "tiny", "patch": 8},
            "sampler": {"mask_ratio": 0.5, "actor_init": "xavier", "whiten_tokens": True},
            "algorithm": {"name": name, "lr": 2e-5, "policy_coef": 1.0, **ALGORITHMS[name]},
            "optim": {"batch_size": 6},
            "cluster": {"threads": 1, "num_workers": SLOTS, "timeout_s": 60},
        }
    )


def rollout(config: RunConfig, owner: Any, version: int, entry: int, slot: int) -> Rollout:
    step, masks = ENTRIES * version + entry, config.algorithm.masks_per_clip
    generator = torch.Generator().manual_seed(100 * step + slot)
    grid = token_grid(config.data, config.model)
    tokens = torch.randn(6 // masks, grid.num_tokens, 128, generator=generator) * (1 + slot)
    tokens = tokens.repeat_interleave(masks, 0)
    drawn = owner.act(tokens, 4, generator=generator)
    return Rollout(
        tokens=tokens,
        visible_idx=drawn.visible_idx,
        log_prob=drawn.log_prob,
        value=drawn.value,
        reward=torch.rand(drawn.log_prob.shape, generator=generator) * (1 + slot),
        policy_version=version,
        step=step,
        rank=slot,
        masks_per_clip=masks,
    )


class Site:
    """A policy learner's buffer and store, and what it has published."""

    def __init__(self, config: RunConfig, slots: list[int]) -> None:
        self.config, self.slots = config, slots
        self.owner = build_learned_policy(
            config.sampler, config.model, token_grid(config.data, config.model), seed=0
        )
        self.published: dict[str, Any] = {}
        self.told: list[str] = []
        self.take = SimpleNamespace(remote=self._take)
        self.publish = SimpleNamespace(remote=self._publish)
        self.close = SimpleNamespace(remote=lambda _, error: self.told.append(error))

    def _take(self, incarnation: str, version: int, count: int, timeout_s: float) -> Any:
        """In another order than they are learned from."""
        made = [
            rollout(self.config, self.owner, version, entry, slot).to_arrays()
            for slot in reversed(self.slots)
            for entry in range(ENTRIES)
        ]
        assert len(made) == count
        return made

    def _publish(self, incarnation: str, name: str, version: int, weights: Any) -> None:
        # Rollouts are drawn by what is published, as in a run without staleness.
        self.published = to_tensors(weights[0])
        self.owner.load_state_dict(self.published)


def learn(
    name: str, slots: list[int], member: Any = None, *, stop_at: int = 0
) -> tuple[dict[str, Tensor], list[Mapping[str, float]]]:
    """`stop_at`: the update after which a new incarnation goes on from the state, as a run does."""
    config = config_of(name)
    site = Site(config, slots)
    actor = PolicyLearnerActor(asdict(config), device="cpu", threads=1)
    state, told = None, []
    for version in range(UPDATES):
        if version in (0, stop_at):
            how = {"buffer": site, "store": site}
            if member is not None:
                how["member"] = member(actor)
            actor.reset(str(version), state, **how)
        incarnation = str(stop_at if 0 < stop_at <= version else 0)
        told.append(dict(actor.update(incarnation, version, ENTRIES * len(slots), 60)))
        state = to_arrays(to_tensors(actor.state(incarnation)))
        told[-1].pop("wait/policy")
    actor._part()
    return {key: value.clone() for key, value in site.published.items()}, told


def pretend_ray(monkeypatch: Any = None) -> None:
    made_up = SimpleNamespace(
        get=lambda reply, timeout: reply,
        put=lambda value: value,
        util=SimpleNamespace(get_node_ip_address=lambda: "127.0.0.1"),
    )
    if monkeypatch is None:
        policy_learner_actor.ray = made_up
    else:
        monkeypatch.setattr(policy_learner_actor, "ray", made_up)


def of_two(rank: int, folder: str) -> None:
    torch.set_num_threads(1)
    pretend_ray()
    places = shards_of_slots([""] * SLOTS, [""] * 2)
    slots = [slot for slot, place in enumerate(places) if place == rank]
    meetings = 0

    def member(actor: PolicyLearnerActor) -> Membership:
        nonlocal meetings
        file = Path(folder) / f"meeting{meetings}.json"
        meetings += 1
        if rank == 0:
            part = file.with_suffix(".part")
            part.write_text(json.dumps(actor.open_meeting()))
            part.rename(file)
        deadline = time.monotonic() + 60
        while not file.exists():
            assert time.monotonic() < deadline
            time.sleep(0.01)
        host, port = json.loads(file.read_text())
        return Membership(rank, 2, len(slots) / SLOTS, (host, port))

    for name in ALGORITHMS:
        for stop_at in RESUMED if name in RESUMED_ALGORITHMS else (0,):
            torch.save(
                learn(name, slots, member, stop_at=stop_at), f"{folder}/{name}_{stop_at}_{rank}.pt"
            )
    assert not dist.is_initialized()


def seen_by_a_softmax(name: str, value: Tensor) -> Tensor:
    """Biases that shift all logits alike have gradients of rounding alone."""
    if name in ("sampler.actor.bias", "sampler.blocks.0.mlp.fc2.bias"):
        return value * 0
    if name.endswith("qkv.bias"):
        width = len(value) // 3
        return torch.cat([value[:width], value[2 * width :]])
    return value


@pytest.mark.long
@pytest.mark.timeout(300)
def test_two_processes_learn_what_one_with_all_rollouts_does_and_resume_bit_for_bit(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Of three slots, one policy learner has two: shares of two thirds and one third.

    Adam divides by the gradient, so rounding grows with the rate.
    """
    spawn(of_two, args=(str(tmp_path),), nprocs=2)
    pretend_ray(monkeypatch)
    for name in ALGORITHMS:
        expected, metrics = learn(name, list(range(SLOTS)))
        runs = [torch.load(file, weights_only=True) for file in tmp_path.glob(f"{name}_*.pt")]
        assert len(runs) == (2 * len(RESUMED) if name in RESUMED_ALGORITHMS else 2)
        weights, told = runs[0]
        for key, value in weights.items():
            assert all(torch.equal(other[key], value) for other, _ in runs), (name, key)
            size = expected[key].abs().max().clamp_min(1)
            far = (seen_by_a_softmax(key, value - expected[key]) / size).abs().max()
            assert far < 1e-6, (name, key)
        assert all(others == told for _, others in runs), name
        for record, expected_record in zip(told, metrics, strict=True):
            assert record == pytest.approx(expected_record, abs=1e-6, rel=1e-6), name
