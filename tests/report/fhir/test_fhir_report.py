"""The DiagnosticReport: its words and its pages."""

import base64
import hashlib
import xml.etree.ElementTree as ET
from dataclasses import replace

from medllm.report import html
from medllm.report.document import BANNER

R4B, R5 = "report.fhir-r4b.json", "report.fhir-r5.json"
PDF = b"%PDF-1.7\npages that take seconds to set\n"  # as in conftest.py


def test_the_pdf_is_attached_whole(report, encoded):
    for name, kind in ((R4B, int), (R5, str)):  # integer64 of R5 is a string in JSON
        (form,) = encoded[name].one("DiagnosticReport")["presentedForm"]
        assert form["contentType"] == "application/pdf"
        assert base64.b64decode(form["data"]) == PDF
        assert form["size"] == kind(len(PDF))
        digest = hashlib.sha1(PDF, usedforsecurity=False).digest()
        assert form["hash"] == base64.b64encode(digest).decode()
        assert BANNER in form["title"]
        assert form["creation"] == report.made_at.isoformat()


def test_where_no_pdf_can_be_made_the_page_is_attached_and_that_is_said(report, bundles, caplog):
    (form,) = bundles(report)[R4B].one("DiagnosticReport")["presentedForm"]
    assert form["contentType"] == "text/html"
    assert base64.b64decode(form["data"]) == html.encode(report)
    assert "HTML page in place of the PDF: WeasyPrint is not installed" in caplog.text


def test_the_narrative_is_plain_xhtml_whatever_the_model_card_says(report, bundles):
    card = replace(report.prediction.card, name="<script>x</script>", intended_use="a < b & c")
    hostile = replace(
        report,
        limitations=("It knows <b>no</b> & more.", *report.limitations),
        prediction=replace(report.prediction, card=card),
    )
    text = bundles(hostile)[R5].one("DiagnosticReport")["text"]
    assert text["status"] == "generated"
    root = ET.fromstring(text["div"])  # noqa: S314 - our own words
    assert {one.tag.removeprefix("{http://www.w3.org/1999/xhtml}") for one in root.iter()} == {
        *("div", "p", "b", "ul", "li")
    }
    said = ["".join(one.itertext()) for one in root]
    assert said[0] == BANNER
    assert said[1] == "Patient: female, 54 years"
    assert set(hostile.limitations) <= set(said)
    items = ["".join(one.itertext()) for one in root.iter("{http://www.w3.org/1999/xhtml}li")]
    assert items[:-1] == list(report.impression)
    assert items[-1].startswith("Input check not passed: Lossy Image Compression")
