"""State probes: what is read off features that are known to hold it, and a whole command."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import torch

from tats_ray.checkpoints import format as checkpoints
from tats_ray.checkpoints.format import Checkpoint
from tats_ray.config.load import dump_config, parse_config
from tats_ray.core.types import Position
from tats_ray.data.atari.states import states_path, write_states
from tats_ray.data.encode import write_video
from tats_ray.data.manifest import read_list
from tats_ray.data.views import ViewPlan
from tats_ray.evaluation.states import readouts
from tats_ray.evaluation.states.readouts import (
    principal_components,
    read_attentively,
    read_linearly,
    read_majority,
)
from tats_ray.evaluation.states.targets import Targets, binned, read_targets
from tats_ray.models.zoo import build_mae, token_grid
from tats_ray.ops.optim import adamw
from tats_ray.ops.scores import weighted_f1
from tests.commands import refusal, tats

NAN = float("nan")


def test_weighted_f1_is_that_of_the_definition() -> None:
    # True classes 0 0 0 1, read as 0 0 1 1: F1 of class 0 is 0.8, of class 1 it is 2/3.
    confusion = torch.tensor([[2, 1, 0], [0, 1, 0], [0, 0, 0]])
    assert weighted_f1(confusion) == pytest.approx((3 * 0.8 + 1 * 2 / 3) / 4)


def _examples(count: int = 300) -> tuple[torch.Tensor, Targets]:
    """Features that hold a number and a class linearly, and nothing of a third value."""
    draw = torch.Generator().manual_seed(0)
    features = torch.randn(count, 12, generator=draw)
    place = 40 + 10 * features[:, 0].double()
    kind = (features[:, 1] > 0).double() * 8
    noise = torch.randint(0, 3, (count,), generator=draw).double()
    place[::7] = NAN
    return features, Targets(("place", "kind", "noise"), torch.stack([place, kind, noise], 1))


def test_classes_are_made_of_training_values_and_what_does_not_vary_is_left_out() -> None:
    many = torch.arange(64.0).double()
    few = (torch.arange(64) % 3).double() * 5
    still, unknown = torch.ones(64).double(), torch.full((64,), NAN).double()
    values = torch.stack([many, few, still, unknown], 1)
    train = Targets(("many", "few", "still", "unknown"), values)
    far = values + torch.tensor([1000.0, 1.0, 0.0, 0.0]).double()
    train, val, left_out = binned(train, Targets(train.names, far))
    assert (train.names, left_out) == (("many", "few"), ("still", "unknown"))
    assert train.num_classes.tolist() == [16, 3]
    assert set(torch.bincount(train.classes[:, 0]).tolist()) <= {3, 4, 5}
    assert val.classes[:, 0].tolist() == [15] * 64  # beyond all training values
    assert val.classes[:3, 1].tolist() == [0, 1, 2]


def test_linear_readout_finds_what_is_linear_and_nothing_in_noise() -> None:
    features, targets = _examples()
    train, val, _ = binned(targets.take(torch.arange(200)), targets.take(torch.arange(200, 300)))
    read = read_linearly(features[:200], features[200:], train, val)
    assert read.r2[0] > 0.999
    assert read.accuracy[0] > 0.2  # of 16 classes, which a linear map cannot well tell apart
    assert min(read.accuracy[1], read.f1[1]) > 0.9
    assert read.r2[2] < 0.1
    assert read.accuracy[2] < 0.5
    common = read_majority(train, val)
    assert max(common.r2) <= 0
    assert common.accuracy[0] < 0.1
    assert common.accuracy[1] < 0.65
    assert common.f1[1] < common.accuracy[1]


def test_attentive_readout_finds_the_token_that_knows(monkeypatch: pytest.MonkeyPatch) -> None:
    """Its mean over 16 tokens drowns in the others."""
    monkeypatch.setitem(readouts.ATTENTIVE, "steps", 150)
    draw = torch.Generator().manual_seed(0)
    tokens = 4 * torch.randn(400, 16, 16, generator=draw)
    tokens[..., :4] = 0
    tokens[:, 5, 0] = 30  # the one to look at
    side = torch.randint(0, 2, (400,), generator=draw)
    tokens[:, 5, 1] = 30.0 * side - 15
    tokens += 300 * torch.randn(16, generator=draw)  # what all have in common
    targets = Targets(("side",), side[:, None].double())
    train, val, _ = binned(targets.take(torch.arange(300)), targets.take(torch.arange(300, 400)))
    device = torch.device("cpu")
    parts = tokens[:300].half(), tokens[300:].half()
    read = read_attentively(*parts, train, val, num_heads=2, seed=0, device=device)
    again = read_attentively(*parts, train, val, num_heads=2, seed=0, device=device)
    assert read == again
    assert min(read.accuracy[0], read.f1[0], read.r2[0]) > 0.9


def test_principal_components_keep_distances_and_carry_over() -> None:
    draw = torch.Generator().manual_seed(0)
    low = torch.randn(50, 3, generator=draw) @ torch.randn(3, 40, generator=draw)
    train, val = principal_components(low[:40], low[40:], 8)
    assert train.shape == (40, 3)
    centred = low - low[:40].mean(0)
    for part, whole in ((train, centred[:40]), (val, centred[40:])):
        part, whole = part.double(), whole.double()
        distances = torch.cdist(part, part), torch.cdist(whole, whole)
        torch.testing.assert_close(*distances, rtol=1e-3, atol=1e-3)


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A bright square on black with its column as state, and an encoder that learned nothing."""
    folder = tmp_path_factory.mktemp("states")
    rng = np.random.default_rng(0)
    for split, count in (("train", 48), ("val", 24)):
        (folder / "data" / split).mkdir(parents=True)
        names = [f"{split}/{number}.mp4" for number in range(count)]
        for name in names:
            x = int(rng.integers(0, 24)) + np.arange(4)
            frames = np.zeros((4, 32, 32, 3), np.uint8)
            for at in range(4):
                frames[at, 12:20, x[at] : x[at] + 8] = 255
            write_video(folder / "data" / name, frames, codec="lossless")
            states = {"x": x.astype(float), "still": np.ones(4)}
            write_states(folder / "data" / name, states)
        (folder / "data" / f"{split}.csv").write_text("".join(f"{name}\n" for name in names))
    raw = {
        "name": "small",
        "data": {"num_frames": 4, "image_size": 32, "stride": 1},
        "model": {"size": "tiny", "patch": 8, "depth": 1, "decoder_depth": 1},
        "algorithm": {"name": "ppo"},
    }
    config = parse_config(raw)
    mae = build_mae(config.model, token_grid(config.data, config.model), seed=0)
    optimizer = adamw(mae, lr=1.0, betas=(0.9, 0.95), weight_decay=0.0)
    part = {"network": mae.state_dict(), "optimizer": optimizer.state_dict(), "numbers": {}}
    state = Checkpoint(Position(step=5), part, None, dump_config(config))
    checkpoints.save(folder / "run", state, keep_last=1)
    return folder


