"""How a synthetic clip is painted: plane-wave textures, blob sprites, pan, flicker and noise.

Lengths in this file are pixels of a 96-pixel clip; `Scene.scale` turns them into real ones.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import numpy as np

from tats_ray.core.arrays import Bool, Float, UInt8

_PAN_SHARE = 0.15
_FLICKER_SHARE = 0.25
_NOISE = 0.012  # of full range; more would cost bits and drown the gradient within a patch

Look = Literal["vivid", "clear"]
"""vivid: opposite colours, anew in each clip, and strong textures, so that only movement tells a
sprite. clear: warm sprites on a calm, cool ground, so that what moves can be learned in minutes."""


@dataclass(frozen=True, slots=True)
class Texture:
    """A sum of plane waves per colour: smooth, endless, and exact at any sub-pixel shift."""

    wave: Float[np.ndarray, "2 K"]
    """Angular frequency along x and along y, radians per pixel."""
    phase: Float[np.ndarray, "3 K"]
    weight: Float[np.ndarray, "3 K"]
    base: Float[np.ndarray, " 3"]
    """Mean colour, 0 to 1."""

    @classmethod
    def random(
        cls, rng: np.random.Generator, base: Float[np.ndarray, " 3"], scale: float, contrast: float
    ) -> Texture:
        """Waves of 40 to 120 px: a slope in nearly every 8 x 8 patch, yet easy to continue."""
        length = scale * np.exp(np.linspace(np.log(40.0), np.log(120.0), 12))
        angle = rng.uniform(0.0, 2.0 * np.pi, 12)
        wave = 2.0 * np.pi / length * np.stack([np.cos(angle), np.sin(angle)])
        # Longer waves are higher; what they lose in slope the short ones bring.
        weight = rng.uniform(0.5, 1.0, (3, 12)) * (length / scale / 60.0) ** 0.7
        weight *= contrast * np.sqrt(2.0) / np.linalg.norm(weight, axis=1, keepdims=True)
        return cls(wave, rng.uniform(0.0, 2.0 * np.pi, (3, 12)), weight, base)

    def paint(
        self, x: Float[np.ndarray, "F W"], y: Float[np.ndarray, "F H"]
    ) -> Float[np.ndarray, "F H W 3"]:
        """Colours, 0 to 1 and a little beyond, at columns `x` and rows `y`, pixels."""
        # cos(a + b) = cos a cos b - sin a sin b makes an image of waves one product of matrices.
        across = x[:, :, None] * self.wave[0]
        along = y[:, None, :, None] * self.wave[1] + self.phase[:, None, :]
        rows = np.concatenate([np.cos(along), -np.sin(along)], axis=-1)
        rows *= np.tile(self.weight, 2)[:, None, :]
        columns = np.concatenate([np.cos(across), np.sin(across)], axis=-1)
        waves = rows.astype(np.float32) @ columns.astype(np.float32)[:, None].swapaxes(-1, -2)
        return waves.transpose(0, 2, 3, 1) + self.base.astype(np.float32)


@dataclass(frozen=True, slots=True)
class Sprite:
    """A blob with a texture of its own: a circle whose radius swells with the angle."""

    texture: Texture
    radius: float
    """Mean, pixels."""
    swell: np.ndarray
    """Complex, 4: relative height and phase of 2, 3, 4 and 5 swellings around the rim."""
    centre: Float[np.ndarray, " 2"]
    """(x, y) that displacements are counted from, pixels."""

    @classmethod
    def random(
        cls, rng: np.random.Generator, base: Float[np.ndarray, " 3"], size: int, radius: float
    ) -> Sprite:
        height = rng.uniform(0.0, 1.0, 4) * np.array([0.22, 0.12, 0.08, 0.05])
        swell = height * np.exp(1j * rng.uniform(0.0, 2.0 * np.pi, 4))
        centre = rng.uniform(0.0, size, 2)
        return cls(Texture.random(rng, base, size / 96, 0.2), radius, swell, centre)

    def paint(
        self, path: Float[np.ndarray, "F 2"], size: int
    ) -> tuple[Float[np.ndarray, "F H W 3"], Float[np.ndarray, "F H W"]]:
        """Colour and coverage (0 to 1, soft at the rim) when displaced by `path`, on the torus."""
        place = np.arange(size) - (self.centre + path)[:, :, None]
        x, y = np.moveaxis((place + size / 2) % size - size / 2, 1, 0)
        offset = (x[:, None, :] + 1j * y[:, :, None]).astype(np.complex64)
        distance = np.abs(offset)
        unit = offset / np.maximum(distance, 1e-3)
        rim, power = np.ones_like(distance), unit.copy()
        for amount in self.swell.astype(np.complex64):
            power *= unit
            rim += (power * amount).real
        cover = np.clip(self.radius * rim - distance + 0.5, 0.0, 1.0)
        return self.texture.paint(x, y), cover


@dataclass(frozen=True, slots=True)
class Scene:
    """All that can be seen in a clip, apart from how the sprites move."""

    size: int
    background: Texture
    pan: Float[np.ndarray, "F 2"]
    """Displacement of the background, pixels."""
    sprites: list[Sprite]
    distractors: list[Sprite]
    flicker: Float[np.ndarray, " F"]
    """Factor on the brightness of the distractors."""

    @classmethod
    def random(
        cls, rng: np.random.Generator, *, num_frames: int, size: int, look: Look = "vivid"
    ) -> Scene:
        """Draws a scene; the caller's stream decides everything."""
        scale, time = size / 96, np.arange(num_frames)
        is_clear = look == "clear"
        ground, figure = _cool_and_warm(rng) if is_clear else _two_colours(rng)
        background = Texture.random(rng, ground, scale, 0.1 if is_clear else 0.22)
        sprites = [Sprite.random(rng, figure, size, scale * rng.uniform(14.0, 18.0))]
        if rng.random() < 0.4:  # a second one far from the first: half a torus away
            other = _cool_and_warm(rng)[1] if is_clear else np.roll(figure, 1)
            twin = Sprite.random(rng, other, size, scale * rng.uniform(13.0, 15.0))
            place = (sprites[0].centre + size / 2) % size
            sprites.append(Sprite(twin.texture, twin.radius, twin.swell, place))
        heading, speed = rng.uniform(0.0, 2.0 * np.pi), scale * rng.uniform(0.4, 0.8)
        is_panning = rng.random() < _PAN_SHARE
        velocity = is_panning * speed * np.array([np.cos(heading), np.sin(heading)])
        distractors = []
        if rng.random() < _FLICKER_SHARE:
            tint = np.clip(ground + rng.uniform(-0.25, 0.15, 3), 0.2, 0.6)
            distractors.append(Sprite.random(rng, tint, size, scale * rng.uniform(11.0, 15.0)))
        beat = 2.0 * np.pi * time / rng.uniform(6.0, 14.0) + rng.uniform(0.0, 2.0 * np.pi)
        flicker = 1.0 + 0.35 * np.sin(beat)
        return cls(size, background, time[:, None] * velocity, sprites, distractors, flicker)


