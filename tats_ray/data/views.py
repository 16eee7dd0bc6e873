"""Test views: the same clips and crops of a video every time, decoded once [method section 2.6]."""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor
from torch.utils.data import Dataset

from tats_ray.core.arrays import UInt8
from tats_ray.core.errors import UsageError, VideoError
from tats_ray.core.grid import MAX_VIEWS
from tats_ray.core.words import counted
from tats_ray.data.decode import Backend, one_video, read_frames
from tats_ray.data.manifest import VideoEntry
from tats_ray.data.transforms import CropBox, crop_and_resize, dense_view, segment_view

Sampling = Literal["dense", "segments"]


@dataclass(frozen=True, slots=True)
class ViewPlan:
    """How many clips along the time and crops along the longer side are taken of every video.

    Raises:
        UsageError: for numbers below 1, more than two clips of segments, or too many views.
    """

    num_clips: int = 1
    num_crops: int = 1
    sampling: Sampling = "dense"
    """segments: one frame from each equal part of the video, as for Something-Something."""

    def __post_init__(self) -> None:
        if self.num_clips < 1 or self.num_crops < 1:
            raise UsageError(f"views {self} must be at least 1x1")
        if self.num_views > MAX_VIEWS:
            raise UsageError(
                f"views {self} are {self.num_views} of every video; "
                f"take {MAX_VIEWS} or fewer, such as 5x3"
            )
        if self.sampling == "segments" and self.num_clips > 2:
            raise UsageError(f"views {self}: segments allow 1 or 2 clips; use 2x{self.num_crops}")

    @classmethod
    def parse(cls, text: str, sampling: Sampling = "dense") -> ViewPlan:
        """From `CLIPSxCROPS`."""
        found = re.fullmatch(r"(\d+)x(\d+)", text.strip())
        if found is None:
            raise UsageError(
                f"views {text!r} are not CLIPSxCROPS; use 5x3 for Kinetics-400, otherwise 2x3"
            )
        return cls(int(found[1]), int(found[2]), sampling)

    def __str__(self) -> str:
        return f"{self.num_clips}x{self.num_crops}"

    @property
    def num_views(self) -> int:
        return self.num_clips * self.num_crops

    def frames(self, total: int, clip_len: int, stride: int) -> list[int]:
        """Indices of all clips, one clip after the other."""
        chosen: list[int] = []
        for clip in range(self.num_clips):
            if self.sampling == "segments":  # a single clip takes the middles of the parts
                view = clip if self.num_clips == 2 else 1
                chosen += segment_view(total, clip_len, view)
            else:
                chosen += dense_view(total, clip_len, stride, clip, self.num_clips)
        return chosen

    def boxes(self, width: int, height: int) -> list[CropBox]:
        """Squares of the short side, evenly spread along the longer one; a single one centred."""
        short, room = min(width, height), abs(width - height)
        last = self.num_crops - 1
        offsets = (
            [int(crop * room / last) for crop in range(self.num_crops)] if last else [room / 2]
        )
        return [
            CropBox(*((int(at), 0) if width > height else (0, int(at))), short, short)
            for at in offsets
        ]


@dataclass(frozen=True, slots=True)
class VideoViews:
    """All views of one video, or why there are none."""

    index: int
    """Place in the list."""
    pixels: UInt8[Tensor, "V C F H W"] | None
    """Crops of the first clip, then those of the next."""
    reason: str = ""


class ViewDataset(Dataset[VideoViews]):
    """The views of the videos of a list; nothing in it is random."""

    def __init__(
        self,
        entries: Sequence[VideoEntry],
        plan: ViewPlan,
        *,
        num_frames: int,
        image_size: int,
        stride: int,
        min_frames: int = 1,
        backend: Backend = "auto",
    ) -> None:
        self.entries = list(entries)
        self.plan = plan
        self.num_frames = num_frames
        self.image_size = image_size
        self.stride = stride
        self.min_frames = min_frames
        self.backend: Backend = backend

    def __len__(self) -> int:
        return len(self.entries)

    def __getitem__(self, index: int) -> VideoViews:
        entry = self.entries[index]
        path = entry.path

        def choose(total: int) -> list[int]:
            if total < self.min_frames:
                raise VideoError(
                    path, f"has {counted(total, 'frame')}, fewer than {self.min_frames}"
                )
            return self.plan.frames(total, self.num_frames, self.stride)

        try:
            with one_video(path):
                return VideoViews(index, self._views(entry, choose))
        except VideoError as error:
            return VideoViews(index, None, error.reason)

    def _views(
        self, entry: VideoEntry, choose: Callable[[int], list[int]]
    ) -> UInt8[Tensor, "V C F H W"]:
        frames = read_frames(entry.path, choose, backend=self.backend, look=entry.probe)
        boxes = self.plan.boxes(frames.shape[2], frames.shape[1])
        return torch.stack(
            [
                crop_and_resize(clip, box, self.image_size)
                for clip in frames.reshape(self.plan.num_clips, -1, *frames.shape[1:])
                for box in boxes
            ]
        )
