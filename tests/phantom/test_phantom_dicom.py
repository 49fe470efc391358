from __future__ import annotations

import shutil
import subprocess

import numpy as np
import pydicom
import pytest
from pydicom.pixels import apply_voi_lut
from pydicom.sr.codedict import codes
from pydicom.uid import (
    DeflatedExplicitVRLittleEndian,
    ExplicitVRBigEndian,
    ExplicitVRLittleEndian,
    ImplicitVRLittleEndian,
    JPEG2000Lossless,
    JPEGLSLossless,
    RLELossless,
)

from medllm.phantom import make_phantom, write_dicom


@pytest.fixture(scope="module")
def phantom():
    return make_phantom(12, size=96)


def display_values(dataset: pydicom.Dataset) -> np.ndarray:
    windowed = apply_voi_lut(dataset.pixel_array, dataset) / (2**dataset.BitsStored - 1)
    return 1 - windowed if dataset.PhotometricInterpretation == "MONOCHROME1" else windowed


@pytest.mark.parametrize("modality", ["DX", "CR"])
@pytest.mark.parametrize("photometric_interpretation", ["MONOCHROME1", "MONOCHROME2"])
def test_the_file_gives_the_display_values_back(
    tmp_path, phantom, modality, photometric_interpretation
):
    path = write_dicom(
        phantom,
        tmp_path / "a.dcm",
        modality=modality,
        photometric_interpretation=photometric_interpretation,
    )
    dataset = pydicom.dcmread(path)
    assert dataset.Modality == modality
    assert dataset.PhotometricInterpretation == photometric_interpretation
    # Half of one of 4095 grey levels, and a float32 rounding.
    np.testing.assert_allclose(display_values(dataset), phantom.pixels, atol=0.5 / 4095 + 1e-6)


def test_the_polarities_are_exact_inverses(tmp_path, phantom):
    one = write_dicom(phantom, tmp_path / "1.dcm", photometric_interpretation="MONOCHROME1")
    two = write_dicom(phantom, tmp_path / "2.dcm", photometric_interpretation="MONOCHROME2")
    total = pydicom.dcmread(one).pixel_array + pydicom.dcmread(two).pixel_array
    assert (total == 4095).all()


def test_a_second_write_gives_the_same_bytes_and_another_image_another_uid(tmp_path, phantom):
    first = write_dicom(phantom, tmp_path / "1.dcm")
    second = write_dicom(make_phantom(12, size=96), tmp_path / "2.dcm")
    assert first.read_bytes() == second.read_bytes()
    other = write_dicom(make_phantom(12, size=96, lesions=()), tmp_path / "3.dcm")
    uids = {pydicom.dcmread(path).SOPInstanceUID for path in (first, other)}
    assert len(uids) == 1 + (len(phantom.lesions) > 0)


def test_the_header_says_what_the_phantom_is(tmp_path, phantom):
    dataset = pydicom.dcmread(write_dicom(phantom, tmp_path / "a.dcm"))
    assert dataset.PatientName == "PHANTOM^SEED12"
    assert dataset.ViewPosition == phantom.view
    assert dataset.PatientAge == f"{phantom.age_years:03d}Y"
    assert dataset.PatientSex == phantom.sex
    assert list(dataset.PatientOrientation) == ["L", "F"]
    np.testing.assert_allclose(dataset.ImagerPixelSpacing, phantom.pixel_spacing_mm, atol=1e-6)


@pytest.mark.parametrize("view", ["PA", "AP"])
def test_the_view_code_is_the_views(tmp_path, view):
    phantom = next(made for made in map(_small, range(50)) if made.view == view)
    dataset = pydicom.dcmread(write_dicom(phantom, tmp_path / "a.dcm"))
    (code,) = dataset.ViewCodeSequence
    named = {"PA": codes.cid4010.PosteroAnterior, "AP": codes.cid4010.AnteroPosterior}[view]
    assert (code.CodeValue, code.CodingSchemeDesignator) == (named.value, named.scheme_designator)
    assert code.CodeMeaning == named.meaning


def _small(seed):
    return make_phantom(seed, size=64)


@pytest.mark.parametrize(
    "syntax",
    [
        ImplicitVRLittleEndian,
        ExplicitVRBigEndian,
        DeflatedExplicitVRLittleEndian,
        RLELossless,
        JPEG2000Lossless,
        JPEGLSLossless,
    ],
    ids=lambda syntax: syntax.keyword,
)
def test_a_lossless_syntax_holds_the_same_values(tmp_path, phantom, syntax):
    plain = write_dicom(phantom, tmp_path / "1.dcm", transfer_syntax=ExplicitVRLittleEndian)
    packed = write_dicom(phantom, tmp_path / "2.dcm", transfer_syntax=syntax)
    dataset = pydicom.dcmread(packed)
    assert dataset.file_meta.TransferSyntaxUID == syntax
    np.testing.assert_array_equal(dataset.pixel_array, pydicom.dcmread(plain).pixel_array)
    assert (dataset.Rows, dataset.WindowWidth) == (96, 4096)


@pytest.mark.integration
@pytest.mark.skipif(not shutil.which("dcmconv"), reason="dcmconv (dcmtk) is absent")
def test_dcmtk_turns_the_bytes_of_a_big_endian_file_back(tmp_path, phantom):
    plain = write_dicom(phantom, tmp_path / "1.dcm")
    big = write_dicom(phantom, tmp_path / "2.dcm", transfer_syntax=ExplicitVRBigEndian)
    subprocess.run(["dcmconv", "+te", big, tmp_path / "3.dcm"], check=True)  # noqa: S603, S607
    turned, original = pydicom.dcmread(tmp_path / "3.dcm"), pydicom.dcmread(plain)
    assert turned == original
    assert turned.PixelData == original.PixelData


@pytest.mark.integration
@pytest.mark.skipif(not shutil.which("dciodvfy"), reason="dciodvfy (dicom3tools) is absent")
@pytest.mark.parametrize("modality", ["DX", "CR"])
@pytest.mark.parametrize("photometric_interpretation", ["MONOCHROME1", "MONOCHROME2"])
def test_dciodvfy_finds_nothing(tmp_path, phantom, modality, photometric_interpretation):
    path = write_dicom(
        phantom,
        tmp_path / "a.dcm",
        modality=modality,
        photometric_interpretation=photometric_interpretation,
    )
    done = subprocess.run(  # noqa: S603 - the test's own file
        ["dciodvfy", "-new", str(path)],  # noqa: S607 - found on PATH by the mark above
        capture_output=True,
        text=True,
        check=False,
    )
    report = done.stdout + done.stderr
    assert "DX" in report or "CR" in report
    assert "Error" not in report
    assert "Warning" not in report
