"""The findings of a report as FHIR Observations, and their regions as ImagingSelections, of R5."""

from __future__ import annotations

import math
from collections.abc import Iterator

import numpy as np
from jaxtyping import Float64
from pydicom.sr.coding import Code

from medllm.dicom.radiograph import Radiograph
from medllm.explanation.overlay import in_source_pixels
from medllm.explanation.record import Check
from medllm.findings import finding as look_up
from medllm.report import sentences, wording
from medllm.report.dicom import codes
from medllm.report.document import BANNER, ReportedFinding
from medllm.report.fhir.context import Context, sop_class, study_date
from medllm.report.fhir.datatypes import HL7, Resource, coding, concept, usable_uid

_IMAGING = coding(HL7 + "observation-category", "imaging", "Imaging")
_CHEST = coding("SCT", "51185008", "Thoracic structure")
_INTERPRETATIONS = {"positive": "POS", "negative": "NEG", "indeterminate": "IND"}
_UCUM = "http://unitsofmeasure.org"


def observation(context: Context, entry: ReportedFinding) -> Resource:
    """Say what the model found of one finding.

    Args:
        context: The report.
        entry: The finding.

    Returns:
        The Observation.
    """
    code = entry.finding.code
    notes = (BANNER, f"{entry.answer} {entry.reason}", entry.contrast, entry.withheld)
    region = name_region(context, entry)
    return {
        "resourceType": "Observation",
        **context.made(context.name("finding", entry.finding.key)),
        "status": "preliminary",
        "category": [concept(None, _IMAGING)],
        "code": concept(
            wording.title(entry.finding),
            *([coding(code.scheme, code.value, code.meaning)] if code else []),
        ),
        "effectiveDateTime": study_date(context),
        **_call(entry),
        "note": [{"text": text} for text in notes if text],
        "bodySite": concept(None, _CHEST),
        "method": concept(f"Log-odds of a model's answer to: {entry.question.text}"),
        "device": {"reference": context.device},
        "derivedFrom": [context.image, *([{"reference": region}] if region else [])],
        "component": [*_answer(entry), *_worth(entry, context.report.scan)],
    }


def name_region(context: Context, entry: ReportedFinding) -> str | None:
    """Name the region of a finding.

    Args:
        context: The report.
        entry: The finding.

    Returns:
        The name; None where there is no region: the map must not be used, raises the finding
        nowhere, or is of an image that cannot be referred to.
    """
    image = context.study and usable_uid(context.report.scan.sop_instance_uid)
    lines = entry.overlay.raising if entry.overlay else ()
    return context.name("region", entry.finding.key) if image and lines else None


def image_region(context: Context, entry: ReportedFinding, name: str) -> Resource:
    """Outline the smallest area that holds half of what raises a finding.

    Args:
        context: The report, of an image that can be referred to.
        entry: A finding with a region.
        name: Name of the region.

    Returns:
        The ImagingSelection.
    """
    scan, explanation, overlay = context.report.scan, entry.explanation, entry.overlay
    if explanation is None or overlay is None:
        raise ValueError(f"'{entry.finding.key}' has no overlay, so that it has no region.")
    return {
        "resourceType": "ImagingSelection",
        **context.made(name),
        "status": "available",
        "performer": [{"actor": {"reference": context.device}}],
        "code": concept(
            f"Smallest area with half of what raises {wording.subject(explanation)}, by "
            f"{explanation.method}",
            coding("DCM", "111030", "Image Region"),
        ),
        "studyUid": scan.study_instance_uid,
        "derivedFrom": [context.image],
        "seriesUid": usable_uid(scan.series_instance_uid),
        "instance": [
            {
                "uid": scan.sop_instance_uid,
                "sopClass": sop_class(context),
                "imageRegion2D": [
                    {"regionType": "polyline", "coordinate": _coordinates(line, scan)}
                    for line in in_source_pixels(overlay.raising, scan.rows, scan.columns)
                ],
            }
        ],
    }


def _coordinates(line: Float64[np.ndarray, "points 2"], scan: Radiograph) -> list[float]:
    """Give column and row of each point, within the image."""
    points = np.clip(line, 0, (scan.columns, scan.rows))
    return [round(float(value), 2) for value in points.ravel()]  # a hundredth of a pixel


def _call(entry: ReportedFinding) -> Resource:
    """Code the call, or that there is none: the model is not capable of one."""
    if not entry.is_called:
        missing = coding(HL7 + "data-absent-reason", "unsupported", "Unsupported")
        return {"dataAbsentReason": concept("not called: no threshold was chosen", missing)}
    call = entry.prediction.call
    interpretation = coding(
        HL7 + "v3-ObservationInterpretation", _INTERPRETATIONS[call], call.capitalize()
    )
    return {
        "valueCodeableConcept": concept(call, _coded(codes.presence_code(call))),
        "interpretation": [concept(None, interpretation)],
    }


def _answer(entry: ReportedFinding) -> Iterator[Resource]:
    said, calibration = entry.prediction, entry.question.calibration
    probability = concept("probability", _coded(codes.PROBABILITY))
    yield _number(probability, said.probability, "1")
    yield _number(concept("log-odds, uncalibrated"), said.log_odds, "1")
    if entry.is_called:
        yield _number(concept("threshold: negative below"), calibration.low, "1")
        yield _number(concept("threshold: positive from"), calibration.high, "1")
    yield _words("calibration fitted on", calibration.fitted_on)
    if calibration.prevalence is not None:
        yield _number(concept("prevalence supposed"), calibration.prevalence, "1")


def _worth(entry: ReportedFinding, scan: Radiograph) -> Iterator[Resource]:
    """Say what the explanation is worth, and where it points where it may be used."""
    explanation = entry.explanation
    if explanation is None:
        return
    yield _words("explanation: verdict", explanation.verdict)
    yield _words("explanation: method", explanation.method)
    if explanation.against is not None:
        yield _words("explanation: rather than", look_up(explanation.against).name)
        difference = concept("explanation: difference of log-odds")
        yield _number(difference, explanation.log_odds, "1")
    if explanation.verdict != "do not use":
        yield _words("explanation: place", sentences.place(explanation, scan))
    yield from (_check(check) for check in explanation.checks)


def _check(check: Check) -> Resource:
    return {
        **_number(concept(f"check: {check.name}"), check.value, None),
        "interpretation": [concept("passed" if check.passed else "not passed")],
        "referenceRange": [{"text": check.reference}],
    }


def _coded(code: Code) -> Resource:
    return coding(code.scheme_designator, code.value, code.meaning)


def _words(what: str, value: str) -> Resource:
    return {"code": concept(what), "valueString": value}


def _number(code: Resource, value: float, unit: str | None) -> Resource:
    if not math.isfinite(value):
        return {"code": code, "dataAbsentReason": concept(None, _absent(value))}
    coded = {"unit": unit, "system": _UCUM, "code": unit} if unit else {}
    return {"code": code, "valueQuantity": {"value": float(value), **coded}}


def _absent(value: float) -> Resource:
    infinite = "positive-infinity" if value > 0 else "negative-infinity"
    return coding(HL7 + "data-absent-reason", "not-a-number" if math.isnan(value) else infinite)
