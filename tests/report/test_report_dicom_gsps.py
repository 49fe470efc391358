import shutil
import subprocess
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from matplotlib.path import Path as Outline
from PIL import Image
from pydicom import Dataset, dcmread
from pydicom.config import IGNORE
from pydicom.dataelem import DataElement
from pydicom.uid import (
    ExplicitVRBigEndian,
    GrayscaleSoftcopyPresentationStateStorage,
    ImplicitVRLittleEndian,
)

from medllm.dicom import read_radiograph
from medllm.dicom.dataset import parse_dataset
from medllm.dicom.radiograph import Gate
from medllm.explanation.record import AttributionMap
from medllm.phantom import make_phantom, write_dicom
from medllm.report.dicom.gsps import encode
from medllm.report.dicom.source import read_source

TOP = 2**12 - 1


def states(report):
    source = read_source(report)
    return {name: source.finish(dataset) for name, dataset in encode(report, source).items()}


def run(program, *arguments):
    if shutil.which(program) is None:
        pytest.skip(f"{program} is not installed; it is in Debian's dcmtk")
    done = subprocess.run(  # noqa: S603 - a program found on this machine, files made here
        [program, *arguments], capture_output=True, text=True, check=False, timeout=60
    )
    assert done.returncode == 0, done.stderr
    return done.stdout + done.stderr


def rendered(state: Dataset, path: Path, folder: Path) -> np.ndarray:
    """Let dcmtk show the radiograph as the state wants it."""
    image = parse_dataset(path.read_bytes(), force=True)
    # Debian's dcmtk reads no JPEG 2000.
    if image.file_meta.get("TransferSyntaxUID", ImplicitVRLittleEndian).is_compressed:
        image.decompress(generate_instance_uid=False)
    if "TransferSyntaxUID" not in image.file_meta:
        image.file_meta.TransferSyntaxUID = ImplicitVRLittleEndian
    image.file_meta.MediaStorageSOPClassUID = image.SOPClassUID
    image.file_meta.MediaStorageSOPInstanceUID = image.SOPInstanceUID
    image.save_as(folder / "image.dcm", enforce_file_format=True)
    state.save_as(folder / "state.dcm", enforce_file_format=True)
    run("dcmp2pgm", "-p", folder / "state.dcm", folder / "image.dcm", folder / "shown.pgm")
    with Image.open(folder / "shown.pgm") as picture:
        return np.asarray(picture).astype(float)


def graphics(state: Dataset, layer: str) -> list[np.ndarray]:
    """The lines of a layer, x and y in pixels of the radiograph."""
    return [
        np.reshape(line.GraphicData, (-1, 2))
        for annotation in state.GraphicAnnotationSequence
        if annotation.GraphicLayer == layer
        for line in annotation.GraphicObjectSequence
    ]


def words(state: Dataset) -> str:
    return "\n".join(
        text.UnformattedTextValue
        for annotation in state.GraphicAnnotationSequence
        for text in annotation.get("TextObjectSequence", ())
    )


def test_the_states_are_valid_and_of_the_study(dicom_report, errors_of, tmp_path):
    made = states(dicom_report)
    # Cardiomegaly's map must not be used, and pneumothorax is not explained.
    assert list(made) == ["gsps-pneumonia", "gsps-effusion"]
    scan = dicom_report.scan
    for state in made.values():
        assert errors_of(state) == []
        state.save_as(tmp_path / "state.dcm", enforce_file_format=True)
        assert "Test passed" in run("dcmpschk", tmp_path / "state.dcm")
        assert state.SOPClassUID == GrayscaleSoftcopyPresentationStateStorage
        assert state.StudyInstanceUID == scan.study_instance_uid
        referenced = state.ReferencedSeriesSequence[0]
        assert referenced.SeriesInstanceUID == scan.series_instance_uid
        assert referenced.ReferencedImageSequence[0].ReferencedSOPInstanceUID == (
            scan.sop_instance_uid
        )
        area = state.DisplayedAreaSelectionSequence[0]
        assert area.DisplayedAreaTopLeftHandCorner == [1, 1]
        assert area.DisplayedAreaBottomRightHandCorner == [scan.columns, scan.rows]
    assert [state.ContentLabel for state in made.values()] == ["PNEUMONIA", "EFFUSION"]


