from __future__ import annotations

import numpy as np
import pytest

from medllm.evaluate.explanations.raster import SIDE, boxes_on_grid, mask_on_grid, on_grid
from medllm.explanation import AttributionMap


def test_a_box_covers_the_same_share_of_the_grid_as_of_the_image():
    marked = boxes_on_grid([(100.0, 50.0, 200.0, 300.0)], rows=1024, columns=512)
    # One cell of rounding at each of the four edges.
    assert marked.mean() == pytest.approx(200 * 300 / (1024 * 512), abs=4 / SIDE)
    rows, columns = np.nonzero(marked)
    assert (rows.min(), columns.min()) == (50 * SIDE // 1024, 100 * SIDE // 512)


def test_a_box_and_its_mask_are_the_same_cells():
    mask = np.zeros((512, 768), dtype=bool)
    mask[100:180, 300:420] = True
    box = (300.0, 100.0, 120.0, 80.0)
    np.testing.assert_array_equal(mask_on_grid(mask), boxes_on_grid([box], 512, 768))


def test_boxes_are_joined():
    one, other = (0.0, 0.0, 64.0, 64.0), (128.0, 128.0, 64.0, 64.0)
    joined = boxes_on_grid([one, other], SIDE, SIDE)
    assert joined.sum() == 2 * 64 * 64


def test_an_outline_smaller_than_a_cell_is_not_lost():
    assert boxes_on_grid([(1001.0, 2001.0, 2.0, 2.0)], 4096, 4096).sum() == 1
    mask = np.zeros((4096, 4096), dtype=bool)
    mask[2001, 1001] = True
    assert np.argwhere(mask_on_grid(mask)).tolist() == [[2001 // 16, 1001 // 16]]
    # beyond the image's border the nearest cell stands for it
    assert boxes_on_grid([(5000.0, 10.0, 4.0, 900.0)], 4096, 4096)[:, -1].any()


def test_a_map_lies_where_its_box_says_and_is_zero_beside_it():
    values = np.array([[1.0, 1.0], [1.0, 1.0]])
    # The model saw the middle square of a wide image.
    scaled, laid = on_grid(AttributionMap(values, (100.0, 0.0, 200.0, 200.0)), 200, 400)
    assert scaled.box == (64.0, 0.0, 128.0, 256.0)
    assert laid[:, 64:192].min() == 1
    assert laid[:, :63].max() == laid[:, 193:].max() == 0
