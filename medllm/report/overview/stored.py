"""`report.json` read back: what an overview of many reports needs of each."""

from __future__ import annotations

import math
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Literal

import numpy as np
from pydantic import AwareDatetime, BaseModel, ConfigDict, Field, PositiveInt, field_validator

from medllm.dicom.radiograph import Gate, Radiograph
from medllm.explanation.record import (
    AttributionMap,
    Check,
    Explanation,
    Layer,
    OtherMethod,
    Region,
    Verdict,
    ZoneEffect,
)
from medllm.models.calibration import Call
from medllm.models.card import Calibration
from medllm.report.sentences import NOT_EXPLAINED


class _Part(BaseModel):
    """A part of the file; keys that are not named here are passed over, identity among them."""

    model_config = ConfigDict(strict=True, frozen=True, allow_inf_nan=False)


class _Patient(_Part):
    age_years: float | None
    sex: str | None


class _Image(_Part):
    file_format: Literal["dicom", "png", "jpeg"]
    sha256: str
    rows: PositiveInt
    columns: PositiveInt
    view_position: str | None
    patient_orientation: tuple[str, str] | None
    sop_instance_uid: str | None
    study_instance_uid: str | None


class _Map(_Part):
    values: list[list[float]]
    box: tuple[float, float, float, float]

    @field_validator("values")
    @classmethod
    def _is_a_table(cls, values: list[list[float]]) -> list[list[float]]:
        if len({len(row) for row in values}) != 1:
            raise ValueError("its rows are not of one length")
        return values


class _Check(_Part):
    name: str
    value: float | None
    reference: str
    passed: bool
    sentence: str

    def record(self) -> Check:
        value = math.nan if self.value is None else self.value
        return Check(self.name, value, self.reference, self.passed, self.sentence)


class _Explanation(_Part):
    against: str | None
    method: str
    layer: Layer
    baseline: str
    n_steps: int
    log_odds: float
    baseline_log_odds: float | None
    completeness_error: float | None
    map: _Map
    regions: tuple[Region, ...]
    zones_from: str
    zone_effects: tuple[ZoneEffect, ...]
    checks: tuple[_Check, ...]
    verdict: Verdict
    seconds: float
    others: tuple[_Other, ...]

    def record(self, finding: str) -> Explanation:
        same: dict[str, Any] = {
            name: getattr(self, name)
            for name in _Explanation.model_fields
            if name not in ("map", "checks", "others")
        }
        return Explanation(
            finding=finding,
            map=AttributionMap(np.array(self.map.values, dtype=np.float64), self.map.box),
            checks=tuple(check.record() for check in self.checks),
            others=tuple(other.record(finding) for other in self.others),
            **same,
        )


class _Other(_Part):
    method: str
    correlation: float | None
    refusal: str
    explanation: _Explanation | None

    def record(self, finding: str) -> OtherMethod:
        explanation = None if self.explanation is None else self.explanation.record(finding)
        return OtherMethod(self.method, explanation, self.correlation, self.refusal)


class StoredFinding(_Part):
    """What a report says of one finding.

    Attributes:
        finding: Key.
        name: Its name at the head of a line.
        log_odds: Before calibration.
        probability: 0 to 1.
        call: By the two thresholds.
        reason: What its explanation is worth, or why there is none, in a sentence.
        calibration: How the log-odds became a probability.
        explanation: As it stands in the file; None where there is none.
    """

    finding: str
    name: str
    log_odds: float
    probability: float
    call: Call
    reason: str
    calibration: Calibration
    explanation: _Explanation | None = None

    @property
    def refusal(self) -> str | None:
        """Why there is no explanation that was asked for; None where there is one, or none was."""
        if self.explanation is not None or not self.reason.startswith(NOT_EXPLAINED):
            return None
        return self.reason.removeprefix(NOT_EXPLAINED)

    def explained(self) -> Explanation | None:
        """Give the explanation, without what it says of the prompt's words.

        Returns:
            The explanation; None where there is none.
        """
        return None if self.explanation is None else self.explanation.record(self.finding)


class _Model(_Part):
    name: str
    version: str
    sha256: str


class StoredReport(_Part):
    """What one `report.json` says, without identity, whatever the file holds.

    Attributes:
        schema_version: Of the file.
        report_id: Names no patient.
        made_at: When it was made.
        made_from: Hash of what decides it; None in files older than it.
        patient: Age and sex.
        image: What the header says of the image.
        input_checks: Every check of the image.
        findings: Positive, indeterminate, negative.
        limitations: Sentences on what it cannot say.
        model: Name, version and hash.
        software: Version of each library.
    """

    schema_version: Literal[1]
    report_id: str
    made_at: AwareDatetime
    made_from: str | None = None
    patient: _Patient
    image: _Image
    input_checks: tuple[Gate, ...]
    findings: tuple[StoredFinding, ...] = Field(min_length=1)
    limitations: tuple[str, ...]
    model: _Model
    software: dict[str, str]

    def scan(self, folder: Path) -> Radiograph:
        """Give what is known of the radiograph; its pixels, which no report holds, are black.

        Args:
            folder: The report's, which stands for the file.

        Returns:
            The radiograph.
        """
        image = self.image
        return Radiograph(
            pixels=np.broadcast_to(np.float32(0), (image.rows, image.columns)),
            path=folder,
            gates=self.input_checks,
            age_years=self.patient.age_years,
            sex=self.patient.sex,
            **image.model_dump(exclude={"rows", "columns"}),
        )


def read_reports(out: Path) -> Iterator[tuple[Path, StoredReport | None]]:
    """Read the reports below a folder, one after the other, for maps can be large.

    Args:
        out: Folder with a folder a report.

    Yields:
        The path of each `report.json` in the order of the names, and what it says; None where it
        is not of medllm, of a later schema, or not whole.
    """
    for path in sorted(out.glob("*/report.json"), key=os.fspath):
        try:
            report = StoredReport.model_validate_json(path.read_bytes())
        except (OSError, ValueError):  # pydantic's own error is one of these
            yield path, None
        else:
            yield path, report
