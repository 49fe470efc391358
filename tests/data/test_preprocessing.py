from __future__ import annotations

import dataclasses
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image
from transformers import (
    BitImageProcessorPil,
    CLIPImageProcessorPil,
    DeiTImageProcessorPil,
    ViTImageProcessorPil,
)

from medllm.data import Preprocessing
from medllm.dicom import Radiograph
from medllm.phantom import make_phantom


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
    contract = Preprocessing(size=64, normalization="fixed", mean=(0.4,), std=(0.2,))
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


def test_each_channel_has_its_own_mean_and_deviation():
    contract = Preprocessing(
        size=64, channels=3, normalization="fixed", mean=(0.5, 0.4, 0.2), std=(0.5, 0.2, 0.1)
    )
    values = contract.prepare(np.full((90, 70), 0.6, dtype=np.float32))
    assert values.shape == (1, 3, 64, 64)
    wanted = torch.tensor([0.2, 1.0, 4.0])
    torch.testing.assert_close(values.amax(dim=(0, 2, 3)), wanted)
    torch.testing.assert_close(values.amin(dim=(0, 2, 3)), wanted)


@pytest.mark.parametrize("normalization", ["per-image", "fixed"])
@pytest.mark.parametrize("mean", [(0.5,), (0.5, 0.4, 0.2)])
def test_a_batch_of_resized_images_is_prepared_as_each_alone(normalization, mean):
    contract = Preprocessing(size=64, channels=3, normalization=normalization, mean=mean)
    images = [np.random.default_rng(seed).random((80, 90), dtype=np.float32) for seed in range(3)]
    batch = contract.pixel_values(torch.cat([contract.resize(image) for image in images]))
    assert torch.equal(batch, torch.cat([contract.prepare(image) for image in images]))


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"aspect": "pad", "shortest_edge": 80}, "nothing is cut from what was padded"),
        ({"aspect": "crop", "shortest_edge": 60}, "shortest_edge is 60 and size is 64"),
        ({"aspect": "crop", "shortest_edge": 66, "unread": 4}, "66 and size is 64 and 4 unread"),
        ({"channels": 3, "mean": (0.5, 0.5)}, "mean has 2 and std 1 values for channels 3"),
        ({"channels": 1, "std": (0.5, 0.5, 0.5)}, "std 3 values for channels 1"),
        ({"channels": 3, "std": (0.5, 0.0, 0.5)}, "must be above 0"),
    ],
)
def test_fields_that_do_not_go_together_are_refused(fields, message):
    with pytest.raises(ValueError, match=message):
        Preprocessing(size=64, **fields)


# An image processor rounds to whole steps of 8-bit grey after each of its two passes, medllm
# never. Largest difference measured on phantoms and noise: 1.15 steps with Lanczos, 1.08 with
# bicubic, 1.00 with bilinear, none with nearest.
STEPS = 1.2
FILTERS = {"nearest": 0, "lanczos": 1, "bilinear": 2, "bicubic": 3}
PROCESSORS = [
    (
        BitImageProcessorPil(size={"shortest_edge": 128}, crop_size=112),
        {"aspect": "crop", "size": 112, "shortest_edge": 128},
    ),
    (
        CLIPImageProcessorPil(size={"shortest_edge": 112}, crop_size=112),
        {"aspect": "crop", "size": 112},
    ),
    (ViTImageProcessorPil(size={"height": 112, "width": 112}), {"size": 112}),
    (
        DeiTImageProcessorPil(size={"height": 128, "width": 128}, crop_size=112),
        {"size": 112, "shortest_edge": 128},
    ),
]


def _steps_apart(grey, processor, contract, name):
    """Difference to an image processor at each pixel, in steps of 8-bit grey."""
    picture = Image.fromarray(np.stack([grey] * 3, axis=-1))
    theirs = processor(picture, resample=FILTERS[name], return_tensors="pt")["pixel_values"]
    ours = Preprocessing(
        channels=3,
        interpolation=name,
        normalization="fixed",
        mean=tuple(processor.image_mean),
        std=tuple(processor.image_std),
        **contract,
    )
    difference = (ours.prepare(grey.astype(np.float32) / 255) - theirs).abs()
    return difference * torch.tensor(ours.std)[:, None, None] * 255


@pytest.mark.parametrize("name", FILTERS)
@pytest.mark.parametrize("rows_and_columns", [(300, 300), (211, 300), (80, 90)])
@pytest.mark.parametrize(("processor", "contract"), PROCESSORS)
def test_pixel_values_are_those_of_hugging_faces_image_processors(
    processor, contract, rows_and_columns, name, phantom_grey
):
    grey = phantom_grey[: rows_and_columns[0], : rows_and_columns[1]]
    steps = _steps_apart(grey, processor, contract, name)
    assert steps.max() < (1e-3 if name == "nearest" else STEPS)


