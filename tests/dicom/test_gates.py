from __future__ import annotations

import numpy as np
import pytest
from pydicom.config import disable_value_validation
from pydicom.dataset import Dataset
from pydicom.uid import (
    JPEG2000,
    UID,
    CTImageStorage,
    DeflatedExplicitVRLittleEndian,
    DigitalMammographyXRayImageStorageForPresentation,
    DigitalXRayImageStorageForPresentation,
    DigitalXRayImageStorageForProcessing,
    ExplicitVRLittleEndian,
    SecondaryCaptureImageStorage,
)

from medllm.dicom import ACCEPTABLE, read_radiograph
from medllm.dicom.encoding_gates import ENCODING_GATES
from medllm.errors import DicomError


def item(**attributes):
    made = Dataset()
    for keyword, value in attributes.items():
        setattr(made, keyword, value)
    return [made]


def codes(scan):
    return {gate.code for gate in scan.warnings}


def refused(path, **options):
    with pytest.raises(DicomError) as caught:
        read_radiograph(path, **options)
    message = str(caught.value)
    assert message.startswith(str(path))
    assert "\n" not in message
    assert caught.value.__suppress_context__  # pydicom's words stay out of a traceback
    return caught.value.code


def test_an_ordinary_radiograph_passes_every_gate(make_dataset, write):
    scan = read_radiograph(write(make_dataset()))
    assert scan.warnings == ()
    assert {"not-a-radiograph", "too-large", "lateral-view", "polarity-doubtful"} <= {
        gate.code for gate in scan.gates
    }


@pytest.mark.parametrize("modality", ["CR", "DX", "RG"])
@pytest.mark.parametrize(
    "sop_class", [None, DigitalXRayImageStorageForPresentation, SecondaryCaptureImageStorage]
)
def test_projection_radiographs_are_read(make_dataset, write, modality, sop_class):
    dataset = make_dataset(Modality=modality, SOPClassUID=sop_class)
    dataset.file_meta.MediaStorageSOPClassUID = SecondaryCaptureImageStorage
    assert read_radiograph(write(dataset)).modality == modality


@pytest.mark.parametrize("modality", ["CT", "MR", "MG", "IO", "US", "XA", "SR", "PX"])
def test_no_accepting_lets_another_modality_in(make_dataset, write, modality):
    path = write(make_dataset(Modality=modality))
    assert refused(path) == "not-a-radiograph"
    assert refused(path, accept=ACCEPTABLE) == "not-a-radiograph"


@pytest.mark.parametrize(
    "sop_class", [CTImageStorage, DigitalMammographyXRayImageStorageForPresentation]
)
def test_a_modality_that_its_sop_class_contradicts_is_refused(make_dataset, write, sop_class):
    path = write(make_dataset(Modality="DX", SOPClassUID=sop_class))
    assert refused(path, accept=["not-a-radiograph"]) == "not-a-radiograph"


@pytest.mark.parametrize("modality", ["OT", "SC", None])
def test_a_vague_modality_is_read_only_when_accepted(make_dataset, write, modality):
    path = write(make_dataset(Modality=modality, SOPClassUID=SecondaryCaptureImageStorage))
    assert refused(path) == "not-a-radiograph"
    scan = read_radiograph(path, accept=["not-a-radiograph"])
    (gate,) = scan.warnings
    assert (gate.code, gate.severity, gate.passed) == ("not-a-radiograph", "error", False)


@pytest.mark.parametrize(
    "attributes",
    [
        {"PresentationIntentType": "FOR PROCESSING"},
        {"SOPClassUID": DigitalXRayImageStorageForProcessing},
    ],
)
def test_raw_detector_values_are_read_only_when_accepted(make_dataset, write, attributes):
    path = write(make_dataset(Modality="DX", **attributes))
    assert refused(path) == "for-processing"
    assert codes(read_radiograph(path, accept=["for-processing"])) == {"for-processing"}


def test_several_frames_are_refused(make_dataset, write, stored):
    dataset = make_dataset(np.stack([stored, stored]), Rows=96, Columns=80, NumberOfFrames=2)
    assert refused(write(dataset)) == "multi-frame"


