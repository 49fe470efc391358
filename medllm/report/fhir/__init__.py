"""The report as FHIR: a Bundle of R4B, which R4 servers take too, and one of R5.

A Bundle is a `transaction` of conditional creations: POST it to a server's base address, and each
resource is made there unless one with its identifier exists. The identifiers follow from image,
model, version of medllm and what was asked. So a second run adds nothing, and nothing is
overwritten: neither an ImagingStudy that the hospital has, nor what a reader has since changed.

All is built in the shape of R5; `r4b` has what R4B says otherwise.
"""

from __future__ import annotations

import json
import re
from importlib import import_module
from typing import Any

from pydantic import ValidationError

from medllm.errors import ReportError
from medllm.report.document import Report
from medllm.report.fhir.context import Context, open_context
from medllm.report.fhir.datatypes import Resource
from medllm.report.fhir.device import device
from medllm.report.fhir.findings import image_region, name_region, observation
from medllm.report.fhir.patient import patient
from medllm.report.fhir.r4b import to_r4b
from medllm.report.fhir.report import diagnostic_report
from medllm.report.fhir.study import imaging_study
from medllm.report.pdf import Printed

_EMPTY: tuple[object, ...] = (None, "", [], {})
# FHIR's texts hold none of these (datatypes, string); a header can.
_CONTROL = re.compile(r"[\x00-\x08\x0b\x0c\x0e-\x1f]")


def encode(report: Report, printed: Printed) -> dict[str, bytes]:
    """Encode a report.

    Args:
        report: The report.
        printed: Gives its PDF.

    Returns:
        A Bundle a release of FHIR, by their paths within the report's folder.

    Raises:
        ReportError: fhir.resources is not installed, or FHIR has no room for what the header or
            the model's card says.
    """
    resources = _resources(open_context(report), printed)
    return {
        "report.fhir-r4b.json": _file("R4B", _bundle(report, to_r4b(resources))),
        "report.fhir-r5.json": _file("R5", _bundle(report, resources)),
    }


def _resources(context: Context, printed: Printed) -> dict[str, Resource]:
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
        context.name("report"): diagnostic_report(context, findings, printed),
        **findings,
        **regions,
        **({context.study: imaging_study(context)} if context.study else {}),
        context.device: device(context),
        context.patient: patient(context),
    }


def _bundle(report: Report, resources: dict[str, Resource]) -> Resource:
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
