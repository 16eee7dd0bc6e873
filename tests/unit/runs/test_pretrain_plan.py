"""What is printed and checked before a run, for algorithms and samplers that change its sizes."""

from __future__ import annotations

import re
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from tats_ray.algorithms.ppo import PPOConfig
from tats_ray.config.differences import deciding
from tats_ray.config.load import load_config, parse_config
from tats_ray.core import devices
from tats_ray.core.errors import UsageError
from tats_ray.data.cache.shards import CacheSettings, StoredVideo, open_folder, table_text
from tats_ray.models.samplers.learned import LearnedSampler
from tats_ray.models.zoo import token_grid
from tats_ray.runs import pretrain_plan
from tats_ray.runs.pretrain_plan import Plan, make_plan
from tats_ray.runtime.resources import placement
from tats_ray.runtime.resources.preflight import check_resources
from tats_ray.runtime.resources.rollout_bytes import buffer_bytes

ROOT = Path(__file__).parents[3]


def plan(tmp_path: Path, **branches: dict[str, Any]) -> Plan:
    """Of 20 videos, 8 x 14 x 14 tokens, batches of 8."""
    if not (tmp_path / "v.mp4").exists():  # its time stamp must stay
        (tmp_path / "v.mp4").touch()
    listed = tmp_path / "train.csv"
    listed.write_text("v.mp4\t0\n" * 20)
    raw: dict[str, Any] = {
        "model": {"size": "tiny"},
        "optim": {"batch_size": 8},
        **branches,
        "data": {"train_list": str(listed), **branches.get("data", {})},
    }
    return make_plan(parse_config(raw))


def words(made: Plan, what: str) -> str:
    return dict(made.lines())[what]