def test_the_words_are_those_of_the_report(report_of, dicom_phantoms):
    report = report_of(dicom_phantoms["dx"])
    said = words(states(report)["gsps-effusion"])
    assert "AI output, research use only, not verified by a radiologist" in said
    assert "Pleural effusion: indeterminate, probability 0.46" in said
    assert "Explanation: weak" in said
    assert "Dashed: lowered it" in said
    assert report.report_id in said
    # A viewer need not know more than ASCII.
    assert said.isascii()


def test_a_contrast_gives_the_call_to_its_finding_and_the_difference_to_its_map(
    report_of, dicom_phantoms, compared
):
    why = [entry.explanation for entry in compared.explained]
    made = states(report_of(dicom_phantoms["dx"], why=why))
    state = made["gsps-effusion"]
    assert "Pleural effusion: indeterminate, probability 0.46" in words(state)
    assert "Map: why pleural effusion rather than cardiomegaly, difference -2.21" in words(state)
    assert words(state).isascii()
    assert state.ContentDescription == (
        "AI, not verified: Why pleural effusion rather than cardiomegaly"
    )
    described = [layer.GraphicLayerDescription for layer in state.GraphicLayerSequence]
    assert described[:2] == ["Holds half of what raised the answer", "Lowered the answer"]
    single = made["gsps-pneumonia"]
    assert "Map:" not in words(single)
    assert single.ContentDescription == "AI, not verified: Pneumonia: positive, probability 0.87"


def test_what_the_image_did_not_pass_stands_among_the_words(report_of, dicom_phantoms):
    report = report_of(dicom_phantoms["dx"])
    failed = (Gate("lateral-view", "warning", False, ""), Gate("not-human", "error", False, ""))
    cautious = replace(report, gates=(*report.gates, *failed))
    said = " ".join(words(states(cautious)["gsps-pneumonia"]).split())
    assert "lateral view, an animal stated." in said
    assert "Read with caution:" in said
    passed = replace(report, gates=())
    assert "caution" not in words(states(passed)["gsps-pneumonia"])


def test_dcmtk_shows_the_radiograph_as_it_was_scored(dicom_report, dicom_path, tmp_path):
    shown = rendered(states(dicom_report)["gsps-pneumonia"], dicom_path, tmp_path)
    wanted = dicom_report.scan.pixels * 255
    assert np.corrcoef(shown.ravel(), wanted.ravel())[0, 1] > 0.999
    # Half a grey level of each of the two that round, and one of dcmtk's own tables.
    assert abs(shown - wanted).max() < 2


def _table(entries, first, bits=12, order="<"):
    item = Dataset()
    item.add_new("LUTDescriptor", "SS" if first < 0 else "US", [len(entries), first, bits])
    item.add_new("LUTData", "OW", np.asarray(entries, f"{order}u2").tobytes())
    return item


GAMMA = np.rint(TOP * np.linspace(0, 1, TOP + 1) ** 0.6)
NO_RESCALE = dict.fromkeys(["RescaleSlope", "RescaleIntercept", "RescaleType"])
# By what is done to the header of a phantom whose window is 0 to 4095.
HEADERS = {
    "no window": {"WindowCenter": None, "WindowWidth": None},
    "a window that saturates": {"WindowCenter": 100, "WindowWidth": 20},
    "a narrow window": {"WindowCenter": 1500.25, "WindowWidth": 2000},
    "LINEAR_EXACT": {
        "WindowCenter": 1500,
        "WindowWidth": 2000,
        "VOILUTFunction": "LINEAR_EXACT",
    },
    "a rescale": {
        "RescaleSlope": 0.5,
        "RescaleIntercept": -500,
        "WindowCenter": 400,
        "WindowWidth": 1500,
    },
    "a rescale that breaks the standard": {
        # VR DS has 16 characters at most; medllm reads it nevertheless.
        "RescaleSlope": DataElement(
            "RescaleSlope", "DS", "0.500000000000000000", validation_mode=IGNORE
        )
    },
    "a rescale without a type": {"RescaleIntercept": 7, "RescaleType": None},
    "inverse": {"PresentationLUTShape": "INVERSE"},
    "MONOCHROME1 that claims identity": {
        "PhotometricInterpretation": "MONOCHROME1",
        "PresentationLUTShape": "IDENTITY",
    },
    "a VOI table": {"VOILUTSequence": [_table(GAMMA, 0)]},
    "a VOI table that states too many bits": {"VOILUTSequence": [_table(GAMMA, 0, 16)]},
    "a VOI table of values below zero": {
        "RescaleIntercept": -2000,
        "VOILUTSequence": [_table(GAMMA, -2000)],
    },
    "a modality table": NO_RESCALE | {"ModalityLUTSequence": [_table(GAMMA, 0)]},
    "a modality table and a VOI table": NO_RESCALE
    | {"ModalityLUTSequence": [_table(GAMMA, 0)], "VOILUTSequence": [_table(GAMMA[::-1], 0)]},
    "a modality table and a sigmoid": NO_RESCALE
    | {"ModalityLUTSequence": [_table(GAMMA, 0)], "VOILUTFunction": "SIGMOID"},
}


