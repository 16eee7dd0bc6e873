"""Features are a function of weights, views and files; the cache never hides a change of them."""

from __future__ import annotations

import json
import os
import shutil
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors import safe_open

from tats_ray.config.schema import DataConfig
from tats_ray.core.errors import NonFiniteError, UsageError, VideoError
from tats_ray.core.grid import TokenGrid
from tats_ray.data.manifest import VideoEntry, read_list
from tats_ray.data.synthetic import synthesize
from tats_ray.data.views import ViewDataset, ViewPlan
from tats_ray.evaluation import feature_cache
from tats_ray.evaluation.feature_cache import cached, write, write_tensors
from tats_ray.evaluation.features import FeatureRequest, FrozenEncoder, compute
from tats_ray.models.mae import MaskedAutoencoder
from tats_ray.models.probe_heads import raw_tokens
from tats_ray.ops.patches import imagenet_normalize


@pytest.fixture(scope="module")
def entries(tmp_path_factory: pytest.TempPathFactory) -> list[VideoEntry]:
    folder = tmp_path_factory.mktemp("videos")
    made = synthesize(folder, num_train=5, num_val=1, num_frames=12, size=32, workers=1)
    return read_list(made.train_list)


@pytest.fixture
def request_for(mae: MaskedAutoencoder, grid: TokenGrid, entries: list[VideoEntry]) -> Any:
    def make(**options: Any) -> FeatureRequest:
        data = DataConfig(num_frames=grid.num_frames, image_size=grid.image_size, stride=1)
        source = FrozenEncoder(mae.encoder.eval(), grid, data)
        return FeatureRequest(
            **{"source": source, "entries": entries, "plan": ViewPlan(2, 1), **options}
        )

    return make


def quiet(text: str) -> None:
    """Says nothing."""


def forbidden(*args: Any, **options: Any) -> Any:
    raise AssertionError("nothing should have been computed")


def test_features_are_mean_pooled_raw_tokens_of_each_view(
    request_for: Any, mae: MaskedAutoencoder, entries: list[VideoEntry], grid: TokenGrid
) -> None:
    found = compute(request_for(), num_workers=0, say=quiet)
    assert found.values.shape == (5, 2, 16)
    assert found.values.dtype == torch.float32
    assert found.index.tolist() == list(range(5))
    views = ViewDataset(entries, ViewPlan(2, 1), num_frames=4, image_size=16, stride=1)[3].pixels
    assert views is not None
    tokens = raw_tokens(mae.encoder, imagenet_normalize(mae.pixels(views)))
    torch.testing.assert_close(found.values[3], tokens.mean(1))
    whole = compute(request_for(pool="tokens"), num_workers=0, say=quiet)
    assert whole.values.shape == (5, 2, grid.num_tokens, 16)
    assert torch.equal(whole.values[3], tokens.half())


def test_loader_processes_and_the_rest_of_the_list_change_no_bit(
    request_for: Any, entries: list[VideoEntry]
) -> None:
    alone = compute(request_for(), num_workers=0, say=quiet)
    assert torch.equal(compute(request_for(), num_workers=2, say=quiet).values, alone.values)
    backwards = compute(request_for(entries=entries[::-1]), num_workers=0, say=quiet)
    assert torch.equal(backwards.values.flip(0), alone.values)
    last = compute(request_for(entries=entries[4:]), num_workers=0, say=quiet)
    assert torch.equal(last.values, alone.values[4:])


