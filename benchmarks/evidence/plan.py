"""What the study compares, written down before any of it was run.

A row is one training and what was measured of its encoder. Everything that decides its numbers is
in this file: data sets, samplers, lengths, seeds, and the measure that decides each task, which
`docs/evidence.md` states as well. Other measures of a row are shown and decide nothing.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from typing import Any, Literal

from tats_ray.algorithms.grpo import GRPOConfig
from tats_ray.core.errors import UsageError, did_you_mean

Part = Literal["quick", "finding", "main", "longer", "ablations"]
Probes = Literal["classes", "states", "none"]
Fields = Mapping[str, Any]
"""Dotted fields of a run, as on the command line."""


@dataclass(frozen=True)
class StudyTask:
    """Videos, an autoencoder for them, and what is asked of its encoder."""

    name: str
    words: str
    videos: Mapping[str, Any]
    """What makes the data set: `game` or not, and the arguments of its maker."""
    fields: Fields
    epochs: int
    """Of the main comparison; other lengths are multiples."""
    equal_time: float
    """CPU seconds of a row of TATS over those of a row of random masks, measured on whole rows."""
    primary: str
    """The measure that decides, higher is better."""
    measures: tuple[str, ...]
    """What else the tables show."""
    probes: Probes
    """What is asked of the encoder."""


_SMALL: Fields = {
    "data.num_frames": 8,
    "data.num_workers": 0,
    "data.cache_mb": 2000,
    "model.size": "tiny",
    "model.pos_embed": "sincos_3d",
    "model.head_init": "zero",
    "model.normalize_targets": False,
    "optim.min_lr": 1e-5,
    "optim.clip_grad": 1.0,
    "optim.warmup_epochs": 2,
    "eval.num_clips": 64,
    "cluster.threads": 1,
}
_PROBES = ("linear", "knn", "attentive", "finetune", "motion_auc", "motion_ratio", "entropy")
_STATES = ("state", "state_pooled", "now", "motion_auc", "motion_ratio", "entropy")

MOTION = StudyTask(
    name="motion",
    words="8 classes of motion in synthetic videos of the clear look, 64 tokens",
    videos={"num_train": 1600, "num_val": 400, "seed": 7, "look": "clear"},
    fields={
        **_SMALL,
        "data.image_size": 32,
        "data.stride": 3,
        "data.augment": "multi_scale_crop",
        "model.patch": 8,
        "optim.batch_size": 32,
        "optim.base_lr": 8e-3,
    },
    epochs=200,
    equal_time=1.9,
    primary="linear",
    measures=_PROBES,
    probes="classes",
)

FINDING = replace(
    MOTION,
    name="finding",
    words="where samplers look in synthetic videos of the clear look, 64 tokens",
    videos={**MOTION.videos, "num_train": 800},
    epochs=48,
    primary="motion_ratio",
    measures=("motion_auc", "entropy", "own_error", "error"),
    probes="none",
)


def atari(game: str) -> StudyTask:
    """A game whose states are asked for, 144 tokens."""
    return StudyTask(
        name=game,
        words=f"changes of the states of {game} over 8 frames, 144 tokens",
        videos={"game": game, "num_train": 400, "num_val": 64, "seed": 0},
        fields={
            **_SMALL,
            "data.image_size": 60,
            "data.stride": 1,
            "data.augment": "center",
            "model.patch": 10,
            "optim.batch_size": 16,
            "optim.base_lr": 1.6e-2,
            "eval.moving_share": 0.02,
        },
        epochs=48,
        equal_time=1.8,
        primary="state_pooled",
        measures=_STATES,
        probes="states",
    )


GAMES = ("freeway", "seaquest", "ms_pacman")
"""Those of the annotated games with several objects, 8 values or more. Two of them are taken:
`python -m tats_ray.benchmarks.evidence --choose` measures which, before a sampler sees any."""


def room(found: Mapping[str, float]) -> float:
    """Of a game: what pixels or an untrained encoder leave of an R2 of 1."""
    return 1 - max(found["pixels"], found["untrained"])


def by_room(games: Mapping[str, Mapping[str, float]]) -> list[str]:
    """Games, the one with the most room first: the first two are taken."""
    return sorted(games, key=lambda game: -room(games[game]))


CHOSEN = ("ms_pacman", "seaquest")
CHANGE = 8
"""Frames after the middle one: 3 of them are shown, 5 are to come."""
TASKS = {task.name: task for task in (MOTION, FINDING, *map(atari, CHOSEN))}

_MAE_ONLY = 1 / 3
"""Share of the epochs with random masks before a sampler takes part."""

_LEARNED: Fields = {
    "sampler.whiten_tokens": True,
    "sampler.pos_embed": "sincos_3d",
    "algorithm.lr": 2e-3,
    "algorithm.policy_coef": 1.0,
}
_TATS: Fields = {
    **_LEARNED,
    "sampler.name": "tats",
    "algorithm.name": "ppo",
    "algorithm.value_coef": 0.5,
    "algorithm.entropy_coef": 0.01,
    "algorithm.advantage": "relative",
    "algorithm.sharpness": 4.0,
}
_PAPER: Fields = {
    **_TATS,
    "algorithm.policy_coef": 1e-4,
    "algorithm.value_coef": 1e-4,
    "algorithm.entropy_coef": 1e-4,
    "algorithm.advantage": "raw",
    "algorithm.sharpness": 1.0,
}

ARMS: Mapping[str, tuple[str, Fields]] = {
    "untrained": ("no training at all", {"sampler.name": "random"}),
    "random": ("uniformly random masks", {"sampler.name": "random"}),
    "random_time": ("random masks for the time that TATS takes", {"sampler.name": "random"}),
    "tube": ("random tubes", {"sampler.name": "tube"}),
    "oracle": ("in proportion to true motion", {"sampler.name": "oracle"}),
    "adamae": (
        "AdaMAE's attention and loss",
        {**_LEARNED, "sampler.name": "adamae", "algorithm.name": "reinforce"},
    ),
    "tats_paper": ("TATS, the paper's coefficients and advantage", _PAPER),
    "tats": ("TATS, the coefficients of the demo", _TATS),
    "grpo": (
        "GRPO on minus the clip's error",
        {
            **_LEARNED,
            "sampler.name": "tats",
            "algorithm.name": "grpo",
            "algorithm.entropy_coef": 0.01,
        },
    ),
    "uniform_25": ("TATS, a quarter drawn uniformly", {**_TATS, "sampler.uniform_share": 0.25}),
    "uniform_50": ("TATS, half drawn uniformly", {**_TATS, "sampler.uniform_share": 0.5}),
    "uniform_75": ("TATS, three quarters uniformly", {**_TATS, "sampler.uniform_share": 0.75}),
    "ease": ("shows what is easy, hides what is hard", {**_TATS, "env.reward": "token_ease"}),
    "entropy_90": ("TATS, entropy held at 0.9", {**_TATS, "algorithm.target_entropy": 0.9}),
    "entropy_75": ("TATS, entropy held at 0.75", {**_TATS, "algorithm.target_entropy": 0.75}),
    "sharpness_1": ("TATS, sharpness 1", {**_TATS, "algorithm.sharpness": 1.0}),
    "sharpness_8": ("TATS, sharpness 8", {**_TATS, "algorithm.sharpness": 8.0}),
    "ramp": ("TATS, from random masks and back", {**_TATS, "ramp": True}),
    "stale_2": ("TATS, 2 updates late", {**_TATS, "loop.max_staleness": 2}),
    "stale_8": ("TATS, 8 updates late", {**_TATS, "loop.max_staleness": 8}),
    "plain": ("TATS with plain attention", {**_TATS, "sampler.trajectory_attention": False}),
    "blocks_2": ("TATS with two blocks", {**_TATS, "sampler.num_blocks": 2}),
    "standardized": (
        "TATS, standardised advantages",
        {
            **_TATS,
            "algorithm.advantage": "standardized",
            "algorithm.sharpness": 1.0,
            "algorithm.entropy_coef": 0.1,
        },
    ),
    "visible": (
        "TATS, visible tokens on minus the clip's error",
        {
            **_TATS,
            "algorithm.scored": "visible",
            "algorithm.advantage": "standardized",
            "algorithm.sharpness": 1.0,
            "algorithm.entropy_coef": 0.1,
        },
    ),
}
"""Name -> what it is, and the fields that it sets."""

BASELINE = "random"
"""The arm that all others are told from."""
MAIN = ("untrained", "random", "tube", "adamae", "tats_paper", "tats", "grpo", "oracle")
MOTION_MAIN = ("untrained", "random", "adamae", "tats")
"""A row of motion takes most of an hour, so only what the question needs."""
QUICK = ("untrained", "random", "tats", "oracle", "adamae", "uniform_50", "ease")
ABLATIONS = tuple(arm for arm in ARMS if arm not in (*MAIN, "random_time"))


@dataclass(frozen=True)
class StudyRow:
    """One training: an arm on a task."""

    task: str
    ratio: float
    arm: str
    seed: int
    length: float = 1.0
    """Multiple of the task's epochs."""

    @property
    def name(self) -> str:
        longer = "" if self.length == 1 else f"-x{self.length:g}"
        return f"{self.task}-{self.ratio:g}-{self.arm}{longer}-{self.seed}"

    def fields(self, task: StudyTask | None = None) -> dict[str, Any]:
        """Everything that its run sets, dotted; `task` where it is none of `TASKS`.

        A group of masks for one clip makes as many steps of an epoch's clips as it has masks, so
        such arms have fewer epochs: steps and visible tokens are equal.
        """
        task = task or TASKS[self.task]
        fields = {**task.fields, **ARMS[self.arm][1], "sampler.mask_ratio": self.ratio}
        group = GRPOConfig().masks_per_clip if fields.get("algorithm.name") == "grpo" else 1
        times = self.length * (task.equal_time if self.arm == "random_time" else 1.0)
        epochs = round(task.epochs * times / group)
        fields["loop.epochs"] = epochs
        fields["loop.mae_only_epochs"] = round(epochs * _MAE_ONLY)
        fields["optim.warmup_epochs"] = fields["optim.warmup_epochs"] / group
        if fields.pop("ramp", False):
            fields["loop.ramp_in_epochs"] = fields["loop.ramp_out_epochs"] = round(epochs / 4)
        return {**fields, "name": self.name, "seed": self.seed}


