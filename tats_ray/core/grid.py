"""The lattice of tokens that a clip is cut into."""

from __future__ import annotations

import math
from dataclasses import dataclass

from tats_ray.core.errors import UsageError

MAX_VIEWS = 1000
"""Of one video, which are held in memory together; published protocols take 30 at most."""


@dataclass(frozen=True, kw_only=True, slots=True)
class TokenGrid:
    """The (t h w) lattice of a clip; 16 frames of 224 x 224 give 8 x 14 x 14 = 1,568 tokens.

    A token is a tubelet of `tubelet` frames by `patch` x `patch` pixels. Its flat index is
    `(t * height + y) * width + x`: time is slowest [TATS supplement, table 5].

    Raises:
        UsageError: when the clip does not divide into whole tokens.
    """

    num_frames: int = 16
    image_size: int = 224
    """Height and width of a clip, pixels."""
    tubelet: int = 2
    """Frames per token."""
    patch: int = 16
    """Pixels per token, along each side."""

    def __post_init__(self) -> None:
        for name in ("num_frames", "image_size", "tubelet", "patch"):
            if getattr(self, name) < 1:
                raise UsageError(f"{name} must be at least 1, got {getattr(self, name)}")
        for whole, name, part, part_name in (
            (self.image_size, "image_size", self.patch, "patch"),
            (self.num_frames, "num_frames", self.tubelet, "tubelet"),
        ):
            if whole % part:
                near = [str(n * part) for n in (whole // part, whole // part + 1) if n]
                raise UsageError(
                    f"{name} {whole} is not a multiple of the {part_name} size {part}; "
                    f"try {' or '.join(near)}"
                )

    @property
    def time(self) -> int:
        return self.num_frames // self.tubelet

    @property
    def side(self) -> int:
        """Tokens along the height, and along the width."""
        return self.image_size // self.patch

    @property
    def tokens_per_slot(self) -> int:
        """Tokens that share a time slot."""
        return self.side**2

    @property
    def num_tokens(self) -> int:
        return self.time * self.tokens_per_slot

    @property
    def values_per_token(self) -> int:
        """Pixel values in a token: frames x rows x columns x 3 colours."""
        return self.tubelet * self.patch**2 * 3

    @property
    def clip_shape(self) -> tuple[int, int, int, int]:
        """(colour, frames, height, width) of one clip."""
        return 3, self.num_frames, self.image_size, self.image_size

    def num_visible(self, mask_ratio: float) -> int:
        """Visible tokens under `mask_ratio`: floor(N (1 - ratio)) [AdaMAE's rounding].

        Raises:
            UsageError: for a ratio outside (0, 1), or one that leaves no token visible.
        """
        if not 0.0 < mask_ratio < 1.0:
            raise UsageError(f"mask ratio {mask_ratio} is outside (0, 1); the paper uses 0.85-0.95")
        # The nudge keeps exact products exact: 10 * (1 - 0.9) is 0.9999... in binary.
        visible = math.floor(self.num_tokens * (1.0 - mask_ratio) + 1e-6)
        if visible < 1:
            highest = math.floor(10_000 * (1.0 - 1.0 / self.num_tokens)) / 10_000
            raise UsageError(
                f"mask ratio {mask_ratio} leaves none of the {self.num_tokens} tokens visible; "
                f"use at most {highest}"
            )
        return visible

    def num_visible_tube(self, mask_ratio: float) -> int:
        """Visible tokens of a tube mask: whole columns through time, hence another rounding.

        Raises:
            UsageError: as `num_visible`, and for a ratio that hides no column.
        """
        return self._num_shown(mask_ratio, self.tokens_per_slot, "tubes") * self.time

    def num_visible_frame(self, mask_ratio: float) -> int:
        """Visible tokens of a frame mask: whole time slots, int(ratio x slots) of them hidden.

        Raises:
            UsageError: as `num_visible`, and for a ratio that hides no slot.
        """
        return self._num_shown(mask_ratio, self.time, "time slots") * self.tokens_per_slot

    def _num_shown(self, mask_ratio: float, count: int, parts: str) -> int:
        """How many of `count` equal parts of the clip stay visible."""
        self.num_visible(mask_ratio)
        num_hidden = int(mask_ratio * count + 1e-6)
        if num_hidden < 1:
            raise UsageError(
                f"mask ratio {mask_ratio} hides none of the {count} {parts}; "
                f"use at least {math.ceil(10_000 / count) / 10_000}"
            )
        return count - num_hidden