@pytest.mark.parametrize("photometric", ["RGB", "YBR_FULL"])
def test_color_is_refused(make_dataset, write, stored, photometric):
    rgb = np.repeat((stored >> 4).astype(np.uint8)[..., None], 3, axis=2)
    dataset = make_dataset(rgb, SamplesPerPixel=3, PhotometricInterpretation=photometric)
    dataset.PlanarConfiguration = 0
    assert refused(write(dataset)) == "color"


def test_a_palette_is_refused(make_dataset, write):
    assert refused(write(make_dataset(PhotometricInterpretation="PALETTE COLOR"))) == "color"


@pytest.mark.parametrize(
    "attributes",
    [
        {"Rows": None},
        {"Columns": 0},
        {"Columns": [80, 80]},
        {"BitsAllocated": None},
        {"PhotometricInterpretation": None},
        {"HighBit": 15},
        {"RescaleSlope": 0, "RescaleIntercept": 0},
        {"RescaleSlope": 1},
    ],
)
def test_a_header_that_does_not_describe_its_pixels_is_refused(make_dataset, write, attributes):
    assert refused(write(make_dataset(**attributes))) == "bad-header"


def test_a_table_that_is_shorter_than_it_says_is_refused(make_dataset, write):
    dataset = make_dataset()
    dataset.VOILUTSequence = item(LUTDescriptor=[4096, 0, 12])
    dataset.VOILUTSequence[0].add_new("LUTData", "OW", bytes(100))
    assert refused(write(dataset)) == "bad-lookup-table"


def test_a_missing_high_bit_interferes_with_nothing(make_dataset, write):
    whole = read_radiograph(write(make_dataset(), "whole.dcm"))
    assert np.array_equal(read_radiograph(write(make_dataset(HighBit=None))).pixels, whole.pixels)


@pytest.mark.timeout(60)
@pytest.mark.parametrize("frames", [1, 65535])
def test_a_huge_header_without_pixels_is_refused_at_once(make_dataset, write, frames):
    dataset = make_dataset(Rows=65535, Columns=65535, NumberOfFrames=frames)
    dataset.PixelData = bytes(16)
    assert refused(write(dataset)) == "too-large"


def test_a_header_that_promises_more_than_the_file_holds_is_truncated(make_dataset, write):
    # 8192 x 8192 is within the bound, so that only the file's size can tell.
    assert refused(write(make_dataset(Rows=8192, Columns=8192))) == "truncated"


def test_a_deflated_bomb_is_refused_before_it_is_inflated(make_dataset, write, monkeypatch):
    dataset = make_dataset(np.zeros((1024, 1024), np.uint16))
    dataset.file_meta.TransferSyntaxUID = DeflatedExplicitVRLittleEndian
    path = write(dataset)
    monkeypatch.setattr("medllm.dicom.dataset.MAX_FILE_BYTES", 2**20)
    assert path.stat().st_size < 2**16
    assert refused(path) == "too-large"


def test_a_header_without_pixels_is_refused(make_dataset, write):
    dataset = make_dataset()
    del dataset.PixelData
    assert refused(write(dataset)) == "no-pixels"


