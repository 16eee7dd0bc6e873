"""`tats_ray.load`: turn any checkpoint into a model that encodes clips and draws their masks."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import torch
from einops import rearrange
from torch import Tensor, nn

from tats_ray.checkpoints.open import open_checkpoint
from tats_ray.checkpoints.restore import Restored
from tats_ray.config.encoder_flags import ClipSize
from tats_ray.config.schema import RunConfig
from tats_ray.core.arrays import Float, UInt8
from tats_ray.core.devices import find_device
from tats_ray.core.errors import UsageError
from tats_ray.core.grid import TokenGrid
from tats_ray.core.protocols import MaskPolicy
from tats_ray.core.seeds import stream
from tats_ray.core.types import Selection
from tats_ray.evaluation.selecting.select_frames import VideoSelection, select_frames
from tats_ray.models.head import ClassifierHead
from tats_ray.models.mae import MaskedAutoencoder
from tats_ray.models.zoo import num_visible

Clips = str | Path | np.ndarray | Tensor
"""A video file, whose middle is taken, or uint8 pixels, 0-255, of one clip or a batch of clips:
a numpy array `F H W 3` or `B F H W 3`, or a tensor `C F H W` or `B C F H W`."""


class Model:
    """Pre-trained networks, ready to use; `to` moves them.

    Every method takes `Clips`: a video file, a numpy array `F H W 3`, or a tensor `C F H W`, of
    uint8, alone or in a batch. Results are on the device of the networks. Pixels of another type
    or size raise a UsageError, a file that cannot be read a VideoError.

    Attributes:
        grid: what a clip must be, `num_frames` of `image_size` pixels squared, and how it is cut
            into tokens, `time x side x side`.
        mae: the autoencoder; parts named in `missing` are at their random start.
        policy: what chose the visible tokens; a fixed mask where nothing learned to.
        head: classifier of a fine-tuned model, else None.
        origin: what was loaded, in words.
    """

    def __init__(self, found: Restored) -> None:
        self.config: RunConfig = found.config
        self.grid: TokenGrid = found.grid
        self.mae: MaskedAutoencoder = found.mae
        self.policy: MaskPolicy = found.policy
        self.head: ClassifierHead | None = found.head
        self.origin: str = found.origin
        self.missing: tuple[str, ...] = found.missing
        if found.head is not None:
            # Fine-tuned encoders end with their last block; the head brings the norm.
            self.mae.encoder.add_module("norm", nn.Identity())

    def __repr__(self) -> str:
        return f"tats_ray.Model({self.origin})"

    def to(self, device: str | torch.device) -> Model:
        """Move all networks; clips follow by themselves.

        Raises:
            UsageError: for a device that this machine does not have.
        """
        device = find_device(str(device))
        for part in (self.mae, self.policy, self.head):
            if isinstance(part, nn.Module):
                part.to(device)
        return self

    @torch.no_grad()
    def encode(
        self, clip: Clips, *, pooled: bool = True
    ) -> Float[Tensor, "B D"] | Float[Tensor, "B N D"]:
        """Features of clips: the mean over tokens, `B D`, or all tokens, `B N D`; float32.

        Of a pre-trained model these are the encoder's tokens after its norm; of a fine-tuned one
        the mean passes through the head's norm, which is what its classifier reads.
        """
        tokens = self._tokens(clip)
        if not pooled:
            return tokens
        return tokens.mean(1) if self.head is None else self.head.pool(tokens)

    @torch.no_grad()
    def mask(self, clip: Clips, *, mask_ratio: float | None = None, seed: int = 0) -> Selection:
        """Draw which tokens of each clip stay visible, as `tats show-masks` does.

        Args:
            mask_ratio: share of tokens to hide, inside (0, 1); default: that of the checkpoint.
            seed: another one draws another mask from the same probabilities.

        Returns:
            `visible_idx`, `B K`, indices of tokens in draw order, and `probability`, `B N`, which
            sums to 1 over a clip. Token `(t * side + y) * side + x` is at slot t, row y, column x,
            so `probability.reshape(-1, grid.time, grid.side, grid.side)` is its picture.

        Raises:
            UsageError: for a ratio outside its range, or a sampler that needs the true motion.
        """
        count = num_visible(self.config.sampler, self.grid, mask_ratio)
        tokens = self.mae.embed(self._clips(clip))
        return self.policy.act(tokens, count, generator=stream(seed, "show", "main"))

    def select(
        self, video: str | Path, k: int, *, mask_ratio: float | None = None
    ) -> VideoSelection:
        """Choose the `k` most telling frames of a whole video, as `tats select` does.

        Args:
            video: a video file, or a folder of numbered pictures.
            mask_ratio: share of tokens to hide, inside (0, 1); default: that of the checkpoint.

        Raises:
            UsageError: where no sampler has learned, or `k` is below 1 or above the number of time
                slots, or the video is shorter than a clip.
        """
        return select_frames(self, video, k, mask_ratio=mask_ratio)

    @torch.no_grad()
    def classify(self, clip: Clips) -> Float[Tensor, "B classes"]:
        """Logits of a fine-tuned model.

        Raises:
            UsageError: when there is no classifier.
        """
        if self.head is None:
            raise UsageError(f"{self.origin} has no classifier; load a fine-tuned checkpoint")
        return self.head(self._tokens(clip))

    def _tokens(self, clip: Clips) -> Float[Tensor, "B N D"]:
        clips = self._clips(clip)
        everything = torch.arange(self.grid.num_tokens, device=clips.device).expand(len(clips), -1)
        return self.mae.encode(self.mae.pixels(clips), everything)

    def _clips(self, clip: object) -> UInt8[Tensor, "B C F H W"]:
        """In the form of the networks, and on their device."""
        pixels = self._middle_of(clip) if isinstance(clip, (str, Path)) else clip
        if not isinstance(pixels, (np.ndarray, Tensor)):
            raise UsageError(
                f"clip is a {type(clip).__name__}; give a video file, a numpy array or a tensor"
            )
        colour, *sizes = self.grid.clip_shape
        shape, axes = (colour, *sizes), "colour, frames, height, width"
        if is_array := isinstance(pixels, np.ndarray):
            shape, axes = (*sizes, colour), "frames, height, width, colour"
        is_uint8 = pixels.dtype in (np.uint8, torch.uint8)
        if not is_uint8 or pixels.ndim not in (4, 5) or tuple(pixels.shape[-4:]) != shape:
            raise UsageError(
                f"clip is {pixels.dtype} of shape {tuple(pixels.shape)}; this model takes uint8 of "
                f"shape {shape}, or a batch of them ({axes})"
            )
        # A copy, because an array may be read-only or run backwards.
        clips = torch.from_numpy(np.array(pixels)) if is_array else torch.as_tensor(pixels)
        clips = clips if clips.ndim == 5 else clips.unsqueeze(0)
        clips = rearrange(clips, "b f h w c -> b c f h w") if is_array else clips
        return clips.to(self.mae.mask_token.device)

    def _middle_of(self, video: str | Path) -> Tensor:
        from tats_ray.data.clip_lists import clip_dataset
        from tats_ray.data.manifest import VideoEntry

        entries = [VideoEntry(str(video), None)]
        return clip_dataset(self.config.data, entries, is_centered=True)[0, 0].pixels.unsqueeze(0)


def load(
    path: str | Path,
    *,
    num_frames: int = 0,
    image_size: int = 0,
    device: str | torch.device = "cpu",
) -> Model:
    """Load a run folder, a checkpoint of it, a transformers folder, or an official weight file.

    Args:
        num_frames: of a clip, for files that do not say; default 16.
        image_size: height and width of a clip in pixels, likewise; default 224.
        device: where the networks go, for example "cuda" or "cuda:1".

    Raises:
        CheckpointError: for what cannot be loaded, with the reason.
        UsageError: for a device that this machine does not have.
    """
    clip = ClipSize(num_frames=num_frames, image_size=image_size)
    return Model(open_checkpoint(path, need="encoder", clip=clip)).to(device)
