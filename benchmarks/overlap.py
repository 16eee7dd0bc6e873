"""Does overlapping cost accuracy? The demo, by turns synchronous and overlapped, with three seeds.

    python benchmarks/overlap.py [--seeds 3] [--staleness 1] [--source learner]

Each run takes as long as the demo, one thread per learner; runs that are there already are not
done again, so that it can be stopped. Prints the final error of every run, and whether
the overlapped mean lies within the spread of the synchronous seeds. `tats compare` says
more. How much faster it is: `tats bench overlap`.
"""

from __future__ import annotations

import argparse
import statistics
from pathlib import Path

from tats_ray.runs.demo import demo
from tats_ray.view.tracking import read_metrics


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--staleness", type=int, default=1)
    parser.add_argument("--source", default="learner", choices=["learner", "workers"])
    parser.add_argument("--folder", type=Path, default=Path("runs/quality"))
    args = parser.parse_args()
    mode = f"{args.source}_{args.staleness}"
    errors: dict[str, list[float]] = {"synchronous": [], mode: []}
    for seed in range(args.seeds):
        errors["synchronous"].append(final_error(args.folder, "synchronous", seed, []))
        flags = f"--loop.max_staleness {args.staleness} --loop.source {args.source}"
        if args.source == "workers":
            flags += " --cluster.cpus_per_worker 0.5"
        errors[mode].append(final_error(args.folder, mode, seed, flags.split()))
    for name, found in errors.items():
        values = " ".join(f"{error:.4f}" for error in found)
        print(f"{name:>12}  eval/error {values}  mean {statistics.fmean(found):.4f}")
    low, high = min(errors["synchronous"]), max(errors["synchronous"])
    mean = statistics.fmean(errors[mode])
    verdict = "within" if low <= mean <= high else "below" if mean < low else "ABOVE"
    print(f"{mode} is {verdict} the spread of the synchronous seeds, {low:.4f} to {high:.4f}")


def final_error(folder: Path, mode: str, seed: int, flags: list[str]) -> float:
    """Of one run of the demo, which is trained where it is not there yet."""
    name = f"{mode}_{seed}"
    if not (folder / name / "report.html").exists():
        common = f"--name {name} --seed {seed} --checkpoint.folder {folder} --cluster.threads 1"
        is_begun = (folder / name / "config.yaml").exists()
        demo([*common.split(), *flags], resume=is_begun)
    return [r["eval/error"] for r in read_metrics(folder / name) if "eval/error" in r][-1]


if __name__ == "__main__":
    main()
