from __future__ import annotations

import random

import numpy as np
import pytest
import torch
from PIL import Image
from timm.data.auto_augment import AugmentOp
from torch import Tensor
from torch.nn.functional import interpolate

from tats_ray.core.seeds import stream
from tats_ray.data.augment import OPERATIONS, area_crop_box, erase, rand_augment

TIMM = {
    "auto_contrast": "AutoContrast",
    "equalize": "Equalize",
    "invert": "Invert",
    "rotate": "Rotate",
    "posterize": "PosterizeIncreasing",
    "solarize": "SolarizeIncreasing",
    "solarize_add": "SolarizeAdd",
    "color": "ColorIncreasing",
    "contrast": "ContrastIncreasing",
    "brightness": "BrightnessIncreasing",
    "sharpness": "SharpnessIncreasing",
    "shear_x": "ShearX",
    "shear_y": "ShearY",
    "shift_x": "TranslateXRel",
    "shift_y": "TranslateYRel",
}
RESAMPLED = {"rotate", "shear_x", "shear_y", "shift_x", "shift_y"}


def smooth_frames(count: int = 2) -> Tensor:
    small = torch.rand(count, 3, 14, 14, generator=stream(0, "frames"))
    large = 0.1 + 0.7 * interpolate(small, size=(40, 48), mode="bicubic").clamp(0, 1)
    return (large * 255).to(torch.uint8)


def test_all_fifteen_operations_are_there() -> None:
    assert set(OPERATIONS) == set(TIMM)


@pytest.mark.parametrize("name", TIMM)
def test_operation_does_what_timms_does(name: str) -> None:
    """Up to rounding; where pixels are resampled, up to the rim of what was filled in."""
    frames = smooth_frames()
    hparams = {"img_mean": (128, 128, 128), "interpolation": Image.Resampling.BILINEAR}
    for magnitude in (3.0, 7.0):
        peer = AugmentOp(TIMM[name], prob=1.0, magnitude=magnitude, hparams=hparams)
        theirs = []
        for seed in range(12):  # both signs come up
            random.seed(seed)
            pictures = [Image.fromarray(f.permute(1, 2, 0).numpy()) for f in frames]
            theirs.append(np.stack([np.asarray(peer(p)) for p in pictures]).astype(int))
        for sign in (1, -1):
            ours = OPERATIONS[name](frames, sign * magnitude / 10)
            assert ours.dtype == torch.uint8
            numbers = ours.permute(0, 2, 3, 1).numpy().astype(int)
            nearest = min(float(np.abs(numbers - other).mean()) for other in theirs)
            change = np.abs(numbers - np.moveaxis(frames.numpy(), 1, -1)).mean()
            assert nearest < (0.35 * change if name in RESAMPLED else 0.5), (magnitude, sign)
            assert change > 1.0


def test_all_frames_of_a_clip_get_the_same_and_the_generator_decides_what() -> None:
    frames = smooth_frames(1).expand(4, -1, -1, -1).contiguous()
    seen = set()
    for seed in range(12):
        settings = {"num_ops": 4, "magnitude": 7.0, "std": 0.5}
        one = rand_augment(frames, stream(seed, "augment"), **settings)
        assert torch.equal(one, one[:1].expand_as(one))
        assert torch.equal(one, rand_augment(frames, stream(seed, "augment"), **settings))
        seen.add(one.sum().item())
    assert len(seen) > 8
    assert torch.equal(rand_augment(frames, stream(0), num_ops=0, magnitude=7, std=0.5), frames)


def test_crops_lie_in_the_picture_and_keep_the_shares_asked_for() -> None:
    shares = []
    for seed in range(300):
        box = area_crop_box(120, 80, stream(seed, "crop"), min_area=0.08)
        assert box.left >= 0
        assert box.left + box.width <= 120
        assert box.top >= 0
        assert box.top + box.height <= 80
        shares.append(box.width * box.height / 9600)
        assert 0.7 < box.width / box.height < 1.4
    assert min(shares) < 0.15
    assert max(shares) > 0.8
    whole = area_crop_box(120, 80, stream(0), min_area=1.0)
    assert (whole.left, whole.top, whole.width, whole.height) == (0, 0, 120, 80)


def test_erasing_fills_one_box_of_all_frames_with_fresh_noise() -> None:
    clip = torch.full((3, 4, 32, 32), 7, dtype=torch.uint8)
    num_erased = 0
    for seed in range(60):
        found = erase(clip, stream(seed, "erase"), chance=0.5)
        is_changed = (found != clip).any(0)
        num_erased += bool(is_changed.any())
        if is_changed.any():
            place = is_changed.any(0).nonzero()
            top, left = place.min(0).values.tolist()
            bottom, right = (place.max(0).values + 1).tolist()
            share = (bottom - top) * (right - left) / 32**2
            assert 0.01 < share < 0.36
            assert is_changed[:, top:bottom, left:right].double().mean() > 0.95
            assert not torch.equal(found[:, 0], found[:, 1])
    assert num_erased == pytest.approx(30, abs=12)
    assert erase(clip, stream(0), chance=0.0) is clip
