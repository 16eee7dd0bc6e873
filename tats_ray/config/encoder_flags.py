"""How a frozen encoder is opened and what it is shown; the commands' flags are these fields."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, kw_only=True, slots=True)
class ClipSize:
    """What a clip is, for checkpoints that do not say."""

    num_frames: int = 0
    """Frames of a clip, where the checkpoint does not say; 0 takes 16."""
    image_size: int = 0
    """Pixels of a clip along each side, likewise; 0 takes 224."""


AS_IT_SAYS = ClipSize()
"""What the checkpoint says, else the defaults."""


@dataclass(frozen=True, kw_only=True, slots=True)
class EncoderOptions(ClipSize):
    """How a frozen encoder runs, and what a clip is for it."""

    stride: int = 0
    """Video frames from one clip frame to the next; 0: as it was trained, or 2."""
    workers: int = 0
    """Processes that decode; they change nothing but the speed."""
    device: str = "auto"
    """cpu, cuda, or auto: the GPU where there is one."""
    max_gb: float = 16.0
    """Largest size of the features of one list, which are held in memory."""
