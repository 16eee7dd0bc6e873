from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from timm.data import mixup
from timm.data.mixup import mixup_target

from tats_ray.core.grid import TokenGrid
from tats_ray.core.seeds import stream
from tats_ray.ops.mixing import Mix, blend, cut_in, draw_mix, soft_targets
from tats_ray.ops.patches import imagenet_normalize, patchify, unit_pixels

SHARES = st.floats(0.0, 1.0)


@given(SHARES, SHARES, st.integers(2, 9))
def test_targets_sum_to_one_and_are_those_of_timm(
    share: float, smoothing: float, num_classes: int
) -> None:
    labels = torch.arange(6) % num_classes
    found = soft_targets(labels, num_classes, share=share, smoothing=smoothing)
    torch.testing.assert_close(found.sum(1), torch.ones(6))
    peer = mixup_target(labels, num_classes, lam=share, smoothing=smoothing)
    torch.testing.assert_close(found, peer)


def test_label_smoothing_gives_the_values_of_the_method() -> None:
    """Off = 0.1/C, on = 0.9 + 0.1/C."""
    found = soft_targets(torch.tensor([2]), 4, smoothing=0.1)
    torch.testing.assert_close(found, torch.tensor([[0.025, 0.025, 0.925, 0.025]]))


def random_clips() -> torch.Tensor:
    # Clips of few colours: only what was cut in can be of the other's.
    low = torch.randint(0, 100, (4, 3, 2, 16, 16), generator=stream(0, "mix"), dtype=torch.uint8)
    return low + torch.tensor([0, 0, 128, 128], dtype=torch.uint8).view(4, 1, 1, 1, 1)


def test_cutmix_cuts_height_and_width_of_all_frames_and_its_share_is_what_stays() -> None:
    clips = random_clips()
    for draw in range(50):
        mix = draw_mix(np.random.default_rng(draw), size=16, mixup=0.0, cutmix=1.0)
        assert mix.box is not None
        mixed = cut_in(clips, mix)
        is_foreign = (mixed >= 128) != (clips >= 128)
        # The same places in every colour and frame: time is never cut.
        assert torch.equal(is_foreign, is_foreign[:1, :1, :1].expand_as(is_foreign))
        assert 1.0 - is_foreign.double().mean().item() == pytest.approx(mix.share)
        assert torch.equal(mixed[is_foreign], clips.flip(0)[is_foreign])


def test_timms_slip_is_reproduced_where_it_is_asked_for(monkeypatch: pytest.MonkeyPatch) -> None:
    """Its `Mixup` on clips, with the same box: it cuts time and height."""
    clips, mix = random_clips(), Mix(0.5, (1, 9, 2, 14))
    monkeypatch.setattr(mixup, "cutmix_bbox_and_lam", lambda *args, **more: (mix.box, mix.share))
    peer = mixup.Mixup(mixup_alpha=0.0, cutmix_alpha=1.0, num_classes=2)
    theirs, _ = peer(clips.clone(), torch.tensor([0, 1, 0, 1]))
    assert torch.equal(cut_in(clips, mix, "time_height"), theirs)
    assert not torch.equal(cut_in(clips, mix), theirs)


def test_mixup_after_normalisation_is_mixup_of_pixels() -> None:
    grid = TokenGrid(num_frames=2, image_size=16, tubelet=2, patch=8)
    clips, mix = random_clips(), Mix(share=0.3)
    pixels = unit_pixels(patchify(clips, grid))
    by_hand = imagenet_normalize(0.3 * pixels + 0.7 * pixels.flip(0))
    torch.testing.assert_close(blend(imagenet_normalize(pixels), mix), by_hand)
    assert cut_in(clips, mix) is clips


def test_draws_are_cutmix_half_of_the_time_and_beta_distributed() -> None:
    draws = [
        draw_mix(np.random.default_rng(at), size=224, mixup=0.8, cutmix=1.0) for at in range(4000)
    ]
    cut = [mix for mix in draws if mix.box is not None]
    assert len(cut) / 4000 == pytest.approx(0.5, abs=0.03)
    blended = torch.tensor([mix.share for mix in draws if mix.box is None])
    # Beta(a, a) has mean 1/2 and variance 1 / (4 (2 a + 1)).
    assert blended.mean().item() == pytest.approx(0.5, abs=0.03)
    assert blended.var().item() == pytest.approx(1 / (4 * 2.6), rel=0.1)


def test_nothing_is_mixed_where_both_are_off_or_the_batch_is_spared() -> None:
    for settings in ({"mixup": 0.0, "cutmix": 0.0}, {"mixup": 1.0, "cutmix": 1.0, "mix": 0.0}):
        assert draw_mix(np.random.default_rng(0), size=8, **settings) == Mix()
