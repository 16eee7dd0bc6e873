"""The `tats` command: carries out what was typed."""

from __future__ import annotations

import sys
from collections.abc import Sequence

from tats_ray import __version__
from tats_ray.commands import (
    Baseline,
    Bench,
    Buffer,
    Card,
    Ckpt,
    Cluster,
    ClusterDoctor,
    Compare,
    Convert,
    Data,
    Demo,
    Doctor,
    Env,
    Export,
    Extract,
    Fields,
    Finetune,
    Inspect,
    Lint,
    Logs,
    New,
    Overlap,
    Pretrain,
    Probe,
    Scale,
    ShowMasks,
    Status,
    Stop,
    Submit,
    Test,
    Tune,
    TuneReport,
    Wheel,
    parse,
)
from tats_ray.core.errors import TatsError, UsageError


def run(command: object, flags: Sequence[str]) -> None:
    """Carry out a parsed command. Heavy imports wait until they are needed."""
    if isinstance(command, Pretrain):
        from tats_ray.config.load import load_config
        from tats_ray.recipes.pretrain import pretrain

        pretrain(load_config(command.config, flags), resume=command.resume)
        return
    if isinstance(command, Demo):
        from tats_ray.recipes.demo import demo

        demo(flags, resume=command.resume)
        return
    if isinstance(command, Finetune):
        _run_finetune(command, flags)
        return
    if isinstance(command, Bench):
        _run_bench(command.action, flags)
        return
    if isinstance(command, Tune):
        from tats_ray.recipes.tune import tune

        tune(command.sweep, flags, is_dry=command.dry_run, resume=command.resume)
        return
    if isinstance(command, Submit):
        from tats_ray.recipes.submit import submit

        submit(
            flags,
            address=command.address,
            include=command.include,
            name=command.name,
            is_followed=command.wait,
        )
        return
    if flags:
        raise UsageError(f"unexpected {' '.join(flags)}; see tats --help")
    if isinstance(command, ShowMasks):
        from tats_ray.recipes.show_masks import show_masks

        out = show_masks(
            command.checkpoint,
            command.video,
            command.out,
            compare=command.compare,
            mask_ratio=command.mask_ratio,
        )
        print(out)
    elif isinstance(command, Data):
        from tats_ray.data.synthetic import synthesize

        made = synthesize(
            command.out,
            num_train=command.num_train,
            num_val=command.num_val,
            num_frames=command.num_frames,
            size=command.size,
            seed=command.seed,
            look=command.look,
        )
        print(f"{made.train_list}\n{made.val_list}")
    elif isinstance(command, Env):
        _run_env(command.action)
    elif isinstance(command, New):
        from tats_ray.recipes.new_algorithm import new_algorithm

        files = new_algorithm(command.name, command.folder)
        print(f"{files.source}\n{files.test}\n{files.train_command}")
    elif isinstance(command, Compare):
        from tats_ray.recipes.compare import compare

        compare(command.runs, command.metric)
    elif isinstance(command, Ckpt):
        _run_ckpt(command.action)
    elif isinstance(command, Export):
        from tats_ray.recipes.export_hf import export_hf

        sizes = {"num_frames": command.num_frames, "image_size": command.image_size}
        print(export_hf(command.checkpoint, command.out, **sizes))
    elif isinstance(command, Extract):
        _run_extract(command)
    elif isinstance(command, Probe):
        _run_probe(command)
    elif isinstance(command, TuneReport):
        from tats_ray.recipes.tune_report import tune_report

        tune_report(command.experiment, command.out)
    elif isinstance(command, Test):
        _run_test(command)
    elif isinstance(command, Fields):
        from tats_ray.config.finetune import FinetuneConfig
        from tats_ray.config.load import field_docs

        for name, meaning, default in field_docs(FinetuneConfig() if command.finetune else None):
            print(f"{name} = {default!r}\n    {meaning}")
    elif isinstance(command, Doctor):
        from tats_ray.recipes.doctor import doctor

        doctor(is_node=command.node, lock=command.lock, storage=command.storage)
    elif isinstance(command, Status | Logs | Stop):
        _run_jobs(command)
    elif isinstance(command, Cluster):
        _run_cluster(command.action)


def _run_jobs(command: Status | Logs | Stop) -> None:
    from tats_ray.recipes import submit

    if isinstance(command, Status):
        submit.show_status(address=command.address)
    elif isinstance(command, Logs):
        submit.follow(command.job, address=command.address)
    else:
        submit.stop(command.job, address=command.address)


def _run_cluster(action: Lint | ClusterDoctor | Wheel) -> None:
    if isinstance(action, Lint):
        from tats_ray.recipes.cluster_lint import cluster_lint

        cluster_lint(action.file)
    elif isinstance(action, Wheel):
        from tats_ray.recipes.wheel import build_wheel

        print(build_wheel(action.folder))
    else:
        from tats_ray.recipes.cluster_doctor import cluster_doctor, submit_doctor

        if action.address:
            submit_doctor(action.address, storage=action.storage, seconds=action.seconds)
        else:
            cluster_doctor(storage=action.storage, seconds=action.seconds)


