"""The console: a game that runs frame by frame. The only place that touches ale-py."""

from __future__ import annotations

import difflib
from collections.abc import Iterator
from contextlib import contextmanager

import numpy as np

from tats_ray.core.arrays import UInt8
from tats_ray.core.errors import UsageError


def find_game(name: str) -> str:
    """The id of a game: `ms_pacman` for `MsPacman`, `ms-pacman` or `ALE/MsPacman-v5`.

    Raises:
        UsageError: for a game that ale-py does not hold, or when ale-py or its games are missing.
    """
    with _ale_errors():
        from ale_py.roms import get_all_rom_ids

        known = {_key(game): game for game in get_all_rom_ids()}
    key = _key(name.rpartition("/")[2].removesuffix("-v5"))
    if key not in known:
        near = [known[each] for each in difflib.get_close_matches(key, known)]
        hint = (
            f"did you mean {' or '.join(near)}?"
            if near
            else f"it has {len(known)}, such as {', '.join(list(known.values())[::24])}"
        )
        raise UsageError(f"ale-py has no game {name!r}; {hint}")
    return known[key]


def _key(name: str) -> str:
    return name.lower().replace("_", "").replace("-", "")


@contextmanager
def _ale_errors() -> Iterator[None]:
    """What is wrong with the installation, in one line."""
    try:
        yield
    except ImportError as error:
        raise UsageError(f"ale-py is not installed ({error}); pip install ale-py") from None
    except OSError as error:
        raise UsageError(
            f"ale-py is here without its games ({error}); pip install --force-reinstall ale-py, "
            "or set ALE_ROMS_DIR to the folder that holds them"
        ) from None


class Console:
    """One game from its start, without sticky actions: a function of seed and actions.

    Args:
        game: an id that `find_game` gave.
        seed: of the console's own randomness.

    Raises:
        UsageError: when ale-py or the game is missing.
    """

    def __init__(self, game: str, seed: int) -> None:
        with _ale_errors():
            from ale_py import Action, ALEInterface, LoggerMode
            from ale_py.roms import get_rom_path

            ALEInterface.setLoggerMode(LoggerMode.Error)
            self._ale = ALEInterface()
            self._ale.setInt("random_seed", seed % 2**31)
            self._ale.setFloat("repeat_action_probability", 0.0)
            self._ale.loadROM(str(get_rom_path(game)))
        self._actions = Action.__members__
        self.actions: tuple[str, ...] = tuple(
            action.name for action in self._ale.getMinimalActionSet()
        )
        height, width = self._ale.getScreenDims()
        self._screen = np.empty((height, width), np.uint8)
        self._is_known = np.zeros(256, bool)
        self.palette: UInt8[np.ndarray, "256 3"] = np.zeros((256, 3), np.uint8)
        """RGB of the colours that were on the screen so far."""

    @property
    def is_over(self) -> bool:
        return bool(self._ale.game_over())

    @property
    def memory(self) -> UInt8[np.ndarray, " 128"]:
        memory: np.ndarray = self._ale.getRAM()
        return memory

    def act(self, action: str) -> None:
        """Hold the joystick in a position, such as "UPFIRE", for one frame."""
        self._ale.act(self._actions[action])

    def screen(self) -> UInt8[np.ndarray, "H W"]:
        """The colour number of every pixel; `palette` knows them all afterwards."""
        self._ale.getScreen(self._screen)
        if not self._is_known[self._screen].all():
            self.palette[self._screen] = self._ale.getScreenRGB()
            self._is_known[self._screen] = True
        return self._screen.copy()
