"""From a radiograph, its prediction and explanations to the report's content."""

from __future__ import annotations

import hashlib
import math
import platform
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from importlib import metadata
from pathlib import Path

import numpy as np

from medllm.dicom.header import Identity
from medllm.dicom.radiograph import Gate, Radiograph
from medllm.errors import ReportError
from medllm.explanation.overlay import Overlay, draw_overlay
from medllm.explanation.record import Explanation, OtherMethod
from medllm.findings import finding
from medllm.models.card import Question
from medllm.models.prediction import FindingPrediction, Prediction
from medllm.report import sentences, wording
from medllm.report.document import Report, ReportedFinding, ReportedMethod

_CALL_ORDER = tuple(wording.MARKS)

# An explanation recomputes the log-odds in another batch; a hundredth is the last digit printed.
_SAME_LOG_ODDS = 0.01

_SOFTWARE = ("medllm", "torch", "transformers", "captum", "monai", "pydicom", "numpy")

_LIMITATIONS = (
    "This report is research output. It is not a diagnosis and must not guide the care of a "
    "patient.",
    "A negative call does not exclude disease, and findings that are not listed were not looked "
    "for.",
    "An attribution map shows where the model's answer came from. It does not outline disease, "
    "and it can miss it.",
)


def build_report(
    scan: Radiograph,
    prediction: Prediction,
    explanations: Explanation | Sequence[Explanation] = (),
    *,
    refused: Mapping[str, str] | None = None,
    identity: Identity | None = None,
    made_at: datetime | None = None,
) -> Report:
    """Put a radiograph's report together.

    Args:
        scan: The radiograph.
        prediction: What the model said of it.
        explanations: Why, at most one per finding; one may stand by itself.
        refused: By finding, why there is no explanation that was asked for, in a sentence.
        identity: Who the patient is, from `medllm.dicom.read_identity`, to be printed at the
            head; None, the default, leaves the report pseudonymous.
        made_at: Time of the report, with time zone; now when None.

    Returns:
        The report, ready to be written.

    Raises:
        ReportError: The parts are not of one radiograph, or do not fit each other.
        ValueError: `made_at` has no time zone.
    """
    made_at = made_at or datetime.now(UTC).astimezone()
    if made_at.tzinfo is None:
        raise ValueError("made_at has no time zone; pass one, such as datetime.now(UTC).")
    _check_same_image(scan, prediction)
    if isinstance(explanations, Explanation):
        explanations = [explanations]
    explained = _by_finding(explanations, prediction)
    findings = _report_findings(scan, prediction, explained, refused or {})
    return Report(
        report_id=_report_id(scan, prediction, made_at),
        made_at=made_at,
        identity=identity,
        scan=scan,
        prediction=prediction,
        gates=_gates(scan, prediction),
        findings=findings,
        conclusion=_conclusion(findings),
        limitations=_LIMITATIONS + prediction.card.limitations,
        software=_software(),
    )


def _check_same_image(scan: Radiograph, prediction: Prediction) -> None:
    # Paths can hold names and stay out of the message.
    if prediction.image_sha256 != scan.sha256 or Path(prediction.path) != scan.path:
        raise ReportError(
            "the prediction is of another image than the radiograph; predict this radiograph.",
            code="mixed-images",
        )


def _by_finding(
    explanations: Sequence[Explanation], prediction: Prediction
) -> dict[str, Explanation]:
    predicted = {entry.finding: entry for entry in prediction.findings}
    result: dict[str, Explanation] = {}
    for explanation in explanations:
        key = explanation.finding
        if key not in predicted:
            raise ReportError(
                f"an explanation is of '{key}', which the prediction does not answer; it answers "
                f"{', '.join(predicted)}.",
                code="mixed-findings",
            )
        if key in result:
            raise ReportError(
                f"'{key}' has two explanations; a report shows one a finding.",
                code="mixed-findings",
            )
        beside = [other.explanation for other in explanation.others if other.explanation]
        for one in (explanation, *beside):
            _check_same_answer(one, predicted)
        result[key] = explanation
    return result


def _check_same_answer(
    explanation: Explanation, predicted: Mapping[str, FindingPrediction]
) -> None:
    key, against = explanation.finding, explanation.against
    said = predicted[key].log_odds
    if against is not None:
        if against not in predicted:
            raise ReportError(
                f"'{key}' is explained against '{against}', which the prediction does not answer; "
                f"it answers {', '.join(predicted)}.",
                code="mixed-findings",
            )
        said -= predicted[against].log_odds
    # Written so that a NaN is refused too.
    if not abs(explanation.log_odds - said) <= _SAME_LOG_ODDS:
        what = f"'{key}'" + (f" against '{against}'" if against else "")
        raise ReportError(
            f"the explanation of {what} is of log-odds {explanation.log_odds:.3f}, the "
            f"prediction's are {said:.3f}; explain this radiograph with this model.",
            code="mixed-images",
        )
    if not np.isfinite(explanation.map.values).all():
        raise ReportError(
            f"the map of '{key}' has values that are not finite; explain it with another method.",
            code="not-a-number",
        )


