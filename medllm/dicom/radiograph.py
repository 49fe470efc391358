"""The record that every other part of medllm takes: one radiograph, ready to look at."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import numpy as np
from jaxtyping import Float32

Severity = Literal["error", "warning"]


@dataclass(frozen=True)
class Gate:
    """One check that an image had to pass before it may be scored.

    Attributes:
        code: Stable lower-case name, such as `lateral-view`.
        severity: `error` refuses the image, `warning` travels with it into every output.
        passed: Whether the image passed.
        message: What was found and what to do about it; without identity of a patient.
    """

    code: str
    severity: Severity
    passed: bool
    message: str


@dataclass(frozen=True)
class PixelStep:
    """One step from stored to display values.

    Attributes:
        name: `decode`, `padding`, `modality-lut`, `rescale`, `voi-lut`, `window`,
            `percentile-window`, `polarity` or `scale`.
        detail: Parameters in words, such as `center 2048, width 4096, LINEAR`.
        numbers: Parameters as numbers: slope and intercept of `rescale`, center and width of
            `window`, the modality values that become 0 and 1 of `percentile-window`, the input
            of the first entry of `modality-lut` and `voi-lut`; of `polarity` 1 where the grey
            scale was inverted, else 0.
    """

    name: str
    detail: str
    numbers: tuple[float, ...] = ()


@dataclass(frozen=True, eq=False)
class Radiograph:
    """A projection radiograph as a reader would see it, with nothing that identifies the patient.

    Attributes:
        pixels: Display values in [0, 1]; low is air (dark), high is dense (bright).
        path: File it was read from.
        file_format: `dicom`, `png` or `jpeg`.
        sha256: Hash of the file's bytes.
        pipeline: What was done to the stored values, in order.
        gates: Every check made, passed or not; failed errors are here only when they were
            accepted explicitly.
        pixel_spacing_mm: Row and column spacing in mm at the patient or, failing that, at
            the imager; None where the header gives none that is positive.
        spacing_source: Keyword of the attribute `pixel_spacing_mm` comes from.
        modality: Modality (0008,0060).
        view_position: View Position (0018,5101), upper case; None where a word of it is none of
            the standard: a name can stand there by mistake.
        laterality: Image Laterality or Laterality, `R`, `L` or `B`.
        patient_orientation: Patient Orientation (0020,0020): direction of the rows (left to
            right) and of the columns (top to bottom).
        age_years: Age; 90 stands for everybody over 89.
        sex: `M`, `F` or `O`.
        body_part_examined: Body Part Examined (0018,0015), likewise.
        sop_class_uid: SOP Class UID (0008,0016).
        sop_instance_uid: SOP Instance UID (0008,0018).
        series_instance_uid: Series Instance UID (0020,000E).
        study_instance_uid: Study Instance UID (0020,000D).
    """

    pixels: Float32[np.ndarray, "rows columns"]
    path: Path
    file_format: Literal["dicom", "png", "jpeg"]
    sha256: str
    pipeline: tuple[PixelStep, ...] = ()
    gates: tuple[Gate, ...] = ()
    pixel_spacing_mm: tuple[float, float] | None = None
    spacing_source: str | None = None
    modality: str | None = None
    view_position: str | None = None
    laterality: str | None = None
    patient_orientation: tuple[str, str] | None = None
    age_years: float | None = None
    sex: str | None = None
    body_part_examined: str | None = None
    sop_class_uid: str | None = None
    sop_instance_uid: str | None = None
    series_instance_uid: str | None = None
    study_instance_uid: str | None = None

    def __repr__(self) -> str:
        """Name the file and its size; a notebook shows this."""
        return f"Radiograph({self.path.name}: {self.file_format} {self.rows} x {self.columns})"

    @property
    def rows(self) -> int:
        """Number of pixel rows."""
        return int(self.pixels.shape[0])

    @property
    def columns(self) -> int:
        """Number of pixel columns."""
        return int(self.pixels.shape[1])

    @property
    def warnings(self) -> tuple[Gate, ...]:
        """The checks that were not passed, in the order they were made."""
        return tuple(gate for gate in self.gates if not gate.passed)

    @property
    def is_lateral(self) -> bool:
        """Whether the header says that the view is lateral; a picture has none to say so."""
        return any(gate.code == "lateral-view" for gate in self.warnings)