def _run_env(action: Card | Baseline) -> None:
    if isinstance(action, Card):
        from tats_ray.recipes.env_card import env_card

        env_card(action.id)
        return
    from tats_ray.recipes.env_baseline import env_baseline

    env_baseline(num_clips=action.clips, num_steps=action.steps, num_seeds=action.seeds)


def _run_bench(action: Overlap | Buffer | Scale, flags: Sequence[str]) -> None:
    if isinstance(action, Overlap):
        from tats_ray.recipes.bench_overlap import bench_overlap

        bench_overlap(flags, rounds=action.rounds, steps=action.steps, staleness=action.staleness)
        return
    if flags:
        raise UsageError(f"unexpected {' '.join(flags)}; see tats bench --help")
    if isinstance(action, Buffer):
        from tats_ray.recipes.bench_buffer import bench_buffer

        bench_buffer(
            size=action.size,
            batch=action.batch,
            rounds=action.rounds,
            step_clips=action.step_clips,
            device=action.device,
        )
        return
    from tats_ray.recipes.bench_scale import bench_scale

    bench_scale(
        action.producers, clips=action.clips, period_s=action.period_s, seconds=action.seconds
    )


def _run_ckpt(action: Inspect | Convert) -> None:
    if isinstance(action, Inspect):
        from tats_ray.recipes.inspect_checkpoint import inspect

        for what, how_much in inspect(action.checkpoint):
            print(f"{what:>14}  {how_much}")
        return
    from tats_ray.recipes.convert import convert

    for line in convert(
        action.checkpoint,
        action.out,
        config=action.config,
        allow_partial=action.allow_partial,
        num_frames=action.num_frames,
        image_size=action.image_size,
    ):
        print(line)


def _run_extract(command: Extract) -> None:
    from tats_ray.data.views import ViewPlan
    from tats_ray.recipes.extract import extract

    out = extract(
        command.checkpoint,
        command.list,
        command.out,
        plan=ViewPlan.parse(command.views, command.sampling),
        root=command.root,
        pool=command.pool,
        num_workers=command.workers,
        device=command.device,
        max_gb=command.max_gb,
        num_frames=command.num_frames,
        image_size=command.image_size,
        stride=command.stride,
    )
    print(out)


def _run_probe(command: Probe) -> None:
    from tats_ray.data.views import ViewPlan
    from tats_ray.learning.probe_recipes import recipe
    from tats_ray.recipes.labelled import find_lists
    from tats_ray.recipes.probe import ProbeRequest, probe

    train_list, val_list = find_lists(command.data, command.train, command.val)
    heads = None
    if command.kind != "knn":
        heads = recipe(
            command.kind,
            preset=command.preset,
            epochs=command.epochs,
            batch_size=command.batch_size,
            lrs=command.lrs,
            weight_decays=command.weight_decays,
        )
    probe(
        ProbeRequest(
            checkpoint=command.checkpoint,
            train_list=train_list,
            val_list=val_list,
            root=command.root,
            recipe=heads,
            train_views=ViewPlan.parse(command.train_views, command.sampling),
            val_views=ViewPlan.parse(command.val_views, command.sampling),
            k=command.k,
            temperature=command.temperature,
            seed=command.seed,
            is_untrained=command.untrained,
            num_frames=command.num_frames,
            image_size=command.image_size,
            stride=command.stride,
            num_workers=command.workers,
            device=command.device,
            out=command.out,
            max_gb=command.max_gb,
        )
    )


def _run_finetune(command: Finetune, flags: Sequence[str]) -> None:
    from tats_ray.config.load import finetune_config
    from tats_ray.recipes.finetune import finetune

    more = ["--from_scratch", "true"] if command.from_scratch else []
    more += ["--new_head", "true"] if command.new_head else []
    finetune(
        command.checkpoint,
        command.data,
        finetune_config(command.config, [*flags, *more]),
        resume=command.resume,
    )


def _run_test(command: Test) -> None:
    from tats_ray.recipes.multi_view import TestRequest, multi_view_test

    multi_view_test(
        TestRequest(
            checkpoint=command.checkpoint,
            data=command.data,
            list=command.list,
            root=command.root,
            views=command.views,
            sampling=command.sampling,
            num_frames=command.num_frames,
            image_size=command.image_size,
            stride=command.stride,
            num_workers=command.workers,
            device=command.device,
            out=command.out,
            max_gb=command.max_gb,
        )
    )


def main(argv: Sequence[str] | None = None) -> None:
    """Entry point of `tats` and `python -m tats_ray`: 2 for a wrong request, 1 for a failed run."""
    words = list(sys.argv[1:] if argv is None else argv)
    if words == ["--version"]:
        print(f"tats {__version__}")
        return
    command, flags = parse(words)
    try:
        run(command, flags)
    except TatsError as error:
        print(f"tats: {error}", file=sys.stderr)
        sys.exit(2 if isinstance(error, UsageError) else 1)
    except KeyboardInterrupt:
        sys.exit(130)


if __name__ == "__main__":
    main()
