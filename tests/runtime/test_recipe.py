"""The whole system, in real Ray processes, against the recipe written out in one process."""

from __future__ import annotations

from copy import deepcopy
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from tats_ray.checkpoints import format as checkpoints
from tats_ray.config.load import parse_config
from tats_ray.config.schema import RunConfig
from tats_ray.core.seeds import stream
from tats_ray.core.types import Rollout
from tats_ray.data.clip_lists import read_lists
from tats_ray.data.manifest import read_list
from tats_ray.data.synthetic import SyntheticSet
from tats_ray.models.policy import FixedPolicy, SamplerPolicy
from tats_ray.models.zoo import build_mae, build_policy, num_visible, token_grid
from tats_ray.ops.optim import adamw
from tats_ray.ops.schedules import warmup_cosine
from tats_ray.runs.pretrain_plan import make_plan
from tats_ray.runtime.driver import launch
from tats_ray.training.pretrain_build import Batches
from tests import idle_env
from tests.marks import IN_CLUSTER

pytestmark = [*IN_CLUSTER, pytest.mark.timeout(600)]


def small_config(videos: SyntheticSet, run: Path, **branches: dict[str, Any]) -> RunConfig:
    raw: dict[str, dict[str, Any]] = {
        "data": {
            "train_list": str(videos.train_list),
            "val_list": str(videos.val_list),
            "num_frames": 4,
            "image_size": 32,
            "stride": 1,
            "num_workers": 0,
        },
        "model": {"size": "tiny", "patch": 8, "depth": 1, "decoder_depth": 1},
        "sampler": {"mask_ratio": 0.75},
        "algorithm": {"name": "ppo", "lr": 1e-3, "policy_coef": 1.0, "update_steps": 2},
        "loop": {"epochs": 3, "mae_only_epochs": 1, "mae_steps_per_update": 2},
        "optim": {"batch_size": 3, "base_lr": 0.1, "warmup_epochs": 1},
        "eval": {"every_epochs": 1},
        "checkpoint": {"folder": str(run.parent), "every_epochs": 1, "keep_last": 9},
        "cluster": {"threads": 1, "timeout_s": 60},
        "log": {"every_steps": 2},
    }
    for branch, fields in branches.items():
        raw[branch] = {**raw.get(branch, {}), **fields}
    return parse_config({"name": run.name, **raw})


def recipe(config: RunConfig) -> tuple[dict[str, Tensor], dict[str, Tensor]]:
    """Method section 7.7, all ranks in one process, without any of the loop's own code.

    With staleness s the masks are drawn by the policy of s updates ago; at the end of an epoch,
    where these runs save, all catch up.
    """
    world, loop, seed = config.cluster.num_workers, config.loop, config.seed
    grid = token_grid(config.data, config.model)
    mae = build_mae(config.model, grid, seed=seed)
    policy = build_policy(config.sampler, config.model, grid, seed=seed)
    assert isinstance(policy, SamplerPolicy)
    algorithm = config.algorithm.build(policy)
    acting, under_way = deepcopy(policy), []
    ranks = [
        Batches(config, read_lists(config.data).train, rank=rank, world_size=world)
        for rank in range(world)
    ]
    count, scale = num_visible(config.sampler, grid), config.optim.batch_size * world / 256
    per_epoch = ranks[0].steps_per_epoch
    optimizer = adamw(mae, lr=1.0, betas=config.optim.betas, weight_decay=0.05)
    step, version = 0, 0
    for epoch in range(loop.epochs):
        memory: list[Rollout] = []
        for parts in zip(*(batches(epoch, 0) for batches in ranks), strict=True):
            gradients, entry = [], []
            for rank, batch in enumerate(parts):
                tokens = mae.embed(batch.pixels)
                drawer = acting if epoch >= loop.mae_only_epochs else FixedPolicy(grid)
                selection = drawer.act(tokens, count, generator=stream(seed, "draw", step, rank))
                seen = mae(batch.pixels, selection.visible_idx)
                optimizer.zero_grad()
                seen.loss.backward()
                gradients.append([p.grad.clone() for p in mae.parameters()])
                entry.append(
                    Rollout(
                        tokens=tokens,
                        visible_idx=selection.visible_idx,
                        log_prob=selection.log_prob,
                        value=selection.value,
                        reward=seen.error.detach(),
                        policy_version=version - len(under_way),
                        step=step,
                        rank=rank,
                    )
                )
            for parameter, *grads in zip(mae.parameters(), *gradients, strict=True):
                parameter.grad = sum(grad / world for grad in grads)
            for group in optimizer.param_groups:
                group["lr"] = warmup_cosine(
                    step,
                    base=config.optim.base_lr * scale,
                    minimum=config.optim.min_lr * scale,
                    warmup_steps=round(config.optim.warmup_epochs * per_epoch),
                    total_steps=per_epoch * loop.epochs,
                )
            optimizer.step()
            step += 1
            if epoch >= loop.mae_only_epochs:
                memory.append(Rollout.concatenate(entry))
            if len(memory) == loop.mae_steps_per_update or (memory and step % per_epoch == 0):
                # The policy learner has the threads of all MAE learners, which wait meanwhile, and
                # the order of sums, hence the last bit, depends on the number of threads.
                torch.set_num_threads(world)
                algorithm.update(memory, generator=stream(seed, "update", version))
                for rollout in memory:
                    policy.observe(rollout.tokens)
                torch.set_num_threads(1)
                version += 1
                memory = []
                under_way.append(deepcopy(policy.state_dict()))
            behind = loop.max_staleness if step % per_epoch else 0
            while len(under_way) > behind:
                acting.load_state_dict(under_way.pop(0))
    return mae.state_dict(), policy.state_dict()


