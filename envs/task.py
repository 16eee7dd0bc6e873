"""Builds the parts of an environment from its options."""

from __future__ import annotations

from dataclasses import dataclass

from tats_ray.envs.actions import ActionReader, Indices, NewIndices, Scores

from tats_ray.checkpoints.frozen_scorer import TINY_GRID, FrozenScorer
from tats_ray.core.errors import UsageError
from tats_ray.core.grid import TokenGrid
from tats_ray.core.protocols import Scorer
from tats_ray.data.clips import ClipSource, SyntheticClips, VideoClips
from tats_ray.ops.rewards import Reward, find_reward

_TINY_VISIBLE = 16
_NUM_CLIPS = 256


@dataclass(frozen=True, kw_only=True, slots=True)
class TaskOptions:
    """All options of the environments. With a `scorer`, defaults are those of the training loop."""

    scorer: Scorer | None = None
    """Who judges. Default: the autoencoder of `checkpoint`, else the tiny one, both frozen."""
    checkpoint: str | None = None
    """Run folder, one of its checkpoints, or another project's file or folder with a decoder."""
    device: str | None = None
    """Where the autoencoder of `checkpoint`, or the tiny one, runs: cpu, cuda, cuda:1, ...
    Default: cpu."""
    grid: TokenGrid | None = None
    """Lattice of tokens; needed with a scorer that has none of its own."""
    width: int | None = None
    """Width of a token embedding; as `grid`."""
    num_visible: int | None = None
    """Tokens to choose in an episode. Default: 16 of the tiny one's 144, else the checkpoint's."""
    reward: str | None = None
    """Name in `tats_ray.ops.rewards.REWARDS`. Default: error_reduction; with a scorer
    token_error."""
    action: str | None = None
    """Default: scores; with a scorer indices."""
    observation: str | None = None
    """Default: features; with a scorer tokens."""
    videos: str | ClipSource | None = None
    """A list of videos to show the middle of, or any source of numbered clips."""
    num_clips: int | None = None
    """How many synthetic clips to show instead. Default: 256; with a scorer none: every reset
    brings clips."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Task:
    """The parts of an environment."""

    scorer: Scorer
    grid: TokenGrid
    width: int
    num_visible: int
    reward: Reward
    reward_name: str
    action: ActionReader
    observation: str
    source: ClipSource | None


def build_task(options: TaskOptions, num_rounds: int | None = None) -> Task:
    """Fill in the defaults and check.

    Args:
        num_rounds: rounds that the budget is spread over; None for a one-shot choice.

    Raises:
        UsageError: for options that contradict each other or are not known, and for a device that
            is not here.
        CheckpointError: for what is wrong with `checkpoint`.
    """
    for name in ("checkpoint", "device"):
        if options.scorer is not None and getattr(options, name) is not None:
            raise UsageError(f"both scorer and {name} are given; give one")
    scorer = options.scorer or _frozen(options)
    is_own = options.scorer is None
    grid = options.grid or getattr(scorer, "grid", None)
    width = options.width or getattr(scorer, "width", None)
    if grid is None or width is None:
        raise UsageError(f"{type(scorer).__name__} has no grid and width; give both")
    if is_own and (grid, width) != (scorer.grid, scorer.width):  # type: ignore[attr-defined]
        raise UsageError("grid and width are the checkpoint's; leave them out")
    num_visible = options.num_visible or _default_visible(scorer, grid)
    if not 0 < num_visible < grid.num_tokens:
        raise UsageError(
            f"num_visible {num_visible} is not in [1, {grid.num_tokens - 1}]: some tokens must be "
            "visible and some hidden"
        )
    if num_rounds is not None:
        _check_rounds(num_visible, num_rounds)
    name = options.reward or ("error_reduction" if is_own else "token_error")
    return Task(
        scorer=scorer,
        grid=grid,
        width=width,
        num_visible=num_visible,
        reward=find_reward(name),
        reward_name=name,
        action=_reader(
            options.action or ("scores" if is_own else "indices"), grid, num_visible, num_rounds
        ),
        observation=options.observation or ("features" if is_own else "tokens"),
        source=_source(options, grid, is_own),
    )


def _frozen(options: TaskOptions) -> FrozenScorer:
    device = "cpu" if options.device is None else options.device
    if options.checkpoint is None:
        return FrozenScorer.tiny(device=device)
    return FrozenScorer.load(options.checkpoint, device=device)


def _check_rounds(num_visible: int, num_rounds: int) -> None:
    if num_rounds < 1 or num_visible % num_rounds:
        near = [str(n) for n in range(1, num_visible + 1) if num_visible % n == 0]
        raise UsageError(
            f"num_visible {num_visible} does not divide into {num_rounds} equal rounds; "
            f"num_rounds can be {', '.join(near)}"
        )


def _default_visible(scorer: Scorer, grid: TokenGrid) -> int:
    if not isinstance(scorer, FrozenScorer):
        raise UsageError("num_visible is missing: say how many tokens an episode may show")
    return _TINY_VISIBLE if grid == TINY_GRID else grid.num_visible(scorer.mask_ratio)


def _reader(kind: str, grid: TokenGrid, num_visible: int, num_rounds: int | None) -> ActionReader:
    readers: dict[str, type[Scores] | type[Indices]] = {
        "scores": Scores,
        "indices": Indices if num_rounds is None else NewIndices,
    }
    if kind not in readers:
        raise UsageError(f"action {kind!r} is not known; known: {', '.join(readers)}")
    return readers[kind](grid.num_tokens, num_visible // (num_rounds or 1))


def _source(options: TaskOptions, grid: TokenGrid, is_own: bool) -> ClipSource | None:
    if options.videos is not None:
        if options.num_clips is not None:
            raise UsageError("both videos and num_clips are given; give one")
        return (
            VideoClips(grid, options.videos) if isinstance(options.videos, str) else options.videos
        )
    if options.num_clips is not None or is_own:
        return SyntheticClips(grid, _NUM_CLIPS if options.num_clips is None else options.num_clips)
    return None