@pytest.mark.parametrize("header", HEADERS)
def test_dcmtk_shows_what_was_scored_whatever_the_header(
    header, report_of, dicom_phantoms, errors_of, tmp_path
):
    dataset = dcmread(dicom_phantoms["dx"])
    for keyword, value in HEADERS[header].items():
        if value is None:
            del dataset[keyword]
        elif isinstance(value, DataElement):
            dataset[keyword] = value
        else:
            setattr(dataset, keyword, value)
    for item in dataset.get("ModalityLUTSequence", ()):
        item.ModalityLUTType = "US"
    dataset.save_as(tmp_path / "a.dcm")
    report = report_of(tmp_path / "a.dcm")
    state = states(report)["gsps-pneumonia"]
    assert errors_of(state) == []
    shown = rendered(state, tmp_path / "a.dcm", tmp_path)
    # Half a grey level of each of the two that round, and one of dcmtk's own tables.
    assert abs(shown - report.scan.pixels * 255).max() < 2


@pytest.mark.parametrize(
    ("function", "center", "width"), [("LINEAR", 1500.25, 2000), ("LINEAR_EXACT", 1500.75, 2001)]
)
def test_a_window_is_written_as_linear(
    function, center, width, report_of, dicom_phantoms, tmp_path
):
    """PS3.3 C.11.2.1.3.2: a LINEAR window is one wider, and its middle is at center - 0.5."""
    dataset = dcmread(dicom_phantoms["dx"])
    exact = function == "LINEAR_EXACT"
    dataset.VOILUTFunction = function
    dataset.WindowCenter, dataset.WindowWidth = center - exact / 2, width - exact
    dataset.save_as(tmp_path / "a.dcm")
    (voi,) = states(report_of(tmp_path / "a.dcm"))["gsps-pneumonia"].SoftcopyVOILUTSequence
    assert (voi.WindowCenter, voi.WindowWidth) == (center, width)
    assert "VOILUTFunction" not in voi


def test_a_table_is_read_with_the_sign_with_which_it_was_used(report_of, dicom_phantoms, tmp_path):
    dataset = dcmread(dicom_phantoms["dx"])
    dataset.RescaleSlope, dataset.RescaleIntercept = -1, 0
    dataset.VOILUTSequence = [_table(GAMMA, 2**16 - TOP)]  # -TOP, as a number without a sign
    dataset.save_as(tmp_path / "a.dcm")
    (voi,) = states(report_of(tmp_path / "a.dcm"))["gsps-pneumonia"].SoftcopyVOILUTSequence
    assert voi.VOILUTSequence[0].LUTDescriptor[1] == -TOP