@pytest.mark.parametrize(
    ("attributes", "code"),
    [
        ({"ViewPosition": "LL"}, "lateral-view"),
        ({"ViewPosition": "RL"}, "lateral-view"),
        ({"ViewPosition": "LATERAL"}, "lateral-view"),
        ({"ViewPosition": None, "SeriesDescription": "Thorax lat."}, "lateral-view"),
        ({"ViewPosition": None, "ProtocolName": "CHEST LATERAL"}, "lateral-view"),
        ({"ViewPosition": None, "PatientOrientation": ["A", "F"]}, "lateral-view"),
        ({"ViewPosition": None, "ViewCodeSequence": item(CodeValue="399067008")}, "lateral-view"),
        ({"ViewPosition": None, "SeriesDescription": "bilateral ribs AP"}, None),
        ({"PatientOrientation": ["L", "H"]}, "orientation"),
        ({"PatientOrientation": ["R", "F"]}, "orientation"),
        ({"PatientOrientation": ["F", "L"]}, "orientation"),
        ({"PatientOrientation": ["P", "F"]}, "orientation"),
        ({"PatientOrientation": ["QUINTILLA", "F"]}, "orientation"),
        ({"PatientOrientation": ["LH", "FL"]}, None),
        ({"PatientOrientation": None}, None),
        ({"ViewPosition": "LL", "PatientOrientation": ["A", "F"]}, "lateral-view"),
        ({"ViewPosition": None, "SeriesDescription": "left lateral decubitus"}, "view-unknown"),
        ({"ViewPosition": "RLO"}, "view-unknown"),
        ({"ViewPosition": None, "ViewCodeSequence": item(CodeValue="R-10206")}, None),
        ({"ViewPosition": None, "SeriesDescription": "Chest PA"}, None),
        ({"ViewPosition": None}, "view-unknown"),
        ({"ViewPosition": None, "SeriesDescription": "CHEST PA AND LAT"}, "view-unknown"),
        # A study's description names all of its views, and an image's own comes before it.
        (
            {
                "ViewPosition": None,
                "SeriesDescription": "LATERAL",
                "StudyDescription": "XR CHEST PA AND LATERAL",
            },
            "lateral-view",
        ),
        (
            {
                "ViewPosition": None,
                "SeriesDescription": "W034 Chest PA",
                "StudyDescription": "CHEST LAT",
            },
            None,
        ),
        ({"ViewPosition": "AP"}, None),
        ({"ViewPosition": "ERECT", "SeriesDescription": "Thorax lat."}, "lateral-view"),
        ({"ViewPosition": "STANDING", "SeriesDescription": "Chest PA"}, None),
        (
            {"ViewPosition": "OTHER", "ViewCodeSequence": item(CodeValue="399067008")},
            "lateral-view",
        ),
        ({"ViewPosition": "OTHER"}, "view-unknown"),
        (
            {
                "ViewPosition": None,
                "ViewCodeSequence": item(CodeValue="V17"),
                "SeriesDescription": "Thorax lat.",
            },
            "lateral-view",
        ),
        (
            {
                "ViewPosition": None,
                "ViewCodeSequence": item(CodeValue="V17", CodeMeaning="Lateral"),
                "StudyDescription": "Chest PA",
            },
            "lateral-view",
        ),
        (
            {
                "ViewPosition": None,
                "ViewCodeSequence": item(
                    CodeValue="399135007", CodeMeaning="left anterior oblique"
                ),
                "SeriesDescription": "Chest PA",
            },
            "view-unknown",
        ),
    ],
)
def test_view_comes_from_what_the_header_says_most_plainly(make_dataset, write, attributes, code):
    assert codes(read_radiograph(write(make_dataset(**attributes)))) == ({code} - {None})


@pytest.mark.parametrize(
    ("attributes", "passed"),
    [
        ({"BodyPartExamined": "HAND"}, False),
        ({"BodyPartExamined": "PORT CHEST"}, True),
        ({"BodyPartExamined": "THORAX"}, True),
        ({"BodyPartExamined": None}, True),
        (
            {"BodyPartExamined": None, "AnatomicRegionSequence": item(CodeMeaning="Knee")},
            False,
        ),
        (
            {"BodyPartExamined": None, "AnatomicRegionSequence": item(CodeMeaning="Chest")},
            True,
        ),
    ],
)
def test_another_body_part_is_warned_of(make_dataset, write, attributes, passed):
    assert ("not-chest" not in codes(read_radiograph(write(make_dataset(**attributes))))) == passed


@pytest.mark.parametrize(
    "attributes",
    [
        {"PatientSpeciesDescription": "Canis lupus familiaris"},
        {"PatientSpeciesCodeSequence": item(CodeValue="448771007")},
        {"PatientSpeciesCodeSequence": item(LongCodeValue="448771007")},
        {"PatientBreedDescription": "Beagle"},
        {"AcquisitionDeviceProcessingDescription": "CANINE THORAX VD"},
    ],
)
def test_an_animal_is_read_only_when_accepted(make_dataset, write, attributes):
    path = write(make_dataset(**attributes))
    assert refused(path) == "not-human"
    assert codes(read_radiograph(path, accept=["not-human"])) == {"not-human"}


