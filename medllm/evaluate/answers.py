"""The answers of one finding, and figures of them with intervals by patient."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from jaxtyping import Bool, Float, Int

from medllm.evaluate.section import Interval
from medllm.evaluate.table import Predictions
from medllm.metrics import Estimate, clustered_bootstraps, exact_area, exact_share

UNDEFINED = Interval(value=None, low=None, high=None)
N_RESAMPLES = 1000

Resampled = Callable[[Int[np.ndarray, " chosen"]], float]


@dataclass(frozen=True, eq=False)
class Answers:
    """The answers of one finding on the images with a label that were scored.

    Attributes:
        finding: Its key.
        at: Their places among all images.
        labels: 1 or 0.
        log_odds: Uncalibrated.
        probabilities: Calibrated.
        called: Whether the call is positive.
        ruled_out: Whether the call is negative; what is neither is indeterminate.
        patients: Their patients.
    """

    finding: str
    at: Int[np.ndarray, " images"]
    labels: Int[np.ndarray, " images"]
    log_odds: Float[np.ndarray, " images"]
    probabilities: Float[np.ndarray, " images"]
    called: Bool[np.ndarray, " images"]
    ruled_out: Bool[np.ndarray, " images"]
    patients: Sequence[str]

    @classmethod
    def of(cls, predictions: Predictions, finding: str) -> Answers:
        """Take the labelled and scored images of a finding."""
        column = predictions.findings.index(finding)
        labels = predictions.labels[:, column]
        at = np.flatnonzero(
            np.isin(labels, (0, 1)) & ~np.isnan(predictions.probabilities[:, column])
        )
        return cls(
            finding=finding,
            at=at,
            labels=labels[at].astype(int),
            log_odds=predictions.log_odds[at, column],
            probabilities=predictions.probabilities[at, column],
            called=predictions.called[at, column],
            ruled_out=predictions.ruled_out[at, column],
            patients=[predictions.patients[index] for index in at.tolist()],
        )

    def chosen(self, at: Int[np.ndarray, " chosen"]) -> Answers:
        """Take those at some places among these."""
        return Answers(
            finding=self.finding,
            at=self.at[at],
            labels=self.labels[at],
            log_odds=self.log_odds[at],
            probabilities=self.probabilities[at],
            called=self.called[at],
            ruled_out=self.ruled_out[at],
            patients=[self.patients[index] for index in at.tolist()],
        )

    @property
    def both(self) -> bool:
        """Whether there are images with the finding and images without it."""
        return bool(0 < self.labels.sum() < len(self.labels))

    @property
    def decided(self) -> bool:
        """Whether anything was called: not of a model without thresholds."""
        return bool((self.called | self.ruled_out).any())


def resamples_for(n_images: int) -> int:
    """Choose how often patients are resampled; an interval of many images needs less.

    Args:
        n_images: Images.

    Returns:
        1,000, or a fifth of that beyond 20,000 images.
    """
    return N_RESAMPLES if n_images <= 20_000 else N_RESAMPLES // 5


def intervals(
    figures: Mapping[str, Resampled], patients: Sequence[str], n_resamples: int
) -> dict[str, Interval]:
    """Estimate figures on the same resamples of patients.

    Args:
        figures: From the places of the chosen images to the figure, by name.
        patients: The patient of each image.
        n_resamples: Resamples.

    Returns:
        The figures by name; null where one is not defined on all images.
    """
    everyone = np.arange(len(patients))
    defined = {name: figure for name, figure in figures.items() if not np.isnan(figure(everyone))}
    measured: dict[str, Estimate] = {}
    if defined:
        measured = clustered_bootstraps(defined, patients, n_resamples=n_resamples)
    return {
        name: Interval.of(measured[name]) if name in measured else UNDEFINED for name in figures
    }


def difference(first: Resampled, second: Resampled) -> Resampled:
    """Give the difference of two figures, to be resampled in pairs.

    Args:
        first: A figure.
        second: What is subtracted from it.

    Returns:
        The difference, on the same images.
    """
    return lambda at: first(at) - second(at)


def exact_interval(
    share: Interval, among: Bool[np.ndarray, " images"], patients: Sequence[str]
) -> Interval:
    """Give a share its exact interval, by patients, where resampling has none to rely on.

    Args:
        share: With its interval by resampling.
        among: The images that it is a share of.
        patients: The patient of each image.

    Returns:
        As `exact_share`.
    """
    return Interval.of(exact_share(share.estimate, among, patients))


def area_interval(
    area: Interval, labels: Int[np.ndarray, " images"], patients: Sequence[str]
) -> Interval:
    """Do the same for an AUROC.

    Args:
        area: With its interval by resampling.
        labels: 1 or 0.
        patients: The patient of each image.

    Returns:
        As `exact_area`.
    """
    return Interval.of(exact_area(area.estimate, labels, patients))


def unless_perfect(area: Interval) -> Interval:
    """Take the interval from an area of 1, which is 1 on every resample.

    Args:
        area: Under a curve of which no exact interval is known.

    Returns:
        The area, as it was where it is not 1.
    """
    return area if area.value != 1 else Interval(value=1, low=None, high=None)
