from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from matplotlib.path import Path as Outline

from medllm.dicom.radiograph import Radiograph
from medllm.explanation.overlay import LONGEST_SIDE, dashes, display_image, draw_overlay
from medllm.explanation.record import AttributionMap


def _scan(rows: int, columns: int) -> Radiograph:
    pixels = np.zeros((rows, columns), dtype=np.float32)
    return Radiograph(pixels=pixels, path=Path("a.png"), file_format="png", sha256="0" * 64)


def _one_hot(rows: int, columns: int, at: tuple[int, int], box) -> AttributionMap:
    values = np.zeros((rows, columns))
    values[at] = 1.0
    return AttributionMap(values, box)


@pytest.mark.parametrize("at", [(0, 0), (1, 2), (3, 4)])
def test_a_patch_has_its_value_at_its_centre(at):
    field = _one_hot(4, 5, at, (0.0, 0.0, 75.0, 60.0)).spread((60, 75), (60, 75))
    # Patches of 15 pixels, so that the centre is the centre of the eighth pixel.
    assert field[15 * at[0] + 7, 15 * at[1] + 7] == pytest.approx(1.0, abs=1e-12)
    other = 15 * ((at[0] + 1) % 4) + 7
    assert field[other, 15 * at[1] + 7] == pytest.approx(0.0, abs=1e-12)


def test_a_box_that_passes_the_border_keeps_patches_in_place():
    # 60 rows, 40 columns, padded to a square: the second of four patches is centred at x = 12.5.
    field = _one_hot(4, 4, (1, 1), (-10.0, 0.0, 60.0, 60.0)).spread((60, 40), (60, 40))
    assert np.unravel_index(field.argmax(), field.shape) == (22, 12)
    assert field[22, 12] == pytest.approx(1.0, abs=1e-12)


def test_nothing_is_drawn_outside_the_box():
    attribution = AttributionMap(np.ones((3, 3)), (10.0, 20.0, 30.0, 30.0))
    field = attribution.spread((60, 60), (60, 60))
    inside = np.zeros((60, 60), dtype=bool)
    inside[20:50, 10:40] = True
    assert (field[inside] == 1).all()
    assert (field[~inside] == 0).all()


def test_a_large_image_is_shrunk_without_moving_the_map():
    scan = _scan(3 * LONGEST_SIDE, 2 * LONGEST_SIDE)
    rows, columns = display_image(scan).shape
    assert rows == LONGEST_SIDE
    attribution = _one_hot(4, 4, (2, 1), (0.0, 0.0, scan.columns, scan.rows))
    assert draw_overlay(scan, attribution).rgba.shape[:2] == (rows, columns)
    field = attribution.spread(scan.pixels.shape, (rows, columns))
    row, column = np.unravel_index(field.argmax(), field.shape)
    # The patch's centre falls between two pixels' centres.
    assert row + 0.5 == pytest.approx(rows * 2.5 / 4, abs=1)
    assert column + 0.5 == pytest.approx(columns * 1.5 / 4, abs=1)


def test_one_patch_over_everything_is_one_colour():
    field = AttributionMap(np.array([[0.3]]), (0.0, 0.0, 20.0, 10.0)).spread((10, 20), (10, 20))
    assert (field == 0.3).all()


@settings(max_examples=30, deadline=None)
@given(arrays(np.float64, (4, 3), elements=st.floats(-2, 2, width=32)))
def test_no_value_is_drawn_that_no_patch_has(values):
    field = AttributionMap(values, (0.0, 0.0, 30.0, 40.0)).spread((40, 30), (40, 30))
    # Rounding of sums of values up to 2 in float64.
    assert field.min() >= values.min() - 1e-12
    assert field.max() <= values.max() + 1e-12


def test_a_mirrored_map_is_drawn_mirrored():
    values = np.random.default_rng(3).normal(size=(5, 4))
    box = (0.0, 0.0, 44.0, 55.0)
    field = AttributionMap(values, box).spread((55, 44), (55, 44))
    mirrored = AttributionMap(values[:, ::-1].copy(), box).spread((55, 44), (55, 44))
    np.testing.assert_allclose(mirrored, field[:, ::-1], atol=1e-12)  # float64 rounding


def test_raising_is_warm_and_lowering_is_cool_and_nothing_is_transparent():
    # Full colour is 33 log-odds a patch of three.
    values = np.array([[40.0, 0.0, -40.0]])
    rgba = draw_overlay(_scan(15, 45), AttributionMap(values, (0.0, 0.0, 45.0, 15.0))).rgba
    warm, none, cool = (rgba[7, column].astype(int) for column in (7, 22, 37))
    assert warm[0] > warm[2] + 50
    assert cool[2] > cool[0] + 50
    assert warm[3] == cool[3] == 255
    assert none[3] == 0