SEEDS = 4
"""The least at which two samplers can be told apart at 5 % [`ops.statistics.can_claim`]."""


_Block = tuple[str, float, tuple[str, ...], int, float]
"""Task, mask ratio, arms, seeds, length."""
_PLAN: Mapping[Part, tuple[_Block, ...]] = {
    "quick": ((CHOSEN[0], 0.9, QUICK, 1, 0.5),),
    "finding": (("finding", 0.95, ("tats", "adamae", "random"), SEEDS, 1.0),),
    "main": (
        *((game, 0.9, (*MAIN, "random_time"), SEEDS, 1.0) for game in CHOSEN),
        ("motion", 0.75, MOTION_MAIN, SEEDS, 1.0),
    ),
    "longer": ((CHOSEN[0], 0.9, ("random", "tats"), SEEDS, 3.0),),
    "ablations": ((CHOSEN[0], 0.9, ABLATIONS, 2, 1.0),),
}


def rows(part: Part) -> Iterator[StudyRow]:
    """The rows of a part, seed by seed."""
    for task, ratio, arms, seeds, length in _PLAN[part]:
        for seed in range(seeds):
            for arm in arms:
                yield StudyRow(task, ratio, arm, seed, length)


PARTS: tuple[Part, ...] = tuple(_PLAN)


def find_row(name: str) -> StudyRow:
    """The row of that name.

    Raises:
        UsageError: for an unknown name, with the nearest.
    """
    known = {row.name: row for part in PARTS for row in rows(part)}
    if name not in known:
        raise UsageError(f"no row is called {name!r}{did_you_mean(name, known)}; --list shows all")
    return known[name]
