from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from medllm.data.anatomy import REGIONS, Zones
from medllm.explanation.record import AttributionMap
from medllm.explanation.regions import patch_coverage, patch_shares, regions_of

OUTSIDE = REGIONS.index(("outside", None))


def hand_made() -> Zones:
    """A 6 x 6 chest: right zones in the image's left, mediastinum, left zones, a rim outside."""
    labels = np.full((6, 6), OUTSIDE, dtype=np.uint8)
    for third in range(3):
        labels[1 + third, 1:3] = third
        labels[1 + third, 3] = REGIONS.index(("mediastinum", None))
        labels[1 + third, 4:6] = 3 + third
    return Zones(labels, "by hand")


def one_patch(row: int, column: int, value: float = 1.0) -> AttributionMap:
    values = np.zeros((6, 6))
    values[row, column] = value
    return AttributionMap(values, (0.0, 0.0, 600.0, 300.0))


def test_one_patch_of_the_right_lower_zone_says_so():
    top, *rest = regions_of(one_patch(3, 1, 0.7), hand_made(), 300, 600)
    assert (top.zone, top.side) == ("lower", "right")
    assert top.share == pytest.approx(1)
    assert top.log_odds == pytest.approx(0.7)
    assert all(region.share == pytest.approx(0) for region in rest)
    assert {(region.zone, region.side) for region in (top, *rest)} == set(REGIONS)


def test_a_patch_across_a_border_is_divided_by_area():
    # One patch over columns 2.0 to 4.0 of the grid: half right middle zone, half mediastinum.
    attribution = AttributionMap(np.array([[2.0]]), (200.0, 100.0, 200.0, 50.0))
    first, second = regions_of(attribution, hand_made(), 300, 600)[:2]
    assert {(first.zone, first.side), (second.zone, second.side)} == {
        ("middle", "right"),
        ("mediastinum", None),
    }
    assert first.share == pytest.approx(0.5)
    assert first.log_odds == second.log_odds == pytest.approx(1.0)


def test_what_lies_beyond_a_padded_image_is_outside():
    # The padded square reaches 100 pixels beyond the image at the top and at the bottom.
    attribution = AttributionMap(np.ones((2, 1)), (0.0, -150.0, 600.0, 600.0))
    shares = patch_shares(attribution, hand_made(), 300, 600)
    labels = hand_made().labels
    inside = np.stack([(part != OUTSIDE).mean() for part in (labels[:3], labels[3:])]) / 2
    np.testing.assert_allclose(1 - shares[OUTSIDE, :, 0], inside)


def test_coverage_is_of_the_patch_and_nothing_beyond_the_image_is_covered():
    mask = np.zeros((300, 600), dtype=bool)
    mask[:30, 500:] = True  # 100 x 30 pixels of the last patch of the first row
    attribution = AttributionMap(np.ones((2, 3)), (0.0, -150.0, 600.0, 600.0))
    covered = patch_coverage(attribution, mask, 300, 600)
    np.testing.assert_allclose(covered, [[0, 0, 100 * 30 / (200 * 300)], [0, 0, 0]])


@given(st.integers(0, 2**32 - 1), st.integers(1, 9), st.floats(-200, 200), st.floats(100, 900))
def test_shares_sum_to_one_and_log_odds_to_the_map(seed, grid, start, extent):
    values = np.random.default_rng(seed).normal(size=(grid, grid))
    values[0, 0] = 0.1  # one patch at least raises the finding
    attribution = AttributionMap(values, (start, start / 2, extent, extent))
    regions = regions_of(attribution, hand_made(), 300, 600)
    assert sum(region.share for region in regions) == pytest.approx(1)
    assert sum(region.log_odds for region in regions) == pytest.approx(values.sum(), abs=1e-9)
    shares = [region.share for region in regions]
    assert shares == sorted(shares, reverse=True)
    assert min(shares) >= -1e-12


def test_without_positive_attribution_no_region_has_a_share():
    regions = regions_of(one_patch(3, 1, -0.7), hand_made(), 300, 600)
    assert [region.share for region in regions] == [0] * len(REGIONS)
    assert sum(region.log_odds for region in regions) == pytest.approx(-0.7)
