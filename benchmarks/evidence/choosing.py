"""Which two games are asked: those with the most room, known before a sampler sees any.

The room of a game is what pixels or an untrained encoder leave of an R2 of 1. Not all of it can be
gained: what a player does at random cannot be known. True states of the shown frames stand beside
them, and are no ceiling: read linearly, they say less than pixels where objects leave the screen.
"""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from tats_ray.config.encoder_flags import EncoderOptions
from tats_ray.core.devices import torch_threads
from tats_ray.core.storage import replace_text
from tats_ray.data.atari.states import read_states
from tats_ray.data.manifest import VideoEntry
from tats_ray.evaluation.encoder import open_encoder

from .measuring import STATE_VIEWS, StateReader, ridge
from .plan import CHANGE, GAMES, StudyRow, atari, by_room
from .row_files import CHOICE, made_here
from .run_row import RUNS, config_of, make_videos
from .training import train


@torch_threads(1)
def choose(path: Path = CHOICE) -> None:
    """Measure every game that is not in the file yet, and print what chooses two of them."""
    found = json.loads(path.read_text())["games"] if path.is_file() else {}
    for game in GAMES:
        if game not in found:
            found[game] = _measured(game)
            whole = {"games": found, "origin": made_here()}
            replace_text(path, json.dumps(whole, indent=1) + "\n")
    for game in by_room(found):
        print(game, {name: round(value, 3) for name, value in found[game].items()})


def _measured(game: str) -> dict[str, float]:
    task, run = atari(game), RUNS / f"choice-{game}"
    data = make_videos(game, task.videos)
    train(config_of(StudyRow(game, 0.9, "untrained", 0), task), run, is_trained=False)
    reader = StateReader(open_encoder(run, EncoderOptions(device="cpu")), data)
    targets = reader.targets(CHANGE)
    seen = [_seen(part, reader) for part in reader.lists]
    shown = [reader.pixels(part) for part in reader.lists]
    return {
        "states": ridge(seen[0], seen[1], *targets),
        "pixels": ridge(shown[0], shown[1], *targets),
        "untrained": reader.read(CHANGE),
        "values": float(len(targets[0].names)),
    }


def _seen(entries: list[VideoEntry], reader: StateReader) -> Tensor:
    """True states of all frames of every clip, and which of them are known: n F x 2 x values."""
    frames, rows = reader.source.grid.num_frames, []
    for entry in entries:
        states = read_states(entry.path)
        assert states is not None
        table = torch.from_numpy(np.stack([*states.values()], axis=1))
        shown = STATE_VIEWS.frames(len(table), frames, reader.source.data.stride)
        values = table[shown].unflatten(0, (STATE_VIEWS.num_views, frames)).flatten(1)
        rows.append(torch.cat([values.nan_to_num(), values.isnan().double()], 1))
    return torch.cat(rows).float()