@pytest.mark.parametrize(("preset", "gpus"), [("my_videos_cpu", 0), ("my_videos_gpu", 1)])
def test_presets_for_own_videos_need_nothing_but_a_list(
    preset: str, gpus: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Of some 20 paths, whether or not class ids stand behind them, on a small machine."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(placement, "own_node", lambda: {"GPU": float(gpus), "CPU": 2.0})
    Path("v.mp4").touch()
    for line in ("v.mp4\n", "v.mp4 1234\n"):
        Path("my_videos.csv").write_text(line * 19)
        made = make_plan(load_config(ROOT / "tune_configs" / f"{preset}.yaml"))
        assert made.steps_per_epoch == 2
        assert made.placement.learns_policy
        # The batch is small, so the rate for 256 clips must be large.
        assert 1e-4 < made.lr < 2e-3
        assert words(made, "algorithm").startswith("ppo")


@pytest.mark.parametrize(
    ("sampler", "expected"),
    [
        ({"name": "random"}, "156 visible (9.9%), sampler random"),
        ({"name": "tube"}, "160 visible (10.2%), sampler tube, mask ratio 0.898 instead of 0.9"),
        ({"name": "frame"}, "196 visible (12.5%), sampler frame, mask ratio 0.875 instead of 0.9"),
        ({"name": "multi_block"}, "156 visible (9.9%), sampler multi_block"),
    ],
)
def test_plan_says_what_mask_ratio_a_sampler_comes_to(
    tmp_path: Path, sampler: dict[str, Any], expected: str
) -> None:
    made = plan(tmp_path, sampler=sampler)
    assert words(made, "tokens") == f"1568 per clip, {expected}"
    assert words(made, "algorithm") == f"none: sampler {sampler['name']} does not learn"


@pytest.mark.parametrize(
    ("branches", "expected"),
    [
        ({}, "uniform masks for the first 10 epochs, then one policy update per MAE step"),
        ({"loop": {"mae_only_epochs": 1}}, "uniform masks for the first 1 epoch, then one policy"),
        (
            {"loop": {"mae_only_epochs": 0, "max_staleness": 2}},
            "one policy update per MAE step, ",
        ),
        (
            {"loop": {"ramp_in_epochs": 4, "ramp_out_epochs": 1}},
            "uniform masks for the first 10 epochs, then one policy update per MAE step, "
            "growing over 4 epochs, falling over 1 epoch",
        ),
        (
            {"loop": {"warmup_mask": "learned"}},
            "untrained sampler for the first 10 epochs, then one",
        ),
        (
            {"sampler": {"name": "tube"}},
            "uniform masks for the first 10 epochs, then masks of sampler tube, no policy updates",
        ),
        (
            {"sampler": {"name": "tube"}, "loop": {"warmup_mask": "learned"}},
            "masks of sampler tube, no policy updates",
        ),
        (
            {"sampler": {"name": "tube"}, "loop": {"mae_only_epochs": 0}},
            "masks of sampler tube, no policy updates",
        ),
    ],
)
def test_plan_says_whose_masks_are_shown_and_whether_anything_learns(
    tmp_path: Path, branches: dict[str, Any], expected: str
) -> None:
    made = plan(tmp_path, **branches)
    assert words(made, "steps").partition("; ")[2].startswith(expected)
    assert ("; sampler 1.5e-06" in words(made, "learning rate")) == ("sampler" not in branches)


def test_plan_shows_options_and_an_environment_of_another_package(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    source = (Path(__file__).parents[3] / "examples" / "custom_sampler.py").read_text()
    (tmp_path / "shown_sampler.py").write_text(source)
    monkeypatch.syspath_prepend(str(tmp_path))
    sampler = {"name": "shown_sampler:CustomSampler", "options": {"hidden": "8"}}
    made = plan(tmp_path, sampler=sampler, env={"id": "mine:Mine-v0"})
    assert words(made, "tokens").endswith("sampler shown_sampler:CustomSampler (hidden 8)")
    assert words(made, "environment") == "mine:Mine-v0"
    assert "environment" not in dict(plan(tmp_path).lines())


@pytest.mark.parametrize(
    ("sampler", "ignored"),
    [
        ({"name": "tats", "qkv_bias": False, "whiten_tokens": True, "num_heads": 2}, ""),
        ({"name": "adamae", "qkv_bias": False, "whiten_tokens": True}, "sampler.qkv_bias"),
        ({"name": "tube", "temperature": 2, "mask_ratio": 0.8}, "sampler.temperature"),
        (
            {"pos_embed": "sincos_3d", "whiten_tokens": True, "temperature": 2},
            "sampler.pos_embed, sampler.whiten_tokens",
        ),
    ],
)
def test_plan_notes_settings_that_the_sampler_does_not_heed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, sampler: dict[str, Any], ignored: str
) -> None:
    source = (Path(__file__).parents[3] / "examples" / "custom_sampler.py").read_text()
    (tmp_path / "noted_sampler.py").write_text(source)
    monkeypatch.syspath_prepend(str(tmp_path))
    sampler = {"name": "noted_sampler:CustomSampler", **sampler}
    found = dict(plan(tmp_path, sampler=sampler).lines()).get("note", "")
    assert found == (f"sampler {sampler['name']} ignores {ignored}" if ignored else "")


@pytest.mark.parametrize(
    ("lines", "shown"), [("v.mp4\nw.mp4\n", "1 of the 2 videos"), ("w.mp4\n", "")]
)
def test_videos_that_are_trained_and_validated_on_are_counted(
    lines: str, shown: str, tmp_path: Path
) -> None:
    (tmp_path / "w.mp4").touch()
    listed = tmp_path / "val.csv"
    listed.write_text(lines)
    train = tmp_path / "train.csv"
    told = dict(plan(tmp_path, data={"train_list": str(train), "val_list": str(listed)}).lines())
    says = (
        f"{shown} in {listed} is in {train}, too; the error on them says nothing about new videos"
    )
    assert told.get("note") == (says if shown else None)


def test_group_of_masks_divides_the_clips_of_a_step_and_multiplies_the_steps(
    tmp_path: Path,
) -> None:
    single = plan(tmp_path)
    assert (single.steps_per_epoch, single.global_batch) == (2, 8)
    assert words(single, "batch") == "8 clips x 1 learner = 8"
    grouped = plan(tmp_path, algorithm={"name": "grpo", "group_size": 4})
    assert (grouped.steps_per_epoch, grouped.global_batch, grouped.lr) == (10, 8, single.lr)
    assert words(grouped, "batch") == "8 rows (2 clips x 4 masks) x 1 learner = 8"


@pytest.mark.parametrize(
    ("algorithm", "expected"),
    [
        ({}, "ppo, rewarded with token_error"),
        ({"scored": "joint"}, "ppo, rewarded with negative_clip_error"),
        ({"name": "a2c", "scored": "visible"}, "a2c, rewarded with negative_clip_error"),
        ({"name": "rloo"}, "rloo, rewarded with negative_clip_error"),
        ({"name": "reinforce"}, "reinforce, rewarded with token_error"),
    ],
)
def test_reward_is_the_algorithms_own_unless_one_is_named(
    tmp_path: Path, algorithm: dict[str, Any], expected: str
) -> None:
    assert words(plan(tmp_path, algorithm=algorithm), "algorithm") == expected
    named = plan(tmp_path, algorithm=algorithm, env={"reward": "clip_error"})
    assert named.config.reward == "clip_error"


@pytest.mark.parametrize("reward", ["token_error", "token_ease"])
@pytest.mark.parametrize("algorithm", [{"name": "grpo"}, {"scored": "visible"}])
def test_reward_that_visible_tokens_cannot_earn_is_refused(
    tmp_path: Path, algorithm: dict[str, Any], reward: str
) -> None:
    why = f"reward {reward}, which says nothing of visible tokens; use --env.reward negative"
    with pytest.raises(UsageError, match=why):
        plan(tmp_path, algorithm=algorithm, env={"reward": reward})


def test_batch_that_holds_no_whole_groups_is_refused_with_one_that_does(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match=r"8 is not a multiple of the 3 .*--optim\.batch_size 9"):
        plan(tmp_path, algorithm={"name": "rloo", "group_size": 3})


def test_plan_counts_rollout_workers_and_refuses_what_they_do_not_go_with(tmp_path: Path) -> None:
    workers = {"source": "workers", "max_staleness": 1}
    made = plan(
        tmp_path,
        loop=workers,
        cluster={"rollout_workers": 3, "cpus_per_worker": 0.25, "threads": 1},
    )
    assert "3 rollout workers on cpu, policy learner on cpu" in words(made, "actors")
    with pytest.raises(
        UsageError,
        match=r"10000 CPU .*9999 rollout workers with 1 CPU each.* or cluster\.rollout_workers",
    ):
        plan(tmp_path, loop=workers, cluster={"rollout_workers": 9999})
    with pytest.raises(
        UsageError,
        match="loop.source workers needs a sampler that learns, and sampler.name tube does not",
    ):
        plan(tmp_path, loop=workers, sampler={"name": "tube"}, cluster={"cpus_per_worker": 0.5})
    with pytest.raises(
        UsageError, match="policy_place learner needs MAE learners that make the rollouts"
    ):
        plan(tmp_path, loop=workers, cluster={"policy_place": "learner", "cpus_per_worker": 0.5})
    inside = plan(tmp_path, cluster={"policy_place": "learner", "buffer_mb": 1})
    assert "policy learner inside it" in words(inside, "actors")


def test_policy_that_cannot_be_shared_is_refused_for_several_learners(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    cluster = {"policy_place": "learner", "num_workers": 2, "cpus_per_worker": 0.5}
    assert "policy learner inside each of them" in words(plan(tmp_path, cluster=cluster), "actors")
    monkeypatch.setattr(PPOConfig, "build", lambda self, policy: object())
    with pytest.raises(
        UsageError, match=r"^algorithm\.name ppo cannot be shared by 2 learners .* join\(group\) as"
    ):
        plan(tmp_path, cluster=cluster)
    plan(tmp_path, cluster={**cluster, "num_workers": 1})
    monkeypatch.undo()
    monkeypatch.setattr(LearnedSampler, "observe", lambda self, tokens: None)
    with pytest.raises(
        UsageError, match=r"^sampler\.name tats keeps statistics that 2 learners .*observe take"
    ):
        plan(tmp_path, cluster=cluster)
    monkeypatch.undo()
    with pytest.raises(
        UsageError, match=r"gradient_precision bfloat16 .*sharding fsdp.*use float32"
    ):
        plan(tmp_path, cluster={"gradient_precision": "bfloat16", "sharding": "fsdp"})


def test_policy_learners_that_cannot_be_had_are_refused_with_number_and_way_out(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    two = {"num_workers": 2, "cpus_per_worker": 0.5, "policy_learners": 2, "buffer_mb": 13}
    made = plan(tmp_path, cluster=two)
    assert "2 policy learners on cpu, each with a shard of the rollout buffer of 13 MB" in words(
        made, "actors"
    )
    one = plan(tmp_path, cluster={**two, "policy_learners": 1})
    assert made.rollout_bytes * 2 == one.rollout_bytes
    for cluster, message in (
        ({"policy_learners": 3}, r"policy_learners 3 .* 2 rollouts .*cluster\.policy_learners 2$"),
        ({"num_workers": 1}, r"policy_learners 2 .* 1 rollout .*cluster\.policy_learners 1$"),
        (
            {"policy_place": "learner"},
            r"policy_learners 2 are actors .*--cluster\.policy_learners 1",
        ),
    ):
        with pytest.raises(UsageError, match=f"^cluster.{message}"):
            plan(tmp_path, cluster={**two, **cluster})
    assert plan(tmp_path, sampler={"name": "tube"}, cluster=two).rollout_bytes == 0
    plan(tmp_path, cluster={**two, "buffer_mb": 7})  # of a shard, and so not enough for one
    with pytest.raises(UsageError, match=r"buffer_mb 7 cannot hold the rollouts of 1 MAE step x 2"):
        plan(tmp_path, cluster={**two, "buffer_mb": 7, "policy_learners": 1})
    with pytest.raises(UsageError, match=r"buffer_mb 6 cannot hold the rollouts of a shard of"):
        plan(tmp_path, cluster={**two, "buffer_mb": 6})
    monkeypatch.setattr(PPOConfig, "build", lambda self, policy: object())
    with pytest.raises(
        UsageError,
        match=r"^algorithm\.name ppo cannot be shared by 2 policy learners .*learners 1$",
    ):
        plan(tmp_path, cluster=two)


def test_plan_of_gpus_says_what_limits_and_what_would_help(tmp_path: Path) -> None:
    (tmp_path / "v.mp4").touch()
    many_videos = tmp_path / "many.csv"
    many_videos.write_text("v.mp4\t0\n" * 3000)

    def loads(num_loaders: int = 2, batch: int = 32, **cluster: Any) -> str:
        how = {"use_gpu": True, "num_workers": 8, "address": "of another place", **cluster}
        data = {"train_list": str(many_videos), "num_workers": num_loaders}
        size = {"size": "base"}
        made = plan(tmp_path, cluster=how, data=data, model=size, optim={"batch_size": batch})
        return words(made, "loads")

    apart = loads(1000, buffer_mb=9999, threads=1)
    assert "hand-over limits: use --cluster.policy_place learner" in apart
    sharded = loads(1000, buffer_mb=9999, threads=1, policy_learners=4)
    four, one = (float(re.search(r"hand-over ([\d.]+)", w)[1]) for w in (sharded, apart))
    assert four == pytest.approx(one / 4, rel=0.05)
    assert "use --cluster.policy_place learner --cluster.policy_learners 1" in sharded
    inside = loads(policy_place="learner")
    assert "hand-over" not in inside.partition("limits")[0]
    assert re.search(r"decoding limits: use --data\.num_workers \d+ on as many cores", inside)
    many = loads(1000, policy_place="learner", num_workers=64, batch=8)
    assert "network limits: use --cluster.gradient_precision bfloat16" in many
    many = loads(1000, policy_place="learner", num_workers=64)
    assert re.match(r"decoding 0\.\d+, network 0\.\d+ of 1 ", many)
    assert "limits" not in many


@pytest.mark.parametrize("staleness", [0, 2])
def test_object_store_must_hold_the_buffer_and_a_copy_of_the_update_that_leaves_it(
    tmp_path: Path, staleness: int
) -> None:
    """Counted in the bytes of one update: s+1 wait, and the one that is taken is there twice."""
    made = plan(tmp_path, loop={"max_staleness": staleness})
    config = made.config
    grid = token_grid(config.data, config.model)
    update = buffer_bytes(replace(config, loop=replace(config.loop, max_staleness=0)), grid, 1)
    assert buffer_bytes(config, grid, 1) == update * (staleness + 1)
    assert made.rollout_bytes == update * (staleness + 2)
    just = {"CPU": 8.0, "object_store_memory": update * (staleness + 2) / 0.8 + 1}
    check_resources(made.placement.request, [just], rollout_bytes=made.rollout_bytes)
    tight = {"CPU": 8.0, "object_store_memory": update * (staleness + 1) / 0.8 + 1}
    with pytest.raises(UsageError, match=r"of rollouts lie in the buffer .* over 80% of a node's"):
        check_resources(made.placement.request, [tight], rollout_bytes=made.rollout_bytes)


def test_elastic_plan_is_that_of_all_learners_and_refuses_what_it_does_not_go_with(
    tmp_path: Path,
) -> None:
    """On a cluster: what this machine holds does not matter."""
    fixed = {"num_workers": 2, "address": "somewhere"}
    elastic = {**fixed, "min_workers": 1}
    made, whole = plan(tmp_path, cluster=elastic), plan(tmp_path, cluster=fixed)
    assert words(made, "actors").startswith("1 to 2 MAE learners on cpu")
    assert words(whole, "actors").startswith("2 MAE learners on cpu")
    assert (made.global_batch, made.lr, made.steps_per_epoch) == (16, whole.lr, 1)
    for branches, says in (
        ({"loop": {"source": "workers"}}, "loop.source workers"),
        ({"cluster": {"policy_gpus": 0.5}}, "cluster.policy_gpus 0.5"),
        ({"data": {"reader": "ray", "num_workers": 3}}, "data.reader ray"),
        ({"cluster": {"sharding": "fsdp"}}, "cluster.sharding fsdp"),
    ):
        cluster = branches.pop("cluster", {})
        with pytest.raises(UsageError, match=rf"^cluster.min_workers 1 .* {says}\b.*; use 0$"):
            plan(tmp_path, cluster={**elastic, **cluster}, **branches)
        plan(tmp_path, cluster={**fixed, **cluster}, **branches)


def notes(made: Plan) -> list[str]:
    return [text for what, text in made.lines() if what == "note"]


def test_schedules_that_do_nothing_are_named(tmp_path: Path) -> None:
    """2 steps an epoch; a base rate of 0.32 for 256 clips is 0.01 for 8."""
    useful = {"loop": {"epochs": 6, "mae_only_epochs": 5}, "optim": {"batch_size": 8}}
    useful["optim"] |= {"base_lr": 0.32, "warmup_epochs": 5}
    assert notes(plan(tmp_path, **useful)) == []
    (rate,) = notes(plan(tmp_path, **{**useful, "optim": {**useful["optim"], "warmup_epochs": 22}}))
    assert (
        "never reaches 0.01: the warm-up takes 22 epochs, the run 6, so it ends at 0.0025" in rate
    )
    late = {**useful, "loop": {"epochs": 6, "mae_only_epochs": 6}}
    (sampler,) = notes(plan(tmp_path, **late))
    assert "sampler never trains: loop.mae_only_epochs 6 leaves none of the 6 epochs" in sampler
    assert notes(plan(tmp_path, **late, sampler={"name": "tube"})) == []


@pytest.mark.parametrize(("memory_gb", "way"), [(13, "kept for"), (12, "recomputed in")])
def test_trajectories_are_kept_where_a_third_of_the_memory_holds_them(
    memory_gb: int, way: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Those of 20 clips of ViT-B with their gradients: 20 x 1,568 x 768 x 4 x (20 + 3 x 8) B."""
    monkeypatch.setattr(pretrain_plan, "memory_bytes", lambda device: memory_gb * 10**9)
    sizes = {"model": {"size": "base"}, "optim": {"batch_size": 20}}
    made = plan(tmp_path, **sizes)
    assert words(made, "memory").startswith(f"trajectories are {way} the backward pass")
    assert made.config.sampler.recompute == {"kept for": "off", "recomputed in": "on"}[way]
    asked = plan(tmp_path, **sizes, sampler={"recompute": "on"})
    assert asked.config.sampler.recompute == "on"
    for sampler in ({"name": "adamae"}, {"trajectory_attention": False}, {"name": "random"}):
        assert plan(tmp_path, **sizes, sampler=sampler).config.sampler.recompute == "auto"


def test_a_run_may_go_on_with_trajectories_recomputed_or_compiled() -> None:
    assert not deciding({"sampler": {"recompute": "on"}, "loop": {"compile": "step"}})


@pytest.mark.parametrize(
    ("is_native", "size", "expected"),
    [(True, "small", "bfloat16"), (False, "small", "float32"), (True, "tiny", "float32")],
)
def test_precision_auto_is_decided_by_device_and_width_and_said(
    is_native: bool, size: str, expected: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(devices, "has_native_bfloat16", lambda device: is_native)
    few = {"train_list": str(tmp_path / "train.csv"), "num_frames": 4, "image_size": 64}
    branches = {"data": few, "model": {"size": size, "depth": 1}}
    made = plan(tmp_path, **branches, loop={"precision": "auto"})
    assert made.config.loop.precision == expected
    assert words(made, "model") == f"{size}, {expected}, seed 0"
    assert plan(tmp_path, **branches).config.loop.precision == "float32"


def test_plan_says_what_is_compiled_and_where_it_is_kept(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("TORCHINDUCTOR_CACHE_DIR", "/somewhere/else")
    assert "compiled" not in dict(plan(tmp_path).lines())
    told = words(plan(tmp_path, loop={"compile": "blocks"}), "compiled")
    assert told.startswith("one block of each kind (loop.compile), in the first step")
    assert "/somewhere/else" in told
    with pytest.raises(UsageError, match=r"loop\.compile step cannot .* fsdp; use --loop\.compile"):
        plan(tmp_path, loop={"compile": "step"}, cluster={"sharding": "fsdp"})


def test_plan_counts_the_tokens_that_are_decoded(tmp_path: Path) -> None:
    assert "decoded" not in words(plan(tmp_path), "tokens")
    told = words(plan(tmp_path, model={"size": "tiny", "decode_share": 0.25}), "tokens")
    assert told.startswith("1568 per clip, 156 visible (9.9%), 353 of 1412 hidden ones decoded, ")


def test_clips_of_an_opened_video_must_divide_the_batch(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="clips_per_open 3 does not divide the 8 clips of a step"):
        plan(tmp_path, data={"train_list": str(tmp_path / "train.csv"), "clips_per_open": 3})
    several = {"train_list": str(tmp_path / "train.csv"), "clips_per_open": 4}
    assert plan(tmp_path, data=several).steps_per_epoch == plan(tmp_path).steps_per_epoch


def test_plan_refuses_a_cache_without_the_videos_and_notes_a_small_one(tmp_path: Path) -> None:
    data = {"train_list": str(tmp_path / "train.csv"), "cache": str(tmp_path / "cache")}
    with pytest.raises(UsageError, match="cache is no cache: it has no cache.json"):
        plan(tmp_path, data=data)
    open_folder(tmp_path / "cache", CacheSettings(96, 90))
    with pytest.raises(UsageError, match="20 of the 20 videos .* are not in data.cache"):
        plan(tmp_path, data=data)
    status = (tmp_path / "v.mp4").stat()
    video = StoredVideo("v.mp4", 0, status.st_mtime_ns, 9, 0, 160, 120, 0, 0, "")
    (tmp_path / "cache" / "shard_0.csv").write_text(table_text([video]))
    (tmp_path / "cache" / "shard_0.jpegs").touch()
    assert "short side of 96 px and are enlarged" in words(plan(tmp_path, data=data), "note")
