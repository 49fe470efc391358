from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from medllm.data import Preprocessing
from medllm.dicom import Radiograph


def _scan(pixels):
    return Radiograph(pixels.astype(np.float32), Path("a.png"), "png", "0" * 64)


def test_pixel_values_have_mean_zero_and_deviation_one():
    pixels = np.random.default_rng(0).random((300, 200))
    values = Preprocessing(size=64, channels=3)(_scan(pixels))
    assert values.shape == (1, 3, 64, 64)
    assert values.mean().abs() < 1e-5
    assert values[0, 0].std(correction=0) == pytest.approx(1, abs=1e-5)
    assert torch.equal(values[0, 0], values[0, 2])


def test_exposure_and_contrast_do_not_move_pixel_values():
    pixels = np.random.default_rng(0).random((128, 128)).astype(np.float32)
    contract = Preprocessing(size=64)
    # One float32 step of the display values, divided by their deviation.
    torch.testing.assert_close(
        contract.prepare(pixels), contract.prepare(0.3 * pixels + 0.2), atol=1e-4, rtol=0
    )


def test_fixed_normalization_uses_the_contracts_numbers():
    contract = Preprocessing(size=64, normalization="fixed", mean=0.4, std=0.2)
    values = contract.prepare(np.full((64, 64), 0.5, dtype=np.float32))
    assert values.mean() == pytest.approx(0.5, abs=1e-6)


def test_a_flat_image_gives_zeros_not_noise():
    assert (
        Preprocessing(size=64).prepare(np.full((90, 90), 0.7, dtype=np.float32)).abs().max() < 1e-3
    )


def test_reduction_is_the_mean_over_each_block():
    pixels = np.random.default_rng(0).random((128, 256)).astype(np.float32)
    got = Preprocessing(size=64).resize(pixels)[0].numpy()
    by_hand = pixels.reshape(64, 2, 64, 4).mean(axis=(1, 3))
    np.testing.assert_allclose(got, by_hand, atol=1e-6)


@settings(max_examples=40, deadline=None)
@given(
    rows=st.integers(64, 400),
    columns=st.integers(64, 400),
    aspect=st.sampled_from(["stretch", "pad"]),
    where=st.tuples(st.floats(0.1, 0.9), st.floats(0.1, 0.9)),
)
def test_a_marked_pixel_maps_back_within_one_pixel(rows, columns, aspect, where):
    """The centre of mass of a bright square, seen in the model's input, lies where it was."""
    contract = Preprocessing(size=64, aspect=aspect)
    row, column = int(where[0] * rows), int(where[1] * columns)
    pixels = np.zeros((rows, columns), dtype=np.float32)
    top, left = max(0, row - 8), max(0, column - 8)
    pixels[top : row + 9, left : column + 9] = 1
    truth = np.argwhere(pixels).mean(axis=0) + 0.5
    seen = contract.resize(pixels)[0].numpy()
    weights = seen / seen.sum()
    centers = (np.arange(64) + 0.5) / 64
    x, y, width, height = contract.box(rows, columns)
    found = (
        y + height * (weights.sum(axis=1) @ centers),
        x + width * (weights.sum(axis=0) @ centers),
    )
    # One pixel of the model's input, in source pixels, or of the source if that is larger.
    step = max(rows, columns) / 64
    assert abs(found[0] - truth[0]) <= max(1, step)
    assert abs(found[1] - truth[1]) <= max(1, step)
