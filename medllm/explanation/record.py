"""The record of one explanation: what a method attributed, and what its checks found."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import numpy as np
from jaxtyping import Float64
from scipy.interpolate import PchipInterpolator

from medllm.data.anatomy import Side, Zone
from medllm.dicom.radiograph import Radiograph

Verdict = Literal["supported", "weak", "do not use"]
Layer = Literal["encoder tokens", "image tokens", "pixels", "regions"]


@dataclass(frozen=True, eq=False)
class AttributionMap:
    """A signed map over the image, on the model's patch grid.

    Attributes:
        values: Attribution of each patch in log-odds; positive raises the finding.
        box: Extent of the whole map in source pixels: x, y of the top left corner, width,
            height. It can pass the image's border where the image was padded.
    """

    values: Float64[np.ndarray, "rows columns"]
    box: tuple[float, float, float, float]

    def on(self, scan: Radiograph) -> Float64[np.ndarray, "rows columns"]:
        """Bring the map to the pixels of its radiograph, as the report draws it.

        Args:
            scan: The radiograph that was explained.

        Returns:
            Log-odds a patch at each of `scan.pixels`; positive raises the finding, 0 lies outside
            the box. They are not divided among the pixels: what adds up is `values`.

        Example:
            >>> from pathlib import Path
            >>> pixels = np.zeros((4, 8), dtype=np.float32)
            >>> scan = Radiograph(pixels, Path("a.png"), file_format="png", sha256="0" * 64)
            >>> attribution = AttributionMap(np.array([[0.5, -0.2]]), box=(1, 0, 6, 4))
            >>> attribution.on(scan)[0].round(2)
            array([ 0.  ,  0.5 ,  0.5 ,  0.27,  0.03, -0.2 , -0.2 ,  0.  ])
        """
        return self.spread(scan.pixels.shape, scan.pixels.shape)

    def spread(
        self, source_shape: tuple[int, int], size: tuple[int, int]
    ) -> Float64[np.ndarray, "rows columns"]:
        """Bring the map to the pixels of a picture of the whole radiograph.

        A patch's value stands at the patch's centre. Between centres the interpolation is smooth
        and monotone, so that no value appears which no patch has.

        Args:
            source_shape: Rows and columns of the radiograph.
            size: Rows and columns of the picture.

        Returns:
            Log-odds a patch at each pixel of the picture; 0 outside the map's box.

        Source:
            Fritsch and Carlson, Monotone piecewise cubic interpolation (1980), along each axis.
        """
        x, y, width, height = self.box
        values = _along(self.values, size[0], source_shape[0], y, height)
        return _along(values.T, size[1], source_shape[1], x, width).T


@dataclass(frozen=True)
class Region:
    """The part of an attribution that fell on one region of the chest.

    Attributes:
        zone: Lung zone, `mediastinum` (heart included), or `outside` the thorax.
        side: The PATIENT's side; None for `mediastinum` and `outside`.
        share: Share of the positive attribution of the whole map, 0 to 1.
        log_odds: Signed sum of the attribution in the region, in log-odds.
    """

    zone: Zone
    side: Side | None
    share: float
    log_odds: float


@dataclass(frozen=True)
class ZoneEffect:
    """What showing or blurring one region of the chest does to the answer.

    Attributes:
        zone: As of a `Region`.
        side: As of a `Region`.
        shapley: Log-odds that the region adds when it is shown, the mean over every order in
            which the regions can be shown.
        log_odds_without: Uncalibrated log-odds of the image with this region alone blurred.
    """

    zone: Zone
    side: Side | None
    shapley: float
    log_odds_without: float


@dataclass(frozen=True)
class Check:
    """One test of an explanation.

    Attributes:
        name: Such as `completeness`.
        value: What was measured.
        reference: Bound or expected range, in words.
        passed: Whether the value is within it.
        sentence: What it means, for a clinician.
    """

    name: str
    value: float
    reference: str
    passed: bool
    sentence: str


@dataclass(frozen=True)
class TokenAttribution:
    """Attribution of one word of the prompt, in log-odds."""

    text: str
    value: float


@dataclass(frozen=True, eq=False)
class OtherMethod:
    """The same answer explained by another method, to be set beside the first.

    Attributes:
        method: Key of the method.
        explanation: What it gave; without the zones' effects and the words, which are of the
            answer and not of the method. None where it gave none.
        correlation: Pearson's, of its map with the first one's; None where it gave none.
        refusal: Why it gave none, in a sentence; empty where it gave one.
    """

    method: str
    explanation: Explanation | None = None
    correlation: float | None = None
    refusal: str = ""


@dataclass(frozen=True, eq=False)
class Explanation:
    """Why the model gave one finding the log-odds it gave.

    Attributes:
        finding: Key of the finding.
        method: Key of the method, such as `integrated-gradients`.
        layer: What was attributed to: `encoder tokens` before a projector, `image tokens` behind
            it, `pixels` or `regions`.
        baseline: What the image was compared with, in words.
        n_steps: Integration steps, or forward passes for a perturbation method.
        log_odds: Uncalibrated log-odds of the image; the number that was attributed.
        baseline_log_odds: The same for the baseline.
        completeness_error: |sum of attributions - (log_odds - baseline_log_odds)| in
            log-odds; None for a method that does not promise completeness.
        map: The signed map.
        regions: The map in words, largest share first; empty where the lungs were not found.
        zones_from: How the zones were found, in words.
        checks: The tests made on this explanation.
        verdict: What it is worth. A map with `do not use` is not drawn.
        zone_effects: What each region does to the answer, the largest Shapley value first; they
            sum to the difference of the two log-odds. Empty where the lungs were not found.
        tokens: Attribution of the prompt's words, and of the whole image as `<image>`, from one
            run of integrated gradients; their baseline is the blurred copy, asked in words that
            mean nothing. Where these do not add up: the fall of the log-odds without each.
        tokens_completeness_error: The error of that run, in log-odds; None where each was left
            out in turn, which does not promise completeness.
        seconds: Time taken, checks included; of findings explained together, an equal part.
        against: Key of the finding it is explained against: all log-odds above are then
            differences, the finding's less this one's. None where it is explained by itself.
        others: The same answer by the other methods that were asked for, in their order.
    """

    finding: str
    method: str
    layer: Layer
    baseline: str
    n_steps: int
    log_odds: float
    baseline_log_odds: float
    completeness_error: float | None
    map: AttributionMap
    regions: tuple[Region, ...]
    zones_from: str
    checks: tuple[Check, ...]
    verdict: Verdict
    zone_effects: tuple[ZoneEffect, ...] = ()
    tokens: tuple[TokenAttribution, ...] = ()
    tokens_completeness_error: float | None = None
    seconds: float = 0.0
    against: str | None = None
    others: tuple[OtherMethod, ...] = ()

    def __repr__(self) -> str:
        """Say what was explained, how, and what it is worth; a notebook shows this."""
        what = self.finding + (f" against {self.against}" if self.against else "")
        return f"Explanation({what} by {self.method}: log-odds {self.log_odds:.2f}, {self.verdict})"


def _along(
    values: Float64[np.ndarray, "patches other"],
    shown: int,
    source: int,
    start: float,
    extent: float,
) -> Float64[np.ndarray, "shown other"]:
    """Interpolate the first axis at the centres of `shown` pixels that cover `source` pixels."""
    patches = values.shape[0]
    centres = (np.arange(shown) + 0.5) * (source / shown)
    at = (centres - start) / extent * patches - 0.5  # patch index, whole at a patch's centre
    within = (at >= -0.5) & (at <= patches - 0.5)
    if patches == 1:
        result = np.repeat(values, shown, axis=0)
    else:
        result = PchipInterpolator(np.arange(patches), values)(np.clip(at, 0, patches - 1))
    return np.asarray(np.where(within[:, None], result, 0.0), dtype=np.float64)
