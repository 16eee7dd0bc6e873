"""What a sampler looks at in one clip: six rows over time, as in the paper's figures.

Source: method section 10 [TATS supplement, figures 1-12].
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from textwrap import wrap
from typing import Any

import numpy as np
import torch
from einops import rearrange
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.collections import LineCollection
from matplotlib.colors import ListedColormap
from matplotlib.figure import Figure
from matplotlib.image import AxesImage
from torch import Tensor

from tats_ray.core.arrays import Bool, Float, Int, UInt8
from tats_ray.core.grid import TokenGrid
from tats_ray.core.types import Reconstruction
from tats_ray.ops.patches import denormalize, patch_statistics, patchify, unit_pixels, unpatchify
from tats_ray.ops.selection import is_visible
from tats_ray.view.curves import LIGHT, Theme

# Sizes of the picture, inches.
_CELL, _GAP, _ROW_GAP = 1.1, 0.05, 0.09
_LEFT, _RIGHT, _TOP, _BOTTOM = 1.95, 0.85, 0.62, 0.12
_BAR_GAP, _BAR_WIDTH = 0.1, 0.1

_CAPTION_LINE, _CAPTION_CHARACTER = 0.125, 0.057

_DPI = 150
_LABEL_CHARACTERS = 20
_Box = tuple[float, float, float, float]

# Hidden is not quite black, so that the outline of a cell is never needed.
_HIDDEN_VISIBLE = ListedColormap(["#111111", "#ffffff"])


@dataclass(frozen=True, kw_only=True, slots=True)
class MaskPanel:
    """One clip, as plain arrays. `t` is a time slot; pixels are those of its first frame."""

    frames: UInt8[np.ndarray, "t H W 3"]
    reconstruction: Float[np.ndarray, "t H W 3"]
    """In [0, 1]; visible patches are copied."""
    error: Float[np.ndarray, "t h w"]
    """Per token, in normalised-pixel units; 0 where visible."""
    probability: Float[np.ndarray, "t h w"]
    """Sums to one over the clip."""
    visible: Bool[np.ndarray, "t h w"]
    other_visible: Bool[np.ndarray, "t h w"] | None = None
    """What the sampler that is compared shows of the same clip; None leaves the row out."""
    label: str = "mask"
    other_label: str = "mask: compared"
    title: str = ""
    moving: Bool[np.ndarray, "t h w"] | None = None
    """Tokens that truly move, where that is known."""
    is_normalized: bool = True
    """Errors are of normalised patches; else of pixels in [0, 1]."""
    tops: tuple[float, float] | None = None
    """Ends of the scales of error and probability, where panels share them; default: its own."""

    @property
    def caption(self) -> str:
        """What is true of the reconstruction."""
        guess = (
            "The network predicts the pattern of each hidden patch only: its mean and contrast are "
            "taken from the video."
            if self.is_normalized
            else "Hidden patches are the network's own prediction, colours included."
        )
        return f"Reconstruction: visible patches are copied from the video. {guess}"

    def own_tops(self) -> tuple[float, float]:
        """Ends of the scales of error and probability that suit this panel alone."""
        # A single bad token must not leave the others black; the bar's tip says that one was cut.
        hidden = self.error[~self.visible]
        top = float(np.quantile(hidden, 0.99)) if hidden.size else 0.0
        return top or 1.0, float(self.probability.max()) or 1.0


def build_panel(
    *,
    clip: UInt8[Tensor, "C F H W"],
    reconstruction: Reconstruction,
    log_prob: Float[Tensor, " N"],
    visible_idx: Int[Tensor, " K"],
    grid: TokenGrid,
    other_visible: Bool[Tensor, " N"] | None = None,
    label: str = "mask",
    other_label: str = "mask: compared",
    moving: Bool[Any, " N"] | None = None,
    title: str = "",
    is_normalized: bool = True,
) -> MaskPanel:
    """The arrays of one clip, from what the networks said about it.

    Hidden patches get their prediction at the *true* mean and deviation of the patch, as in
    VideoMAE's pictures, where the decoder predicts neither.

    Args:
        reconstruction: of this clip alone, a batch of one.
        moving: tensor or array.
        is_normalized: predictions are of normalised patches; else of pixels in [0, 1].
    """
    shown = is_visible(visible_idx.cpu().unsqueeze(0), grid.num_tokens)[0]
    painted = paint(clip, reconstruction, shown, grid, is_normalized=is_normalized)
    first = slice(0, None, grid.tubelet)
    return MaskPanel(
        frames=rearrange(clip[:, first].cpu(), "c t h w -> t h w c").numpy(),
        reconstruction=rearrange(painted[:, first], "c t h w -> t h w c").numpy(),
        error=lattice(reconstruction.error.detach().float()[0], grid),
        probability=lattice(log_prob.detach().float().exp(), grid),
        visible=lattice(shown, grid),
        other_visible=None if other_visible is None else lattice(other_visible, grid),
        label=label,
        other_label=other_label,
        title=title,
        is_normalized=is_normalized,
        moving=None if moving is None else lattice(torch.as_tensor(moving), grid),
    )


@torch.no_grad()
def paint(
    clip: UInt8[Tensor, "C F H W"],
    reconstruction: Reconstruction,
    visible: Bool[Tensor, " N"],
    grid: TokenGrid,
    *,
    is_normalized: bool,
) -> Float[Tensor, "C F H W"]:
    """The clip with predictions in its hidden patches, in [0, 1]; arguments as `build_panel`."""
    pixels = unit_pixels(patchify(clip.cpu().unsqueeze(0), grid))
    prediction = torch.zeros_like(pixels)
    rows = reconstruction.hidden_idx.cpu().unsqueeze(-1).expand(-1, -1, pixels.shape[-1])
    prediction.scatter_(1, rows, reconstruction.prediction.float().cpu())
    if is_normalized:
        painted = denormalize(prediction, patch_statistics(pixels))
    else:
        painted = prediction.clamp(0.0, 1.0)
    return unpatchify(torch.where(visible.cpu()[:, None], pixels, painted), grid)[0]


def lattice(values: Tensor, grid: TokenGrid) -> np.ndarray:
    """Values of tokens, `N`, as `t h w`."""
    return values.cpu().numpy().reshape(grid.time, grid.side, grid.side)


def one_by_one(panel: MaskPanel) -> UInt8[np.ndarray, "t H W 3"]:
    """A picture of each time slot, for an animation; height and width are even, as videos need."""
    slots = range(len(panel.frames))
    return np.stack([as_pixels(draw_masks(panel, None, slots=[slot])) for slot in slots])


def as_pixels(figure: Figure) -> UInt8[np.ndarray, "H W 3"]:
    """A figure as it would be saved; height and width are even."""
    figure.set_dpi(_DPI)
    canvas = FigureCanvasAgg(figure)
    canvas.draw()
    pixels = np.asarray(canvas.buffer_rgba())
    height, width = (side // 2 * 2 for side in pixels.shape[:2])
    return pixels[:height, :width, :3]


def draw_masks(
    panel: MaskPanel,
    path: Path | None,
    *,
    slots: Sequence[int] | None = None,
    theme: Theme = LIGHT,
) -> Figure:
    """Draw the rows of a panel, and save them where a path is given.

    Args:
        slots: those to draw, in the colours of all; default: all.
        theme: of the page that the picture stands on.
    """
    rows = _Rows(panel, range(len(panel.frames)) if slots is None else slots, theme)
    rows.pixels("frames", "first of each time slot", panel.frames)
    painted = "hidden patches" + (", at their\ntrue mean and deviation" * panel.is_normalized)
    rows.pixels("reconstruction", painted, panel.reconstruction)
    top, likeliest = panel.tops or panel.own_tops()
    scale = "normalised\npixels" if panel.is_normalized else "pixels\nfrom 0 to 1"
    image = rows.lattice("error", f"per token, {scale}; 0 where visible", panel.error,
                         cmap="magma", vmin=0.0, vmax=top)  # fmt: skip
    rows.colour_bar(image, "max" if panel.error.max() > 1.01 * top else "neither")
    times_uniform = panel.probability * panel.probability.size
    image = rows.lattice(
        "sampling probability",
        "in multiples of uniform" + ("\noutlined: true motion" if panel.moving is not None else ""),
        times_uniform,
        cmap="viridis",
        vmin=0.0,
        vmax=likeliest * panel.probability.size,
    )
    rows.colour_bar(image, "neither", suffix="x")
    if panel.moving is not None:
        rows.outline(panel.moving)
    rows.mask(panel.label, panel.visible)
    if panel.other_visible is not None:
        rows.mask(panel.other_label, panel.other_visible)
    rows.caption()
    if path is not None:
        rows.figure.savefig(path, dpi=_DPI)
    return rows.figure


class _Rows:
    """Places rows from the top down, each cell at the size of a frame."""

    def __init__(self, panel: MaskPanel, slots: Sequence[int], theme: Theme) -> None:
        height, width = panel.frames.shape[1:3]
        self._slots, self._count, self._theme = slots, len(slots), theme
        self._height = _CELL * height / width
        num_rows = 5 + (panel.other_visible is not None)
        self._total_width = _LEFT + self._count * (_CELL + _GAP) - _GAP + _RIGHT
        characters = int((self._total_width - 2 * _BOTTOM) / _CAPTION_CHARACTER)
        self._caption = wrap(panel.caption, characters)
        below = _BOTTOM + len(self._caption) * _CAPTION_LINE
        self._total_height = _TOP + num_rows * (self._height + _ROW_GAP) + below
        self.figure = Figure(
            figsize=(self._total_width, self._total_height), facecolor=theme.surface
        )
        FigureCanvasAgg(self.figure)
        self._bottom = self._total_height - _TOP + _ROW_GAP
        self._cells: list[Axes] = []
        title_left, title_size = (_LEFT, 11) if self._count > 2 else (_BOTTOM, 8)
        self._text(title_left, self._total_height - 0.2, panel.title, title_size, weight="bold")
        for column, slot in enumerate(slots):
            x = _LEFT + column * (_CELL + _GAP) + _CELL / 2
            self._text(x, self._total_height - 0.5, f"slot {slot + 1}", 8, theme.muted, ha="center")

    def pixels(self, name: str, meaning: str, images: np.ndarray) -> None:
        self._row(name, meaning)
        for cell, slot in zip(self._cells, self._slots, strict=True):
            cell.imshow(images[slot], aspect="auto")

    def lattice(self, name: str, meaning: str, values: np.ndarray, **scale: Any) -> AxesImage:
        self._row(name, meaning)
        for cell, slot in zip(self._cells, self._slots, strict=True):
            image = cell.imshow(values[slot], aspect="auto", interpolation="nearest", **scale)
        return image

    def mask(self, name: str, is_shown: np.ndarray) -> None:
        count = f"{is_shown.sum()} of {is_shown.size} visible (white)"
        self.lattice(name, count, is_shown, cmap=_HIDDEN_VISIBLE, vmin=0, vmax=1)

    def colour_bar(self, image: AxesImage, extend: str, suffix: str = "") -> None:
        x = _LEFT + self._count * (_CELL + _GAP) - _GAP + _BAR_GAP
        place = self.figure.add_axes(self._box(x, _BAR_WIDTH, inset=0.04))
        bar = self.figure.colorbar(image, cax=place, extend=extend)
        low, high = image.get_clim()
        bar.set_ticks([low, (low + high) / 2, high])
        bar.set_ticklabels([f"{value:.3g}{suffix}" for value in (low, (low + high) / 2, high)])
        bar.ax.tick_params(
            labelsize=7.5, length=2, color=self._theme.muted, labelcolor=self._theme.ink
        )
        bar.outline.set_visible(False)

    def caption(self) -> None:
        """Below the last row."""
        y = self._bottom - _ROW_GAP
        for line in self._caption:
            y -= _CAPTION_LINE
            self._text(_BOTTOM, y + _CAPTION_LINE / 2, line, 7.5, self._theme.muted)

    def outline(self, marked: Bool[np.ndarray, "t h w"]) -> None:
        """A thin line around the marked tokens of the present row."""
        for cell, slot in zip(self._cells, self._slots, strict=True):
            cell.add_collection(
                LineCollection(
                    list(_edges(marked[slot])), colors="white", linewidths=1.1, capstyle="round"
                )
            )

    def _row(self, name: str, meaning: str) -> None:
        self._bottom -= self._height + _ROW_GAP
        self._cells = []
        for slot in range(self._count):
            cell = self.figure.add_axes(self._box(_LEFT + slot * (_CELL + _GAP), _CELL))
            cell.set(xticks=[], yticks=[])
            cell.spines[:].set(color=self._theme.grid, linewidth=0.6)
            self._cells.append(cell)
        words = [
            (line, 9.5, 0.155, self._theme.ink, "bold") for line in wrap(name, _LABEL_CHARACTERS)
        ]
        words += [(line, 7.5, 0.125, self._theme.muted, "normal") for line in meaning.splitlines()]
        y = self._bottom + (self._height + sum(step for _, _, step, _, _ in words)) / 2
        for line, size, step, colour, weight in words:
            self._text(_LEFT - 0.14, y - step / 2, line, size, colour, weight=weight, ha="right")
            y -= step

    def _box(self, x: float, width: float, *, inset: float = 0.0) -> _Box:
        return (
            x / self._total_width,
            (self._bottom + inset) / self._total_height,
            width / self._total_width,
            (self._height - 2 * inset) / self._total_height,
        )

    def _text(
        self, x: float, y: float, text: str, size: float, colour: str = "", **style: Any
    ) -> None:
        where = x / self._total_width, y / self._total_height
        colour = colour or self._theme.ink
        self.figure.text(*where, text, fontsize=size, color=colour, va="center", **style)


def _edges(inside: Bool[np.ndarray, "h w"]) -> np.ndarray:
    """Lines between cells that are inside and cells that are not: (line, end, x y), in cells."""
    padded = np.pad(inside, 1)
    across = np.argwhere(padded[1:] != padded[:-1])[:, ::-1]
    down = np.argwhere(padded[:, 1:] != padded[:, :-1])[:, ::-1]
    # A cell's centre is a whole number, and the padding moved all of them by one.
    return np.concatenate(
        [
            np.stack([across - (1.5, 0.5), across - (0.5, 0.5)], axis=1),
            np.stack([down - (0.5, 1.5), down - (0.5, 0.5)], axis=1),
        ]
    )