def _report_findings(
    scan: Radiograph,
    prediction: Prediction,
    explanations: Mapping[str, Explanation],
    refused: Mapping[str, str],
) -> tuple[ReportedFinding, ...]:
    questions = {question.finding: question for question in prediction.card.questions}
    answers = {answer.finding: answer for answer in prediction.findings}
    entries = []
    for answer in prediction.findings:
        if answer.finding not in questions:
            raise ReportError(
                f"the model's card has no question for '{answer.finding}'; report a prediction "
                f"of the model the card belongs to.",
                code="mixed-findings",
            )
        if not (math.isfinite(answer.log_odds) and 0 <= answer.probability <= 1):
            raise ReportError(
                f"'{answer.finding}' has log-odds {answer.log_odds} and probability "
                f"{answer.probability}; a report needs finite log-odds and a probability in 0 "
                f"to 1.",
                code="not-a-number",
            )
        explanation = explanations.get(answer.finding)
        against = answers.get(explanation.against or "") if explanation else None
        question = questions[answer.finding]
        why_not = refused.get(answer.finding, "")
        entries.append(_report_finding(scan, question, answer, explanation, against, why_not))
    return tuple(sorted(entries, key=_reading_order))


def _report_finding(
    scan: Radiograph,
    question: Question,
    answer: FindingPrediction,
    explanation: Explanation | None,
    against: FindingPrediction | None,
    why_not: str,
) -> ReportedFinding:
    what = finding(answer.finding)
    overlay, withheld = _drawn(scan, explanation, answer) if explanation else (None, None)
    return ReportedFinding(
        finding=what,
        question=question,
        prediction=answer,
        answer=sentences.answer(what, question, answer),
        reason=sentences.reason(explanation, scan, why_not),
        explanation=explanation,
        overlay=overlay,
        withheld=withheld,
        contrast=sentences.contrast(answer, against) if against else None,
        others=tuple(
            _report_method(scan, other, answer)
            for other in (explanation.others if explanation else ())
        ),
    )


def _report_method(
    scan: Radiograph, other: OtherMethod, answer: FindingPrediction
) -> ReportedMethod:
    explanation = other.explanation
    overlay, withheld = _drawn(scan, explanation, answer) if explanation else (None, other.refusal)
    return ReportedMethod(other.method, explanation, other.correlation, overlay, withheld)


def _drawn(
    scan: Radiograph, explanation: Explanation, answer: FindingPrediction
) -> tuple[Overlay | None, str | None]:
    """Draw the map, or say why it must not be used."""
    if explanation.verdict == "do not use":
        return None, sentences.why_withheld(explanation, answer)
    return draw_overlay(scan, explanation.map), None


def _reading_order(entry: ReportedFinding) -> tuple[int, int, float]:
    return (
        _CALL_ORDER.index(entry.call),
        entry.finding.urgency,
        -entry.prediction.probability,
    )


def _gates(scan: Radiograph, prediction: Prediction) -> tuple[Gate, ...]:
    """Join the image's and the model's checks, failed first; refused before warned."""
    added = tuple(gate for gate in prediction.warnings if gate not in scan.gates)
    return tuple(
        sorted(scan.gates + added, key=lambda gate: (gate.passed, gate.severity != "error"))
    )


def _conclusion(findings: Sequence[ReportedFinding]) -> tuple[str, ...]:
    calm = [entry for entry in findings if entry.call == "negative"]
    negative = [
        sentences.negative(entry.finding, entry.question, entry.prediction) for entry in calm
    ]
    said = []
    if len(negative) == len(findings):
        said.append("No finding is positive or indeterminate.")
    if negative:
        supposing = wording.supposing(*(entry.question.calibration for entry in calm))
        said.append(f"Negative, with probability{supposing}: {', '.join(negative)}.")
    said.append("Only the findings listed here were looked for.")
    return tuple(said)


def _report_id(scan: Radiograph, prediction: Prediction, made_at: datetime) -> str:
    parts = f"{scan.sha256} {prediction.model_sha256} {made_at.isoformat()}"
    return "R-" + hashlib.sha256(parts.encode()).hexdigest()[:12]


def _software() -> dict[str, str]:
    return {name: metadata.version(name) for name in _SOFTWARE} | {
        "python": platform.python_version()
    }
