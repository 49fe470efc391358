from __future__ import annotations

import hashlib

import numpy as np
import pytest
from pydicom.data import get_testdata_file
from pydicom.uid import ExplicitVRBigEndian, ExplicitVRLittleEndian, ImplicitVRLittleEndian

from medllm.dicom import read_identity, read_radiograph
from medllm.errors import DicomError


def refusal(path):
    with pytest.raises(DicomError) as caught:
        read_radiograph(path)
    assert str(caught.value).startswith(f"{path}: ")
    assert "\n" not in str(caught.value)
    return caught.value.code


def test_the_header_is_kept_without_identity(make_dataset, write):
    path = write(
        make_dataset(
            PatientAge="036Y",
            PatientSex="F",
            ImageLaterality="U",
            Laterality="R",
            PatientOrientation=["L", "F"],
            ImagerPixelSpacing=[0.2, 0.1],
        )
    )
    scan = read_radiograph(path)
    assert scan.file_format == "dicom"
    assert scan.sha256 == hashlib.sha256(path.read_bytes()).hexdigest()
    assert (scan.age_years, scan.sex, scan.laterality) == (36, "F", "R")
    assert (scan.view_position, scan.body_part_examined, scan.modality) == ("PA", "CHEST", "CR")
    assert scan.patient_orientation == ("L", "F")
    assert (scan.pixel_spacing_mm, scan.spacing_source) == ((0.2, 0.1), "ImagerPixelSpacing")
    assert (scan.study_instance_uid, scan.series_instance_uid) == ("1.2.3.1", "1.2.3.2")
    assert (scan.sop_instance_uid, scan.rows, scan.columns) == ("1.2.3.4", 96, 80)


@pytest.mark.parametrize(
    ("stated", "years"),
    [
        ("036Y", 36),
        ("006M", 0.5),
        ("06M", 0.5),
        ("002W", 14 / 365.25),
        ("003D", 3 / 365.25),
        ("089Y", 89),
        ("090Y", 90),
        ("104Y", 90),
        ("58", None),
        ("OLD", None),
        ("", None),
    ],
)
def test_age_is_in_years_and_hides_the_oldest(make_dataset, write, stated, years):
    dataset = make_dataset()
    dataset.add_new("PatientAge", "SH", stated)  # any text, as devices write it
    assert read_radiograph(write(dataset)).age_years == years


@pytest.mark.parametrize("stated", ["0\\0", "0.1", "-1\\1", "", "0.1\\0"])
def test_a_spacing_that_is_none_is_not_guessed(make_dataset, write, stated):
    dataset = make_dataset()
    dataset.add_new("PixelSpacing", "LO", stated.split("\\"))
    scan = read_radiograph(write(dataset))
    assert (scan.pixel_spacing_mm, scan.spacing_source) == (None, None)


def test_spacing_at_the_patient_comes_before_spacing_at_the_imager(make_dataset, write):
    dataset = make_dataset(PixelSpacing=[0.15, 0.14], ImagerPixelSpacing=[0.2, 0.2])
    scan = read_radiograph(write(dataset))
    assert (scan.pixel_spacing_mm, scan.spacing_source) == ((0.15, 0.14), "PixelSpacing")


@pytest.mark.parametrize(("stated", "sex"), [("M", "M"), ("f", "F"), ("O", "O"), ("W", None)])
def test_sex_is_one_of_three_letters_or_unknown(make_dataset, write, stated, sex):
    dataset = make_dataset()
    dataset.add_new("PatientSex", "LO", stated)  # any text, as devices write it
    assert read_radiograph(write(dataset)).sex == sex


