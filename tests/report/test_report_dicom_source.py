"""What all objects take from the radiograph's header, and where they refuse to."""

import shutil
import subprocess
from dataclasses import replace
from datetime import UTC, datetime

import numpy as np
import pytest
from PIL import Image
from pydicom import Dataset, dcmread
from pydicom.uid import UID

from medllm.dicom import read_radiograph
from medllm.errors import ReportError
from medllm.report import build_report, dicom, pdf
from medllm.report.dicom import seg, sr
from medllm.report.dicom.source import read_source, stable_uid

LATER = datetime(2025, 3, 15, 8, 0, 0, tzinfo=UTC)


def _no_pages(*_):
    """In place of the report's PDF, which takes seconds to set."""
    return b"%PDF-1.7"


@pytest.fixture
def three_kinds(monkeypatch):
    """Encode no pictures and no presentation states."""
    monkeypatch.setattr(dicom, "_ENCODERS", (sr.encode, seg.encode))
    monkeypatch.setattr(pdf, "encode", _no_pages)


@pytest.fixture(scope="module")
def quick_paths(dicom_report, tmp_path_factory):
    """All objects of each kind of source."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(pdf, "encode", _no_pages)
        return dicom_report.write(tmp_path_factory.mktemp("quick"), ["dicom"])["dicom"]


@pytest.fixture(scope="module")
def all_paths(pango, report_of, dicom_phantoms, tmp_path_factory):
    """All objects of one phantom, with the pages."""
    report = report_of(dicom_phantoms["dx"])
    return report.write(tmp_path_factory.mktemp("all"), ["dicom"])["dicom"]


def objects(report, folder):
    return {path.stem: dcmread(path) for path in report.write(folder, ["dicom"])["dicom"]}


def without(*keywords):
    def change(dataset):
        for keyword in keywords:
            if keyword in dataset:
                del dataset[keyword]

    return change


def with_values(**values):
    def change(dataset):
        for keyword, value in values.items():
            setattr(dataset, keyword, value)

    return change


def test_all_objects_are_of_the_study_and_each_kind_is_a_series(quick_paths, dicom_report):
    source = dcmread(dicom_report.scan.path, force=True)
    series = {}
    for path in quick_paths:
        dataset = dcmread(path)
        assert dataset.StudyInstanceUID == source.StudyInstanceUID
        # A name of nothing but its separator is empty too, and dcmtk wants it.
        assert str(dataset.PatientName).strip("^") == str(source.get("PatientName", ""))
        for keyword in ("PatientID", "PatientSex", "AccessionNumber", "StudyDate", "StudyID"):
            assert dataset[keyword].value == (source.get(keyword) or "")
        assert dataset.Manufacturer == "medllm"
        assert dataset.ManufacturerModelName == dicom_report.prediction.model_name
        assert dataset.DeviceSerialNumber == dicom_report.prediction.model_sha256
        assert dataset.SeriesDescription.startswith("AI")
        series.setdefault(dataset.SeriesInstanceUID, set()).add(path.stem.split("-")[0])
    assert sorted(series.values(), key=min) == [{"gsps"}, {"pdf"}, {"sc"}, {"seg"}, {"sr"}]
    assert source.SeriesInstanceUID not in series
    assert len({dcmread(path).SOPInstanceUID for path in quick_paths}) == len(quick_paths)


def misfits(*paths):
    """What dcentvfy, which is not ours, says that does not fit among files of one study."""
    if shutil.which("dcentvfy") is None:
        pytest.skip("dcentvfy is not installed; it is in Debian's dicom3tools")
    done = subprocess.run(  # noqa: S603 - a program found on this machine, files made here
        ["dcentvfy", *paths],  # noqa: S607
        capture_output=True,
        text=True,
        check=False,
        timeout=60,
    )
    return [line for line in done.stderr.splitlines() if line.startswith("Error")]


def test_the_objects_fit_each_other_and_the_source(quick_paths, dicom_report):
    assert misfits(dicom_report.scan.path, *quick_paths) == []


def test_the_pdf_fits_them_too_and_all_are_valid(all_paths, dicom_phantoms, errors_of):
    assert {path.stem for path in all_paths} >= {"sr", "seg", "pdf"}
    assert misfits(dicom_phantoms["dx"], *all_paths) == []
    for path in all_paths:
        assert errors_of(dcmread(path)) == [], path.name


def test_a_second_run_gives_the_same_files(all_paths, report_of, dicom_phantoms, tmp_path):
    again = report_of(dicom_phantoms["dx"]).write(tmp_path, ["dicom"])["dicom"]
    assert [one.name for one in all_paths] == [one.name for one in again]
    for one, other in zip(all_paths, again, strict=True):
        assert one.read_bytes() == other.read_bytes(), one.name


@pytest.mark.usefixtures("three_kinds")
def test_a_later_run_gives_the_same_names(report_of, dicom_phantoms, tmp_path):
    early = objects(report_of(dicom_phantoms["dx"]), tmp_path / "early")
    late = objects(report_of(dicom_phantoms["dx"], made_at=LATER), tmp_path / "late")
    for name, dataset in early.items():
        assert dataset.SOPInstanceUID == late[name].SOPInstanceUID
        assert dataset.SeriesInstanceUID == late[name].SeriesInstanceUID
        assert dataset.InstanceCreationDate == "20250314"
        assert late[name].InstanceCreationDate == "20250315"


def test_another_image_model_method_or_question_gives_other_names(
    report_of, dicom_phantoms, prediction, explanations, three_kinds, tmp_path
):
    def names(report, folder):
        made = objects(report, tmp_path / folder).values()
        return {uid for one in made for uid in (one.SOPInstanceUID, one.SeriesInstanceUID)}

    path = dicom_phantoms["dx"]
    first = names(report_of(path), "first")
    at_a_tenth = tuple(
        replace(question, calibration=replace(question.calibration, bias=-2.0, prevalence=0.1))
        for question in prediction.card.questions
    )
    moved = replace(prediction, card=replace(prediction.card, questions=at_a_tenth))
    others = {
        "prevalence": report_of(path, said=moved),
        "image": report_of(dicom_phantoms["cr-monochrome1"]),
        "model": report_of(path, said=replace(prediction, model_sha256="d1" * 32)),
        "method": report_of(path, why=[replace(one, method="rise") for one in explanations]),
        "steps": report_of(path, why=[replace(one, n_steps=64) for one in explanations]),
        "questions": report_of(path, why=explanations[:1]),
    }
    for what, report in others.items():
        assert not first & names(report, what), what


def test_names_are_uuids_as_the_standard_has_them():
    name = stable_uid("a", "b")
    assert name == stable_uid("a", "b") != stable_uid("a b")
    assert isinstance(name, UID)
    assert name.is_valid
    assert name.startswith("2.25.")
    assert (int(name.removeprefix("2.25.")) >> 76) & 0xF == 5  # a UUID of a name


HEADERS = {
    "no laterality": without("Laterality", "ImageLaterality"),
    "no orientation": without("PatientOrientation"),
    "no spacing": without("ImagerPixelSpacing"),
    "no accession": without("AccessionNumber", "StudyID", "ReferringPhysicianName"),
    "no patient": without("PatientName", "PatientID", "PatientBirthDate", "PatientSex"),
    "no numbers": without("InstanceNumber", "SeriesNumber"),
    "longest UIDs": with_values(
        StudyInstanceUID="1." + 62 * "2",
        SeriesInstanceUID="1." + 62 * "3",
        SOPInstanceUID="1." + 62 * "4",
    ),
    "spacing of 0": with_values(ImagerPixelSpacing=[0, 0]),
    "orientation in words": with_values(PatientOrientation=["Left", "Foot"]),
    "malformed values": with_values(
        PatientBirthDate="1950.01.01", StudyTime="12:00", PatientAge="58", PatientSex="X"
    ),
    "too many values": with_values(PatientID="1\\2", StudyID="a\\b"),
    "a frame of reference": with_values(FrameOfReferenceUID="1.2.3"),
    "no time zone": with_values(TimezoneOffsetFromUTC="IST"),
}


@pytest.mark.parametrize("change", HEADERS.values(), ids=HEADERS.keys())
@pytest.mark.usefixtures("three_kinds")
def test_what_is_missing_or_malformed_is_left_out_and_not_made_up(
    change, changed_phantom, report_of, errors_of, tmp_path
):
    for dataset in objects(report_of(changed_phantom(change)), tmp_path / "out").values():
        assert errors_of(dataset) == []


@pytest.mark.usefixtures("three_kinds")
def test_malformed_values_are_empty_where_they_must_be_there(changed_phantom, report_of, tmp_path):
    made = objects(report_of(changed_phantom(HEADERS["malformed values"])), tmp_path / "out")
    for dataset in made.values():
        assert (dataset.PatientBirthDate, dataset.StudyTime, dataset.PatientSex) == ("", "", "")
        assert "PatientAge" not in dataset
        assert dataset.StudyDate == "20000101"


# What the source says its texts are in, and the name and description they hold.
TEXTS = {
    "none": (None, "Smith^Jo", "Chest"),
    "Latin-1": ("ISO_IR 100", "Müller^Jörg", "Röntgen Thorax"),
    "UTF-8": ("ISO_IR 192", "Ольга^Ž=山田^太郎", "胸部 X線"),
    "Japanese": (["", "ISO 2022 IR 87"], "Yamada^Tarou=山田^太郎=やまだ^たろう", "胸部"),
    "Korean": (["", "ISO 2022 IR 149"], "Hong^Gildong=洪^吉洞=홍^길동", "흉부"),
}


@pytest.mark.parametrize("character_set", TEXTS)
@pytest.mark.usefixtures("three_kinds")
def test_a_name_in_any_character_set_goes_home_whole(
    character_set, changed_phantom, report_of, errors_of, tmp_path
):
    stated, name, description = TEXTS[character_set]

    def change(dataset):
        if stated is not None:
            dataset.SpecificCharacterSet = stated
        dataset.PatientName, dataset.StudyDescription = name, description
        issuer = Dataset()
        issuer.LocalNamespaceEntityID = description
        dataset.IssuerOfAccessionNumberSequence = [issuer]

    made = report_of(changed_phantom(change)).write(tmp_path / "out", ["dicom"])["dicom"]
    for path in made:
        dataset = dcmread(path)
        assert dataset.SpecificCharacterSet == "ISO_IR 192"
        assert (dataset.PatientName, dataset.StudyDescription) == (name, description)
        assert dataset.IssuerOfAccessionNumberSequence[0].LocalNamespaceEntityID == description
        assert name.encode() in path.read_bytes()
        assert errors_of(dataset) == []


@pytest.mark.parametrize(
    ("keyword", "good", "bad"),
    [("PatientName", "Xy^Z", b"\xff\xfe^Z"), ("PatientWeight", "77.123", b"heavy!")],
)
@pytest.mark.usefixtures("three_kinds")
def test_a_value_that_cannot_be_read_is_left_out(
    keyword, good, bad, changed_phantom, report_of, errors_of, tmp_path
):
    path = changed_phantom(with_values(SpecificCharacterSet="ISO_IR 192", **{keyword: good}))
    path.write_bytes(path.read_bytes().replace(good.encode(), bad))
    for dataset in objects(report_of(path), tmp_path / "out").values():
        assert not dataset.get(keyword)
        assert dataset.PatientID == "PHANTOM3"
        assert errors_of(dataset) == []


@pytest.mark.usefixtures("three_kinds")
def test_times_are_on_the_clock_of_the_study(changed_phantom, report_of, tmp_path):
    path = changed_phantom(with_values(TimezoneOffsetFromUTC="-0930"))
    at = datetime(2025, 1, 1, 3, 0, 0, tzinfo=UTC)
    for dataset in objects(report_of(path, made_at=at), tmp_path / "out").values():
        assert dataset.TimezoneOffsetFromUTC == "-0930"
        assert (dataset.ContentDate, dataset.ContentTime) == ("20241231", "173000")
        assert dataset.InstanceCreationTime == "173000"


REFUSED = {
    "no study": (without("StudyInstanceUID"), "no-study", "no usable StudyInstanceUID"),
    "no series": (without("SeriesInstanceUID"), "no-study", "no usable SeriesInstanceUID"),
    "no name": (without("SOPInstanceUID"), "no-study", "no usable SOPInstanceUID"),
    "65 characters": (
        with_values(StudyInstanceUID="1." + 63 * "2"), "no-study", "no usable StudyInstanceUID"
    ),
    "a leading zero": (
        with_values(SeriesInstanceUID="1.02.3"), "no-study", "no usable SeriesInstanceUID"
    ),
    "letters": (with_values(StudyInstanceUID="1.2.x"), "no-study", "no usable StudyInstanceUID"),
    "many frames": (
        with_values(SOPClassUID=UID("1.2.840.10008.5.1.4.1.1.7.3"), NumberOfFrames=1),
        "multi-frame",
        "Multi-frame Grayscale Word Secondary Capture",
    ),
}  # fmt: skip


@pytest.mark.parametrize(("change", "code", "told"), REFUSED.values(), ids=REFUSED.keys())
def test_a_header_that_names_no_place_is_refused_and_nothing_is_written(
    change, code, told, changed_phantom, report_of, tmp_path
):
    report = report_of(changed_phantom(change))
    with pytest.raises(ReportError, match=told) as caught:
        report.write(tmp_path / "out", ["json", "dicom"])
    assert caught.value.code == code
    assert "use html, json, pdf or fhir" in str(caught.value)
    assert "\n" not in str(caught.value)
    assert not (tmp_path / "out").exists()


def test_a_png_is_of_no_study(card, prediction, tmp_path):
    path = tmp_path / "chest.png"
    Image.fromarray(np.random.default_rng(0).integers(0, 255, (200, 200), np.uint8)).save(path)
    scan = read_radiograph(path)
    said = replace(prediction, path=str(path), sop_instance_uid=None, image_sha256=scan.sha256)
    with pytest.raises(ReportError, match="is a PNG file, which is of no study") as caught:
        build_report(scan, said).write(tmp_path / "out", ["dicom"])
    assert caught.value.code == "no-study"


def test_a_file_that_changed_or_went_is_told(changed_phantom, report_of, tmp_path):
    path = changed_phantom(without())
    report = report_of(path)
    path.write_bytes(path.read_bytes() + b"\0\0")
    with pytest.raises(ReportError, match="has changed since it was read") as caught:
        report.write(tmp_path / "out", ["dicom"])
    assert caught.value.code == "changed-image"
    path.unlink()
    with pytest.raises(ReportError, match="no such file") as caught:
        report.write(tmp_path / "out", ["dicom"])
    assert caught.value.code == "file-not-found"


def test_a_missing_library_is_told_with_its_remedy(
    report_of, dicom_phantoms, tmp_path, monkeypatch
):
    monkeypatch.setattr(dicom, "find_spec", lambda name: None)
    with pytest.raises(ReportError, match=r"pip install 'medllm\[clinic\]'") as caught:
        report_of(dicom_phantoms["dx"]).write(tmp_path, ["dicom"])
    assert caught.value.code == "missing-library"


@pytest.mark.usefixtures("three_kinds")
def test_a_name_reaches_no_log_and_no_warning(
    changed_phantom, report_of, tmp_path, caplog, recwarn
):
    # highdicom warns of a name without a caret, and quotes it.
    path = changed_phantom(with_values(PatientName="Secretname", PatientID="Secretid"))
    report = report_of(path)
    with caplog.at_level("DEBUG"):
        made = objects(report, tmp_path / "out")
    assert {str(dataset.PatientName) for dataset in made.values()} == {"Secretname"}
    assert "secret" not in caplog.text.lower()
    assert not [one for one in recwarn if "secret" in str(one.message).lower()]
    assert "Secret" not in repr(read_source(report))
    assert not [name for name in made if "secret" in name.lower()]
