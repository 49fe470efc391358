"""Calibration: from log-odds to a probability and a call, fitted on held-out patients."""

from __future__ import annotations

import dataclasses
import math
from typing import Literal

import numpy as np
from jaxtyping import Float, Int
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import roc_curve

from medllm.models.card import Calibration

Call = Literal["negative", "indeterminate", "positive"]

# How far a threshold gives way when it is moved, in log-odds. A fitted one is the probability of
# one of the images, and that image's new probability and the new threshold are rounded each in
# its own way. Rounding is of 1e-15, and float32 log-odds that differ do so by some 1e-7.
# Beyond a probability of 1 - 1e-6 rounding can be more.
_GIVES_WAY = 1e-9


def probability_of(log_odds: float, calibration: Calibration) -> float:
    """Turn log-odds into a calibrated probability.

    Args:
        log_odds: Uncalibrated.
        calibration: Temperature and bias.

    Returns:
        Probability, 0 to 1.

    Example:
        >>> round(probability_of(2.0, Calibration(temperature=2.0, bias=-1.0)), 3)
        0.5
    """
    scaled = log_odds / calibration.temperature + calibration.bias
    # Written so that neither end overflows.
    return 1 / (1 + math.exp(-scaled)) if scaled >= 0 else math.exp(scaled) / (1 + math.exp(scaled))


def call_of(probability: float, calibration: Calibration) -> Call:
    """Say what a calibrated probability means at the two thresholds.

    Args:
        probability: Calibrated, 0 to 1.
        calibration: The thresholds.

    Returns:
        The call.

    Example:
        >>> call_of(0.4, Calibration(low=0.3, high=0.6))
        'indeterminate'
    """
    if probability >= calibration.high:
        return "positive"
    return "negative" if probability < calibration.low else "indeterminate"


def at_prevalence(calibration: Calibration, prevalence: float) -> Calibration:
    """Let the probability suppose another share of positives.

    The log-odds move by what the prior's log-odds do, and the thresholds with them: who is called
    positive stays the same, how probable that is does not.

    Args:
        calibration: One that says which prevalence it supposes.
        prevalence: Share of positives, above 0 and below 1.

    Returns:
        The calibration for that prevalence.

    Raises:
        ValueError: The prevalence is not between 0 and 1, or the calibration says none.

    Source:
        Saerens, Latinne & Decaestecker, Neural Computation 2002, equation 2.4 (prior shift).

    Example:
        >>> fitted = Calibration(low=0.4, high=0.5, prevalence=0.5)
        >>> moved = at_prevalence(fitted, 0.2)
        >>> round(probability_of(0.0, fitted), 3), round(probability_of(0.0, moved), 3)
        (0.5, 0.2)
    """
    if not 0 < prevalence < 1:
        raise ValueError(f"the prevalence is {prevalence}; wanted is a share above 0 and below 1.")
    if calibration.prevalence is None:
        raise ValueError("the calibration does not say which prevalence it supposes.")
    shift = _logit(prevalence) - _logit(calibration.prevalence)
    return dataclasses.replace(
        calibration,
        bias=calibration.bias + shift,
        low=_moved(calibration.low, shift),
        high=_moved(calibration.high, shift),
        prevalence=prevalence,
    )


def _logit(probability: float) -> float:
    return math.log(probability / (1 - probability))


def _moved(threshold: float, shift: float) -> float:
    """Move a threshold on the scale of the log-odds; 0 and 1 stay what they are."""
    if not 0 < threshold < 1:
        return threshold
    return probability_of(_logit(threshold) + shift - _GIVES_WAY, Calibration())


def fit_calibration(
    log_odds: Float[np.ndarray, " images"],
    labels: Int[np.ndarray, " images"],
    *,
    fitted_on: str,
    weights: Float[np.ndarray, " images"] | None = None,
    wanted: float = 0.95,
) -> Calibration:
    """Fit temperature, bias and the two thresholds.

    The lower threshold rules out: `wanted` of the positives lie at or above it. The upper one
    rules in: `wanted` of the negatives lie below it. Where the two cross, no case needs to be
    left indeterminate and both become their mean.

    Args:
        log_odds: Uncalibrated, of images that no weight was fitted on.
        labels: 1 or 0.
        fitted_on: The data, in words.
        weights: Weight of each image; 1 when None. The prevalence is of the weighted images.
        wanted: Sensitivity at the lower and specificity at the upper threshold.

    Returns:
        The calibration.

    Raises:
        ValueError: One of the two classes is missing, or higher log-odds go with fewer
            positives, which no temperature above 0 can mend.

    Source:
        Platt 1999 (logistic fit of one score); Guo et al., ICML 2017 (temperature).
    """
    if len(np.unique(labels)) != 2:
        raise ValueError("calibration needs images with and without the finding.")
    # Scaled, since the solver stops where the loss is flat: log-odds that hardly differ would all
    # get a slope of 0.
    middle, spread = float(log_odds.mean()), float(log_odds.std()) or 1.0
    scaled = (log_odds[:, None] - middle) / spread
    fit = LogisticRegression(C=np.inf).fit(scaled, labels, sample_weight=weights)
    slope = float(fit.coef_[0, 0]) / spread
    bias = float(fit.intercept_[0]) - slope * middle
    if slope <= 0:
        raise ValueError(f"the fitted slope is {slope:.3g}; the log-odds do not rank this data.")
    fitted = Calibration(temperature=1 / slope, bias=bias)
    probabilities = np.array([probability_of(value, fitted) for value in log_odds])
    fall_out, recall, edges = roc_curve(
        labels, probabilities, sample_weight=weights, drop_intermediate=False
    )
    low = float(edges[np.argmax(recall >= wanted)])
    high = float(edges[np.flatnonzero(fall_out <= 1 - wanted)[-1]])
    if low > high:
        low = high = (low + high) / 2
    prevalence = float(np.average(labels, weights=weights))
    return Calibration(1 / slope, bias, min(low, 1.0), min(high, 1.0), fitted_on, prevalence)
