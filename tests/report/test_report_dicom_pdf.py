import io
from dataclasses import replace

import pytest
from pydicom import dcmread
from pydicom.uid import EncapsulatedPDFStorage
from pypdf import PdfWriter

from medllm.dicom.header import Identity
from medllm.report.dicom.pdf import encode
from medllm.report.dicom.source import read_source


@pytest.fixture(scope="module")
def document() -> bytes:
    """An empty page in place of the report's, which take seconds to set."""
    stream = io.BytesIO()
    writer = PdfWriter()
    writer.add_blank_page(100, 100)
    writer.write(stream)
    return stream.getvalue()


def encapsulated(report, document):
    source = read_source(report)
    (dataset,) = encode(report, source, document).values()
    return source.finish(dataset)


def test_the_document_is_valid_and_of_the_study(dicom_report, document, errors_of, tmp_path):
    made = encapsulated(dicom_report, document)
    assert errors_of(made) == []
    made.save_as(tmp_path / "a.dcm", enforce_file_format=True)
    read, scan = dcmread(tmp_path / "a.dcm"), dicom_report.scan
    assert read.SOPClassUID == EncapsulatedPDFStorage
    assert read.StudyInstanceUID == scan.study_instance_uid
    assert read.SeriesInstanceUID != scan.series_instance_uid
    assert read.SourceInstanceSequence[0].ReferencedSOPInstanceUID == scan.sop_instance_uid
    assert read.MIMETypeOfEncapsulatedDocument == "application/pdf"
    assert read.VerificationFlag == "UNVERIFIED"
    assert dicom_report.report_id in read.DocumentTitle
    assert read.ConceptNameCodeSequence[0].CodeValue == "126000"


@pytest.mark.parametrize("added", [0, 1])
def test_the_document_comes_out_as_it_went_in(report_of, dicom_phantoms, document, tmp_path, added):
    """Whether its length is even, as an element's must be, or not."""
    document += b"\n" * (len(document) % 2 + added)  # what follows the end is no part of a PDF
    made = encapsulated(report_of(dicom_phantoms["dx"]), document)
    made.save_as(tmp_path / "a", enforce_file_format=True)
    read = dcmread(tmp_path / "a")
    assert read.EncapsulatedDocumentLength == len(document)
    assert read.EncapsulatedDocument[: read.EncapsulatedDocumentLength] == document
    assert len(read.EncapsulatedDocument) == len(document) + added


def test_it_says_whether_its_pages_name_the_patient(report_of, dicom_phantoms, document):
    report = report_of(dicom_phantoms["dx"])
    assert encapsulated(report, document).BurnedInAnnotation == "NO"
    who = Identity(patient_name="Doe^Jane", patient_id="4711")
    assert encapsulated(replace(report, identity=who), document).BurnedInAnnotation == "YES"


def test_a_header_that_says_little_is_enough(report_of, bad_header_path, document, errors_of):
    made = encapsulated(report_of(bad_header_path), document)
    assert errors_of(made) == []
    assert str(made.PatientName) == "Yamada^Tarou=山田^太郎"


def test_a_second_run_gives_the_same_bytes(report_of, dicom_phantoms, document, tmp_path):
    for name in "ab":
        made = encapsulated(report_of(dicom_phantoms["dx"]), document)
        made.save_as(tmp_path / name, enforce_file_format=True)
    assert (tmp_path / "a").read_bytes() == (tmp_path / "b").read_bytes()


def test_the_pages_that_name_the_patient_replace_none_that_do_not(
    report_of, dicom_phantoms, document
):
    report = report_of(dicom_phantoms["dx"])
    plain = encapsulated(report, document)
    named = encapsulated(replace(report, identity=Identity(patient_id="4711")), document)
    assert named.SOPInstanceUID != plain.SOPInstanceUID
    assert named.SeriesInstanceUID == plain.SeriesInstanceUID
