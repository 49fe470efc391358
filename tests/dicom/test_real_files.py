from __future__ import annotations

import numpy as np
import pytest

from medllm.dicom import read_radiograph
from medllm.errors import DicomError


@pytest.mark.parametrize(
    ("name", "warning"),
    [
        ("nih_dx_implicit_monochrome2.dcm", "view-unknown"),
        ("cr_no_file_meta_monochrome1.dcm", "no-file-meta"),
    ],
)
def test_real_radiographs_have_a_bright_mediastinum(real_dicom, name, warning):
    scan = read_radiograph(real_dicom / name)
    rows, columns = scan.pixels.shape
    mediastinum = scan.pixels[rows * 4 // 10 : rows * 6 // 10, columns * 45 // 100 : columns // 2]
    lung = scan.pixels[rows * 4 // 10 : rows * 6 // 10, columns * 22 // 100 : columns * 28 // 100]
    edges = scan.pixels[: rows // 10, [*range(columns // 10), *range(-(columns // 10), 0)]]
    assert np.median(mediastinum) > np.median(lung) + 0.1
    assert np.median(mediastinum) > np.median(edges) + 0.1
    assert [gate.code for gate in scan.warnings] == [warning]


def test_a_spelled_out_age_that_breaks_the_standard_is_not_guessed(real_dicom):
    # The file says `58`, without the unit that VR AS demands.
    assert read_radiograph(real_dicom / "nih_dx_implicit_monochrome2.dcm").age_years is None


def test_a_dog_is_refused(real_dicom):
    path = real_dicom / "dx_lateral_animal_monochrome1.dcm"
    with pytest.raises(DicomError) as caught:
        read_radiograph(path)
    assert caught.value.code == "not-human"
    scan = read_radiograph(path, accept=["not-human"])
    assert {gate.code for gate in scan.warnings} == {"not-human", "lateral-view"}
    assert (scan.pixel_spacing_mm, scan.laterality) == ((1.2, 1.201199999999), "L")
    # Its border is air: MONOCHROME1 and INVERSE together invert once.
    assert scan.pixels[:10, -40:].mean() < 0.1
