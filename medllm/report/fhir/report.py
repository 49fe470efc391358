"""The report as a FHIR DiagnosticReport, of R5, with its pages attached."""

from __future__ import annotations

import base64
import hashlib
import logging
from collections.abc import Iterable
from html import escape

from medllm.errors import ReportError
from medllm.report import html, wording
from medllm.report.document import BANNER, Report
from medllm.report.fhir.context import Context, accession, study_date
from medllm.report.fhir.datatypes import HL7, Resource, coding, concept
from medllm.report.pdf import Printed

_LOG = logging.getLogger(__name__)

_RADIOLOGY = coding(HL7 + "v2-0074", "RAD", "Radiology")
# One image is reported, whatever else its study holds. The code and its words as in IHE's Imaging
# Diagnostic Report (example single-view-chest-xray) and HL7's International Patient Summary.
_CHEST_RADIOGRAPH = coding("LN", "36554-4", "XR Chest Single view")


def diagnostic_report(context: Context, findings: Iterable[str], printed: Printed) -> Resource:
    """Say what the report as a whole says.

    Args:
        context: The report.
        findings: Names of the Observations.
        printed: Gives its PDF.

    Returns:
        The DiagnosticReport.
    """
    report, number = context.report, accession(context)
    made = context.made(context.name("report"))
    made["identifier"] += [{"type": concept("medllm report id"), "value": report.report_id}]
    return {
        "resourceType": "DiagnosticReport",
        **made,
        "text": {"status": "generated", "div": _narrative(report)},
        "basedOn": [{"type": "ServiceRequest", "identifier": number}] if number else None,
        "status": "preliminary",
        "category": [concept(None, _RADIOLOGY)],
        "code": concept("AI report of one chest radiograph", _CHEST_RADIOGRAPH),
        "effectiveDateTime": study_date(context),
        "study": [{"reference": context.study}] if context.study else None,
        "result": [{"reference": name} for name in findings],
        # No conclusionCode: systems take coded conclusions into a patient's list of problems.
        "conclusion": "\n\n".join((f"{BANNER}.", *report.impression)),
        "presentedForm": [_presented_form(report, printed)],
    }


def _narrative(report: Report) -> str:
    """Say the impression as XHTML, with what it must not be read without."""
    scan = report.scan
    patient = f"Patient: {wording.sex(scan.sex)}, {wording.age(scan.age_years)}"
    failed = [f"Input check not passed: {gate.message}" for gate in report.failed_gates]
    items = _each("li", (*report.impression, *failed))
    return (
        f'<div xmlns="http://www.w3.org/1999/xhtml"><p><b>{BANNER}</b></p>'
        f"{_each('p', [patient])}<ul>{items}</ul>{_each('p', report.limitations)}</div>"
    )


def _each(tag: str, texts: Iterable[str]) -> str:
    return "".join(f"<{tag}>{escape(text, quote=False)}</{tag}>" for text in texts)


def _presented_form(report: Report, printed: Printed) -> Resource:
    """Attach the PDF; where it cannot be made, the HTML page, which says the same."""
    try:
        data, kind = printed("A4"), "application/pdf"
    except ReportError as error:
        _LOG.warning("the FHIR report holds the HTML page in place of the PDF: %s", error)
        data, kind = html.encode(report), "text/html"
    return {
        "contentType": kind,
        "language": "en",
        "data": base64.b64encode(data).decode(),
        "size": str(len(data)),  # integer64, which is a string in JSON
        "hash": base64.b64encode(hashlib.sha1(data, usedforsecurity=False).digest()).decode(),
        "title": f"{report.report_id}: {BANNER}",
        "creation": report.made_at.isoformat(),
    }
