"""The segmentation of the attribution, read back by highdicom, dciodvfy and dcmtk."""

import shutil
import subprocess
from dataclasses import replace
from io import BytesIO

import numpy as np
import pytest
from highdicom.seg import segread
from pydicom import dcmread
from pydicom.sr.codedict import codes

from medllm.explanation.record import AttributionMap
from medllm.report.dicom import seg as dicom_seg
from medllm.report.dicom.source import read_source
from medllm.report.document import BANNER

HALF_A_STEP = 0.5 / 255


def read_back(report):
    source = read_source(report)
    dataset = source.finish(dicom_seg.encode(report, source)["seg"])
    stream = BytesIO()
    dataset.save_as(stream, enforce_file_format=True)
    stream.seek(0)
    return segread(stream)


def fractions(segmentation, number=1):
    """What highdicom makes of a segment, 0 to 1, at the source image's pixels."""
    (source,) = segmentation.get_source_image_uids()
    return segmentation.get_pixels_by_source_instance([source[2]], segment_numbers=[number])[
        0, ..., 0
    ]


@pytest.fixture(scope="module")
def each_seg(dicom_report):
    """The segmentation over each kind of source."""
    return read_back(dicom_report)


@pytest.fixture(scope="module")
def plain(report_of, dicom_phantoms):
    """The hand-made report of a phantom."""
    return report_of(dicom_phantoms["dx"])


@pytest.fixture(scope="module")
def seg(plain):
    """Its segmentation, read back."""
    return read_back(plain)


@pytest.fixture
def mapped(report_of, dicom_phantoms, explanations):
    """Report a map of one's own, of log-odds a patch, over all of a phantom of 200 x 200."""

    def of(values):
        one = replace(explanations[0], map=AttributionMap(values, (0.0, 0.0, 200.0, 200.0)))
        return report_of(dicom_phantoms["dx"], why=[one])

    return of


def test_dciodvfy_accepts_it_over_each_kind_of_source(each_seg, errors_of):
    assert errors_of(each_seg) == []


def test_it_lies_on_the_pixels_of_the_source_and_makes_up_no_geometry(each_seg, dicom_report):
    scan = dicom_report.scan
    assert (each_seg.Rows, each_seg.Columns) == (scan.rows, scan.columns)
    assert each_seg.get_source_image_uids() == [
        (scan.study_instance_uid, scan.series_instance_uid, scan.sop_instance_uid)
    ]
    for frame in each_seg.PerFrameFunctionalGroupsSequence:
        derived = frame.DerivationImageSequence[0].SourceImageSequence[0]
        assert derived.SpatialLocationsPreserved == "YES"
    stated = {element.keyword for element in each_seg.iterall()}
    assert not stated & {
        *("FrameOfReferenceUID", "PixelSpacing", "PixelMeasuresSequence"),
        *("PlanePositionSequence", "PlaneOrientationSequence"),
    }
    assert tuple(each_seg.PatientOrientation) == (scan.patient_orientation or ())


def test_a_patch_has_its_own_log_odds_over_the_overlays_full_colour(mapped):
    # Of 100 patches each is a hundredth of the map, and 1 log-odds its full colour.
    values = np.random.default_rng(5).uniform(-1.2, 1.6, (10, 10))
    read = fractions(read_back(mapped(values)))
    # A patch of 20 pixels has its centre between the pixels 9 and 10: at 9.5.
    around = read.reshape(10, 20, 10, 20)[:, 9:11, :, 9:11]
    wanted = np.clip(values, 0, 1)[:, None, :, None]
    near = np.abs(around - wanted)
    # Half a pixel of 20 away, a smooth curve has moved by a few hundredths of the next step.
    assert near.max() < 0.1
    assert np.abs(around.mean(axis=(1, 3)) - wanted[:, 0, :, 0]).mean() < 0.01


def test_an_even_map_reads_back_to_half_a_step_of_the_256(mapped):
    for value in (0.0404, 0.4, 0.9999):
        read = fractions(read_back(mapped(np.full((10, 10), value))))
        assert np.abs(read - value).max() <= HALF_A_STEP + 1e-6


