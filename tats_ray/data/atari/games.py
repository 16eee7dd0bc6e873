"""What is known of single games: where their memory keeps what, what to show, how to play.

The addresses are those of AtariARI [Anand et al. 2019, "Unsupervised State Representation Learning
in Atari", NeurIPS]. Where an object is on the screen was measured: the origins below turn a byte
into the row or column of the object's upper left pixel.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

import numpy as np

from tats_ray.core.arrays import Float, UInt8

SIDE = 160
"""Height and width of the part of the screen that is shown, pixels; the screen is that wide."""


@dataclass(frozen=True, slots=True)
class Byte:
    """A value in the memory: `sign * byte + origin`."""

    address: int
    origin: int = 0
    sign: int = 1
    shown: int | None = None
    """Address of a byte that is 0 while the object is not there."""

    def read(self, memory: UInt8[np.ndarray, "T 128"]) -> Float[np.ndarray, " T"]:
        """The value over time; NaN while the object is not there."""
        value = self.sign * memory[:, self.address].astype(np.float64) + self.origin
        if self.shown is not None:
            value[memory[:, self.shown] == 0] = np.nan
        return value


@dataclass(frozen=True, slots=True)
class Game:
    """How to show and play a game; the defaults suit most."""

    top: int = 34
    """First row of the screen that is shown."""
    values: Mapping[str, Byte] = field(default_factory=dict)
    """What the memory says, by name; places are pixels of the part that is shown."""
    in_play: str = ""
    """Value that is there only while something is in play."""
    actions: tuple[str, ...] = ()
    """Positions of the joystick to draw from, some perhaps several times; all if empty."""
    chase: tuple[str, str, int] | None = None
    """Values of the player's and of the target's column, and by how much they differ at a hit."""


def _lanes(name: str, addresses: range, origin: int = 0) -> dict[str, Byte]:
    return {f"{name}_{i}": Byte(address, origin) for i, address in enumerate(addresses)}


def _ghosts() -> dict[str, Byte]:
    places = {}
    for i, name in enumerate(("sue", "inky", "pinky", "blinky")):
        places[f"enemy_{name}_x"] = Byte(6 + i, -12)
        places[f"enemy_{name}_y"] = Byte(12 + i, 1 - _MAZE_TOP)
    return places


_MAZE_TOP, _ROAD_TOP, _SEA_TOP = 5, 36, 26

GAMES: Mapping[str, Game] = {
    "pong": Game(
        values={
            "player_y": Byte(51, -47),
            "enemy_y": Byte(50, -49),
            "ball_x": Byte(49, -49, shown=54),
            "ball_y": Byte(54, -48, shown=54),
        },
        in_play="ball_y",
        actions=("NOOP", "RIGHT", "LEFT"),
    ),
    "breakout": Game(
        values={
            "ball_x": Byte(99, -49, shown=101),
            "ball_y": Byte(101, -25, shown=101),
            "player_x": Byte(72, -47),
            "blocks_hit_count": Byte(77),
        },
        in_play="ball_y",
        chase=("player_x", "ball_x", 7),
    ),
    "freeway": Game(
        top=_ROAD_TOP,
        values={
            "player_y": Byte(14, 193 - _ROAD_TOP, sign=-1),
            **_lanes("enemy_car_x", range(108, 118), -3),
        },
        actions=("UP", "UP", "UP", "NOOP", "DOWN"),
    ),
    "seaquest": Game(
        top=_SEA_TOP,
        values={
            "player_x": Byte(70),
            "player_y": Byte(97, 33 - _SEA_TOP),
            "player_direction": Byte(86),
            "player_missile_x": Byte(103, shown=103),
            **_lanes("enemy_obstacle_x", range(30, 34)),
            **_lanes("diver_or_enemy_missile_x", range(71, 75)),
            "oxygen_meter_value": Byte(102),
            "divers_collected_count": Byte(62),
        },
        # Mostly down: drawn from all, the submarine rests at the surface.
        actions=(
            *("LEFT", "RIGHT", "UPLEFTFIRE", "UPRIGHTFIRE", "DOWNLEFTFIRE", "DOWNRIGHTFIRE"),
            *("DOWN", "DOWNLEFT", "DOWNRIGHT"),
        ),
    ),
    "ms_pacman": Game(
        top=_MAZE_TOP,
        values={
            "player_x": Byte(10, -12),
            "player_y": Byte(16, 1 - _MAZE_TOP),
            **_ghosts(),
            "fruit_x": Byte(11),
            "fruit_y": Byte(17),
            "player_direction": Byte(56),
            "ghosts_count": Byte(19),
            "dots_eaten_count": Byte(119),
        },
    ),
}


def game_of(name: str) -> Game:
    """What is known of a game; of most, nothing."""
    return GAMES.get(name, Game())
