"""How a frozen encoder is opened and what it is shown; the commands' flags are these fields."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, kw_only=True, slots=True)
class ClipSize:
    """The size of a clip, for checkpoints that do not record it."""

    num_frames: int = 0
    """Frames per clip, for a checkpoint that does not record them. 0 means 16."""
    image_size: int = 0
    """Height and width of a clip in pixels, likewise. 0 means 224."""


AS_IT_SAYS = ClipSize()
"""What the checkpoint says, else the defaults."""


@dataclass(frozen=True, kw_only=True, slots=True)
class EncoderOptions(ClipSize):
    """How a frozen encoder runs, and the clips it reads."""

    stride: int = 0
    """Video frames per clip frame. 0 takes the training run's stride, or 2 if unknown."""
    workers: int = 0
    """Decoding processes. They change the speed and nothing else."""
    device: str = "auto"
    """cpu, cuda or auto. auto uses the GPU if there is one."""
    max_gb: float = 16.0
    """Upper limit in gigabytes for the features of one list, which are held in memory."""
