"""`tats_ray.load`: turn any checkpoint into a model that encodes clips."""

from __future__ import annotations

from pathlib import Path

import torch
from torch import Tensor, nn

from tats_ray.checkpoints.open import open_checkpoint
from tats_ray.checkpoints.restore import Restored
from tats_ray.config.encoder_flags import ClipSize
from tats_ray.config.schema import RunConfig
from tats_ray.core.arrays import Float
from tats_ray.core.errors import UsageError
from tats_ray.core.grid import TokenGrid
from tats_ray.core.protocols import MaskPolicy
from tats_ray.models.head import ClassifierHead
from tats_ray.models.mae import MaskedAutoencoder


class Model:
    """Pre-trained networks, ready to use; `to` moves them.

    Attributes:
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
        """Move all networks; clips follow by themselves."""
        for part in (self.mae, self.policy, self.head):
            if isinstance(part, nn.Module):
                part.to(device)
        return self

    @torch.no_grad()
    def encode(
        self, clip: Tensor | str | Path, *, pooled: bool = True
    ) -> Float[Tensor, "B D"] | Float[Tensor, "B N D"]:
        """Features of clips: the mean over tokens, `B D`, or all tokens, `B N D`.

        Of a pre-trained model these are the encoder's tokens after its norm; of a fine-tuned one
        the mean passes through the head's norm, which is what its classifier reads.

        Args:
            clip: uint8 pixels, `C F H W` or `B C F H W`, or a video file, whose middle is taken.

        Raises:
            UsageError: for pixels of another type or size.
            VideoError: for a file that cannot be read.
        """
        tokens = self._tokens(clip)
        if not pooled:
            return tokens
        return tokens.mean(1) if self.head is None else self.head.pool(tokens)

    @torch.no_grad()
    def classify(self, clip: Tensor | str | Path) -> Float[Tensor, "B classes"]:
        """Logits of a fine-tuned model.

        Raises:
            UsageError: when there is no classifier.
        """
        if self.head is None:
            raise UsageError(f"{self.origin} has no classifier; load a fine-tuned checkpoint")
        return self.head(self._tokens(clip))

    def _tokens(self, clip: Tensor | str | Path) -> Float[Tensor, "B N D"]:
        clips = self._clips(clip) if isinstance(clip, Tensor) else self._middle_of(clip)
        device = self.mae.mask_token.device
        everything = torch.arange(self.grid.num_tokens, device=device).expand(len(clips), -1)
        return self.mae.encode(self.mae.pixels(clips.to(device)), everything)

    def _clips(self, clip: Tensor) -> Tensor:
        clips = clip.unsqueeze(0) if clip.ndim == 4 else clip
        if clips.dtype != torch.uint8 or tuple(clips.shape[1:]) != self.grid.clip_shape:
            raise UsageError(
                f"clip is {clip.dtype} of shape {tuple(clip.shape)}; this model takes uint8 of "
                f"shape {self.grid.clip_shape}, or a batch of them (colour, frames, height, width)"
            )
        return clips

    def _middle_of(self, video: str | Path) -> Tensor:
        from tats_ray.data.clip_lists import clip_dataset
        from tats_ray.data.manifest import VideoEntry

        entries = [VideoEntry(str(video), None)]
        return clip_dataset(self.config.data, entries, is_centered=True)[0, 0].pixels.unsqueeze(0)


def load(path: str | Path, *, num_frames: int = 0, image_size: int = 0) -> Model:
    """Load a run folder, a checkpoint of it, a transformers folder, or an official weight file.

    Args:
        num_frames: of a clip, for files that do not say; default 16.
        image_size: of a clip, likewise; default 224.

    Raises:
        CheckpointError: for what cannot be loaded, with the reason.
    """
    clip = ClipSize(num_frames=num_frames, image_size=image_size)
    return Model(open_checkpoint(path, need="encoder", clip=clip))
