from __future__ import annotations

import numpy as np
import pytest

from medllm.data.anatomy import REGIONS
from medllm.evaluate.explanations.localised import THRESHOLDS, Truth, localise
from medllm.evaluate.explanations.raster import SIDE
from medllm.explanation import AttributionMap

RIGHT_UPPER, LEFT_LOWER = REGIONS.index(("upper", "right")), REGIONS.index(("lower", "left"))
MEDIASTINUM, OUTSIDE = REGIONS.index(("mediastinum", None)), REGIONS.index(("outside", None))


@pytest.fixture
def truth():
    """Quarters of the image are regions; the outline is a patch in the first of four by four."""
    regions = np.full((SIDE, SIDE), OUTSIDE, dtype=np.uint8)
    half = SIDE // 2
    regions[:half, :half], regions[half:, half:] = RIGHT_UPPER, LEFT_LOWER
    regions[:half, half:] = MEDIASTINUM
    outline = np.zeros((SIDE, SIDE), dtype=bool)
    outline[:64, :64] = True
    return Truth(outline, regions, rows=200, columns=400)


def one_patch(row, column, value=2.0):
    values = np.zeros((4, 4))
    values[row, column] = value
    return AttributionMap(values, (0.0, 0.0, 400.0, 200.0))


def test_a_map_on_the_outline_is_right_in_every_way(truth):
    found = localise(one_patch(0, 0), truth)
    assert (found["hit"], found["side_hit"], found["region_hit"]) == (1, 1, 1)
    assert found["region"] == "right upper"
    assert found["pixel_auroc"] > 0.98
    assert found["overlap"] > 0.5
    assert found["energy_ratio"] == pytest.approx(16 * found["relevance_mass"])


def test_a_map_beside_it_is_wrong_in_every_way(truth):
    found = localise(one_patch(3, 3), truth)
    assert (found["hit"], found["side_hit"], found["region_hit"]) == (0, 0, 0)
    assert found["region"] == "left lower"
    assert found["relevance_mass"] == found["overlap"] == 0
    assert found["pixel_auroc"] < 0.5


def test_within_the_lungs_what_lies_beside_them_does_not_count(truth):
    # Outside the lungs the map is high; within, highest on the outline.
    values = np.array([[3.0, 0, 9, 9], [0, 0, 9, 9], [9, 9, 0, 0], [9, 9, 0, 0]])
    found = localise(AttributionMap(values, (0.0, 0.0, 400.0, 200.0)), truth)
    assert found["pixel_auroc"] < 0.7 < found["pixel_auroc_lungs"]


def test_each_of_several_lesions_is_a_cause(truth):
    outline = truth.outline.copy()
    outline[-20:, -20:] = True
    both = Truth(outline, truth.regions, truth.rows, truth.columns)
    for place in ((0, 0), (3, 3)):
        assert localise(one_patch(*place), both)["region_hit"] == 1
    assert localise(one_patch(0, 3), both)["region_hit"] == 0


def test_overlaps_shrink_what_is_marked_and_a_map_without_support_marks_nothing(truth):
    found = localise(one_patch(0, 0), truth)
    assert len(found["overlaps"]) == len(THRESHOLDS)
    # The map falls off smoothly from the patch's centre: the last thresholds mark too little.
    assert found["overlaps"][-1] < max(found["overlaps"])
    against = localise(one_patch(0, 0, value=-2.0), truth)
    assert set(against["overlaps"]) == {0.0}
    assert against["overlap"] == 0
    assert against["relevance_mass"] == against["energy_ratio"] == 0
    assert against["region"] is None
    assert against["region_hit"] == 0


def test_facts_are_the_half_and_the_share_of_the_area(truth):
    assert truth.facts() == {"half": "left", "area": 1 / 16}