def test_cache_answers_without_computing(
    request_for: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    first = cached(request_for(), tmp_path, num_workers=0, say=quiet)
    monkeypatch.setattr(feature_cache, "compute", forbidden)
    said: list[str] = []
    again = cached(request_for(), tmp_path, num_workers=1, say=said.append)
    assert torch.equal(first.values, again.values)
    assert torch.equal(first.index, again.index)
    (file,) = tmp_path.iterdir()
    assert said == [f"from {file}"]


def test_anything_that_decides_a_feature_misses_the_cache(
    request_for: Any, entries: list[VideoEntry], tmp_path: Path
) -> None:
    base = request_for()
    keys = {base.key()}
    assert request_for().key() in keys
    changed = [
        request_for(plan=ViewPlan(2, 3)),
        request_for(plan=ViewPlan(2, 1, "segments")),
        request_for(pool="tokens"),
        request_for(entries=entries[:4]),
        request_for(entries=entries[::-1]),
    ]
    copy = tmp_path / "copy.mp4"
    shutil.copy(entries[0].path, copy)
    changed.append(request_for(entries=[VideoEntry(str(copy), 0), *entries[1:]]))
    keys |= {request.key() for request in changed}
    copy.write_bytes(Path(entries[2].path).read_bytes() + b"0")  # another video under the name
    keys.add(changed[-1].key())
    os.utime(copy, ns=(0, 0))  # another of the same length
    keys.add(changed[-1].key())
    source = base.source
    keys.add(request_for(source=replace(source, data=replace(source.data, stride=2))).key())
    with torch.no_grad():
        source.encoder.blocks[1].mlp.fc2.bias[0] += 1e-3
    keys.add(request_for(source=source).key())
    assert len(keys) == 1 + len(changed) + 4


def damage(kind: str, file: Path) -> None:
    content = bytearray(file.read_bytes())
    if kind == "cut":
        content = content[: len(content) // 2]
    elif kind == "empty":
        content = bytearray()
    elif kind == "one bit":
        content[-9] ^= 1
    elif kind == "another's":
        with safe_open(file, framework="pt") as opened:
            tensors = {name: opened.get_tensor(name) for name in opened.keys()}  # noqa: SIM118
            about = json.loads(opened.metadata()["about"])
        write_tensors(file, tensors, {**about, "key": "other"})
        return
    file.write_bytes(bytes(content))


@pytest.mark.parametrize("kind", ["cut", "empty", "one bit", "another's"])
def test_damaged_cache_is_made_anew_and_said(request_for: Any, tmp_path: Path, kind: str) -> None:
    first = cached(request_for(), tmp_path, num_workers=0, say=quiet)
    (file,) = tmp_path.iterdir()
    damage(kind, file)
    said: list[str] = []
    again = cached(request_for(), tmp_path, num_workers=0, say=said.append)
    assert torch.equal(first.values, again.values)
    assert any("is damaged" in line and "recomputed" in line for line in said)
    said.clear()
    cached(request_for(), tmp_path, num_workers=0, say=said.append)
    assert said == [f"from {file}"]


def test_a_video_that_cannot_be_read_is_left_out_and_a_second_one_is_too_much(
    request_for: Any, entries: list[VideoEntry], tmp_path: Path
) -> None:
    bad = [VideoEntry(str(tmp_path / f"bad{n}.mp4"), 0) for n in range(2)]
    for entry in bad:
        Path(entry.path).write_text("no video")
    mixed = request_for(entries=[entries[0], bad[0], entries[1]])
    found = cached(mixed, tmp_path / "cache", num_workers=0, say=quiet)
    assert found.index.tolist() == [0, 2]
    assert "bad0.mp4" in found.unreadable[0]
    again = cached(mixed, tmp_path / "cache", num_workers=0, say=quiet)
    assert again.unreadable == found.unreadable
    with pytest.raises(VideoError, match=r"bad1.*unreadable video number 2.*max_bad_share"):
        compute(request_for(entries=[*entries, *bad]), num_workers=0, say=quiet)
    with pytest.raises(UsageError, match="no video of the list can be read"):
        compute(request_for(entries=bad[:1]), num_workers=0, say=quiet)


def test_nan_features_end_with_the_videos_name(
    request_for: Any, mae: MaskedAutoencoder, entries: list[VideoEntry]
) -> None:
    with torch.no_grad():
        mae.encoder.patch_embed.proj.bias[0] = float("nan")
    with pytest.raises(NonFiniteError, match=Path(entries[0].path).name):
        compute(request_for(), num_workers=0, say=quiet)


def test_size_is_known_before_anything_is_computed(request_for: Any, grid: TokenGrid) -> None:
    for pool in ("mean", "tokens"):
        request = request_for(pool=pool)
        values = compute(request, num_workers=0, say=quiet).values
        assert request.num_bytes == values.numel() * values.element_size()


def test_a_file_that_cannot_be_written_leaves_nothing_behind(
    request_for: Any, tmp_path: Path
) -> None:
    (tmp_path / "file").write_text("")
    found = compute(request_for(), num_workers=0, say=quiet)
    with pytest.raises(UsageError, match="cannot be made"):
        write(tmp_path / "file" / "x.safetensors", found, {})
    assert [path.name for path in tmp_path.iterdir()] == ["file"]