def _two_colours(
    rng: np.random.Generator,
) -> tuple[Float[np.ndarray, " 3"], Float[np.ndarray, " 3"]]:
    """A colour for the ground and one across the colour cube for the figure, each 0 to 1."""
    hue = rng.uniform(0.0, 2.0 * np.pi)
    turns = hue + np.array([0.0, 2.0, 4.0]) * np.pi / 3.0
    side = rng.choice([-1.0, 1.0])
    ground = 0.5 + 0.06 * np.cos(turns) - side * rng.uniform(0.02, 0.06)
    figure = 0.5 - 0.2 * np.cos(turns + rng.uniform(-0.6, 0.6)) + side * rng.uniform(0.06, 0.14)
    return ground, figure


def _cool_and_warm(
    rng: np.random.Generator,
) -> tuple[Float[np.ndarray, " 3"], Float[np.ndarray, " 3"]]:
    """A colour from green to blue for the ground and one around red for the figure."""
    third = 2.0 * np.pi / 3.0
    side = rng.choice([-1.0, 1.0])

    def towards(hue: float) -> Float[np.ndarray, " 3"]:
        return np.cos(hue - third * np.arange(3.0))

    ground = 0.45 + 0.06 * towards(rng.uniform(third, 2.0 * third)) - side * rng.uniform(0.0, 0.05)
    figure = 0.5 + 0.2 * towards(rng.uniform(-0.5, 0.5) * third) + side * rng.uniform(0.0, 0.1)
    return ground, figure


def draw_scene(
    scene: Scene, path: Float[np.ndarray, "F 2"], rng: np.random.Generator
) -> tuple[UInt8[np.ndarray, "F H W 3"], Bool[np.ndarray, "F H W"]]:
    """Paints the frames of `scene` with its sprites displaced by `path`, and which pixels move."""
    x, y = np.moveaxis(np.arange(scene.size) - scene.pan[:, :, None], 1, 0)
    if not scene.pan.any():  # a still background is painted once
        x, y = x[:1], y[:1]
    background = scene.background.paint(x, y)
    image = np.broadcast_to(background, (len(path), *background.shape[1:])).copy()
    for distractor in scene.distractors:
        colour, cover = distractor.paint(scene.pan, scene.size)
        colour *= scene.flicker.astype(np.float32)[:, None, None, None]
        image += cover[..., None] * (colour - image)
    motion = np.zeros(image.shape[:3], bool)
    for sprite in scene.sprites:
        colour, cover = sprite.paint(path, scene.size)
        image += cover[..., None] * (colour - image)
        motion |= cover >= 0.5
    image += _NOISE * rng.standard_normal(image.shape, np.float32)
    np.clip(image, 0.0, 1.0, out=image)
    return np.rint(image * 255.0).astype(np.uint8), motion