@pytest.mark.parametrize(
    "keywords",
    [["VOILUTSequence"], ["ModalityLUTSequence"], ["ModalityLUTSequence", "VOILUTSequence"]],
)
def test_a_table_is_read_in_the_byte_order_of_its_file(keywords, report_of, errors_of, tmp_path):
    path = write_dicom(
        make_phantom(3, size=200), tmp_path / "a.dcm", transfer_syntax=ExplicitVRBigEndian
    )
    dataset = dcmread(path)
    for keyword in keywords:
        # VR OW is the one whose bytes pydicom leaves as they are.
        setattr(dataset, keyword, [_table(GAMMA, 0, order=">")])
    if "ModalityLUTSequence" in keywords:
        dataset.ModalityLUTSequence[0].ModalityLUTType = "US"
        for keyword in NO_RESCALE:
            del dataset[keyword]
    dataset.save_as(path)
    report = report_of(path)
    state = states(report)["gsps-pneumonia"]
    assert errors_of(state) == []
    shown = rendered(state, path, tmp_path)
    # Half a grey level of each of the two that round, and one of dcmtk's own tables.
    assert abs(shown - report.scan.pixels * 255).max() < 2


@pytest.mark.parametrize(("modality", "first"), [("table", -2048), ("rescale", 40000)])
def test_a_table_of_an_implicit_encoding_begins_where_it_was_used(
    modality, first, report_of, dicom_phantoms, errors_of, tmp_path
):
    """Stored values have a sign, what a modality table makes of them has none."""
    dataset = dcmread(dicom_phantoms["dx"])
    dataset.PixelRepresentation = 1
    dataset.PixelData = (dataset.pixel_array.astype(np.int16) - 2048).tobytes()
    if modality == "table":
        for keyword in NO_RESCALE:
            del dataset[keyword]
        dataset.ModalityLUTSequence = [_table(np.arange(TOP + 1) + 40000, -2048, 16)]
        dataset.ModalityLUTSequence[0].ModalityLUTType = "US"
    else:
        dataset.RescaleIntercept = 42048
    dataset.VOILUTSequence = [_table(GAMMA, 40000)]
    dataset.file_meta.TransferSyntaxUID = ImplicitVRLittleEndian
    dataset.save_as(tmp_path / "a.dcm", implicit_vr=True)
    report = report_of(tmp_path / "a.dcm")
    state = states(report)["gsps-pneumonia"]
    # dcmtk is not misled by a wrong sign where one table stands alone.
    assert state.SoftcopyVOILUTSequence[0].VOILUTSequence[0].LUTDescriptor[1] == first
    assert errors_of(state) == []
    shown = rendered(state, tmp_path / "a.dcm", tmp_path)
    assert abs(shown - report.scan.pixels * 255).max() < 2


# What a header says of the shape of its pixels, and its height before its width.
SHAPES = {
    "not said": ({}, [1, 1]),
    "square": ({"PixelSpacing": [0.143, 0.143]}, [1, 1]),
    "at the patient": ({"PixelSpacing": [0.3, 0.2], "ImagerPixelSpacing": [0.2, 0.2]}, [3, 2]),
    "at the imager": ({"ImagerPixelSpacing": [0.2, 0.4], "PixelAspectRatio": [5, 1]}, [1, 2]),
    "no size": ({"PixelAspectRatio": [6, 8]}, [3, 4]),
    "a spacing of 0": ({"ImagerPixelSpacing": [0, 0], "PixelAspectRatio": [2, 1]}, [2, 1]),
    "no whole numbers": ({"PixelSpacing": [0.1, 0.143]}, [100, 143]),
    "beyond all bounds": ({"PixelSpacing": ["1e-300", "1e300"]}, [1, 200_000]),
}


@pytest.mark.parametrize("shape", SHAPES)
def test_pixels_are_shown_in_the_shape_that_they_have(
    shape, changed_phantom, report_of, errors_of, tmp_path
):
    """PS3.3 C.10.4: the state's shape is taken, and the image's own ignored."""
    attributes, wanted = SHAPES[shape]

    def change(dataset):
        del dataset.ImagerPixelSpacing
        for keyword, value in attributes.items():
            setattr(dataset, keyword, value)

    for state in states(report_of(changed_phantom(change))).values():
        (area,) = state.DisplayedAreaSelectionSequence
        assert area.PresentationPixelAspectRatio == wanted
        assert "PresentationPixelSpacing" not in area
        assert errors_of(state) == []
        state.save_as(tmp_path / "state.dcm", enforce_file_format=True)
        assert "Test passed" in run("dcmpschk", tmp_path / "state.dcm")