def test_command_writes_a_line_for_each_value_and_each_measure(
    place: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(readouts.ATTENTIVE, "steps", 20)
    tats("probe", "state", place / "run", place / "data", "--device", "cpu")
    shown = capsys.readouterr().out
    assert "left out, since they vary too little or are rarely known: still" in shown
    for measure in ("weighted F1, %", "accuracy, %", "R2"):
        assert f"state probe, {measure}, 24 clips of the validation list" in shown
    assert sum(line.startswith("x ") for line in shown.splitlines()) == 3
    (folder,) = (place / "run" / "probes").glob("state-*")
    found = json.loads((folder / "protocol.json").read_text())
    assert list(found["results"]) == [
        "majority",
        "pixels",
        *("untrained mean", "untrained attentive", "encoder mean", "encoder attentive"),
    ]
    assert found["results"]["pixels"]["r2"]["x"] > 0.9
    assert found["results"]["encoder mean"]["r2"]["x"] > 0.5
    assert found["results"]["majority"]["r2"]["x"] <= 0


def test_changes_are_those_after_the_middle_frame_and_unknown_beyond_the_end(
    place: Path,
) -> None:
    """The square moves one pixel a frame; the middle of the only clip is frame 2 of 4."""
    entries = read_list(place / "data" / "val.csv")
    names, known = [], []
    for change in (1, 2):
        found = read_targets(entries, ViewPlan(), num_frames=4, stride=1, change=change)
        names.append(found.names)
        known.append(found.values[:, 0])
    assert names == [("x", "still")] * 2
    assert known[0].tolist() == [1.0] * len(entries)
    assert known[1].isnan().all()


def test_negative_change_is_refused(place: Path, capsys: pytest.CaptureFixture[str]) -> None:
    words = ("probe", "state", place / "run", place / "data", "--change", "-1")
    assert "change must be 0 or more frames, got -1" in refusal(capsys, *words)


def test_videos_without_states_are_refused(place: Path, capsys: pytest.CaptureFixture[str]) -> None:
    table = states_path(place / "data" / "train" / "3.mp4")
    whole = table.read_text()
    try:
        table.write_text("\n".join(whole.splitlines()[:3]) + "\n")
        assert "a row for each frame of the video" in _refused(place, capsys)
        table.unlink()
        assert "has no 3.states.csv beside it, the true states; `tats data atari`" in _refused(
            place, capsys
        )
    finally:
        table.write_text(whole)


def _refused(place: Path, capsys: pytest.CaptureFixture[str]) -> str:
    return refusal(capsys, "probe", "state", place / "run", place / "data", "--device", "cpu")
