import base64
import json
import logging
from dataclasses import replace
from fnmatch import fnmatch
from io import BytesIO

import pytest
from pydicom import dcmread
from pypdf import PdfReader

from medllm.dicom.header import Identity
from medllm.errors import ReportError
from medllm.report import formats, leftovers


def test_each_format_is_a_file_in_a_folder_made_for_it(report, tmp_path):
    paths = report.write(tmp_path / "new" / "folder")
    assert {name: [path.name for path in files] for name, files in paths.items()} == {
        "html": ["report.html"],
        "json": ["report.json"],
    }
    assert sorted(path.name for path in (tmp_path / "new" / "folder").iterdir()) == [
        "report.html",
        "report.json",
    ]
    assert json.loads(paths["json"][0].read_text())["report_id"] == report.report_id


def test_an_unknown_format_is_refused_with_those_known(report, tmp_path):
    with pytest.raises(ReportError, match="'docx' is not a report format; use one of: html, json"):
        report.write(tmp_path / "out", ["json", "docx"])
    assert not (tmp_path / "out").exists()


def test_a_format_that_fails_leaves_the_earlier_report_whole(report, tmp_path, monkeypatch):
    paths = report.write(tmp_path)
    before = {path: path.read_bytes() for files in paths.values() for path in files}

    def fail(*_):
        raise ReportError("no")

    monkeypatch.setitem(formats.FORMATS, "json", fail)
    with pytest.raises(ReportError, match="no"):
        replace(report, report_id="R-other").write(tmp_path)
    assert {path: path.read_bytes() for path in before} == before


