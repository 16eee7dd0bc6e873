"""`tats tune`: run a sweep's trials, each a whole run, as many at once as the cluster holds."""

from __future__ import annotations

import shlex
import shutil
from collections.abc import Sequence
from contextlib import ExitStack
from functools import partial
from pathlib import Path
from typing import Any

from tats_ray.config.points import Point, Trial, point_name
from tats_ray.config.sweep_schema import Sweep, load_sweep, settings
from tats_ray.core.errors import TatsError, UsageError
from tats_ray.core.folder_lock import only_run_in
from tats_ray.core.storage import make_folder
from tats_ray.data.synthetic import synthesize
from tats_ray.runs.origin import origin
from tats_ray.runs.step_timing import StepTiming, time_steps
from tats_ray.runtime.driver import tuner as trials_in_ray
from tats_ray.runtime.driver.optuna_search import Proposals, check_optuna
from tats_ray.runtime.driver.ray_cluster import joined_cluster
from tats_ray.runtime.driver.tuner import Asha, Job, Report, Schedule
from tats_ray.runtime.resources.packing import DRIVER_CPU
from tats_ray.runtime.resources.placement import is_private, own_node
from tats_ray.sweeps.sweep_board import SweepBoard, say
from tats_ray.sweeps.sweep_folder import (
    STATE_FILE,
    read_record,
    read_records,
    read_state,
    refuse_other_settings,
    write_json,
)
from tats_ray.sweeps.sweep_plan import SweepPlan, plan_sweep, trial_job
from tats_ray.sweeps.sweep_report import tune_report
from tats_ray.sweeps.trial import run_trial
from tats_ray.view.tables import print_table

_WARM_UP_TIMEOUT_S = 1800.0


def tune(
    path: Path, flags: Sequence[str] = (), *, is_dry: bool = False, resume: bool = False
) -> Path:
    """Run a sweep; prints its plan first and its table last. Returns its folder.

    Args:
        flags: fields of the base configuration, and of the sweep as `--sweep.FIELD`.
        is_dry: print the plan and stop.
        resume: keep what is finished, go on with the rest.

    Raises:
        UsageError: for anything wrong that can be known before the first trial.
    """
    sweep = load_sweep(path, flags)
    base = sweep.run_config({})
    experiment = Path(base.checkpoint.folder) / sweep.name
    if sweep.config.search == "tpe":
        check_optuna()
    _check_folder(sweep, experiment, resume=resume)
    if sweep.config.synthetic:
        synthesize(Path(base.data.train_list).parent)
    private = is_private(base) and not trials_in_ray.is_joined()
    with ExitStack() as held:
        if not private:
            held.enter_context(joined_cluster(base))
        nodes = [own_node()] if private else trials_in_ray.nodes()
        # A private cluster is given a CPU of its own for the light drivers.
        plan = plan_sweep(sweep, nodes, driver_cpu=0.0 if private else DRIVER_CPU)
        _show(plan, experiment)
        if plan.problems:
            raise UsageError(f"{sweep.source}: {plan.problems[0]}")
        left = _left(plan, experiment, resume=resume)
        if not is_dry:
            make_folder(experiment / "trials", way_out="use another --checkpoint.folder")
            held.enter_context(only_run_in(experiment))
            if private:  # before the warm-up, beside which Ray's own helpers start
                held.enter_context(joined_cluster(base, spare_cpus=1))
            else:
                trials_in_ray.check_shared(experiment)
        say("time", plan.time(_pace(plan, experiment, private), len(left) or plan.num_trials))
        if is_dry:
            return experiment
        _begin(plan, experiment, ["tats", "tune", str(path), *flags])
        # Threads are divided as at the beginning, so that a resumed trial repeats to the bit.
        shared_by = int(read_state(experiment)["at_once"])
        is_whole = _run(plan, experiment, left, shared_by)
    if not is_whole:
        again = shlex.join(["tats", "tune", str(path), *flags, "--resume"])
        print(f"stopped before its last trial; continue with:\n  {again}", flush=True)
    elif not any(record.status == "finished" for record in read_records(experiment)):
        reasons = {record.reason for record in read_records(experiment)}
        raise TatsError(f"no trial of {experiment} finished: {'; '.join(sorted(reasons))}")
    tune_report(experiment)
    return experiment


def _show(plan: SweepPlan, experiment: Path) -> None:
    for what, how_much in [*plan.lines(), ("folder", str(experiment))]:
        say(what, how_much)
    printed = [" and ".join(f"{value:.4f}" for value in p.paper) or "-" for p in plan.points]
    rows = [[p.name, paper, p.row or p.note] for p, paper in zip(plan.points, printed, strict=True)]
    if rows:
        print_table(("trial", "paper", "row"), rows)
    late = plan.never_learn()
    if late:
        say("NOTE", f"trials that end before the sampler takes part: {', '.join(late)}")
    for problem in plan.problems:
        say("NOT HERE", problem)


