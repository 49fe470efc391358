"""The records of a phantom: what was asked for and what was made."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
from jaxtyping import Bool, Float32

Side = Literal["right", "left"]
Zone = Literal["upper", "middle", "lower"]
View = Literal["PA", "AP"]
AgeGroup = Literal["child", "adult"]

PHANTOM_FINDINGS: tuple[str, ...] = (
    "lung_opacity",
    "effusion",
    "cardiomegaly",
    "pneumothorax",
    "nodule",
)
"""The findings that a phantom can show; keys of `medllm.findings.FINDINGS`."""

_SIDED = {"lung_opacity", "effusion", "pneumothorax", "nodule"}
_ZONED = {"lung_opacity", "nodule"}


@dataclass(frozen=True)
class Lesion:
    """One lesion to put into a phantom.

    Attributes:
        finding: One of `PHANTOM_FINDINGS`.
        side: The patient's side; None for cardiomegaly alone.
        zone: Third of the lung's height; for `lung_opacity` and `nodule` alone.
        strength: How marked the lesion is, above 0 and up to 1: density of an opacity or a
            nodule, height of an effusion, width of a heart or a pneumothorax.
        size: Extent of an opacity or a nodule relative to its usual range, 0 to 1. The
            other findings take their extent from `strength`.
    """

    finding: str
    side: Side | None = None
    zone: Zone | None = None
    strength: float = 0.7
    size: float = 0.5

    def __post_init__(self) -> None:
        """Check that the fields belong together.

        Raises:
            ValueError: A field is out of range or does not fit the finding.
        """
        if self.finding not in PHANTOM_FINDINGS:
            known = ", ".join(PHANTOM_FINDINGS)
            raise ValueError(f"a phantom cannot show '{self.finding}'; use one of: {known}.")
        if (self.side is not None) != (self.finding in _SIDED):
            raise ValueError(f"{self.finding} has side {self.side!r}; only the heart has none.")
        if (self.zone is not None) != (self.finding in _ZONED):
            raise ValueError(
                f"{self.finding} has zone {self.zone!r}; lung_opacity and nodule need one, "
                "the others take none."
            )
        if not 0 < self.strength <= 1 or not 0 <= self.size <= 1:
            raise ValueError(
                f"{self.finding} has strength {self.strength} and size {self.size}; "
                "strength is above 0 and up to 1, size is 0 to 1."
            )


def shown_findings(lesions: Sequence[Lesion]) -> dict[str, int]:
    """Say what a phantom of these lesions shows.

    Args:
        lesions: What is put in.

    Returns:
        1 where there is a lesion, else 0, by finding.
    """
    shown = {lesion.finding for lesion in lesions}
    return {key: int(key in shown) for key in PHANTOM_FINDINGS}


@dataclass(frozen=True, eq=False)
class Phantom:
    """A synthetic frontal chest radiograph with everything that is known about it.

    The patient's right is the image's left, as on a lightbox.

    Attributes:
        pixels: Display values in [0, 1]; low is air.
        lesions: What was put in.
        masks: By finding, where its lesions change the attenuation by more than
            `medllm.phantom.lesions.MASK_BOUND`.
        right_lung_mask: The patient's right lung as far as it is seen beside heart and
            mediastinum and above the diaphragm, lesions left out of account.
        left_lung_mask: The left lung, likewise.
        heart_mask: Heart, at the size that is shown.
        marker_mask: The lead letter that names a side; empty where there is none.
        thorax_mask: Inside of the rib cage above the diaphragm.
        pixel_spacing_mm: Row and column spacing at the detector.
        view: Direction of the beam.
        age_years: The patient's age.
        sex: `M` or `F`.
        seed: Seed that all of it came from.
    """

    pixels: Float32[np.ndarray, "rows columns"]
    lesions: tuple[Lesion, ...]
    masks: dict[str, Bool[np.ndarray, "rows columns"]]
    right_lung_mask: Bool[np.ndarray, "rows columns"]
    left_lung_mask: Bool[np.ndarray, "rows columns"]
    heart_mask: Bool[np.ndarray, "rows columns"]
    marker_mask: Bool[np.ndarray, "rows columns"]
    thorax_mask: Bool[np.ndarray, "rows columns"]
    pixel_spacing_mm: tuple[float, float]
    view: View
    age_years: int
    sex: Literal["F", "M"]
    seed: int

    @property
    def lung_masks(self) -> dict[Side, Bool[np.ndarray, "rows columns"]]:
        """The two lungs by the patient's side."""
        return {"right": self.right_lung_mask, "left": self.left_lung_mask}

    @property
    def findings(self) -> dict[str, int]:
        """Truth by finding: 1 where a lesion was put in, else 0."""
        return shown_findings(self.lesions)

    @property
    def cardiothoracic_ratio(self) -> float:
        """Greatest width of the heart over the greatest inner width of the thorax."""
        heart = np.flatnonzero(self.heart_mask.any(axis=0))
        thorax = np.flatnonzero(self.thorax_mask.any(axis=0))
        return float(np.ptp(heart) + 1) / float(np.ptp(thorax) + 1)
