"""The outlines of where an attribution lies, against areas counted pixel by pixel."""

import numpy as np
import pytest
from PIL import Image, ImageDraw

from medllm.explanation.outline import top_parts
from medllm.explanation.record import AttributionMap

SHAPE = (180, 240)


def a_map(*hot: tuple[int, int], size: int = 12, **values: float) -> AttributionMap:
    grid = np.full((size, size), values.get("rest", -0.01))
    for at in hot:
        grid[at] = 1.0
    return AttributionMap(grid, (0.0, 0.0, float(SHAPE[1]), float(SHAPE[0])))


def drawn(outline: np.ndarray) -> np.ndarray:
    """Fill the outline as a drawing program would, sixteen times finer than the pixels."""
    fine = Image.new("1", (SHAPE[1] * 4, SHAPE[0] * 4))
    ImageDraw.Draw(fine).polygon([tuple(point) for point in outline * 4], fill=1)
    return np.asarray(fine, dtype=float).reshape(SHAPE[0], 4, SHAPE[1], 4).mean(axis=(1, 3))


@pytest.mark.parametrize("hot", [[(5, 5)], [(2, 2), (9, 8)], [(0, 0), (11, 11), (6, 3)]])
def test_a_hot_patch_has_an_outline_around_it_and_half_of_the_sum_is_within_them(hot):
    attribution = a_map(*hot)
    parts = top_parts(attribution, SHAPE)
    assert len(parts) == len(hot)
    rows, columns = np.array(SHAPE) / 12
    for row, column in hot:
        centre = int((row + 0.5) * rows), int((column + 0.5) * columns)
        assert sum(drawn(part.outline)[centre] for part in parts) == pytest.approx(1)
    positive = np.maximum(attribution.spread(SHAPE, SHAPE), 0)
    counted = [float((positive * drawn(part.outline)).sum() / positive.sum()) for part in parts]
    # A line through pixels takes parts of them; each border pixel holds about a hundredth.
    assert [part.share for part in parts] == pytest.approx(counted, abs=0.02)
    assert sum(part.share for part in parts) == pytest.approx(0.5, abs=0.02)


def test_an_outline_is_closed_and_stays_in_the_image():
    for part in top_parts(a_map((0, 0), (0, 11), (11, 0), (11, 11)), SHAPE):
        assert np.array_equal(part.outline[0], part.outline[-1])
        assert (part.outline >= 0).all()
        assert (part.outline <= SHAPE[::-1]).all()


def test_a_corner_is_outlined_to_the_very_edge():
    (part,) = top_parts(a_map((0, 0)), SHAPE)
    assert part.outline.min(axis=0) == pytest.approx([0, 0])


def test_the_largest_share_comes_first_and_a_speck_is_left_out():
    attribution = a_map((2, 2), (2, 3), (8, 8))
    attribution.values[11, 11] = 1e-3
    shares = [part.share for part in top_parts(attribution, SHAPE)]
    assert shares == sorted(shares, reverse=True)
    assert min(shares) >= 0.01


def test_what_a_ring_surrounds_counts_to_the_ring():
    ring = [(4, 4), (4, 5), (4, 6), (5, 4), (5, 6), (6, 4), (6, 5), (6, 6)]
    (part,) = top_parts(a_map(*ring, rest=-1.0), SHAPE)
    rows, columns = np.array(SHAPE) / 12
    assert drawn(part.outline)[int(5.5 * rows), int(5.5 * columns)] == 1


def test_outlines_of_a_large_image_are_in_its_own_pixels():
    shape = (3000, 2000)
    attribution = AttributionMap(a_map((6, 9)).values, (0.0, 0.0, 2000.0, 3000.0))
    (part,) = top_parts(attribution, shape)
    centre = (part.outline.min(axis=0) + part.outline.max(axis=0)) / 2
    # Two steps of the contours' grid, 3000 / 256 pixels each.
    assert centre == pytest.approx([9.5 / 12 * 2000, 6.5 / 12 * 3000], abs=24)


def test_where_nothing_is_raised_there_is_no_outline():
    assert top_parts(a_map(rest=-0.5), SHAPE) == ()
    assert top_parts(a_map(rest=0.0), SHAPE) == ()


def test_an_even_map_is_outlined_as_a_whole():
    (part,) = top_parts(a_map(rest=0.1), SHAPE)
    assert part.share == pytest.approx(1)
    assert drawn(part.outline).mean() == pytest.approx(1, abs=0.01)