@pytest.mark.parametrize(
    "attributes",
    [
        {"PatientSpeciesDescription": "Homo sapiens"},
        {"PatientSpeciesCodeSequence": item(CodeValue="337915000")},
        {"PatientSpeciesCodeSequence": item(LongCodeValue="337915000")},
        {"PatientSpeciesCodeSequence": item(CodeMeaning="Homo sapiens")},
        {"StudyDescription": "dog bite"},
    ],
)
def test_a_human_is_not_taken_for_an_animal(make_dataset, write, attributes):
    assert codes(read_radiograph(write(make_dataset(**attributes)))) == set()


def test_declared_annotation_is_warned_of(make_dataset, write):
    path = write(make_dataset(BurnedInAnnotation="YES"))
    assert codes(read_radiograph(path)) == {"burned-in-annotation"}


@pytest.mark.parametrize(("stated", "lossy"), [(None, True), ("00", False), ("01", True)])
def test_jpeg_2000_is_lossy_unless_the_header_denies_it(make_dataset, write, stated, lossy):
    dataset = make_dataset()
    dataset.compress(JPEG2000, j2k_cr=[2])
    dataset.LossyImageCompression = stated
    if stated is None:
        del dataset.LossyImageCompression
    assert ("lossy" in codes(read_radiograph(write(dataset)))) == lossy


@pytest.mark.parametrize(
    ("attributes", "found"),
    [
        ({"ImagerPixelSpacing": [0.2, 0.1]}, "Imager Pixel Spacing (0018,1164) a pixel is 2 "),
        ({"PixelSpacing": [0.1, 0.2]}, "Pixel Spacing (0028,0030) a pixel is 0.5 "),
        ({"PixelAspectRatio": [4, 3]}, "Pixel Aspect Ratio (0028,0034) a pixel is 1.33 "),
        ({"PixelSpacing": [0.1, 0.1009]}, None),
        ({"PixelSpacing": [0.1009, 0.1]}, None),
        ({"PixelSpacing": [0.1, 0.1011]}, "Pixel Spacing (0028,0030) a pixel is 0.989 "),
        ({"PixelSpacing": [0.1011, 0.1]}, "Pixel Spacing (0028,0030) a pixel is 1.01 "),
        # What is said of the patient comes before what is said of the imager, PS3.3 10.7.1.3.
        ({"PixelSpacing": [0.1, 0.1], "ImagerPixelSpacing": [0.2, 0.1]}, None),
        ({"ImagerPixelSpacing": [0.1, 0.1], "PixelAspectRatio": [2, 1]}, None),
        # Devices write a spacing of 0.
        ({"PixelSpacing": [0, 0], "PixelAspectRatio": [2, 1]}, "(0028,0034) a pixel is 2 "),
        ({"PixelAspectRatio": [0, 1]}, None),
        ({"PixelAspectRatio": 2}, None),
        ({"PixelSpacing": ["1e-300", "1e300"]}, "(0028,0030) a pixel is 0 "),
    ],
)
def test_pixels_that_are_not_square_are_warned_of(make_dataset, write, attributes, found):
    scan = read_radiograph(write(make_dataset(**attributes)))
    (gate,) = (gate for gate in scan.gates if gate.code == "non-square-pixels")
    assert gate.severity == "warning"
    assert gate.passed == (found is None)
    assert found is None or f"{found}times as high as it is wide" in gate.message
    assert codes(scan) == ({"non-square-pixels"} if found else set())


def test_an_image_that_was_lossy_once_stays_lossy(make_dataset, write):
    dataset = make_dataset(LossyImageCompression="01")
    assert dataset.file_meta.TransferSyntaxUID == ExplicitVRLittleEndian
    assert codes(read_radiograph(write(dataset))) == {"lossy"}


@pytest.mark.parametrize(("rows", "refusal"), [(63, True), (64, False)])
def test_the_smallest_side_is_64_pixels(make_dataset, write, stored, rows, refusal):
    path = write(make_dataset(np.ascontiguousarray(stored[:rows])))
    if refusal:
        assert refused(path) == "too-small"
    assert codes(read_radiograph(path, accept=["too-small"])) == (
        {"too-small"} if refusal else set()
    )


