"""Labelled clips for fine-tuning: a pure function of (seed, epoch, index, copy)."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace

import numpy as np
import torch
from einops import rearrange
from torch import Tensor

from tats_ray.config.finetune_schema import AugmentConfig, LabelledDataConfig
from tats_ray.core.arrays import UInt8
from tats_ray.core.errors import VideoError
from tats_ray.core.seeds import stream
from tats_ray.core.words import counted
from tats_ray.data.augment import area_crop_box, erase, rand_augment
from tats_ray.data.cache.frame_cache import open_cache
from tats_ray.data.dataset import ClipDataset
from tats_ray.data.manifest import VideoEntry
from tats_ray.data.transforms import (
    crop_and_resize,
    sample_finetune_dense,
    sample_segments,
    uniform,
)


class LabelledClips(ClipDataset):
    """Training clips of a labelled list: frames, RandAugment, crop, flip, erasing, in this order.

    Source: method sections 2.4 and 2.5. A key's epoch is `epoch * repeats + copy` where a batch
    holds several copies of a video, so each copy is cut in its own way.
    """

    def __init__(
        self,
        entries: Sequence[VideoEntry],
        data: LabelledDataConfig,
        augmentation: AugmentConfig,
        *,
        seed: int = 0,
    ) -> None:
        super().__init__(
            entries=entries,
            num_frames=data.num_frames,
            image_size=data.image_size,
            stride=data.stride,
            min_frames=data.min_frames,
            seed=seed,
            backend=data.decoder,
            cache_mb=data.cache_mb,
            cache=open_cache(data.cache),
        )
        self.augmentation, self.sampling = augmentation, data.sampling

    def _choose(self, epoch: int, index: int) -> Callable[[int], list[int]]:
        def choose(total: int) -> list[int]:
            if total < self.min_frames:
                reason = (
                    f"has {counted(total, 'frame')}, fewer than data.min_frames {self.min_frames}"
                )
                raise VideoError(self.entries[index].path, reason)
            generator = stream(self.seed, "clip", epoch, index, "frames")
            if self.sampling == "segments":
                return sample_segments(total, self.num_frames, generator)
            return sample_finetune_dense(total, self.num_frames, self.stride, generator)

        return choose

    def _pixels(self, epoch: int, index: int) -> UInt8[Tensor, "C F H W"]:
        if self._stored is None:
            return super()._pixels(epoch, index)
        clip = self._stored.read(self.entries[index], self._choose(epoch, index))
        size = clip.video.width, clip.video.height
        return self._augmented(clip.frames(), size, epoch, index)

    def _cropped(
        self, frames: UInt8[np.ndarray, "F H W 3"], epoch: int, index: int
    ) -> UInt8[Tensor, "C F h w"]:
        return self._augmented(frames, (frames.shape[2], frames.shape[1]), epoch, index)

    def _augmented(
        self,
        frames: UInt8[np.ndarray, "F H W 3"],
        size: tuple[int, int],
        epoch: int,
        index: int,
    ) -> UInt8[Tensor, "C F h w"]:
        """From whole frames; a crop refers to the `size` of the video, width and height."""
        how = self.augmentation
        if how.rand_ops:
            frames = rearrange(
                rand_augment(
                    rearrange(torch.from_numpy(frames), "f h w c -> f c h w").contiguous(),
                    stream(self.seed, "clip", epoch, index, "rand_augment"),
                    num_ops=how.rand_ops,
                    magnitude=how.rand_magnitude,
                    std=how.rand_std,
                ),
                "f c h w -> f h w c",
            ).numpy()
        generator = stream(self.seed, "clip", epoch, index, "crop")
        box = area_crop_box(*size, generator, min_area=how.min_area)
        is_flipped = uniform(0.0, 1.0, generator) < how.flip
        box = box.scaled(size, (frames.shape[2], frames.shape[1]))
        clip = crop_and_resize(frames, replace(box, is_flipped=is_flipped), self.image_size)
        return erase(clip, stream(self.seed, "clip", epoch, index, "erase"), chance=how.erase)
