from __future__ import annotations

import numpy as np
import pytest

from medllm.data.lung_outline import LEFT_LUNG, RIGHT_LUNG, USUAL, draw, fit, frame_indices
from medllm.phantom import Lesion, Phantom, make_phantom


def overlap(phantom: Phantom, placement) -> float:
    """Dice coefficient of both lungs with the phantom's, the worse of the two."""
    drawn = draw(RIGHT_LUNG, LEFT_LUNG)[frame_indices(placement, phantom.pixels.shape[0])]
    return min(
        2 * ((drawn == number) & mask).sum() / ((drawn == number).sum() + mask.sum())
        for number, mask in ((1, phantom.right_lung_mask), (2, phantom.left_lung_mask))
    )


@pytest.mark.parametrize("lesions", [None, [Lesion("effusion", "left", strength=1.0)]])
def test_the_outline_covers_the_lungs_of_phantoms(lesions):
    phantoms = [make_phantom(seed, size=128, lesions=lesions) for seed in range(100, 106)]
    fitted = [overlap(phantom, fit(phantom.pixels)[0]) for phantom in phantoms]
    usual = [overlap(phantom, USUAL) for phantom in phantoms]
    # Over 100 phantoms the median is .91 a lung, and the 5th percentile .87.
    assert np.median(fitted) > 0.87
    assert min(fitted) > 0.75
    assert np.median(fitted) > np.median(usual) + 0.05


def test_the_outline_follows_a_shift_of_the_image():
    pixels = make_phantom(11, size=192, lesions=[]).pixels
    moved = np.pad(pixels, ((0, 0), (16, 0)), mode="edge")[:, :-16]
    here, there = fit(pixels)[0], fit(moved)[0]
    # 16 of 192 pixels; the search ends at steps of about .006
    assert there.middle - here.middle == pytest.approx(16 / 192, abs=0.02)
    assert there.centre == pytest.approx(here.centre, abs=0.02)


def test_contrast_tells_lungs_from_a_flat_image_and_from_noise():
    noise = np.random.default_rng(0).random((128, 128), dtype=np.float32)
    assert fit(make_phantom(11, size=128).pixels)[1] > 1.5
    assert fit(noise)[1] < 0.8
    assert fit(np.full((128, 128), 0.5, np.float32))[1] == 0