@pytest.mark.parametrize(
    "transfer_syntax", [ImplicitVRLittleEndian, ExplicitVRLittleEndian, ExplicitVRBigEndian]
)
def test_bare_elements_are_read_with_a_warning(make_dataset, write, tmp_path, transfer_syntax):
    dataset = make_dataset()
    whole = read_radiograph(write(dataset))
    path = tmp_path / "no-name-to-go-by"
    implicit = transfer_syntax == ImplicitVRLittleEndian
    little = transfer_syntax != ExplicitVRBigEndian
    if not little:
        dataset.PixelData = np.frombuffer(dataset.PixelData, "<u2").astype(">u2").tobytes()
    del dataset.file_meta
    dataset.save_as(path, implicit_vr=implicit, little_endian=little)
    assert path.read_bytes()[128:132] != b"DICM"
    scan = read_radiograph(path)
    assert np.array_equal(scan.pixels, whole.pixels)
    assert [gate.code for gate in scan.warnings] == ["no-file-meta"]
    assert transfer_syntax.name in scan.pipeline[0].detail


def test_the_name_of_a_file_says_nothing(make_dataset, write):
    assert read_radiograph(write(make_dataset(), "scan.png")).file_format == "dicom"


@pytest.mark.parametrize(
    ("content", "code"),
    [
        (b"", "empty-file"),
        (b"Dear colleague, please find attached", "not-an-image-file"),
        (b"%PDF-1.7 " + bytes(300), "not-an-image-file"),
        (bytes(400), "not-an-image-file"),
        (bytes(128) + b"DICM", "not-a-radiograph"),
        (bytes(128) + b"DICM" + b"\x12\x34\x56" * 50, "not-a-radiograph"),
        (b"\x89PNG\r\n\x1a\n" + bytes(50), "truncated"),
        (b"\xff\xd8\xff\xe0" + bytes(50), "truncated"),
    ],
)
def test_what_is_no_image_is_refused_by_its_content(tmp_path, content, code):
    path = tmp_path / "renamed.dcm"
    path.write_bytes(content)
    assert refusal(path) == code


@pytest.mark.parametrize(
    ("name", "code"),
    [
        ("CT_small.dcm", "not-a-radiograph"),
        ("MR_small.dcm", "not-a-radiograph"),
        ("reportsi.dcm", "not-a-radiograph"),
        ("rtplan.dcm", "not-a-radiograph"),
        ("DICOMDIR", "not-an-image-file"),
    ],
)
def test_published_files_that_are_no_radiographs_are_refused(name, code):
    assert refusal(get_testdata_file(name)) == code


def test_a_folder_and_a_missing_file_are_told_apart(tmp_path):
    assert refusal(tmp_path) == "is-a-folder"
    assert refusal(tmp_path / "nothing.dcm") == "file-not-found"


def test_a_file_larger_than_any_radiograph_is_refused_unread(make_dataset, write, monkeypatch):
    path = write(make_dataset())
    monkeypatch.setattr("medllm.dicom.files.MAX_FILE_BYTES", 1000)
    assert refusal(path) == "too-large"


@pytest.mark.parametrize("cut", range(150, 700, 25))
def test_a_header_cut_anywhere_is_one_kind_of_error(make_dataset, write, cut):
    path = write(make_dataset())
    path.write_bytes(path.read_bytes()[:cut])
    refusal(path)


NAME, ID, BIRTH_DATE, ACCESSION = "ZWIEBELFISCH^OTTO", "QX-7741-K", "19510203", "ACC-99813"


def planted(dataset):
    dataset.PatientName = NAME
    dataset.PatientID = ID
    dataset.PatientBirthDate = BIRTH_DATE
    dataset.AccessionNumber = ACCESSION
    dataset.StudyDate = "20240506"
    dataset.StudyTime = "101112"
    dataset.StudyDescription = f"Chest of {NAME}"
    dataset.SeriesDescription = f"{NAME} lat"
    dataset.InstitutionName = "St. Nowhere"
    dataset.ReferringPhysicianName = "HOUSE^G"
    return dataset


SECRETS = ["ZWIEBELFISCH", "OTTO", ID, BIRTH_DATE, ACCESSION, "NOWHERE", "HOUSE"]


def assert_no_secret(text):
    assert [secret for secret in SECRETS if secret in text.upper()] == []


