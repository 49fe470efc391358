from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from scipy.ndimage import sobel

from medllm.dicom import Radiograph
from medllm.evaluate.explanations.controls import (
    Outlines,
    edge_map,
    mean_map,
    pack,
    random_map,
    unpack,
)
from medllm.evaluate.explanations.raster import SIDE
from medllm.explanation.case import Case


def outline(row, column, side=32):
    marked = np.zeros((SIDE, SIDE), dtype=bool)
    marked[row : row + side, column : column + side] = True
    return marked


@pytest.fixture
def outlines():
    """Two outlines of one patient, one of another."""
    found = Outlines()
    for patient, one in (("a", outline(0, 0)), ("a", outline(16, 0)), ("b", outline(64, 96))):
        found.add(patient, pack(one))
    return found


@pytest.fixture
def case(tiny_model):
    """A bright square in the upper left patch but one."""
    pixels = np.zeros((64, 64), dtype=np.float32)
    pixels[20:28, 20:28] = 1
    return Case(tiny_model, Radiograph(pixels, Path("square.png"), "png", ""), ("nodule",))


def test_packing_loses_nothing():
    marked = np.random.default_rng(0).random((SIDE, SIDE)) < 0.3
    np.testing.assert_array_equal(unpack(pack(marked)), marked)


def test_the_mean_of_the_others_has_nothing_of_the_patients_own(outlines):
    np.testing.assert_array_equal(outlines.of_others("a"), outline(64, 96).astype(float))
    own = (outline(0, 0).astype(float) + outline(16, 0)) / 2
    np.testing.assert_array_equal(outlines.of_others("b"), own)
    everyone = (outline(0, 0).astype(float) + outline(16, 0) + outline(64, 96)) / 3
    np.testing.assert_array_equal(outlines.of_others("somebody else"), everyone)


def test_a_patient_alone_has_no_others():
    found = Outlines()
    found.add("a", pack(outline(0, 0)))
    assert found.of_others("a") is None


def test_the_mean_map_lies_over_the_whole_image_and_keeps_the_mean(outlines):
    shares = outlines.of_others("b")
    attribution = mean_map(shares, rows=100, columns=300)
    assert attribution.box == (0.0, 0.0, 300.0, 100.0)
    assert attribution.values.mean() == pytest.approx(shares.mean())
    assert attribution.values[2, 0] == 1.0


def test_edges_are_where_the_gradient_is(case):
    values = edge_map(case).values
    image = case.pixel_values[0, 0].double().numpy()
    by_hand = np.sqrt(sobel(image, axis=0) ** 2 + sobel(image, axis=1) ** 2)
    assert values.shape == (4, 4)
    assert values[1, 1] == pytest.approx(by_hand[16:32, 16:32].mean())
    assert values.sum() == values[1, 1] > 0


def test_a_random_map_is_the_same_for_the_same_image_and_no_other(case):
    first = random_map(case, "1.png nodule").values
    np.testing.assert_array_equal(first, random_map(case, "1.png nodule").values)
    assert (first != random_map(case, "2.png nodule").values).any()
