from __future__ import annotations

import dataclasses
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from medllm.data.anatomy import REGIONS, find_zones
from medllm.datasets.nih import read_nih
from medllm.dicom import Gate, Radiograph
from medllm.phantom import Lesion, make_phantom

FITTED = "a standard outline of the lungs, fitted to this image"
SIDE_OF = {
    side: [index for index, region in enumerate(REGIONS) if region[1] == side]
    for side in ("right", "left")
}


@pytest.fixture(scope="module")
def scan() -> Radiograph:
    phantom = make_phantom(3, size=128, lesions=[Lesion("lung_opacity", "right", "lower")])
    return Radiograph(phantom.pixels, Path("phantom.png"), "png", "0" * 64)


def radiograph(pixels: np.ndarray) -> Radiograph:
    return Radiograph(np.ascontiguousarray(pixels), Path("a.png"), "png", "0" * 64)


@pytest.mark.parametrize("side", ["right", "left"])
@pytest.mark.parametrize("zone", ["upper", "middle", "lower"])
def test_a_lesion_lies_in_the_zone_it_was_put_into(side, zone):
    at_home = 0
    for seed in range(4):
        phantom = make_phantom(seed, size=128, lesions=[Lesion("nodule", side, zone, size=0.0)])
        labels = find_zones(radiograph(phantom.pixels)).labels
        # each cell of the 256 x 256 labels against its pixel of 128 x 128
        mask = phantom.masks["nodule"].repeat(2, axis=0).repeat(2, axis=1)
        covered = np.bincount(labels[mask], minlength=len(REGIONS))
        at_home += REGIONS[int(covered.argmax())] == (zone, side)
    assert at_home >= 3  # a nodule near a border of thirds may fall to the neighbour


def test_what_hides_the_diaphragm_lies_in_a_lower_zone():
    shares = []
    for seed in range(12):
        side = ("right", "left")[seed % 2]
        lesion = Lesion("lung_opacity", side, "lower", size=1.0, strength=1.0)
        phantom = make_phantom(seed, size=256, lesions=[lesion])
        labels = find_zones(radiograph(phantom.pixels)).labels
        shares.append(np.bincount(labels[phantom.masks["lung_opacity"]], minlength=8))
    found = np.sum(shares, axis=0) / np.sum(shares)
    assert found[REGIONS.index(("outside", None))] < 0.1
    assert found[[REGIONS.index(("lower", "right")), REGIONS.index(("lower", "left"))]].sum() > 0.55


def test_what_radiologists_outlined_on_adults_lies_hardly_ever_outside(data_root):
    outside = []
    for record in read_nih(data_root / "nih"):
        boxes = record.boxes.get("lung_opacity")
        if not boxes:
            continue
        scan = record.radiograph()
        zones = find_zones(scan)
        covered = np.zeros(scan.pixels.shape, dtype=bool)
        for x, y, width, height in boxes:
            covered[int(y) : int(y + height), int(x) : int(x + width)] = True
        rows, columns = np.nonzero(covered)
        labels = zones.labels[
            rows * len(zones.labels) // scan.rows, columns * len(zones.labels) // scan.columns
        ]
        if zones.found:
            outside.append((REGIONS.index(("outside", None)) == labels).mean())
    assert len(outside) >= 65
    assert np.mean(outside) < 0.12


def test_zones_are_thirds_of_a_lungs_height(scan):
    labels = find_zones(scan).labels
    for side in SIDE_OF.values():
        heights = [np.ptp(np.flatnonzero((labels == zone).any(axis=1))) for zone in side]
        # The rim adds to the upper and the lower zone alone, and the lower goes on below the dome.
        assert heights[0] == pytest.approx(heights[1], rel=0.3)
        assert 1 < heights[2] / heights[1] < 1.5


def test_a_mirrored_image_with_mirrored_orientation_keeps_the_patients_sides(scan):
    mirrored = dataclasses.replace(
        scan,
        pixels=np.ascontiguousarray(scan.pixels[:, ::-1]),
        patient_orientation=("R", "F"),
    )
    np.testing.assert_array_equal(find_zones(mirrored).labels, find_zones(scan).labels[:, ::-1])


@pytest.mark.parametrize("across", ["L", "R"])
def test_an_image_whose_columns_run_to_the_head_is_turned_over_for_its_zones(scan, across):
    turned = np.s_[::-1, :: -1 if across == "R" else 1]
    stored = dataclasses.replace(
        scan, pixels=np.ascontiguousarray(scan.pixels[turned]), patient_orientation=(across, "H")
    )
    np.testing.assert_array_equal(find_zones(stored).labels, find_zones(scan).labels[turned])


def test_no_zone_of_a_frontal_view_is_found_in_a_lateral_one(scan):
    assert find_zones(scan).found
    lateral = (Gate("lateral-view", "warning", False, "The header says lateral."),)
    zones = find_zones(dataclasses.replace(scan, gates=lateral))
    assert not zones.found
    assert zones.found_by.endswith("the view is lateral")
    passed = (Gate("lateral-view", "warning", True, "not lateral"),)
    assert find_zones(dataclasses.replace(scan, gates=passed)).found


@pytest.mark.parametrize("orientation", [("F", "L"), ("H", "R"), ("FL", "RF")])
def test_no_zone_is_found_in_an_image_that_lies_on_its_side(scan, orientation):
    zones = find_zones(dataclasses.replace(scan, patient_orientation=orientation))
    assert not zones.found
    assert zones.found_by.endswith("it lies on its side")


@pytest.mark.parametrize(
    ("orientation", "supposed"),
    [(("L", "F"), False), (("RP", "F"), False), (("A", "F"), True), (("", ""), True), (None, True)],
)
def test_zones_whose_sides_are_only_supposed_say_so(scan, orientation, supposed):
    found_by = find_zones(dataclasses.replace(scan, patient_orientation=orientation)).found_by
    assert found_by.startswith(FITTED)
    said = "the image's left is taken for the patient's right"
    assert found_by.endswith(said) == supposed


def test_window_and_gamma_move_no_zone(scan):
    # Ranks are kept by any rising curve, but for rounding and the blur before them.
    other = radiograph((0.1 + 0.6 * scan.pixels**1.4).astype(np.float32))
    assert (find_zones(other).labels == find_zones(scan).labels).mean() > 0.95


def test_without_lungs_the_fixed_shares_are_used_and_named():
    noise = np.random.default_rng(0).random((128, 128), dtype=np.float32)
    assert find_zones(radiograph(noise)).found_by.startswith("fixed shares of the image")


def test_real_radiographs_of_children_are_fitted_nearly_always(data_root):
    files = sorted((data_root / "kermany" / "normal").glob("*.jpg"))[:12]
    fitted = [
        find_zones(radiograph(np.asarray(Image.open(file).convert("L"), np.float32) / 255))
        for file in files
    ]
    assert sum(zones.found_by.startswith(FITTED) for zones in fitted) >= 11