def test_a_weak_map_looks_weak():
    scan, strong = _scan(60, 60), _one_hot(4, 4, (1, 1), (0.0, 0.0, 60.0, 60.0))
    strong = AttributionMap(strong.values * 4, strong.box)
    weak = AttributionMap(strong.values * 1e-3, strong.box)
    # Full colour is 6.25 log-odds a patch of 16; opacity grows twice as fast.
    assert draw_overlay(scan, strong).rgba[..., 3].max() == 255
    assert draw_overlay(scan, weak).rgba[..., 3].max() <= 1


def test_the_scale_is_of_the_grid_and_not_of_the_map():
    scan, attribution = _scan(60, 60), _one_hot(4, 4, (1, 1), (0.0, 0.0, 60.0, 60.0))
    doubled = AttributionMap(attribution.values * 2, attribution.box)
    finer = AttributionMap(attribution.values.repeat(2, 0).repeat(2, 1) / 4, attribution.box)
    scale = draw_overlay(scan, attribution).scale
    assert draw_overlay(scan, doubled).scale == scale
    # The same log-odds on the same area, in four times as many patches.
    assert draw_overlay(scan, finer).scale == pytest.approx(scale / 4)


def test_the_bar_ends_in_the_colours_of_full_scale():
    scan = _scan(15, 30)
    scale = draw_overlay(scan, AttributionMap(np.zeros((1, 2)), (0.0, 0.0, 30.0, 15.0))).scale
    full = AttributionMap(np.array([[-scale, scale]]), (0.0, 0.0, 30.0, 15.0))
    overlay = draw_overlay(scan, full)
    assert (overlay.bar[0, 0] == overlay.rgba[7, 7]).all()
    assert (overlay.bar[0, -1] == overlay.rgba[7, 22]).all()


def test_the_contour_holds_half_of_what_raised_the_finding():
    r, c = np.mgrid[0:10, 0:10]
    values = np.exp(-((r - 6) ** 2 + (c - 3) ** 2) / 4.0) - 0.2 * (c > 7)
    attribution = AttributionMap(values, (0.0, 0.0, 250.0, 250.0))
    (line,) = draw_overlay(_scan(250, 250), attribution).raising
    field = attribution.spread((250, 250), (250, 250))
    y, x = np.mgrid[0:250, 0:250] + 0.5
    within = Outline(line).contains_points(np.column_stack((x.ravel(), y.ravel())))
    positive = np.clip(field, 0, None).ravel()
    # The line is straight between grid points, a hundredth of the sum.
    assert positive[within].sum() / positive.sum() == pytest.approx(0.5, abs=0.01)


def test_a_region_of_one_value_has_one_line_around_it():
    # The plateau holds the level; its values differ by rounding, as sums over patches do.
    values = np.full((8, 8), 0.3) + np.random.default_rng(0).choice([0, 5e-17], (8, 8))
    values[2:4, 1:3] = 1.0
    values[:, 6:] = 0.0
    attribution = AttributionMap(values, (0.0, 0.0, 160.0, 160.0))
    (line,) = draw_overlay(_scan(160, 160), attribution).raising
    # Down the plateau's edge, between the centres of the sixth and the seventh column of patches.
    assert line[:, 0].min() > 109
    assert line[:, 0].max() < 130


def test_values_beyond_the_bar_are_known():
    scan, box = _scan(15, 30), (0.0, 0.0, 30.0, 15.0)
    # Full colour is 50 log-odds a patch of two.
    for highest, clipped in ((50.0, False), (50.1, True), (-50.1, True)):
        overlay = draw_overlay(scan, AttributionMap(np.array([[0.0, highest]]), box))
        assert overlay.is_clipped is clipped


def test_a_map_that_only_lowers_has_no_line_around_a_top_region():
    values = -np.eye(4)
    overlay = draw_overlay(_scan(60, 60), AttributionMap(values * 5, (0.0, 0.0, 60.0, 60.0)))
    assert overlay.raising == ()
    assert overlay.lowering


def test_dashes_and_gaps_alternate_along_the_line():
    line = np.array([[0.0, 0.0], [3.0, 0.0], [3.0, 4.0], [10.0, 4.0]])  # 14 long
    first, second, third = dashes(line, 2.5)
    assert first == pytest.approx(np.array([[0, 0], [2.5, 0]]))
    assert second == pytest.approx(np.array([[3, 2], [3, 4], [3.5, 4]]))
    assert third == pytest.approx(np.array([[6, 4], [8.5, 4]]))


def test_a_map_can_be_had_in_the_pixels_of_its_radiograph():
    scan = _scan(2 * LONGEST_SIDE, LONGEST_SIDE)
    attribution = AttributionMap(
        np.random.default_rng(0).normal(size=(4, 5)), (-100.0, 50.0, 900.0, 1200.0)
    )
    on_pixels = attribution.on(scan)
    assert on_pixels.shape == scan.pixels.shape
    expected = attribution.spread(scan.pixels.shape, scan.pixels.shape)
    np.testing.assert_array_equal(on_pixels, expected)
    # Rows 50 to 1249, and the columns of the box that are in the image.
    assert not on_pixels[:50].any()
    assert not on_pixels[1250:].any()
    assert not on_pixels[:, 800:].any()
    assert on_pixels[50:1250, :800].all()