def _pace(plan: SweepPlan, experiment: Path, private: bool) -> StepTiming:
    """A timed warm-up, on a machine that will train."""
    assert plan.first is not None
    some = plan.trials[0] if plan.trials else _trial_of(plan.sweep, {})
    config = plan.sweep.run_config(some.point.values)
    threads = trial_job(plan.sweep, some, experiment, plan.at_once)["config"]["cluster"]["threads"]
    if private:
        return time_steps(config, threads)
    found: StepTiming = trials_in_ray.elsewhere(
        time_steps,
        config,
        threads,
        num_cpus=plan.need.learners.cpu,
        num_gpus=plan.need.learners.gpu,
        timeout_s=_WARM_UP_TIMEOUT_S,
    )
    return found


def _check_folder(sweep: Sweep, experiment: Path, *, resume: bool) -> None:
    """A fresh sweep needs a fresh folder; a continued one, its own with the same settings."""
    if resume:
        read_state(experiment)
        refuse_other_settings(experiment, settings(sweep))
    elif (experiment / STATE_FILE).is_file():
        raise UsageError(
            f"{experiment} already holds a sweep; continue it with --resume, or choose another "
            "--name"
        )
    elif (experiment / "config.yaml").is_file():
        raise UsageError(f"{experiment} already holds a run; choose another --name")


def _left(plan: SweepPlan, experiment: Path, *, resume: bool) -> list[Trial]:
    """Trials that are not done, unfinished ones first; empty for a search that finds its own."""
    if not resume:
        return plan.trials
    begun = {t.name: read_record(experiment / "trials" / t.folder) for t in plan.trials}
    done = {name for name, record in begun.items() if record is not None and record.is_done}
    left = [t for t in plan.trials if t.name not in done]
    return sorted(left, key=lambda t: begun[t.name] is None)


def _begin(plan: SweepPlan, experiment: Path, command: Sequence[str]) -> None:
    """Write down what is run; on a resumption say what is kept, and clear what failed."""
    if not (experiment / STATE_FILE).is_file():
        about = {
            **origin(),
            "command": shlex.join(command),
            "settings": settings(plan.sweep),
            "source": plan.sweep.source,
            "at_once": plan.at_once,
            "points": [
                {"name": p.name, "row": p.row, "paper": p.paper, "note": p.note, "values": p.values}
                for p in plan.points
            ],
        }
        write_json(experiment / STATE_FILE, about)
        return
    records = read_records(experiment)
    words = []
    for status, what in (
        ("finished", "kept"),
        ("stopped", "stopped early and kept"),
        ("running", "continue from their checkpoints"),
        ("failed", "run again"),
    ):
        names = [record.name for record in records if record.status == status]
        words += [f"{len(names)} {what} ({', '.join(names)})"] if names else []
    say("RESUMED", "; ".join(words) or "no trial had started")
    for record in records:
        if record.status == "failed":
            shutil.rmtree(experiment / "trials" / Trial(record.name, Point("", {}), 0).folder)


def _run(plan: SweepPlan, experiment: Path, left: Sequence[Trial], shared_by: int) -> bool:
    """Hand the trials to Tune. Returns whether all were run."""
    config = plan.sweep.config
    proposals = _proposals(plan, experiment) if config.search == "tpe" else None
    num_left = proposals.num_samples if proposals else len(left)
    if not num_left:
        return True
    asha = None
    if config.scheduler == "asha":
        epochs = plan.sweep.run_config({}).loop.epochs
        asha = Asha(epochs, config.grace_epochs, config.reduction)
    schedule = Schedule(
        at_once=plan.at_once,
        metric=config.metric,
        is_best_lowest=config.is_best_lowest,
        asha=asha,
        proposals=proposals,
    )
    jobs = [trial_job(plan.sweep, trial, experiment, shared_by) for trial in left]
    run: Any = run_trial
    if proposals:
        run = partial(_run_proposed, plan.sweep, experiment, shared_by)
    board = SweepBoard(experiment, num_left=num_left, metric=config.metric)
    return trials_in_ray.run_trials(run, jobs, schedule, board, folder=experiment / "ray")


def _proposals(plan: SweepPlan, experiment: Path) -> Proposals:
    config = plan.sweep.config
    known, first, done = [], [], 0
    for record in read_records(experiment):
        if record.status == "finished":
            done += 1
            known.append((record.values, record.measures[config.metric]))
        elif record.status == "stopped":
            done += 1
        else:
            first.append(record.values)
    space = {name: (domain.kind, domain.values) for name, domain in config.domains.items()}
    left = config.num_samples - done
    return Proposals(space, left, config.search_seed, known, first[:left])


def _run_proposed(sweep: Sweep, experiment: Path, shared_by: int, job: Job, report: Report) -> None:
    """A point that the search has found becomes a trial; one that was tried is not run again."""
    trial = _trial_of(sweep, job["values"])
    record = read_record(experiment / "trials" / trial.folder)
    if record is not None and record.status == "finished":
        report({**record.measures, "epoch": record.epochs, "trial": trial.name})
        return
    run_trial(trial_job(sweep, trial, experiment, shared_by), report)


def _trial_of(sweep: Sweep, values: dict[str, Any]) -> Trial:
    domains = sweep.config.domains
    written = {name: domains[name].rounded(value) for name, value in values.items()}
    name = point_name(written, sweep)
    return Trial(name, Point(name, written), sweep.config.seeds[0])
