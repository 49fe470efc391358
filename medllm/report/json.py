"""The report as JSON, after `docs/reference/report.schema.json`."""

from __future__ import annotations

import json
import math
from dataclasses import asdict
from typing import Any

from medllm.explanation.record import Check, Explanation
from medllm.models.card import Measurement, ModelCard
from medllm.report import wording
from medllm.report.document import BANNER, Report, ReportedFinding, usual_ranges
from medllm.report.origin import digest

SCHEMA_VERSION = 1


def encode(report: Report) -> bytes:
    """Encode a report.

    Args:
        report: The report.

    Returns:
        UTF-8; numbers are whole, not rounded.
    """
    # json would write a NaN, which no other reader takes.
    text = json.dumps(as_dict(report), indent=1, ensure_ascii=False, allow_nan=False)
    return (text + "\n").encode()


def as_dict(report: Report) -> dict[str, Any]:
    """Give a report's content as JSON values.

    Args:
        report: The report.

    Returns:
        What the file holds.
    """
    scan, prediction = report.scan, report.prediction
    content = {
        "schema_version": SCHEMA_VERSION,
        "report_id": report.report_id,
        "made_at": report.made_at.isoformat(),
        "made_from": digest(report),
        "banner": BANNER,
        "patient": {
            "age_years": scan.age_years,
            "sex": scan.sex,
            "identity": asdict(report.identity) if report.identity is not None else None,
        },
        "image": {
            "file_format": scan.file_format,
            "sha256": scan.sha256,
            "rows": scan.rows,
            "columns": scan.columns,
            "pixel_spacing_mm": scan.pixel_spacing_mm,
            "spacing_source": scan.spacing_source,
            "modality": scan.modality,
            "view_position": scan.view_position,
            "laterality": scan.laterality,
            "patient_orientation": scan.patient_orientation,
            "body_part_examined": scan.body_part_examined,
            "sop_class_uid": scan.sop_class_uid,
            "sop_instance_uid": scan.sop_instance_uid,
            "series_instance_uid": scan.series_instance_uid,
            "study_instance_uid": scan.study_instance_uid,
        },
        "impression": report.impression,
        "input_checks": [asdict(gate) for gate in report.gates],
        "pixel_pipeline": [asdict(step) for step in scan.pipeline],
        "findings": [_finding(entry, prediction.card) for entry in report.findings],
        "limitations": report.limitations,
        "model": {
            "name": prediction.model_name,
            "version": prediction.card.version,
            "sha256": prediction.model_sha256,
            "description": prediction.card.description,
            "intended_use": prediction.card.intended_use,
            "training_data": prediction.card.training_data,
            "explanation_measurements": report.measured,
            "preprocessing": asdict(prediction.card.preprocessing),
        },
        "software": dict(report.software),
    }
    return {key: _defined(value) for key, value in content.items()}


def _finding(entry: ReportedFinding, card: ModelCard) -> dict[str, Any]:
    answer, question = entry.prediction, entry.question
    result: dict[str, Any] = {
        "finding": answer.finding,
        "name": wording.title(entry.finding),
        "code": asdict(entry.finding.code) if entry.finding.code else None,
        "radlex": entry.finding.radlex,
        "log_odds": answer.log_odds,
        "log_odds_without_context": answer.without_context,
        "probability": answer.probability,
        "call": answer.call,
        "answer": entry.answer,
        "reason": entry.reason,
        "calibration": asdict(question.calibration),
        "measurements": [_whole(one) for one in question.measurements if not one.subgroup],
        "prompt": answer.prompt,
        "paraphrases": answer.paraphrases,
        "yes": answer.yes,
        "no": answer.no,
    }
    if entry.explanation is not None:
        result["explanation"] = _explanation(entry.explanation, card)
    return result


def _whole(measurement: Measurement) -> dict[str, Any]:
    """Write out what was measured on a whole set; subgroups are in the model's card."""
    values = asdict(measurement)
    del values["subgroup"]
    return values


def _explanation(explanation: Explanation, card: ModelCard) -> dict[str, Any]:
    values = explanation.map.values

    def usual(check: Check) -> dict[str, Any]:
        found = usual_ranges(explanation, check, card)
        return {name: asdict(one) for name, one in found.items()}

    return {
        "against": explanation.against,
        "method": explanation.method,
        "layer": explanation.layer,
        "baseline": explanation.baseline,
        "n_steps": explanation.n_steps,
        "log_odds": explanation.log_odds,
        "baseline_log_odds": explanation.baseline_log_odds,
        "completeness_error": explanation.completeness_error,
        "map": {
            "rows": values.shape[0],
            "columns": values.shape[1],
            "values": values.tolist(),
            "box": explanation.map.box,
        },
        "regions": [asdict(part) for part in explanation.regions],
        "zones_from": explanation.zones_from,
        "zone_effects": [asdict(part) for part in explanation.zone_effects],
        "tokens": [asdict(token) for token in explanation.tokens],
        "tokens_completeness_error": explanation.tokens_completeness_error,
        "checks": [{**asdict(check), "usual": usual(check)} for check in explanation.checks],
        "verdict": explanation.verdict,
        "seconds": explanation.seconds,
        "others": [
            {
                "method": other.method,
                "correlation": other.correlation,
                "refusal": other.refusal,
                "explanation": other.explanation and _explanation(other.explanation, card),
            }
            for other in explanation.others
        ],
    }


def _defined(value: Any) -> Any:
    """Give null for each number that is not finite; JSON has no NaN."""
    if isinstance(value, dict):
        return {key: _defined(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_defined(item) for item in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value