def test_a_sigmoid_stays_a_sigmoid(report_of, dicom_phantoms, tmp_path):
    """dcmtk knows none, so that the numbers are compared and not the picture."""
    dataset = dcmread(dicom_phantoms["dx"])
    dataset.VOILUTFunction, dataset.WindowCenter, dataset.WindowWidth = "SIGMOID", 1700, 2500
    dataset.save_as(tmp_path / "a.dcm")
    (voi,) = states(report_of(tmp_path / "a.dcm"))["gsps-pneumonia"].SoftcopyVOILUTSequence
    assert (voi.VOILUTFunction, voi.WindowCenter, voi.WindowWidth) == ("SIGMOID", 1700, 2500)


def test_a_polarity_that_was_overridden_is_shown_so(report_of, dicom_phantoms, tmp_path):
    path = dicom_phantoms["dx"]
    report = report_of(path)
    turned = read_radiograph(path, polarity="inverted")
    shown = rendered(states(replace(report, scan=turned))["gsps-pneumonia"], path, tmp_path)
    assert abs(shown - turned.pixels * 255).max() < 2
    assert abs(shown - report.scan.pixels * 255).max() > 100


@pytest.mark.parametrize("enlarged", [1, 7])
def test_the_lines_lie_where_the_map_says(report_of, dicom_phantoms, enlarged, tmp_path):
    dataset = dcmread(dicom_phantoms["dx"])
    # Below and above the size that a picture is shrunk to, and not square.
    pixels = np.kron(dataset.pixel_array[:, 20:], np.ones((enlarged, enlarged), np.uint16))
    dataset.Rows, dataset.Columns = pixels.shape
    dataset.PixelData = pixels.tobytes()
    dataset.save_as(tmp_path / "a.dcm")
    report = report_of(tmp_path / "a.dcm")
    for entry in report.explained:
        if entry.overlay is None:
            continue
        state = states(report)[f"gsps-{entry.finding.key}"]
        attribution = entry.explanation.map
        field = attribution.spread(pixels.shape, pixels.shape)
        # The closed lines hold half of the positive attribution: counted, not traced.
        centres = np.stack(np.meshgrid(*(np.arange(side) + 0.5 for side in field.T.shape)), -1)
        inside = np.zeros(field.shape, dtype=bool)
        for line in graphics(state, "AI_RAISES"):
            inside |= Outline(line).contains_points(centres.reshape(-1, 2)).reshape(field.shape)
        positive = np.maximum(field, 0)
        assert positive[inside].sum() / positive.sum() == pytest.approx(0.5, abs=0.03)
        # Along the dashes the finding is lowered by half of full colour.
        points = np.concatenate(graphics(state, "AI_LOWERS"))
        x, y = (points - 0.5).round().astype(int).T.clip(0, min(field.shape) - 1)
        steepest = max(np.abs(np.diff(field, axis=axis)).max() for axis in (0, 1))
        wanted = -entry.overlay.scale / 2
        # A point is at most half a pixel away in each direction, and the grid it was traced on
        # is four times as coarse.
        assert abs(field[y, x] - wanted).max() < 2 * steepest


def test_lowering_lines_are_dashed_for_viewers_that_draw_solid_lines_alone(
    report_of, dicom_phantoms
):
    report = report_of(dicom_phantoms["dx"])
    entry = next(entry for entry in report.findings if entry.finding.key == "pneumonia")
    state = states(report)["gsps-pneumonia"]

    def length(lines):
        return sum(np.hypot(*np.diff(line, axis=0).T).sum() for line in lines)

    assert length(graphics(state, "AI_RAISES")) == pytest.approx(length(entry.overlay.raising))
    whole = length(entry.overlay.lowering)
    # FL holds seven digits; the last dash of a line can lack its gap.
    assert length(graphics(state, "AI_LOWERS")) == pytest.approx(whole / 2, abs=200 / 60)
    assert len(graphics(state, "AI_LOWERS")) > 5