@pytest.mark.parametrize(
    "attributes", [{}, {"WindowCenter": 2048, "WindowWidth": 4096}, {"PixelPaddingValue": 700}]
)
def test_a_flat_image_is_refused(make_dataset, write, attributes):
    path = write(make_dataset(np.full((96, 80), 700, np.uint16), **attributes))
    assert refused(path) == "flat-image"


def test_a_wrong_photometric_interpretation_is_noticed(make_dataset, write):
    right = read_radiograph(write(make_dataset()))
    assert "polarity-doubtful" not in codes(right)
    path = write(make_dataset(PhotometricInterpretation="MONOCHROME1"))
    assert codes(read_radiograph(path)) == {"polarity-doubtful"}
    mended = read_radiograph(path, polarity="normal")
    assert codes(mended) == {"polarity-override"}
    assert np.array_equal(mended.pixels, right.pixels)


@pytest.mark.parametrize(
    ("photometric", "shape"), [("MONOCHROME1", "IDENTITY"), ("MONOCHROME2", "INVERSE")]
)
def test_a_header_that_contradicts_itself_on_polarity_is_warned_of(
    make_dataset, write, photometric, shape
):
    dataset = make_dataset(PhotometricInterpretation=photometric, PresentationLUTShape=shape)
    assert "polarity-contradiction" in codes(read_radiograph(write(dataset)))


def test_accepting_what_cannot_be_accepted_is_a_programming_error(make_dataset, write):
    with pytest.raises(ValueError, match="multi-frame"):
        read_radiograph(write(make_dataset()), accept=["multi-frame"])


NAME = "QZXW^JANE"


@pytest.mark.parametrize(
    ("keyword", "value"),
    [
        ("Modality", "CT"),
        ("SOPClassUID", CTImageStorage),
        ("PresentationIntentType", "FOR PRESENTATION"),
        ("ViewPosition", "ERECT"),
        ("BodyPartExamined", "KNEE"),
        ("PhotometricInterpretation", "RGB"),
        ("BurnedInAnnotation", "NO"),
        ("PresentationLUTShape", "INVERSE"),
    ],
)
def test_a_message_repeats_a_known_word_and_never_a_name_that_stands_there_by_mistake(
    make_dataset, write, keyword, value
):
    def told(stands):
        with disable_value_validation():
            path = write(make_dataset(**{keyword: stands}))
        try:
            scan = read_radiograph(path)
        except DicomError as error:
            return str(error)
        return " ".join([*(gate.message for gate in scan.gates), *map(str, scan.pipeline)])

    known = UID(value).name if keyword == "SOPClassUID" else value
    assert known in told(value)
    assert NAME not in told(NAME)
    assert "none that medllm knows" in told(NAME)


def test_a_name_in_place_of_the_loss_is_not_repeated(make_dataset):
    with disable_value_validation():
        dataset = make_dataset(LossyImageCompression=NAME)
    dataset.preamble, dataset.file_meta.TransferSyntaxUID = bytes(128), JPEG2000
    told = {gate.code: gate.message for gate in (check(dataset) for check in ENCODING_GATES)}
    assert "(0028,2110) is none that medllm knows, Transfer Syntax" in told["lossy"]


def test_a_name_in_place_of_a_window_function_or_of_an_encoding_is_not_repeated(
    make_dataset, write
):
    with disable_value_validation():
        dataset = make_dataset(VOILUTFunction=NAME, WindowCenter=2000, WindowWidth=4000)
        steps = read_radiograph(write(dataset)).pipeline
        dataset.file_meta.TransferSyntaxUID = "1.2.840.10008.1.2.1"
        path = write(dataset)
    assert "an unknown function" in str(steps)
    assert NAME not in str(steps)
    path.write_bytes(path.read_bytes().replace(b"1.2.840.10008.1.2.1\0", NAME.encode().ljust(20)))
    with pytest.raises(DicomError) as caught:
        read_radiograph(path)
    assert "Transfer Syntax UID (0002,0010) is none that medllm knows" in str(caught.value)
    assert NAME not in str(caught.value)
