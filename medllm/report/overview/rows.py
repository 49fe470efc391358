"""The rows of `explanations.parquet`: one a report, finding and attribution method."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from medllm.explanation.record import Explanation
from medllm.report.overview.stored import StoredFinding, StoredReport
from medllm.report.wording import region_key

Row = dict[str, Any]


def rows_of(name: str, report: StoredReport) -> Iterator[Row]:
    """List a report's rows.

    Args:
        name: Folder of the report.
        report: What it says.

    Yields:
        For each finding a row a method, the first before the others; of a finding that was not
        explained one without a method.
    """
    shared = {
        "report": name,
        "report_id": report.report_id,
        "made_at": report.made_at.isoformat(),
        "made_from": report.made_from,
        "image_sha256": report.image.sha256,
        "sop_instance_uid": report.image.sop_instance_uid,
        "study_instance_uid": report.image.study_instance_uid,
        "view_position": report.image.view_position,
        "age_years": report.patient.age_years,
        "sex": report.patient.sex,
        "model_name": report.model.name,
        "model_version": report.model.version,
        "model_sha256": report.model.sha256,
        "medllm_version": report.software.get("medllm"),
    }
    for entry in report.findings:
        answer = {
            "finding": entry.finding,
            "log_odds": entry.log_odds,
            "probability": entry.probability,
            "call": entry.call,
        }
        for row in _by_method(entry):
            yield {**shared, **answer, **row}


def _by_method(entry: StoredFinding) -> Iterator[Row]:
    explanation = entry.explained()
    if explanation is None:
        yield {"refusal": entry.refusal}
        return
    # Of the answer and not of a method: what hiding regions says stands beside each map.
    shared = {
        "against": explanation.against,
        "region_by_hiding": _strongest_by_hiding(explanation),
    }
    yield {**shared, **_row(explanation)}
    for other in explanation.others:
        told = {} if other.explanation is None else _row(other.explanation)
        yield {**shared, "method": other.method, "refusal": other.refusal or None, **told}


def _row(explanation: Explanation) -> Row:
    top = max(explanation.regions, key=lambda part: part.share, default=None)
    found = top if top is not None and top.share > 0 else None
    return {
        "method": explanation.method,
        "verdict": explanation.verdict,
        "region": found and region_key(found),
        "region_share": found and found.share,
        "checks": {check.name: check.value for check in explanation.checks},
        "passed": {check.name: check.passed for check in explanation.checks},
        "completeness_error": explanation.completeness_error,
        "seconds": explanation.seconds,
    }


def _strongest_by_hiding(explanation: Explanation) -> str | None:
    top = max(explanation.zone_effects, key=lambda part: part.shapley, default=None)
    return None if top is None or top.shapley <= 0 else region_key(top)
