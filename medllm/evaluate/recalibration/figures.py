"""What one calibration is worth on labelled images."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from jaxtyping import Int

from medllm.evaluate.recalibration.cross_fit import Calibrated
from medllm.metrics import (
    Estimate,
    ReliabilityBin,
    calibration_intercept,
    calibration_slope,
    clustered_bootstraps,
    exact_share,
    probability_figures,
    reliability_bins,
    sensitivity,
    specificity,
)
from medllm.models import Calibration

# Images a bin of the reliability plot: with fewer, an interval spans half of the axis.
_IMAGES_A_BIN = 20


@dataclass(frozen=True)
class CalibrationFigures:
    """How far the probabilities of one calibration can be believed on the site's patients.

    Attributes:
        calibration: Temperature, bias and thresholds.
        brier: Mean squared error of the probability.
        ece: Expected calibration error, ten bins of equal count.
        slope: Calibration slope; 1 is perfect, below it probabilities are too extreme.
        intercept: Calibration in the large, in log-odds; 0 is perfect, above it the finding is
            more frequent than predicted.
        sensitivity: At the upper threshold, where the call is positive.
        specificity: At the upper threshold.
        bins: Probability against frequency.
    """

    calibration: Calibration
    brier: Estimate
    ece: Estimate
    slope: Estimate
    intercept: Estimate
    sensitivity: Estimate
    specificity: Estimate
    bins: tuple[ReliabilityBin, ...]


def calibration_figures(
    calibration: Calibration,
    images: Calibrated,
    labels: Int[np.ndarray, " images"],
    patients: Sequence[str],
    *,
    n_resamples: int,
) -> CalibrationFigures:
    """Measure calibrated images, with intervals by patient.

    Args:
        calibration: The calibration that the figures shall stand for.
        images: The images, calibrated by it or, when it was fitted on them, by cross-fitting.
        labels: 1 or 0.
        patients: The patient of each image.
        n_resamples: Resamples of the intervals.

    Returns:
        The figures.
    """
    probabilities, log_odds, called = images.probabilities, images.log_odds, images.called
    measured = clustered_bootstraps(
        {
            "slope": lambda at: calibration_slope(log_odds[at], labels[at]),
            "intercept": lambda at: calibration_intercept(log_odds[at], labels[at]),
            "sensitivity": lambda at: sensitivity(called[at], labels[at]),
            "specificity": lambda at: specificity(called[at], labels[at]),
        },
        patients,
        n_resamples=n_resamples,
    )
    told = probability_figures(probabilities, labels, patients, n_resamples=n_resamples)
    for name, label in (("sensitivity", 1), ("specificity", 0)):
        measured[name] = exact_share(measured[name], labels == label, patients)
    return CalibrationFigures(
        calibration=calibration,
        brier=told["brier"],
        ece=told["ece"],
        **measured,
        bins=reliability_bins(probabilities, labels, patients, n_bins=bins_of(len(labels))),
    )


def bins_of(n_images: int) -> int:
    """Choose the number of bins of a reliability plot.

    Args:
        n_images: Images; 1 or more.

    Returns:
        2 to 10, and never more than there are images.
    """
    return min(10, max(2, n_images // _IMAGES_A_BIN), n_images)