def test_dcmtk_reads_the_same_graphics(report_of, dicom_phantoms, tmp_path):
    state = states(report_of(dicom_phantoms["dx"]))["gsps-pneumonia"]
    rendered(state, dicom_phantoms["dx"], tmp_path)
    command = ("-p", tmp_path / "state.dcm", "+S", tmp_path / "again.dcm")
    run("dcmp2pgm", *command, tmp_path / "image.dcm", tmp_path / "shown.pgm")
    again = dcmread(tmp_path / "again.dcm")
    assert {layer.GraphicLayer for layer in again.GraphicLayerSequence} == {
        "AI_RAISES",
        "AI_LOWERS",
        "AI_TEXT",
    }
    for layer in ("AI_RAISES", "AI_LOWERS"):
        ours, theirs = graphics(state, layer), graphics(again, layer)
        assert len(ours) == len(theirs)
        for one, other in zip(ours, theirs, strict=True):
            assert other == pytest.approx(one, rel=1e-6)
    assert words(again) == words(state)


def test_a_line_too_long_for_one_element_is_parted(report_of, dicom_phantoms, tmp_path):
    report = report_of(dicom_phantoms["dx"])
    angle = np.linspace(0, 2 * np.pi, 20_001)
    circle = 100 + 50 * np.stack([np.cos(angle), np.sin(angle)], axis=1)
    entries = tuple(
        replace(entry, overlay=replace(entry.overlay, raising=(circle,)))
        for entry in report.findings
        if entry.overlay
    )
    state = states(replace(report, findings=entries))["gsps-pneumonia"]
    rendered(state, dicom_phantoms["dx"], tmp_path)
    pieces = graphics(dcmread(tmp_path / "state.dcm"), "AI_RAISES")
    assert len(pieces) == 3
    joined = np.concatenate([pieces[0], *(piece[1:] for piece in pieces[1:])])
    assert joined == pytest.approx(circle, rel=1e-6)


def test_a_map_that_lowers_nothing_has_no_layer_for_it(report_of, dicom_phantoms, explanations):
    values = np.maximum(explanations[0].map.values, 0)
    only = replace(explanations[0], map=AttributionMap(values, explanations[0].map.box))
    state = states(report_of(dicom_phantoms["dx"], why=[only]))["gsps-pneumonia"]
    names = {layer.GraphicLayer for layer in state.GraphicLayerSequence}
    assert names == {"AI_RAISES", "AI_TEXT"}
    assert "Dashed" not in words(state)


def test_a_header_that_says_little_is_enough(report_of, bad_header_path, errors_of, tmp_path):
    report = report_of(bad_header_path)
    for state in states(report).values():
        assert errors_of(state) == []
        assert str(state.PatientName) == "Yamada^Tarou=山田^太郎"
        shown = rendered(state, bad_header_path, tmp_path)
        assert abs(shown - report.scan.pixels * 255).max() < 2


def test_a_second_run_gives_the_same_bytes(report_of, dicom_phantoms, tmp_path):
    files = []
    for run_name in "ab":
        for name, state in states(report_of(dicom_phantoms["dx"])).items():
            state.save_as(tmp_path / f"{run_name}-{name}", enforce_file_format=True)
        files.append({path.name[2:]: path.read_bytes() for path in tmp_path.glob(f"{run_name}-*")})
    assert files[0] == files[1]
    assert len(files[0]) == 2


def test_an_answer_without_thresholds_is_not_called(report_of, dicom_phantoms, uncalled):
    state = states(report_of(dicom_phantoms["dx"], said=uncalled))["gsps-pneumonia"]
    assert "Pneumonia: not called, uncalibrated probability 0.87\r\n" in words(state)
    assert state.ContentDescription == (
        "AI, not verified: Pneumonia: not called, uncalibrated 0.87"
    )


def test_the_prevalence_that_a_probability_supposes_stands_beside_it(
    report_of, dicom_phantoms, rare
):
    state = states(report_of(dicom_phantoms["dx"], said=rare))["gsps-pneumonia"]
    assert "positive, probability 0.87 at a supposed prevalence of 8.3%\r\n" in words(state)


@pytest.mark.parametrize("laterality", [None, "R"])
def test_a_side_is_said_only_where_the_source_has_one(
    laterality, report_of, changed_phantom, errors_of
):
    def change(dataset):
        if laterality:
            dataset.Laterality = laterality

    state = states(report_of(changed_phantom(change)))["gsps-pneumonia"]
    assert ("Laterality" in state) == (laterality is not None)
    assert state.get("Laterality") == laterality
    assert errors_of(state) == []
