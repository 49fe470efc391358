from __future__ import annotations

import dataclasses
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from medllm.dicom import Radiograph
from medllm.explanation.anatomy import REGIONS, find_zones
from medllm.phantom import Lesion, make_phantom

FITTED = "a standard outline of the lungs, fitted to this image"
SIDE_OF = {
    side: [index for index, region in enumerate(REGIONS) if region[1] == side]
    for side in ("right", "left")
}


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


def test_zones_are_thirds_of_a_lungs_height(scan):
    labels = find_zones(scan).labels
    for side in SIDE_OF.values():
        heights = [np.ptp(np.flatnonzero((labels == zone).any(axis=1))) for zone in side]
        # The rim adds to the upper and the lower zone alone.
        assert heights[0] == pytest.approx(heights[1], rel=0.3)
        assert heights[2] == pytest.approx(heights[1], rel=0.3)


def test_a_mirrored_image_with_mirrored_orientation_keeps_the_patients_sides(scan):
    mirrored = dataclasses.replace(
        scan,
        pixels=np.ascontiguousarray(scan.pixels[:, ::-1]),
        patient_orientation=("R", "F"),
    )
    np.testing.assert_array_equal(find_zones(mirrored).labels, find_zones(scan).labels[:, ::-1])


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
