"""The report as FHIR: a Bundle of R4B, which R4 servers take too, and one of R5.

A Bundle is a `transaction` of conditional creations: POST it to a server's base address, and each
resource is made there unless one with its identifier exists. The identifiers follow from image,
model, version of medllm and what was asked. So a second run adds nothing, and nothing is
overwritten: neither an ImagingStudy that the hospital has, nor what a reader has since changed.

All is built in the shape of R5; `_TO_R4B` has what R4B says otherwise.
"""

from __future__ import annotations

import base64
import hashlib
import json
import logging
import re
from collections.abc import Callable, Iterable, Mapping
from html import escape
from importlib import import_module
from typing import Any

from pydantic import ValidationError

from medllm.errors import ReportError
from medllm.report import html, pdf, wording
from medllm.report.document import BANNER, Report
from medllm.report.fhir_context import (
    HL7,
    Context,
    Resource,
    accession,
    coding,
    concept,
    device,
    imaging_study,
    open_context,
    patient,
    study_date,
)
from medllm.report.fhir_findings import image_region, name_region, observation

_LOG = logging.getLogger(__name__)

_EMPTY: tuple[object, ...] = (None, "", [], {})
# FHIR's texts hold none of these (datatypes, string); a header can.
_CONTROL = re.compile(r"[\x00-\x08\x0b\x0c\x0e-\x1f]")

_RADIOLOGY = coding(HL7 + "v2-0074", "RAD", "Radiology")
# One image is reported, whatever else its study holds. The code and its words as in IHE's Imaging
# Diagnostic Report (example single-view-chest-xray) and HL7's International Patient Summary.
_CHEST_RADIOGRAPH = coding("LN", "36554-4", "XR Chest Single view")


def encode(report: Report) -> dict[str, bytes]:
    """Encode a report.

    Args:
        report: The report.

    Returns:
        A Bundle a release of FHIR, by their paths within the report's folder.

    Raises:
        ReportError: fhir.resources is not installed, or FHIR has no room for what the header or
            the model's card says.
    """
    resources = _resources(open_context(report))
    return {
        "report.fhir-r4b.json": _file("R4B", _bundle(report, _to_r4b(resources))),
        "report.fhir-r5.json": _file("R5", _bundle(report, resources)),
    }


def _resources(context: Context) -> dict[str, Resource]:
    """Give each resource by its name, the report first."""
    findings = {
        context.name("finding", entry.finding.key): observation(context, entry)
        for entry in context.report.findings
    }
    regions = {
        name: image_region(context, entry, name)
        for entry in context.report.explained
        if (name := name_region(context, entry))
    }
    return {
        context.name("report"): _diagnostic_report(context, findings),
        **findings,
        **regions,
        **({context.study: imaging_study(context)} if context.study else {}),
        context.device: device(context),
        context.patient: patient(context),
    }


def _diagnostic_report(context: Context, findings: Mapping[str, Resource]) -> Resource:
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
        "presentedForm": [_presented_form(report)],
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


def _presented_form(report: Report) -> Resource:
    """Attach the PDF; where it cannot be made, the HTML page, which says the same."""
    try:
        data, kind = pdf.encode(report), "application/pdf"
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


def _to_r4b(resources: Mapping[str, Resource]) -> dict[str, Resource]:
    """Say in R4B what can be said in it: it knows no ImagingSelection."""
    return {
        name: _TO_R4B.get(resource["resourceType"], dict)(resource)
        for name, resource in resources.items()
        if resource["resourceType"] != "ImagingSelection"
    }


def _report_to_r4b(report: Resource) -> Resource:
    report = {**report, "imagingStudy": report["study"]}
    del report["study"]
    forms = [{**form, "size": int(form["size"])} for form in report["presentedForm"]]
    return {**report, "presentedForm": forms}


def _observation_to_r4b(observation: Resource) -> Resource:
    return {**observation, "derivedFrom": observation["derivedFrom"][:1]}  # without its region


def _study_to_r4b(study: Resource) -> Resource:
    def only(modality: Resource | None) -> Resource | None:
        return modality["coding"][0] if modality else None

    series = [{**one, "modality": only(one["modality"])} for one in study["series"]]
    return {**study, "modality": [only(one) for one in study["modality"]], "series": series}


def _device_to_r4b(device: Resource) -> Resource:
    device = {**device, "type": device["type"][0]}
    names = device.pop("name")
    return {**device, "deviceName": [{"name": n["value"], "type": "model-name"} for n in names]}


_TO_R4B: dict[str, Callable[[Resource], Resource]] = {
    "DiagnosticReport": _report_to_r4b,
    "Observation": _observation_to_r4b,
    "ImagingStudy": _study_to_r4b,
    "Device": _device_to_r4b,
}


def _bundle(report: Report, resources: Mapping[str, Resource]) -> Resource:
    bundle: Resource = _filled(
        {
            "resourceType": "Bundle",
            "type": "transaction",
            "timestamp": report.made_at.isoformat(),
            "entry": [_entry(name, resource) for name, resource in resources.items()],
        }
    )
    return bundle


def _entry(name: str, resource: Resource) -> Resource:
    kind, own = resource["resourceType"], resource["identifier"][0]
    query = f"identifier={own['system']}|{own['value']}"
    request = {"method": "POST", "url": kind, "ifNoneExist": query}
    return {"fullUrl": name, "resource": resource, "request": request}


def _filled(value: Any) -> Any:
    """Leave out what is not known: FHIR allows no null, no empty text and no empty list."""
    if isinstance(value, dict):
        filled = {key: _filled(item) for key, item in value.items()}
        return {key: item for key, item in filled.items() if item not in _EMPTY}
    if isinstance(value, list | tuple):
        return [item for item in map(_filled, value) if item not in _EMPTY]
    return _CONTROL.sub("", value).strip() if isinstance(value, str) else value


def _file(release: str, bundle: Resource) -> bytes:
    """Write a Bundle, once fhir.resources has found each element as its release wants it."""
    module = "fhir.resources.R4B.bundle" if release == "R4B" else "fhir.resources.bundle"
    try:
        import_module(module).Bundle.model_validate(bundle)
    except ImportError:
        raise ReportError(
            "the format 'fhir' needs fhir.resources, which is not installed; install it with: "
            "pip install 'medllm[clinic]'.",
            code="missing-library",
        ) from None
    except ValidationError as error:
        # The error's own words quote values, which can name a patient.
        places = {".".join(map(str, one["loc"])) for one in error.errors(include_input=False)}
        raise ReportError(
            f"FHIR {release} has no room for what the header or the model's card says at "
            f"{', '.join(sorted(places))}; use html, json or pdf, or correct the header.",
            code="not-fhir",
        ) from None
    # Not by fhir.resources: it writes the integer64 of R5 as a number.
    return (json.dumps(bundle, indent=1, ensure_ascii=False, allow_nan=False) + "\n").encode()