def assert_close_to_recipe(run: Path, config: RunConfig) -> None:
    """Up to the order of sums, for runs whose learners are not one for each rank of the recipe."""
    assert_close(run, *recipe(config))


def assert_close(run: Path, mae: dict[str, Tensor], policy: dict[str, Tensor]) -> None:
    found = checkpoints.load(run)
    assert found.policy is not None
    # The policy's bound is wider: Adam divides by the gradient's size, rounding of small ones too.
    policy.pop("sampler.actor.bias")  # no softmax sees it: its gradient is rounding alone
    for part, weights, atol in ((found.mae, mae, 1e-5), (found.policy, policy, 1e-4)):
        for name, expected in weights.items():
            torch.testing.assert_close(part["network"][name], expected, atol=atol, rtol=0)


def train(config: RunConfig, run: Path) -> tuple[launch.Outcome, list[launch.Event]]:
    events: list[launch.Event] = []
    outcome = launch.run(config, run, make_plan(config).placement, on_event=events.append)
    return outcome, events


@pytest.mark.parametrize(
    ("num_workers", "staleness"),
    # One learner without overlap is left to the run of `tests/e2e/test_runs.py` that is stopped.
    [(2, 0), *(pytest.param(s, s, marks=pytest.mark.long) for s in (1, 2))],
)
def test_the_ray_run_equals_the_recipe_bit_for_bit(
    num_workers: int, staleness: int, videos: SyntheticSet, run_folder: Path
) -> None:
    cluster = {"threads": 1, "num_workers": num_workers}
    config = small_config(
        videos,
        run_folder,
        cluster=cluster,
        loop={"max_staleness": staleness},
        sampler={"whiten_tokens": num_workers == 2},
    )
    outcome, events = train(config, run_folder)
    assert outcome.is_finished
    found = checkpoints.load(run_folder)
    assert found.policy is not None
    mae, policy = recipe(config)
    for name, expected in mae.items():
        assert torch.equal(found.mae["network"][name], expected), name
    for name, expected in policy.items():
        assert torch.equal(found.policy["network"][name], expected), name

    steps = (18 // (3 * num_workers)) * 3
    assert outcome.step == steps == found.position.step
    assert [e["step"] for e in events if e["kind"] == "checkpoint"] == [
        steps // 3 * (epoch + 1) for epoch in range(3)
    ]
    scalars = [e["metrics"] for e in events if e["kind"] == "metrics"]
    told = [m["policy/staleness"] for m in scalars if "policy/staleness" in m]
    assert told
    assert max(told) <= staleness
    assert max(told) > 0 or not staleness  # so the overlap was real
    measured = [e["metrics"] for e in events if "eval/error" in e.get("metrics", {})]
    assert len(measured) == 3
    assert all(0.5 < m["eval/error"] < 2.0 for m in measured)


@pytest.mark.long
def test_a_sharded_autoencoder_follows_the_same_recipe(
    videos: SyntheticSet, run_folder: Path
) -> None:
    """With checkpoints, measures and draws by two ranks together; sums may round otherwise."""
    cluster = {"threads": 1, "num_workers": 2, "sharding": "fsdp"}
    config = small_config(videos, run_folder, cluster=cluster)
    outcome, events = train(config, run_folder)
    assert outcome.is_finished
    assert_close_to_recipe(run_folder, config)
    assert len([e for e in events if "eval/error" in e.get("metrics", {})]) == 3


@pytest.mark.long  # `tests/unit/training/test_shared_policy.py` has a short form without Ray
@pytest.mark.parametrize(("sharding", "staleness"), [("ddp", 0), ("fsdp", 0), ("ddp", 1)])
def test_policies_that_learn_inside_their_learners_follow_the_recipe_of_one_that_has_all_rollouts(
    sharding: str, staleness: int, videos: SyntheticSet, run_folder: Path
) -> None:
    cluster = {"num_workers": 2, "policy_place": "learner", "sharding": sharding, "threads": 1}
    config = small_config(
        videos,
        run_folder,
        cluster=cluster,
        loop={"max_staleness": staleness},
        sampler={"whiten_tokens": True},
    )
    outcome, events = train(config, run_folder)
    assert outcome.is_finished
    assert_close_to_recipe(run_folder, config)
    told = [e["metrics"] for e in events if "policy/staleness" in e.get("metrics", {})]
    assert max(m["policy/staleness"] for m in told) == staleness
    assert all(m["time/handover"] < 0.05 for m in told)


@pytest.mark.long
def test_gradients_in_half_precision_lead_to_nearly_the_same_weights(
    videos: SyntheticSet, run_folder: Path
) -> None:
    cluster = {"num_workers": 2, "gradient_precision": "bfloat16", "threads": 1}
    config = small_config(videos, run_folder, cluster=cluster)
    outcome, _ = train(config, run_folder)
    assert outcome.is_finished
    found, (expected, _) = checkpoints.load(run_folder).mae["network"], recipe(config)
    start = build_mae(config.model, token_grid(config.data, config.model), seed=config.seed)
    name = "encoder.blocks.0.attn.qkv.weight"
    far = (found[name] - expected[name]).norm() / (expected[name] - start.state_dict()[name]).norm()
    assert 0 < far < 0.1


@pytest.mark.long
@pytest.mark.parametrize(("num_learners", "place"), [(1, "actor"), (2, "actor"), (2, "learner")])
def test_fewer_learners_with_the_batches_of_three_follow_the_recipe_of_three(
    num_learners: int, place: str, videos: SyntheticSet, run_folder: Path
) -> None:
    """On two CPUs, where three learners find no room."""
    cluster = {"num_workers": 3, "min_workers": 1, "cpus_per_worker": 2 // num_learners}
    cluster |= {"policy_place": place}
    config = small_config(videos, run_folder, cluster={"threads": 1, **cluster})
    outcome, events = train(config, run_folder)
    assert (outcome.is_finished, outcome.step) == (True, 6)
    assert_close_to_recipe(run_folder, config)
    (start,) = [e for e in events if e["kind"] == "start"]
    assert start["num_learners"] == num_learners
    (note,) = [e["text"] for e in events if e["kind"] == "note"]
    assert note.startswith(f"{num_learners} of 3 learners share the 3 batches of each step")


def assert_same_checkpoint(run: Path, other: Path) -> None:
    """The newest ones of two runs: same position, and same weights to the bit."""
    found, expected = checkpoints.load(run), checkpoints.load(other)
    assert found.position == expected.position
    assert found.policy is not None
    assert expected.policy is not None
    for part, like in ((found.mae, expected.mae), (found.policy, expected.policy)):
        for name, weights in like["network"].items():
            assert torch.equal(part["network"][name], weights), name


@pytest.mark.long
def test_a_stopped_run_continues_to_the_same_weights(
    videos: SyntheticSet, run_folder: Path, tmp_path: Path
) -> None:
    """From the checkpoint after the first epoch; `tests/e2e` stops within an epoch."""
    straight, resumed = run_folder, tmp_path / "resumed"
    resumed.mkdir()
    whole = small_config(videos, straight)
    train(whole, straight)
    folder = next(
        p for p in sorted((straight / "checkpoints").iterdir()) if p.name == "step_00000006"
    )
    (resumed / "checkpoints").mkdir()
    folder.rename(resumed / "checkpoints" / folder.name)
    (resumed / "checkpoints" / "latest").write_text(folder.name + "\n")
    outcome, events = train(small_config(videos, resumed), resumed)
    assert outcome.is_finished
    assert events[0] == {**events[0], "kind": "start", "step": 6, "is_resumed": True}
    assert_same_checkpoint(resumed, straight)


@pytest.mark.long
def test_an_error_in_a_learner_ends_the_run_with_its_first_cause(
    videos: SyntheticSet, run_folder: Path, tmp_path: Path
) -> None:
    """A list whose every video turns out to be text: known only once the learners decode."""
    text = tmp_path / "broken.mp4"
    text.write_text("not a video\n")
    broken = tmp_path / "broken.csv"
    broken.write_text("".join(f"{text}\t0\n" for _ in range(6)))
    config = small_config(videos, run_folder, data={"train_list": str(broken)})
    with pytest.raises(launch.RunFailedError, match=r"rank 0: .*broken\.mp4"):
        train(config, run_folder)


@pytest.mark.long
def test_too_many_bad_videos_end_the_run_with_their_names(
    videos: SyntheticSet, run_folder: Path, tmp_path: Path
) -> None:
    text = tmp_path / "broken.mp4"
    text.write_text("not a video\n")
    mixed = tmp_path / "mixed.csv"
    good = [f"{entry.path}\t0\n" for entry in read_list(videos.train_list)]
    mixed.write_text("".join(line + f"{text}\t0\n" for line in good))
    config = small_config(videos, run_folder, data={"train_list": str(mixed)})
    said = r"of \d+ clips until step .*: \S+broken\.mp4 \(.*bad_videos\.csv names all of them"
    with pytest.raises(launch.RunFailedError, match=said):
        train(config, run_folder)


@pytest.mark.long
def test_an_environment_that_trains_nothing_ends_the_run_at_its_first_step_by_name(
    videos: SyntheticSet, run_folder: Path
) -> None:
    config = small_config(videos, run_folder, env={"id": idle_env.ID})
    with pytest.raises(
        launch.RunFailedError, match=r"^rank 0: env\.id Tests/Idle-v0: its step trained nothing"
    ):
        train(config, run_folder)
    assert not list(run_folder.glob("checkpoints/step_*"))


@pytest.mark.long
@pytest.mark.parametrize("sampler", ["tube", "oracle"])
def test_a_sampler_that_does_not_learn_trains_without_a_policy_learner(
    sampler: str, videos: SyntheticSet, run_folder: Path
) -> None:
    config = small_config(
        videos, run_folder, sampler={"name": sampler}, loop={"epochs": 1, "mae_only_epochs": 0}
    )
    outcome, events = train(config, run_folder)
    assert outcome.is_finished
    assert checkpoints.load(run_folder).policy is None
    assert not any(name.startswith("policy/") for e in events for name in e.get("metrics", {}))
    measured = next(e["metrics"] for e in events if "eval/error" in e.get("metrics", {}))
    if sampler == "oracle":
        assert measured["eval/motion_ratio"] > 2
        assert measured["eval/motion_auc"] > 0.95


@pytest.mark.long
def test_a_loss_that_is_not_finite_ends_the_run_saved_and_with_its_clips_named(
    videos: SyntheticSet, run_folder: Path
) -> None:
    config = small_config(videos, run_folder, optim={"base_lr": 1e30, "warmup_epochs": 0})
    with pytest.raises(
        launch.RunFailedError, match=r"loss is (nan|inf) .*clips of rank 0 .*/train/"
    ):
        train(config, run_folder)
    saved = checkpoints.load(run_folder)
    assert saved.position.epoch == 0
    assert saved.position.step == saved.mae["numbers"]["step"] >= 1
