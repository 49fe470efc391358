"""The record of what a model said of one radiograph."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from medllm.dicom.radiograph import Gate, Radiograph
from medllm.errors import CheckpointError, LabelError
from medllm.models.calibration import Call, call_of, probability_of
from medllm.models.card import UNFITTED, Calibration, ModelCard, Question

if TYPE_CHECKING:
    from medllm.models.model import Model


@dataclass(frozen=True)
class FindingPrediction:
    """The answer to one closed question.

    Attributes:
        finding: Key of the finding.
        log_odds: logsumexp(yes words) - logsumexp(no words) at the answer position, before
            calibration; positive speaks for the finding. It is the number that is explained.
        probability: Calibrated probability, 0 to 1.
        call: `negative` below the lower threshold, `positive` from the upper one on.
        prompt: The prompt exactly as the model was given it, image placeholder included.
        yes: Answer words that speak for the finding.
        no: Answer words that speak against it.
        paraphrases: Other words in which it was asked, in the same prompt; the log-odds are the
            mean over all.
        without_context: The log-odds had the model been told nothing of the patient; None where it
            was told nothing.
    """

    finding: str
    log_odds: float
    probability: float
    call: Call
    prompt: str
    yes: tuple[str, ...]
    no: tuple[str, ...]
    paraphrases: tuple[str, ...] = ()
    without_context: float | None = None


@dataclass(frozen=True)
class Prediction:
    """All answers for one radiograph.

    Attributes:
        path: File the radiograph came from.
        sop_instance_uid: Its SOP Instance UID; None for PNG and JPEG.
        image_sha256: The radiograph's hash, which tells images that lie in one file.
        model_name: Name of the checkpoint.
        model_sha256: Hash of the checkpoint.
        card: What the checkpoint says of itself: thresholds, figures measured, limits.
        findings: One entry a question, in the order they were asked.
        warnings: The gates that were not passed.
    """

    path: str
    sop_instance_uid: str | None
    image_sha256: str
    model_name: str
    model_sha256: str
    card: ModelCard
    findings: tuple[FindingPrediction, ...]
    warnings: tuple[Gate, ...] = ()

    def __getitem__(self, finding: str) -> FindingPrediction:
        """Give the answer for one finding.

        Args:
            finding: Its key.

        Returns:
            The answer.

        Raises:
            LabelError: The finding was not asked for.
        """
        for answer in self.findings:
            if answer.finding == finding:
                return answer
        asked = ", ".join(answer.finding for answer in self.findings)
        raise LabelError(
            f"the prediction has no answer for '{finding}'; it has those for: {asked}.",
            code="unknown-finding",
        )

    def as_rows(self) -> list[dict[str, str | float]]:
        """Give a row a finding, such as for a table of pandas.

        Returns:
            Path, finding, log-odds, probability and call of each answer.

        Example:
            >>> rows = [row for one in model.predict(scans) for row in one.as_rows()]
            ... # doctest: +SKIP
        """
        return [
            {
                "path": self.path,
                "finding": answer.finding,
                "log_odds": answer.log_odds,
                "probability": answer.probability,
                "call": answer.call,
            }
            for answer in self.findings
        ]

    def __repr__(self) -> str:
        """Name the file and each answer; a notebook shows this."""
        return f"Prediction({Path(self.path).name}: {', '.join(self.in_words())})"

    def in_words(self) -> tuple[str, ...]:
        """Say each answer in one line.

        Returns:
            Finding, probability and call of each, such as `pneumonia 0.95 positive`, and whether
            the probability is the model's own, uncalibrated.
        """
        fitted = {question.finding: question.calibration for question in self.card.questions}
        return tuple(
            _in_words(answer, fitted.get(answer.finding, UNFITTED)) for answer in self.findings
        )


def prediction_of(
    model: Model,
    scan: Radiograph,
    questions: Sequence[Question],
    log_odds: Sequence[float],
    without_context: Sequence[float | None],
) -> Prediction:
    """Make the record of what a model said of one radiograph.

    Args:
        model: The model.
        scan: The radiograph.
        questions: What it was asked, each with what it wrote before it answered.
        log_odds: Its answers, in their order.
        without_context: Those without what it was told of the patient; None where that was nothing.

    Returns:
        The record.

    Raises:
        CheckpointError: An answer is no finite number.
    """
    answers = []
    for question, value, alone in zip(questions, log_odds, without_context, strict=True):
        if not math.isfinite(value):
            # Display values are finite, whatever the file holds.
            raise CheckpointError(
                f"'{model.card.name}' answers for {question.finding} with log-odds of {value}; "
                "wanted is a finite number. Where it does so for other radiographs too, its "
                "weights are damaged: fetch it again.",
                code="not-finite",
            )
        probability = probability_of(value, question.calibration)
        answers.append(
            FindingPrediction(
                finding=question.finding,
                log_odds=value,
                probability=probability,
                call=call_of(probability, question.calibration),
                prompt=model.prompt(question),
                yes=question.yes,
                no=question.no,
                paraphrases=question.paraphrases,
                without_context=alone,
            )
        )
    return Prediction(
        path=str(scan.path),
        sop_instance_uid=scan.sop_instance_uid,
        image_sha256=scan.sha256,
        model_name=model.card.name,
        model_sha256=model.sha256,
        card=model.card,
        findings=tuple(answers),
        warnings=scan.warnings,
    )


def _in_words(answer: FindingPrediction, calibration: Calibration) -> str:
    told = f"{answer.finding} {_said(answer.probability, calibration)} {answer.call}"
    if answer.without_context is not None:
        alone = probability_of(answer.without_context, calibration)
        told += f", without the context {_said(alone, calibration)}"
    return told if calibration.is_fitted else f"{told}, uncalibrated"


def _said(probability: float, calibration: Calibration) -> str:
    """Say a probability so that it can be told from a threshold that it is below."""
    for edge in (calibration.low, calibration.high):
        if probability < edge < 1 and f"{probability:.2f}" == f"{edge:.2f}":
            for digits in range(3, 7):
                said, bound = f"{probability:.{digits}f}", f"{edge:.{digits}f}"
                if said != bound and float(said):
                    return f"{said} (below {bound})"
            return f"{probability:.2g} (just below {edge:.2g})"
    if probability < 0.005:
        return "<0.01"
    return f"{probability:.2f}" if probability < 0.995 else ">0.99"
