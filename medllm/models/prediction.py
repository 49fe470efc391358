"""The record of what a model said of one radiograph."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from medllm.dicom.radiograph import Gate
from medllm.models.card import ModelCard

Call = Literal["negative", "indeterminate", "positive"]


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
    """

    finding: str
    log_odds: float
    probability: float
    call: Call
    prompt: str
    yes: tuple[str, ...]
    no: tuple[str, ...]
    paraphrases: tuple[str, ...] = ()


@dataclass(frozen=True)
class Prediction:
    """All answers for one radiograph.

    Attributes:
        path: File the radiograph came from.
        sop_instance_uid: Its SOP Instance UID; None for PNG and JPEG.
        model_name: Name of the checkpoint.
        model_sha256: Hash of the checkpoint.
        card: What the checkpoint says of itself: thresholds, figures measured, limits.
        findings: One entry a question, in the order they were asked.
        warnings: The gates that were not passed.
    """

    path: str
    sop_instance_uid: str | None
    model_name: str
    model_sha256: str
    card: ModelCard
    findings: tuple[FindingPrediction, ...]
    warnings: tuple[Gate, ...] = ()
