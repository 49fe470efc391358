"""The patient: unnamed unless asked for, and then named in full."""

import base64
import json
from dataclasses import replace

import pydicom
import pytest

from medllm.dicom import read_identity, read_radiograph
from medllm.phantom import make_phantom, write_dicom
from medllm.report import build_report


def _planted_file(path, who):
    write_dicom(make_phantom(3, size=256), path)
    header = pydicom.dcmread(path)
    header.SpecificCharacterSet = "ISO_IR 192"
    header.PatientName, header.PatientID = who.patient_name, who.patient_id
    header.PatientBirthDate, header.AccessionNumber = "19310405", who.accession_number
    header.StudyDate, header.StudyTime = who.study_date, who.study_time
    header.StudyDescription = who.study_description
    header.InstitutionName = who.institution_name
    header.ReferringPhysicianName = who.referring_physician_name
    header.PatientComments = header.ImageComments = "seen with Zyxwvut"
    header.OtherPatientIDs = "OTHER-555"
    header.OperatorsName = "Operatrix^Una"
    header.private_block(0x0011, "PLANTED", create=True).add_new(1, "LO", "private Zyxwvut")
    header.save_as(path)
    return path


TRACES = ("Zyxwvut", "Quillon", "山田", "太郎", "やまだ", "4711", "19310405", "1931-04-05", "99812",
          "20240607", "2024-06-07", "081522", "mayor", "Nowhere", "Vonderbar", "OTHER-555",
          "Operatrix")  # fmt: skip


@pytest.fixture(scope="module")
def planted(tmp_path_factory, tiny_model, somebody):
    path = _planted_file(tmp_path_factory.mktemp("planted") / "a.dcm", somebody)
    scan = read_radiograph(path)
    return scan, tiny_model.predict([scan])[0], read_identity(path)


def test_no_trace_of_the_patient_without_with_identity(planted, bundles, caplog):
    scan, prediction, _ = planted
    report = build_report(scan, prediction)
    for bundle in bundles(report).values():
        (form,) = bundle.one("DiagnosticReport")["presentedForm"]
        everything = (
            json.dumps(bundle, ensure_ascii=False) + base64.b64decode(form["data"]).decode()
        )
        assert [trace for trace in TRACES if trace in everything + caplog.text] == []
        assert set(bundle.one("Patient")) == {"resourceType", "meta", "identifier", "gender"}
        assert "effectiveDateTime" not in json.dumps(bundle)


def test_with_identity_the_patient_and_the_order_are_named(planted, bundles, somebody):
    scan, prediction, identity = planted
    assert identity == somebody
    for bundle in bundles(build_report(scan, prediction, identity=identity)).values():
        patient = bundle.one("Patient")
        assert patient["birthDate"] == "1931-04-05"
        letters, ideographs, syllables = patient["name"]
        assert letters["extension"][0]["valueCode"] == "ABC"
        assert {key: letters[key] for key in ("family", "given", "prefix", "suffix")} == {
            "family": "Zyxwvut",
            "given": ["Quillon", "Middle"],
            "prefix": ["Dr"],
            "suffix": ["III"],
        }
        assert (ideographs["family"], ideographs["given"]) == ("山田", ["太郎"])
        assert (syllables["family"], syllables["given"]) == ("やまだ", ["たろう"])
        assert [one["extension"][0]["valueCode"] for one in (ideographs, syllables)] == [
            "IDE",
            "SYL",
        ]
        number = patient["identifier"][1]
        assert (number["type"]["coding"][0]["code"], number["value"]) == ("MR", "PID-4711-Q")
        assert "system" not in number  # which hospital gave it is not known
        found, study = bundle.one("DiagnosticReport"), bundle.one("ImagingStudy")
        assert found["basedOn"][0]["type"] == "ServiceRequest"
        assert found["basedOn"][0]["identifier"]["value"] == "ACC-99812"
        assert study["identifier"][1] == found["basedOn"][0]["identifier"]
        assert found["effectiveDateTime"] == study["started"] == "2024-06-07"
        assert {one["effectiveDateTime"] for one in bundle.of("Observation")} == {"2024-06-07"}
        assert study["description"] == "Thorax of the mayor"
        assert study["location"] == {"display": "Saint Nowhere Hospital"}
        assert study["referrer"] == {"display": "Vonderbar^Otto"}


@pytest.mark.parametrize("stored", ["1931", "19310231", "1931-04-05", "193104", "", None])
def test_what_is_no_date_is_left_out(report, bundles, somebody, stored):
    who = replace(somebody, patient_birth_date=stored, study_date=stored)
    for bundle in bundles(replace(report, identity=who)).values():
        assert "birthDate" not in bundle.one("Patient")
        assert "effectiveDateTime" not in bundle.one("DiagnosticReport")
        assert "started" not in bundle.one("ImagingStudy")


@pytest.mark.parametrize(
    ("sex", "gender"), [("M", "male"), ("F", "female"), ("O", "other"), (None, None)]
)
def test_the_sex_of_the_header_is_the_gender_and_where_there_is_none_neither_is(
    report, bundles, sex, gender
):
    for bundle in bundles(replace(report, scan=replace(report.scan, sex=sex))).values():
        assert bundle.one("Patient").get("gender") == gender


def test_the_radiographs_of_a_study_are_of_one_patient(report, bundles):
    second = replace(report, scan=replace(report.scan, sha256="ab" * 32, sop_instance_uid="1.2.9"))
    for one, other in zip(bundles(report).values(), bundles(second).values(), strict=True):
        assert one.one("Patient")["identifier"] == other.one("Patient")["identifier"]
        assert one.one("ImagingStudy")["subject"] == other.one("ImagingStudy")["subject"]


def test_two_pictures_of_no_study_are_not_taken_for_one_patient(report, bundles, bare):
    own = [
        bundle.one("Patient")["identifier"][0]["value"]
        for sha256 in ("ab" * 32, "cd" * 32)
        for bundle in bundles(bare(report, study_instance_uid=None, sha256=sha256)).values()
    ]
    assert len(own) == 4
    assert len(set(own)) == 2