def test_a_folder_that_cannot_be_written_to_is_an_error_in_one_line(report, tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(ReportError, match="cannot be written to") as caught:
        report.write(tmp_path / "file", ["json"])
    assert "\n" not in str(caught.value)


def test_nothing_is_left_beside_a_report_that_could_not_be_put_in_place(report, tmp_path):
    (tmp_path / "report.json").mkdir()
    with pytest.raises(ReportError):
        report.write(tmp_path, ["json"])
    assert [path.name for path in tmp_path.iterdir()] == ["report.json"]


@pytest.fixture
def settings(monkeypatch):
    """The paper of each PDF that WeasyPrint sets."""
    weasyprint = pytest.importorskip("weasyprint")
    seen, own = [], weasyprint.HTML.write_pdf

    def write_pdf(page, *args, **kwargs):
        content = own(page, *args, **kwargs)
        seen.append(round(float(PdfReader(BytesIO(content)).pages[0].mediabox.width) / 72 * 25.4))
        return content

    monkeypatch.setattr(weasyprint.HTML, "write_pdf", write_pdf)
    return seen


@pytest.mark.usefixtures("pango")
def test_the_pages_are_set_once_and_are_the_same_wherever_they_are(
    report_of, dicom_phantoms, settings, tmp_path
):
    report = report_of(dicom_phantoms["dx"])
    report.write(tmp_path, ["fhir", "pdf", "dicom", "json"])
    pages = (tmp_path / "report.pdf").read_bytes()
    assert report.report_id in PdfReader(BytesIO(pages)).pages[0].extract_text()
    wrapped = dcmread(tmp_path / "dicom" / "pdf.dcm")
    assert wrapped.EncapsulatedDocument[: wrapped.EncapsulatedDocumentLength] == pages
    for release in ("r4b", "r5"):
        bundle = json.loads((tmp_path / f"report.fhir-{release}.json").read_bytes())
        (form,) = bundle["entry"][0]["resource"]["presentedForm"]
        assert base64.b64decode(form["data"]) == pages
    assert settings == [210]
    # The other paper is another PDF, and nothing is kept for a later writing.
    report.write(tmp_path, ["pdf-letter", "pdf"])
    assert settings == [210, 216, 210]


def test_without_a_format_that_holds_the_pages_none_are_set(report, settings, tmp_path):
    report.write(tmp_path, ["html", "json"])
    assert settings == []


def names(folder):
    return {str(path.relative_to(folder)) for path in folder.rglob("*") if path.is_file()}


@pytest.fixture
def other_model(report):
    """The report of another model on the same image."""
    return replace(report, prediction=replace(report.prediction, model_sha256="0d" * 32))


def test_what_another_model_said_does_not_stay_beside_the_new_report(
    report, other_model, tmp_path, caplog
):
    report.write(tmp_path, ["html", "json"])
    with caplog.at_level(logging.WARNING):
        other_model.write(tmp_path, ["html"])
    assert names(tmp_path) == {"report.html"}
    assert "of another report: report.json" in caplog.text


def test_a_later_format_of_the_same_report_stands_beside_the_earlier_ones(report, tmp_path, caplog):
    report.write(tmp_path, ["html"])
    later = replace(report, report_id="R-0123456789ab")
    later.write(tmp_path, ["json"])
    assert names(tmp_path) == {"report.html", "report.json"}
    assert caplog.text == ""


def test_only_a_report_of_ours_is_removed(report, other_model, tmp_path):
    theirs = {
        "report.pdf": "%PDF-1.7 a thesis about medllm",
        "report.html": "<title>medllm evaluation</title>",
        "dicom/sr.dcm": "DICM of another maker",
        "report.docx": "R-0123456789ab by medllm",
    }
    (tmp_path / "dicom").mkdir()
    for name, text in theirs.items():
        (tmp_path / name).write_text(text)
    report.write(tmp_path, ["json"])
    other_model.write(tmp_path, ["json"])
    assert names(tmp_path) == {*theirs, "report.json"}
    assert {name: (tmp_path / name).read_text() for name in theirs} == theirs


@pytest.mark.usefixtures("pango")
def test_every_format_says_which_report_it_is_of(report_of, dicom_phantoms, explanations, tmp_path):
    report = report_of(dicom_phantoms["dx"])
    written = report.write(tmp_path, list(formats.FORMATS))
    every = names(tmp_path)
    assert {tmp_path / name for name in every} == {path for of in written.values() for path in of}
    assert all(any(fnmatch(name, known) for known in leftovers.NAMES) for name in every)
    # Another time of the day: the same report.
    replace(report, report_id="R-0123456789ab").write(tmp_path, ["json"])
    assert names(tmp_path) == every
    # Without the explanation of an effusion its objects are of no report that is there.
    fewer = report_of(dicom_phantoms["dx"], why=explanations[:1])
    fewer.write(tmp_path, ["dicom"])
    assert names(tmp_path) == {
        f"dicom/{name}.dcm"
        for name in ("sr", "seg", "sc-summary", "sc-pneumonia", "gsps-pneumonia", "pdf")
    }
    fewer_still = report_of(dicom_phantoms["dx"], why=[])
    fewer_still.write(tmp_path, ["html"])
    assert [path.name for path in tmp_path.iterdir()] == ["report.html"]


@pytest.mark.usefixtures("pango")
def test_pages_that_name_the_patient_do_not_stay_beside_others_that_do_not(
    report_of, dicom_phantoms, tmp_path, caplog
):
    report = report_of(dicom_phantoms["dx"])
    named = replace(report, identity=Identity(patient_name="Doe^Quintilla", patient_id="4711"))
    named.write(tmp_path, list(formats.FORMATS))
    open_files = {
        name for name in names(tmp_path) if name.startswith("report.") or name == "dicom/pdf.dcm"
    }
    with caplog.at_level(logging.WARNING):
        report.write(tmp_path, ["html"])
    # What names the patient as all objects of a study do, by its header, stays.
    assert names(tmp_path) & open_files == {"report.html"}
    assert "dicom/sr.dcm" in names(tmp_path)
    assert "dicom/pdf.dcm" in caplog.text
    assert b"Quintilla" not in (tmp_path / "report.html").read_bytes()
    # A later format of the same openness stands beside it.
    report.write(tmp_path, ["fhir", "pdf"])
    assert {"report.html", "report.pdf", "report.fhir-r5.json"} <= names(tmp_path)


def test_what_cannot_be_encoded_may_be_left_out(report, tmp_path, monkeypatch):
    def fail(*_):
        raise ReportError("no")

    monkeypatch.setitem(formats.FORMATS, "json", fail)
    done = formats.write_possible(report, tmp_path / "out", ["json", "html"])
    assert list(done.files) == ["html"]
    assert {name: str(error) for name, error in done.refused.items()} == {"json": "no"}
    assert names(tmp_path / "out") == {"report.html"}
    with pytest.raises(ReportError, match="not a report format"):
        formats.write_possible(report, tmp_path / "new", ["docx", "html"])
    assert not formats.write_possible(report, tmp_path / "new", ["json"]).files
    assert not (tmp_path / "new").exists()
