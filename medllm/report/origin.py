"""What a report follows from, by which its files are told from those of another report."""

from __future__ import annotations

import hashlib
import json

from medllm.models.prediction import FindingPrediction
from medllm.report.document import Report


def made_from(report: Report) -> str:
    """Say what a report follows from; its numbers can differ in the last digit between machines.

    Args:
        report: The report.

    Returns:
        Image, model, version of medllm and what was asked, as one text.
    """
    prediction = report.prediction
    explained = [
        [
            *(why.finding, why.method, why.baseline, why.n_steps, why.against),
            *(other.method for other in why.others),
        ]
        for entry in report.findings
        if (why := entry.explanation) is not None
    ]
    asked = [
        (entry.finding.key, entry.question.calibration.prevalence, *_told(entry.prediction))
        for entry in report.findings
    ]
    pipeline = [(step.name, step.detail) for step in report.scan.pipeline]
    parts = (
        *(report.scan.sha256, prediction.model_sha256, report.software["medllm"]),
        *(pipeline, asked, explained),
    )
    return json.dumps(parts)


def digest(report: Report) -> str:
    """Shorten what a report follows from to a hash, which its HTML, JSON and PDF state.

    Args:
        report: The report.

    Returns:
        SHA-256 in hexadecimal; files that state the same one have the same numbers, and all of
        them name the patient or none does.
    """
    openness = "" if report.identity is None else "named"
    return hashlib.sha256(f"{made_from(report)}{openness}".encode()).hexdigest()


def _told(answer: FindingPrediction) -> tuple[str, ...]:
    """Give the prompt of a model that was told of a patient: another context, another report."""
    return () if answer.without_context is None else (answer.prompt,)
