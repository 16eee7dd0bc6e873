"""One episode of play: what was on the screen, which clips of it are worth showing, what moves."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np

from tats_ray.core.arrays import Bool, UInt8
from tats_ray.core.seeds import derive
from tats_ray.data.atari.console import Console
from tats_ray.data.atari.games import SIDE, Game

CLIPS = 8
"""An episode gives so many clips at most, so that many episodes are seen."""

# In frames of the game, of which the console shows 60 a second.
_FIRST, _LATEST = 60, 360  # the first clip starts between these
_HOLD = (3, 15)  # a position of the joystick is held for so long
_REST = 600  # what is in one place for a share of this time, before or after a clip, is background

_REST_SHARE = 0.4
_LOOKS = 40  # screens that are compared for it
_CHASE_SHARE = 0.7
_IN_PLAY_SHARE = 0.8
_CHANGE_SHARE = 0.5  # of the frames, at least, differ from the one before


@dataclass(frozen=True, slots=True)
class PlayedEpisode:
    """The part of the screen that is shown, and the memory, at every `frame_skip`-th frame."""

    screens: UInt8[np.ndarray, "T H W"]
    """Colour numbers."""
    memory: UInt8[np.ndarray, "T 128"]
    palette: UInt8[np.ndarray, "256 3"]
    starts: tuple[int, ...]
    """First frames of the clips."""
    num_frames: int
    """Frames of a clip."""
    frame_skip: int

    def clip(self, start: int) -> UInt8[np.ndarray, "F H W 3"]:
        """The frames of a clip as RGB."""
        frames: np.ndarray = self.palette[self.screens[start : start + self.num_frames]]
        return frames

    def objects(self, start: int) -> Bool[np.ndarray, "F H W"]:
        """Pixels of a clip that do not show the background.

        Background is what its pixel shows for much of the time around the clip, before it or after
        it: a brick is until it is hit, and the gap is from then on.
        """
        stop, reach = start + self.num_frames, _REST // self.frame_skip
        first, middle = max(start - reach, 0), (start + stop) // 2
        shape = (self.num_frames, *self.screens.shape[1:])
        screens = self.screens.reshape(len(self.screens), -1)
        around = screens[first : stop + reach]
        changing = np.flatnonzero((around != around[0]).any(0))
        clip = screens[start:stop, changing]
        is_still = np.zeros(clip.shape, bool)
        for begin, end in ((first, middle), (middle, stop + reach)):
            looks = screens[begin : end : max(reach // _LOOKS, 1), changing]
            is_still |= _rests(looks, clip)
        found = np.zeros(shape, bool).reshape(self.num_frames, -1)
        found[:, changing] = ~is_still
        return found.reshape(shape)


def _rests(
    looks: UInt8[np.ndarray, "L P"], clip: UInt8[np.ndarray, "F P"]
) -> Bool[np.ndarray, "F P"]:
    """Whether a place shows in a clip what it shows for much of the time."""
    is_used = np.bincount(looks.ravel(), minlength=256) > 0
    place, number = np.arange(looks.shape[1]), np.cumsum(is_used) - 1
    codes = number[looks] * looks.shape[1] + place
    counts = np.bincount(codes.ravel(), minlength=is_used.sum() * looks.shape[1])
    is_common = counts >= _REST_SHARE * len(looks)
    return is_used[clip] & is_common[number[clip] * looks.shape[1] + place]


def play(name: str, game: Game, *, num_frames: int, frame_skip: int, seed: int) -> PlayedEpisode:
    """Play until there are enough clips and what follows them, or until the game is over.

    Args:
        name: id of the game.
        num_frames, frame_skip: frames of a clip, and frames of the game for each of them.
        seed: of the console, the player and the choice of clips.
    """
    rng = np.random.default_rng(derive(seed, "clips"))
    longest = _LATEST // frame_skip + 2 * CLIPS * num_frames + _REST // frame_skip
    screens, memory, palette = _record(name, game, longest, frame_skip, seed)
    starts: list[int] = []
    at = int(rng.integers(_FIRST, _LATEST + 1)) // frame_skip
    while at + num_frames <= len(screens) and len(starts) < CLIPS:
        stop = at + num_frames
        if _is_in_play(game, screens[at:stop], memory[at:stop]):
            starts.append(at)
        at = stop + int(rng.integers(num_frames + 1))
    return PlayedEpisode(screens, memory, palette, tuple(starts), num_frames, frame_skip)


def _record(
    name: str, game: Game, longest: int, frame_skip: int, seed: int
) -> tuple[UInt8[np.ndarray, "T H W"], UInt8[np.ndarray, "T 128"], UInt8[np.ndarray, "256 3"]]:
    console = Console(name, derive(seed, "console"))
    player = _player(game, console, derive(seed, "player"))
    screens, memory = [], []
    for frame in range(longest * frame_skip):
        console.act(next(player))
        if console.is_over:
            break
        if (frame + 1) % frame_skip == 0:
            screens.append(console.screen()[game.top : game.top + SIDE])
            memory.append(console.memory)
    shape = (len(screens), -1)
    return (
        np.array(screens, np.uint8).reshape(*shape, SIDE),
        np.array(memory, np.uint8).reshape(shape),
        console.palette,
    )


def _player(game: Game, console: Console, seed: int) -> Iterator[str]:
    """Positions of the joystick, frame by frame: drawn and held, or in chase of a target.

    Who chases lets go of the target for nearly a third of the time.
    """
    rng = np.random.default_rng(seed)
    actions = game.actions or console.actions
    while True:
        action = str(rng.choice(actions))
        is_chasing = game.chase is not None and rng.random() < _CHASE_SHARE
        for _ in range(int(rng.integers(*_HOLD))):
            yield _chase(game, console) if is_chasing else action


def _chase(game: Game, console: Console) -> str:
    assert game.chase is not None
    player, target, shift = game.chase
    memory = console.memory[None]
    ahead = game.values[target].read(memory)[0] - game.values[player].read(memory)[0] - shift
    if np.isnan(ahead):
        return "FIRE"
    return "RIGHT" if ahead > 2 else "LEFT" if ahead < -2 else "NOOP"


def _is_in_play(
    game: Game, screens: UInt8[np.ndarray, "F H W"], memory: UInt8[np.ndarray, "F 128"]
) -> bool:
    changes = (screens[1:] != screens[:-1]).any((1, 2))
    if len(changes) and changes.mean() < _CHANGE_SHARE:
        return False
    if not game.in_play:
        return True
    is_there = ~np.isnan(game.values[game.in_play].read(memory))
    return bool(is_there.mean() >= _IN_PLAY_SHARE)
