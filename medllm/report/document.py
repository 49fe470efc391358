"""The report's content, in the order it is read; it knows no encoding."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from html import escape
from pathlib import Path

from medllm.dicom.header import Identity
from medllm.dicom.radiograph import Gate, Radiograph
from medllm.explanation.overlay import Overlay
from medllm.explanation.record import Check, Explanation
from medllm.findings import Finding
from medllm.models.card import ModelCard, Question
from medllm.models.measured import UsualRange, sentences, usual_values
from medllm.models.prediction import FindingPrediction, Prediction
from medllm.report.sentences import NOT_EXPLAINED
from medllm.report.wording import NOT_CALLED, call_in_words

BANNER = "AI output, research use only, not verified by a radiologist"


@dataclass(frozen=True, eq=False)
class ReportedMethod:
    """The same answer by another method than the report's.

    Attributes:
        method: Key of the method.
        explanation: What it gave; None where it gave none.
        correlation: Pearson's, of its map with that of the report's method; None without a map.
        overlay: The picture; None where there is no map, or where it must not be used.
        withheld: Why there is no picture, in sentences; None where there is one.
    """

    method: str
    explanation: Explanation | None
    correlation: float | None
    overlay: Overlay | None
    withheld: str | None


@dataclass(frozen=True, eq=False)
class ReportedFinding:
    """All that the report says of one finding.

    Attributes:
        finding: Its name, code and urgency.
        question: Question, thresholds and what was measured, from the model's card.
        prediction: Log-odds, probability, call, prompt.
        answer: The call in plain words, as the impression has it.
        reason: What the explanation is worth, and where it points, in plain words.
        explanation: Why the model said so; None where it was not asked for.
        overlay: The picture; None without explanation, or where it must not be used.
        withheld: Why the picture is not drawn, in a sentence; None where it is drawn.
        contrast: What is explained, where that is a difference of two findings; else None.
        others: The same answer by the other methods that were asked for.
    """

    finding: Finding
    question: Question
    prediction: FindingPrediction
    answer: str
    reason: str
    explanation: Explanation | None = None
    overlay: Overlay | None = None
    withheld: str | None = None
    contrast: str | None = None
    others: tuple[ReportedMethod, ...] = ()

    @property
    def call(self) -> str:
        """The call, or `not called`; what is shown and coded, in place of the prediction's."""
        return call_in_words(self.prediction.call, self.question.calibration)

    @property
    def is_called(self) -> bool:
        """Whether thresholds were chosen, so that there is a call."""
        return self.call != NOT_CALLED

    @property
    def is_refused(self) -> bool:
        """Whether an explanation was asked for and could not be given; `reason` says why."""
        return self.reason.startswith(NOT_EXPLAINED)


def usual_ranges(explanation: Explanation, check: Check, card: ModelCard) -> dict[str, UsualRange]:
    """Look up what a check's value usually is.

    Args:
        explanation: The explanation that was checked.
        check: One of its checks.
        card: What was measured of the model's explanations.

    Returns:
        A range a data set; none for a contrast, since single findings were measured.
    """
    if explanation.against is not None:
        return {}
    return usual_values(card.explanations, explanation.method, check.name)


@dataclass(frozen=True, eq=False)
class Report:
    """One radiograph's report.

    Attributes:
        report_id: Follows from the image, the model and the time; names no patient.
        made_at: When it was made, with time zone.
        identity: Who the patient is; None for a pseudonymous report.
        scan: The radiograph.
        prediction: All answers, with the model's card.
        gates: The input checks, failed ones first.
        findings: Positive, indeterminate, not called, negative; the most urgent first within
            each.
        conclusion: What the impression ends with: the negative findings and the scope.
        limitations: Sentences on what the report cannot say.
        software: Version of each library that took part.
    """

    report_id: str
    made_at: datetime
    identity: Identity | None
    scan: Radiograph
    prediction: Prediction
    gates: tuple[Gate, ...]
    findings: tuple[ReportedFinding, ...]
    conclusion: tuple[str, ...]
    limitations: tuple[str, ...]
    software: Mapping[str, str]

    def __repr__(self) -> str:
        """Name the report and each answer; a notebook without HTML shows this."""
        return f"Report({self.report_id}: {', '.join(self.prediction.in_words())})"

    def _repr_html_(self) -> str:
        """Show the report in a notebook, in a frame that keeps its styles and script in."""
        from medllm.report.html import encode

        page = escape(encode(self).decode())
        return (
            f'<iframe srcdoc="{page}" sandbox="allow-scripts allow-modals allow-downloads" '
            'width="100%" height="800" style="border: 0"></iframe>'
        )

    @property
    def raised(self) -> tuple[ReportedFinding, ...]:
        """The findings that are positive or indeterminate, or not called."""
        return tuple(entry for entry in self.findings if entry.call != "negative")

    @property
    def impression(self) -> tuple[str, ...]:
        """What was found, a text a finding that is positive or indeterminate, and the rest."""
        return (*(f"{entry.answer} {entry.reason}" for entry in self.raised), *self.conclusion)

    @property
    def explained(self) -> tuple[ReportedFinding, ...]:
        """The findings with an explanation."""
        return tuple(entry for entry in self.findings if entry.explanation is not None)

    @property
    def measured(self) -> tuple[str, ...]:
        """What explanations by this report's methods were measured to find, in sentences."""
        card, used = self.prediction.card, dict[str, list[str]]()
        for entry in self.explained:
            # Measured was how well maps find a finding; a contrast's is not of one.
            if entry.explanation is not None and entry.explanation.against is None:
                used.setdefault(entry.explanation.method, []).append(entry.finding.key)
        return (*card.explanation_measurements, *sentences(card.explanations, used))

    @property
    def failed_gates(self) -> tuple[Gate, ...]:
        """The input checks that the image did not pass."""
        return tuple(gate for gate in self.gates if not gate.passed)

    def write(
        self, out_dir: str | Path, formats: Sequence[str] = ("html", "json")
    ) -> dict[str, tuple[Path, ...]]:
        """Write the report; a file is there whole or not at all, and all formats or none.

        Args:
            out_dir: Folder to write to; made where it is missing. It holds one report: files of a
                report of another image, model or question are removed from it, and a warning
                logged, once the new ones are there. Other formats of the same report stay.
            formats: `html`, `json`, `pdf`, `pdf-letter`, `fhir`, and `dicom`, which wants a DICOM
                radiograph; one may stand by itself.

        Returns:
            The files written for each format.

        Raises:
            ReportError: A format is unknown, cannot hold this report or wants a library that is not
                installed, or the folder cannot be written to.
        """
        # The encoders need this module, and a report that is not written needs no encoder.
        from medllm.report.formats import write

        return write(self, Path(out_dir), [formats] if isinstance(formats, str) else formats)
