from __future__ import annotations

import numpy as np
import pytest
from scipy import ndimage

from medllm.phantom import Lesion, Phantom, make_phantom

SIZE = 128
SEEDS = range(6)

ONE_OF_EACH = [
    Lesion("lung_opacity", "right", "middle"),
    Lesion("effusion", "left"),
    Lesion("cardiomegaly"),
    Lesion("pneumothorax", "right"),
    Lesion("nodule", "left", "upper"),
]


def pair(seed: int, lesion: Lesion, size: int = SIZE) -> tuple[Phantom, Phantom]:
    return make_phantom(seed, size=size, lesions=()), make_phantom(
        seed, size=size, lesions=[lesion]
    )


@pytest.mark.parametrize("lesion", ONE_OF_EACH, ids=lambda x: x.finding)
@pytest.mark.parametrize("seed", SEEDS)
def test_a_lesion_changes_the_image_where_its_mask_says(seed, lesion):
    before, after = pair(seed, lesion)
    mask = after.masks[lesion.finding]
    assert mask.any()
    change = np.abs(after.pixels - before.pixels)
    # Outside the mask the attenuation changes by at most 0.02 nepers. The detector spreads
    # a change by one pixel; the display is no steeper than 1 / 0.9 per neper.
    far = ~ndimage.binary_dilation(mask, np.ones((3, 3)))
    assert change[far].max() < 0.02 / 0.9
    assert change[mask].mean() > 3 * change[far].mean()
    untouched = ~ndimage.binary_dilation(change > 0, np.ones((3, 3)))
    assert untouched.mean() > 0.15


@pytest.mark.parametrize("lesion", ONE_OF_EACH, ids=lambda x: x.finding)
def test_a_stronger_lesion_changes_more(lesion):
    for seed in SEEDS:
        before = make_phantom(seed, size=SIZE, lesions=()).pixels
        sums = []
        for strength in (0.05, 0.3, 0.6, 1.0):
            stronger = Lesion(lesion.finding, lesion.side, lesion.zone, strength, lesion.size)
            after = make_phantom(seed, size=SIZE, lesions=[stronger]).pixels
            sums.append(float(np.abs(after - before).sum()))
        assert sums == sorted(sums)
        assert sums[-1] > 1.5 * sums[1] or lesion.finding == "cardiomegaly"


@pytest.mark.parametrize("finding", ["lung_opacity", "nodule"])
@pytest.mark.parametrize("side", ["right", "left"])
@pytest.mark.parametrize(("zone", "third"), [("upper", 0), ("middle", 1), ("lower", 2)])
def test_a_zoned_lesion_has_its_centre_in_that_third_of_that_lung(finding, side, zone, third):
    for seed in SEEDS:
        before, after = pair(seed, Lesion(finding, side, zone))
        change = np.abs(after.pixels - before.pixels)
        row, column = ndimage.center_of_mass(change * after.masks[finding])
        lung_rows = np.nonzero(after.lung_masks[side])[0]
        place = (row - lung_rows.min()) / (np.ptp(lung_rows) + 1)
        # Thirds are those of v; on a patient tilted by 0.04 rad they slant by some percent.
        assert third / 3 - 0.04 < place < (third + 1) / 3 + 0.04
        columns = np.flatnonzero(after.lung_masks[side].any(axis=0))
        assert columns.min() <= column <= columns.max()
        other = "left" if side == "right" else "right"
        assert not (after.masks[finding] & after.lung_masks[other]).any()


@pytest.mark.parametrize(("zone", "third"), [("upper", 0), ("middle", 1), ("lower", 2)])
def test_even_a_large_opacity_stays_in_its_zone(zone, third):
    for seed in SEEDS:
        opacity = Lesion("lung_opacity", "left", zone, 1.0, 1.0)
        phantom = make_phantom(seed, size=SIZE, lesions=[opacity])
        rows = np.nonzero(phantom.masks["lung_opacity"] & phantom.lung_masks["left"])[0]
        lung_rows = np.nonzero(phantom.lung_masks["left"])[0]
        places = (rows - lung_rows.min()) / (np.ptp(lung_rows) + 1)
        # The soft border spills a fifth of a zone over, 0.07; bow and tilt add some percent.
        assert places.min() > third / 3 - 0.12
        assert places.max() < (third + 1) / 3 + 0.12


@pytest.mark.parametrize("strength", [0.01, 0.5, 1.0])
def test_cardiomegaly_passes_a_ratio_of_0_55(strength):
    for seed in SEEDS:
        before, after = pair(seed, Lesion("cardiomegaly", strength=strength))
        assert before.cardiothoracic_ratio < 0.49
        assert 0.54 < after.cardiothoracic_ratio < 0.69  # 0.56 to 0.66 drawn; tilt, pixels


@pytest.mark.parametrize("side", ["right", "left"])
def test_effusion_fills_the_costophrenic_angle_and_is_bright(side):
    for seed in SEEDS:
        before, after = pair(seed, Lesion("effusion", side, strength=0.4))
        lung = after.lung_masks[side]
        rows, columns = np.nonzero(lung)
        outward = columns.min() if side == "right" else columns.max()
        # The angle: the lowest lung within a tenth of its width of the chest wall.
        near = np.abs(columns - outward) < 0.1 * np.ptp(columns)
        low = near & (rows > rows[near].max() - 0.08 * np.ptp(rows))
        mask = after.masks["effusion"]
        assert mask[rows[low], columns[low]].mean() > 0.8
        assert (after.pixels - before.pixels)[mask & lung].mean() > 0.08
        upper_half = np.arange(SIZE)[:, None] < (rows.min() + rows.max()) / 2
        assert not (mask & upper_half).any()


@pytest.mark.parametrize("side", ["right", "left"])
def test_pneumothorax_is_dark_at_the_apex_and_has_a_bright_line(side):
    for seed in SEEDS:
        before, after = pair(seed, Lesion("pneumothorax", side, strength=0.8), size=256)
        change = after.pixels - before.pixels
        lung = after.lung_masks[side]
        rows = np.nonzero(lung)[0]
        apex = lung & (np.arange(256)[:, None] < rows.min() + 0.1 * np.ptp(rows))
        assert np.median(change[apex]) < -0.02
        # The line: the greatest rise in the row through the upper third.
        row = int(rows.min() + 0.4 * np.ptp(rows))
        inside = np.flatnonzero(lung[row])
        assert change[row, inside].max() > 0.01
        assert change[row, inside].min() < -0.02


def test_a_nodule_is_8_to_30_mm_across_in_adults():
    for size, low, high in ((0.0, 6, 12), (1.0, 24, 36)):  # 8 and 30 mm; the patient's scale
        for seed in SEEDS:
            phantom = make_phantom(
                seed,
                size=512,
                age_group="adult",
                lesions=[Lesion("nodule", "right", "middle", 1.0, size)],
            )
            area = phantom.masks["nodule"].sum() * np.prod(phantom.pixel_spacing_mm)
            assert low < 2 * np.sqrt(area / np.pi) < high


def test_two_lesions_of_one_finding_share_a_mask():
    lesions = [Lesion("nodule", "right", "upper"), Lesion("nodule", "left", "lower")]
    phantom = make_phantom(1, size=SIZE, lesions=lesions)
    for side in ("right", "left"):
        assert (phantom.masks["nodule"] & phantom.lung_masks[side]).any()
