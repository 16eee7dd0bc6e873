"""Features of videos from a frozen encoder.

Each forward pass takes the views of one video and nothing else. So neither a batch size nor the
number of loader processes can change a feature.
"""

from __future__ import annotations

import hashlib
import json
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import torch
from torch import Tensor
from torch.utils.data import DataLoader

from tats_ray.config.schema import DataConfig
from tats_ray.core.arrays import Float, Int, UInt8
from tats_ray.core.errors import NonFiniteError, UsageError, VideoError
from tats_ray.core.grid import TokenGrid
from tats_ray.core.words import counted
from tats_ray.data.manifest import VideoEntry
from tats_ray.data.views import VideoViews, ViewDataset, ViewPlan
from tats_ray.models.mae import Encoder
from tats_ray.models.probe_heads import raw_tokens
from tats_ray.ops.patches import imagenet_normalize, patchify, unit_pixels

Pool = Literal["mean", "tokens"]
Say = Callable[[str], None]

FORMAT = 1
_SAY_EVERY_S = 10.0


@dataclass(frozen=True)
class FrozenEncoder:
    """An encoder that no longer learns, and how clips for it are cut."""

    encoder: Encoder
    grid: TokenGrid
    data: DataConfig

    @property
    def width(self) -> int:
        return self.encoder.patch_embed.proj.out_channels

    @property
    def num_heads(self) -> int:
        """Attention heads of a block."""
        first: Any = self.encoder.blocks[0]
        return int(first.attn.num_heads)

    def fingerprint(self) -> str:
        """SHA-256 of weights, position table and grid: whatever file they came from."""
        digest = hashlib.sha256(f"{self.grid} {self.num_heads}".encode())
        state = {**self.encoder.state_dict(), "pos_embed": self.encoder.pos_embed}
        for name in sorted(state):
            value = state[name].detach().cpu().contiguous()
            digest.update(f"{name} {value.dtype} {tuple(value.shape)}".encode())
            digest.update(value.flatten().view(torch.uint8).numpy().tobytes())
        return digest.hexdigest()

    @torch.no_grad()
    def features(
        self, clips: UInt8[Tensor, "V C F H W"], pool: Pool
    ) -> Float[Tensor, "V D"] | Float[Tensor, "V N D"]:
        """Raw tokens of the last block; `mean` averages them over the clip."""
        device = self.encoder.pos_embed.device
        pixels = imagenet_normalize(unit_pixels(patchify(clips.to(device), self.grid)))
        tokens = raw_tokens(self.encoder, pixels)
        return tokens.mean(1) if pool == "mean" else tokens.half()


@dataclass(frozen=True)
class Features:
    """Features of the readable videos of a list, in its order."""

    values: Float[Tensor, "n V *axes"]
    """`n V D` float32 for mean, `n V N D` float16 for tokens."""
    index: Int[Tensor, " n"]
    """Place in the list."""
    unreadable: tuple[str, ...]
    """Why each other video is not there."""


@dataclass(frozen=True, kw_only=True)
class FeatureRequest:
    """What decides every feature."""

    source: FrozenEncoder
    entries: Sequence[VideoEntry]
    plan: ViewPlan
    pool: Pool = "mean"

    def settings(self) -> dict[str, Any]:
        """For protocols, and all of it in the key of the cache."""
        data = self.source.data
        return {
            "format": FORMAT,
            "encoder_sha256": self.source.fingerprint(),
            "features": "raw tokens of the last block, all tokens visible, no final norm",
            "pool": self.pool,
            "views": str(self.plan),
            "sampling": self.plan.sampling,
            "num_frames": self.source.grid.num_frames,
            "image_size": self.source.grid.image_size,
            "stride": data.stride,
            "min_frames": data.min_frames,
            "decoder": data.decoder,
        }

    def key(self) -> str:
        """Changes with the weights, the views, and every file of the list."""
        files = []
        for entry in self.entries:
            status = Path(entry.path).stat()
            files.append((str(Path(entry.path).resolve()), status.st_size, status.st_mtime_ns))
        text = json.dumps([self.settings(), files], sort_keys=True)
        return hashlib.sha256(text.encode()).hexdigest()

    @property
    def num_bytes(self) -> int:
        grid, width = self.source.grid, self.source.width
        per_view = width * 4 if self.pool == "mean" else grid.num_tokens * width * 2
        return len(self.entries) * self.plan.num_views * per_view


def compute(request: FeatureRequest, *, num_workers: int, say: Say) -> Features:
    """Decode every video once and encode its views.

    Raises:
        VideoError: when more videos cannot be read than one and the share `data.max_bad_share`.
        NonFiniteError: when the encoder returns NaN or infinity.
    """
    source, data = request.source, request.source.data
    dataset = ViewDataset(
        request.entries,
        request.plan,
        num_frames=source.grid.num_frames,
        image_size=source.grid.image_size,
        stride=data.stride,
        min_frames=data.min_frames,
        backend=data.decoder,
    )
    loader: DataLoader[VideoViews] = DataLoader(dataset, batch_size=None, num_workers=num_workers)
    values, index, unreadable = [], [], []
    started = said = time.monotonic()
    for done, video in enumerate(loader, start=1):
        path = request.entries[video.index].path
        if video.pixels is None:
            unreadable.append(f"{path}: {video.reason}")
            if len(unreadable) > max(1.0, data.max_bad_share * len(dataset)):
                reason = f"{video.reason}; this is unreadable video number {len(unreadable)}"
                raise VideoError(path, f"{reason}, more than data.max_bad_share allows")
            continue
        found = source.features(video.pixels, request.pool)
        if not found.isfinite().all():
            raise NonFiniteError(f"{path}: the encoder returns NaN or infinite features")
        values.append(found.cpu())
        index.append(video.index)
        now = time.monotonic()
        if now - said > _SAY_EVERY_S:
            said = now
            rate = done / (now - started)
            left = (len(dataset) - done) / rate
            say(
                f"{done}/{counted(len(dataset), 'video')}, {rate:.1f} per second, {left:.0f} s left"
            )
    if not values:
        raise UsageError(f"{unreadable[0]}; no video of the list can be read")
    return Features(torch.stack(values), torch.tensor(index), tuple(unreadable))