@pytest.mark.parametrize("name", ["lanczos", "bicubic"])
@pytest.mark.parametrize(("processor", "contract"), PROCESSORS)
def test_a_tall_image_differs_beside_saturated_edges_alone(processor, contract, name, phantom_grey):
    # Pillow may take the columns first there; up to 17 steps at 60 of 37,632 values measured.
    steps = _steps_apart(phantom_grey[:, :170], processor, contract, name)
    assert (steps >= STEPS).float().mean() < 0.002
    assert steps.mean() < 0.4
    # Without black and white nothing is clipped, and the order means nothing.
    inside = (60 + phantom_grey[:, :170] // 2).astype(np.uint8)
    assert _steps_apart(inside, processor, contract, name).max() < STEPS


@pytest.fixture(scope="module")
def phantom_grey():
    return np.rint(make_phantom(2, size=300).pixels * 255).astype(np.uint8)


@pytest.mark.parametrize(
    ("rows", "columns", "box"),
    [
        # 256 of 512 rows: a resized pixel is two; 16 resized pixels are lost on each side.
        (512, 512, (32.0, 32.0, 448.0, 448.0)),
        # 640 columns become 320, of which 48 are lost on each side.
        (512, 640, (96.0, 32.0, 448.0, 448.0)),
        (1280, 512, (32.0, 416.0, 448.0, 448.0)),
        # 301 columns would be 385.28 and are 385; the odd one is lost on the right.
        (200, 301, (80 * 301 / 385, 12.5, 224 * 301 / 385, 175.0)),
    ],
)
def test_a_cropped_margin_is_outside_of_the_box(rows, columns, box):
    contract = Preprocessing(size=224, aspect="crop", shortest_edge=256)
    assert contract.box(rows, columns) == pytest.approx(box, abs=1e-9)


@pytest.mark.parametrize("interpolation", ["area", "bicubic"])
def test_what_lies_in_the_cropped_margin_is_not_seen(interpolation):
    contract = Preprocessing(size=64, aspect="crop", shortest_edge=80, interpolation=interpolation)
    pixels = np.zeros((240, 330), dtype=np.float32)
    x, y, width, height = (round(value) for value in contract.box(240, 330))
    assert (x, y, width, height) == (69, 24, 192, 192)
    # A cubic filter reaches two resized pixels, of three pixels each, over the edge.
    reach = 6 if interpolation == "bicubic" else 0
    margin = np.ones_like(pixels, dtype=bool)
    margin[y - reach : y + height + reach, x - reach : x + width + reach] = False
    pixels[margin] = 1
    assert contract.resize(pixels).max() == 0
    pixels[y, x] = pixels[y + height - 1, x + width - 1] = 1
    seen = contract.resize(pixels)[0]
    assert min(seen[0, 0], seen[-1, -1]) > 0.05


@pytest.mark.parametrize(
    ("aspect", "edge"), [("stretch", None), ("stretch", 73), ("pad", None), ("crop", 73)]
)
def test_what_is_unread_is_cut_off_at_the_bottom_and_at_the_right_alone(aspect, edge):
    pixels = np.random.default_rng(0).random((90, 120), dtype=np.float32)
    whole = Preprocessing(size=64, aspect=aspect, shortest_edge=edge, interpolation="bicubic")
    read = dataclasses.replace(whole, size=58, unread=6)
    assert torch.equal(read.resize(pixels), whole.resize(pixels)[:, :58, :58])
    x, y, width, height = whole.box(90, 120)
    assert read.box(90, 120) == pytest.approx((x, y, width * 58 / 64, height * 58 / 64))


@settings(max_examples=80, deadline=None)
@given(
    rows=st.integers(64, 400),
    columns=st.integers(64, 400),
    contract=st.sampled_from(
        [
            Preprocessing(
                size=64,
                aspect=aspect,
                interpolation=interpolation,
                shortest_edge=edge,
                unread=unread,
            )
            for aspect, edge in (
                ("stretch", None),
                ("stretch", 73),
                ("pad", None),
                ("crop", None),
                ("crop", 73),
            )
            for interpolation in ("area", "bilinear", "bicubic")
            for unread in (0, 5)
        ]
    ),
    where=st.tuples(st.floats(0.1, 0.9), st.floats(0.1, 0.9)),
)
def test_a_marked_pixel_maps_back_within_one_pixel(rows, columns, contract, where):
    """The centre of mass of a bright square, seen in the model's input, lies where it was."""
    x, y, width, height = contract.box(rows, columns)
    # Inside of what is seen, so that no part of the square is cut off.
    left, right = max(0, x) + 8, min(columns, x + width) - 9
    above, below = max(0, y) + 8, min(rows, y + height) - 9
    row, column = (
        int(start + share * (end - start))
        for share, start, end in zip(where, (above, left), (below, right), strict=True)
    )
    pixels = np.zeros((rows, columns), dtype=np.float32)
    top, left = max(0, row - 8), max(0, column - 8)
    pixels[top : row + 9, left : column + 9] = 1
    truth = np.argwhere(pixels).mean(axis=0) + 0.5
    seen = contract.resize(pixels)[0].numpy()
    weights = seen / seen.sum()
    centers = (np.arange(64) + 0.5) / 64
    found = (
        y + height * (weights.sum(axis=1) @ centers),
        x + width * (weights.sum(axis=0) @ centers),
    )
    # One pixel of the model's input, in source pixels, or of the source if that is larger.
    step = max(rows, columns) / 64
    assert abs(found[0] - truth[0]) <= max(1, step)
    assert abs(found[1] - truth[1]) <= max(1, step)
