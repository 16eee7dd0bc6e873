"""Data sets of Atari play: videos that lose no pixel, what moves in them, and the true states."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import asdict, dataclass
from itertools import count
from pathlib import Path

import numpy as np

from tats_ray.core.errors import UsageError
from tats_ray.core.seeds import derive
from tats_ray.core.storage import make_once
from tats_ray.core.words import counted
from tats_ray.data.atari.console import find_game
from tats_ray.data.atari.episodes import CLIPS, play
from tats_ray.data.atari.games import GAMES, game_of
from tats_ray.data.atari.states import write_states
from tats_ray.data.encode import write_video
from tats_ray.data.motion import motion_path, write_motion

_FORMAT = 1  # raised whenever the same spec would give other files
_MAX_IN_VAIN = 32  # episodes without a clip, one after the other
_MAX_MOVING = 0.2  # of all pixels; where more differ from the background, it does not stand still


@dataclass(frozen=True, slots=True)
class AtariSet:
    """Where a data set of Atari play lies."""

    train_list: Path
    val_list: Path
    game: str
    values: tuple[str, ...]
    """Names of the true states; none for a game whose memory nobody annotated."""

    @property
    def has_motion(self) -> bool:
        """Whether what moves is known: only where the background stands still."""
        first = self.train_list.read_text().partition("\n")[0]
        return motion_path(self.train_list.parent / first).is_file()


@dataclass(frozen=True, slots=True)
class _AtariSpec:
    """All that the files depend on, beside the versions of console and encoder."""

    game: str
    num_train: int
    num_val: int
    num_frames: int
    frame_skip: int
    seed: int
    format: int = _FORMAT


def make_atari(
    out: Path | str,
    game: str,
    *,
    num_train: int = 400,
    num_val: int = 100,
    num_frames: int = 32,
    frame_skip: int = 2,
    seed: int = 0,
    needs_states: bool = False,
    workers: int = 2,
    progress: Callable[[int, int], None] | None = None,
) -> AtariSet:
    """Makes videos of a game in `out`, or returns at once where the same ones already lie.

    No episode is in both lists. The folder appears complete or not at all.

    Args:
        out: a folder that is new, empty, or holds this very data set.
        game: a game of ale-py, such as "pong" or "MsPacman".
        num_train, num_val: videos in each list.
        num_frames: frames in a video.
        frame_skip: frames of the game for each frame of a video.
        seed: of the player, the console and the choice of clips.
        needs_states: whether a game without annotated memory is an error.
        workers: threads; they do not change the files.
        progress: called with (videos done, videos in all).

    Raises:
        UsageError: for a game that there is not, sizes that cannot be, a folder with something
            else in it, a disk without room, or when ale-py is not installed.
    """
    if min(num_train, num_val, num_frames, frame_skip, workers) < 1:
        raise UsageError(
            f"cannot make {num_train} + {counted(num_val, 'video')} of {num_frames} frames, skip "
            f"{frame_skip}, with {counted(workers, 'worker')}; all must be at least 1"
        )
    game = find_game(game)
    if needs_states and game not in GAMES:
        raise UsageError(
            f"nobody annotated the memory of {game} here; leave --needs-states out, or take one of "
            f"{', '.join(GAMES)}"
        )
    out = Path(out)
    spec = _AtariSpec(game, num_train, num_val, num_frames, frame_skip, seed)
    make_once(
        out,
        asdict(spec),
        lambda folder: _write_set(folder, spec, workers, progress),
        spec_file="atari.json",
        what="set of Atari videos",
    )
    return AtariSet(out / "train.csv", out / "val.csv", game, tuple(game_of(game).values))


def _write_set(
    folder: Path, spec: _AtariSpec, workers: int, progress: Callable[[int, int], None] | None
) -> None:
    moving: dict[str, float] = {}
    for split, number, before in (
        ("train", spec.num_train, 0),
        ("val", spec.num_val, spec.num_train),
    ):
        (folder / split).mkdir()
        names = []
        for name, share in _clips(folder, spec, split, number, workers):
            names.append(name)
            moving[name] = share
            if progress is not None:
                progress(before + len(names), spec.num_train + spec.num_val)
        kept = {Path(name).stem for name in names}
        for path in (folder / split).iterdir():
            if path.name.partition(".")[0] not in kept:
                path.unlink()  # clips beyond the number that was asked for
        (folder / f"{split}.csv").write_text("".join(f"{name}\n" for name in names))
    if np.mean([*moving.values()]) > _MAX_MOVING:
        for name in moving:
            motion_path(folder / name).unlink()


def _clips(
    folder: Path, spec: _AtariSpec, split: str, number: int, workers: int
) -> Iterator[tuple[str, float]]:
    """The first `number` clips of the episodes 0, 1, 2, ..., which are played side by side.

    Threads do: numpy and the encoder let go of the interpreter lock, which the console needs.
    """
    episodes, in_vain = count(), 0
    running: deque[Future[list[tuple[str, float]]]] = deque()
    with ThreadPoolExecutor(workers) as pool:
        while number > 0:
            ahead = min(workers, -(-number // CLIPS))
            while len(running) < ahead:
                running.append(pool.submit(_write_episode, folder, spec, split, next(episodes)))
            written = running.popleft().result()
            yield from written[:number]
            number -= len(written)
            in_vain = 0 if written else in_vain + 1
            if in_vain == _MAX_IN_VAIN:
                raise UsageError(
                    f"{in_vain} episodes of {spec.game} had no {spec.num_frames} frames in which "
                    "something is in play; take shorter clips or another game"
                )


def _write_episode(
    folder: Path, spec: _AtariSpec, split: str, number: int
) -> list[tuple[str, float]]:
    """Plays an episode and writes its clips; returns their names and how much of them moves."""
    game = game_of(spec.game)
    episode = play(
        spec.game,
        game,
        num_frames=spec.num_frames,
        frame_skip=spec.frame_skip,
        seed=derive(spec.seed, "atari", spec.game, split, number),
    )
    written = []
    for index, start in enumerate(episode.starts):
        name = f"{split}/{number:05d}-{index}.mp4"
        write_video(folder / name, episode.clip(start), 60 // spec.frame_skip or 1, "lossless")
        objects = episode.objects(start)
        write_motion(folder / name, objects)
        if game.values:
            memory = episode.memory[start : start + spec.num_frames]
            states = {value: byte.read(memory) for value, byte in game.values.items()}
            write_states(folder / name, states)
        written.append((name, float(objects.mean())))
    return written
