"""What pre-training is worth: probes and fine-tuning on videos whose classes are motions.

    python benchmarks/motion.py [--seeds 3] [--first 0] [--folder runs/motion]

Makes data/motion where it is missing; then, for each seed: pre-training with
tune_configs/motion_cpu.yaml, a linear probe of it and of the same network untrained, fine-tuning
with tune_configs/finetune_motion.yaml and the same from scratch, each tested on two clips of every
validation video. One thread, some 40 minutes of one core a seed; what is there already is not
done again, so it can be stopped, and seeds can run side by side. Prints a table of top-1.
"""

from __future__ import annotations

import argparse
import statistics
from pathlib import Path

from tats_ray.config.load import finetune_config, load_config
from tats_ray.data.synthetic import synthesize
from tats_ray.data.views import ViewPlan
from tats_ray.evaluation.multi_view import TestRequest, multi_view_test
from tats_ray.evaluation.probe import ProbeRequest, probe
from tats_ray.evaluation.probe_protocols import recipe
from tats_ray.runs.finetune_run import finetune
from tats_ray.runs.pretrain_run import pretrain

DATA = Path("data/motion")
TUNE_CONFIGS = Path(__file__).parents[1] / "tune_configs"
COLUMNS = ("probe", "untrained", "fine-tuned", "from scratch")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--first", type=int, default=0, help="first seed")
    parser.add_argument("--folder", type=Path, default=Path("runs/motion"))
    args = parser.parse_args()
    synthesize(DATA, num_train=1600, num_val=400, seed=7, look="clear")
    rows = {}
    for seed in range(args.first, args.first + args.seeds):
        rows[seed] = [100 * top1 for top1 in measure(args.folder, seed)]
    print(f"top-1 in % of 400 videos{'':6}" + "".join(f"{name:>14}" for name in COLUMNS))
    for seed, row in rows.items():
        print(f"{f'seed {seed}':>29}" + "".join(f"{top1:14.1f}" for top1 in row))
    means = [statistics.fmean(column) for column in zip(*rows.values(), strict=True)]
    print(f"{'mean':>29}" + "".join(f"{mean:14.1f}" for mean in means))


def measure(folder: Path, seed: int) -> list[float]:
    """Top-1 of a seed, 0 to 1, one for each column."""
    common = ["--seed", str(seed), "--checkpoint.folder", str(folder), "--cluster.threads", "1"]
    run = folder / f"pretrained_{seed}"
    if not (run / "report.html").exists():
        flags = [*common, "--name", run.name]
        config = load_config(TUNE_CONFIGS / "motion_cpu.yaml", flags)
        if not pretrain(config, resume=(run / "config.yaml").exists()).outcome.is_finished:
            raise SystemExit("stopped; the same command goes on")
    probes = [probed(run, seed, is_untrained) for is_untrained in (False, True)]
    tuned = [fine_tuned(run, seed, common, is_scratch) for is_scratch in (False, True)]
    return probes + tuned


def probed(run: Path, seed: int, is_untrained: bool) -> float:
    found = probe(
        ProbeRequest(
            checkpoint=run,
            train_list=DATA / "train.csv",
            val_list=DATA / "val.csv",
            recipe=recipe("linear"),
            train_views=ViewPlan(4, 1),
            val_views=ViewPlan(2, 1),
            seed=seed,
            is_untrained=is_untrained,
        )
    )
    return found.top1


def fine_tuned(run: Path, seed: int, common: list[str], is_scratch: bool) -> float:
    name = f"{'scratch' if is_scratch else 'finetuned'}_{seed}"
    done = run.with_name(name)
    flags = [*common, "--name", name, *["--from_scratch", "true"] * is_scratch]
    config = finetune_config(TUNE_CONFIGS / "finetune_motion.yaml", flags)
    if not finetune(run, DATA, config, resume=(done / "config.yaml").exists()).outcome.is_finished:
        raise SystemExit("stopped; the same command goes on")
    return multi_view_test(TestRequest(checkpoint=done, data=DATA)).top1


if __name__ == "__main__":
    main()