def test_what_lowers_the_finding_is_nothing_and_beyond_full_colour_is_one(mapped):
    values = np.full((10, 10), -5.0)
    values[5:] = 5.0
    read = fractions(read_back(mapped(values)))
    assert (read[:90] == 0).all()
    assert (read[110:] == 1).all()


def test_a_weak_map_stays_weak(mapped):
    values = np.random.default_rng(5).uniform(0, 1, (10, 10))
    strong, weak = (fractions(read_back(mapped(values * by))) for by in (0.8, 0.08))
    assert np.abs(weak * 10 - strong).max() < 11 * HALF_A_STEP
    assert weak.max() < 0.1


def test_each_map_that_may_be_used_is_a_segment(seg, plain):
    # Cardiomegaly's map failed, and pneumothorax is not explained.
    assert [one.SegmentLabel for one in seg.SegmentSequence] == [
        "Attribution of pneumonia",
        "Attribution of pleural effusion",
    ]
    for number, entry in enumerate(dicom_seg.drawn(plain), start=1):
        described = seg.get_segment_description(number)
        assert described.algorithm_type.value == "AUTOMATIC"
        assert described.segmented_property_type == codes.DCM.Saliency
        assert described.segmented_property_category == codes.SCT.SpatialAndRelationalConcept
        told = described.SegmentDescription
        assert told.startswith(BANNER)
        assert f"1 is {entry.overlay.scale:.4g} log-odds" in told
        assert entry.reason in told
    for number, patch in ((1, (8, 3)), (2, (10, 2))):
        full = np.argwhere(fractions(seg, number) == 1)
        # Less than half a patch of 200 / 12 pixels from the hot one's centre.
        assert full.mean(axis=0) == pytest.approx((np.array(patch) + 0.5) / 12 * 200, abs=8)


def test_it_does_not_pose_as_a_probability_of_disease(seg):
    assert seg.SegmentationType == "FRACTIONAL"
    assert seg.SegmentationFractionalType == "OCCUPANCY"
    assert "not the extent of disease" in seg.ContentDescription
    assert seg.ContentQualification == "RESEARCH"
    assert seg.SeriesDescription.startswith("AI")


def test_it_is_small_and_dcmtk_unpacks_the_same_pixels(each_seg, tmp_path):
    raw = each_seg.Rows * each_seg.Columns * len(each_seg.SegmentSequence)
    assert len(each_seg.PixelData) < raw / 6
    if shutil.which("dcmdjpls") is None:
        pytest.skip("dcmdjpls is not installed; it is in Debian's dcmtk")
    each_seg.save_as(tmp_path / "seg.dcm")
    subprocess.run(  # noqa: S603 - a program found on this machine, a file made here
        ["dcmdjpls", tmp_path / "seg.dcm", tmp_path / "raw.dcm"],  # noqa: S607
        check=True,
        timeout=60,
    )
    assert np.array_equal(dcmread(tmp_path / "raw.dcm").pixel_array, each_seg.pixel_array)


def test_lossy_compression_of_the_source_is_told(changed_phantom, report_of, errors_of):
    def lossy(dataset):
        dataset.LossyImageCompression = "01"
        dataset.LossyImageCompressionRatio = "10.5"
        dataset.LossyImageCompressionMethod = "ISO_10918_1"

    seg = read_back(report_of(changed_phantom(lossy)))
    assert (seg.LossyImageCompression, seg.LossyImageCompressionRatio) == ("01", 10.5)
    assert errors_of(seg) == []


def test_without_a_map_there_is_none(report_of, dicom_phantoms, explanations, mapped):
    failed = [replace(explanations[0], verdict="do not use")]
    lowering = mapped(np.full((10, 10), -0.1))
    for report in (*(report_of(dicom_phantoms["dx"], why=w) for w in ([], failed)), lowering):
        assert dicom_seg.encode(report, read_source(report)) == {}