@pytest.mark.parametrize("attributes", [{}, {"ViewPosition": None}, {"BodyPartExamined": "HAND"}])
def test_no_field_of_a_radiograph_identifies_the_patient(make_dataset, write, attributes):
    scan = read_radiograph(write(planted(make_dataset(**attributes))))
    assert_no_secret(" ".join(str(vars(scan)[name]) for name in vars(scan) if name != "pixels"))


@pytest.mark.parametrize(
    "attributes",
    [
        {"Modality": "CT"},
        {"Rows": 60000, "Columns": 60000},
        {"Rows": 500},
        {"NumberOfFrames": 3},
        {"RescaleSlope": 0, "RescaleIntercept": 1},
        {"PatientSpeciesDescription": "Felis catus"},
    ],
)
def test_no_error_identifies_the_patient(make_dataset, write, attributes):
    with pytest.raises(DicomError) as caught:
        read_radiograph(write(planted(make_dataset(**attributes))))
    assert_no_secret(str(caught.value))


def test_a_malformed_value_is_counted_and_not_quoted(make_dataset, write, recwarn):
    path = write(make_dataset(SOPInstanceUID="1.2.333"))
    # pydicom quotes the value of a malformed UID in its warning.
    path.write_bytes(path.read_bytes().replace(b"UI\x08\x001.2.333\x00", b"UI\x08\x00OTTO.333"))
    scan = read_radiograph(path)
    assert [gate.code for gate in scan.warnings] == ["irregular-header"]
    assert_no_secret(scan.warnings[0].message)
    assert len(recwarn) == 0


def test_identity_is_read_only_when_asked_for_and_not_shown(make_dataset, write):
    identity = read_identity(write(planted(make_dataset())))
    assert identity.patient_name == NAME
    assert identity.patient_id == ID
    assert identity.patient_birth_date == BIRTH_DATE
    assert identity.accession_number == ACCESSION
    assert (identity.study_date, identity.study_time) == ("20240506", "101112")
    assert identity.study_description == f"Chest of {NAME}"
    assert identity.institution_name == "St. Nowhere"
    assert identity.referring_physician_name == "HOUSE^G"
    assert_no_secret(repr(identity))


def test_identity_that_is_not_stated_is_none(make_dataset, write):
    assert read_identity(write(make_dataset())).patient_name is None


def test_identity_of_what_is_no_image_is_refused(tmp_path):
    path = tmp_path / "a.dcm"
    path.write_text("no image")
    with pytest.raises(DicomError, match="neither DICOM nor PNG nor JPEG"):
        read_identity(path)


@pytest.mark.parametrize("seed", range(60))
def test_a_damaged_header_gives_an_image_or_one_kind_of_error(make_dataset, write, seed):
    path = write(planted(make_dataset(WindowCenter=2048, WindowWidth=4096, PixelPaddingValue=0)))
    data = bytearray(path.read_bytes())
    random = np.random.default_rng(seed)
    end_of_header = len(data) - 2 * 96 * 80
    for position in random.integers(128, end_of_header, size=1 + seed % 4):
        data[position] = random.integers(256)
    path.write_bytes(bytes(data))
    try:
        scan = read_radiograph(path)
    except DicomError as error:
        assert_no_secret(str(error))
    else:
        assert scan.pixels.ndim == 2
        assert_no_secret(" ".join(gate.message for gate in scan.gates))


def test_a_name_that_stands_for_a_view_or_a_body_part_is_not_read(make_dataset, write):
    named = make_dataset(ViewPosition="PA QUINTILLA", BodyPartExamined="DOE QUINTILLA")
    scan = read_radiograph(write(named))
    assert (scan.view_position, scan.body_part_examined) == (None, None)
    assert "QUINTILLA" not in repr(scan)
    scan = read_radiograph(write(make_dataset(ViewPosition="AP", BodyPartExamined="PORT CHEST")))
    assert (scan.view_position, scan.body_part_examined) == ("AP", "PORT CHEST")
