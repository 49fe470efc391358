"""The spread of an AUROC without resampling."""

from __future__ import annotations

import math

import numpy as np
from jaxtyping import Float, Int
from scipy.special import expit, logit, ndtr, ndtri
from scipy.stats import rankdata

from medllm.metrics.bootstrap import Comparison, Estimate
from medllm.metrics.discrimination import auroc

# Of the 95% interval.
_QUANTILE = float(ndtri(0.975))


def delong_interval(
    scores: Float[np.ndarray, " images"], labels: Int[np.ndarray, " images"]
) -> Estimate:
    """Estimate the AUROC with DeLong's variance, the interval taken on the logit scale.

    The images count as independent: with several of a patient the interval is too narrow, and
    `clustered_bootstrap` is the one to use.

    Args:
        scores: Higher speaks for the finding.
        labels: 1 or 0.

    Returns:
        The AUROC with a 95% interval inside 0 to 1. The interval is NaN where the images show no
        spread to estimate it from: a class has fewer than two, the AUROC is 0 or 1, or all
        scores are equal. The AUROC itself is NaN where a class is missing.

    Source:
        DeLong, DeLong and Clarke-Pearson, Biometrics 1988 (variance); Sun and Xu, IEEE Signal
        Processing Letters 2014 (by midranks); Pepe, The Statistical Evaluation of Medical
        Tests, Oxford 2003, chapter 5 (logit scale).

    Example:
        >>> got = delong_interval(np.array([0.1, 0.4, 0.35, 0.8]), np.array([0, 0, 1, 1]))
        >>> round(got.low, 3), got.value, round(got.high, 3)
        (0.069, 0.75, 0.992)
    """
    value = auroc(scores, labels)
    error = _standard_error(*_placements(scores, labels))
    if math.isnan(error):
        return Estimate(value, error, error)
    middle, half = logit(value), _QUANTILE * error / (value * (1 - value))
    # Rounding must not part the ends from the value.
    low, high = min(value, expit(middle - half)), max(value, expit(middle + half))
    return Estimate(value, float(low), float(high))


def delong_difference(
    first_scores: Float[np.ndarray, " images"],
    second_scores: Float[np.ndarray, " images"],
    labels: Int[np.ndarray, " images"],
) -> Comparison:
    """Compare the AUROCs of two models on the same images.

    The images count as independent: with several of a patient the p-value is too low, and
    `clustered_difference` is the one to use.

    Args:
        first_scores: Of one model; higher speaks for the finding.
        second_scores: Of the other, for the same images; the scale may be another.
        labels: 1 or 0.

    Returns:
        The first AUROC minus the second, -1 to 1, with a 95% interval. Where the images show no
        spread of it, as between models that rank alike, the interval is NaN and the p-value is 1
        if the AUROCs are equal and NaN if not. A class of one image leaves the difference alone,
        a missing class nothing.

    Source:
        DeLong, DeLong and Clarke-Pearson, Biometrics 1988; Sun and Xu, IEEE Signal Processing
        Letters 2014 (by midranks).

    Example:
        >>> first, second = np.array([0.1, 0.4, 0.35, 0.8]), np.array([0.4, 0.1, 0.5, 0.3])
        >>> got = delong_difference(first, second, np.array([0, 0, 1, 1]))
        >>> got.difference.value, round(got.p_value, 3)
        (0.0, 1.0)
    """
    first, second = _placements(first_scores, labels), _placements(second_scores, labels)
    # The variance of a difference, so that no covariance is needed.
    of_positives, of_negatives = first[0] - second[0], first[1] - second[1]
    n_pairs = len(of_positives) * len(of_negatives)
    value = float(of_positives.sum()) / n_pairs if n_pairs else float("nan")
    error = _standard_error(of_positives, of_negatives)
    if math.isnan(error):
        alike = min(len(of_positives), len(of_negatives)) > 1 and value == 0
        return Comparison(Estimate(value, error, error), 1.0 if alike else error)
    half = _QUANTILE * error
    return Comparison(
        Estimate(value, max(-1.0, value - half), min(1.0, value + half)),
        float(2 * ndtr(-abs(value) / error)),
    )


def _placements(
    scores: Float[np.ndarray, " images"], labels: Int[np.ndarray, " images"]
) -> tuple[Float[np.ndarray, " positives"], Float[np.ndarray, " negatives"]]:
    """Count for each positive, then for each negative, those of the other class below it.

    Ties count half. The first are DeLong's structural components V10 times the negatives, the
    second 1 - V01 times the positives, which spread as V01 does. Floats hold halves exactly, so
    that no spread is 0 and not a rounding error.
    """
    positive = labels == 1
    ranks = rankdata(scores)
    return (
        ranks[positive] - rankdata(scores[positive]),
        ranks[~positive] - rankdata(scores[~positive]),
    )


def _standard_error(
    of_positives: Float[np.ndarray, " positives"], of_negatives: Float[np.ndarray, " negatives"]
) -> float:
    """DeLong's standard error from `_placements`; NaN where the images show no spread."""
    n_positive, n_negative = len(of_positives), len(of_negatives)
    if min(n_positive, n_negative) < 2:
        return float("nan")
    variance = (
        of_positives.var(ddof=1) / n_negative**2 / n_positive
        + of_negatives.var(ddof=1) / n_positive**2 / n_negative
    )
    return math.sqrt(variance) if variance > 0 else float("nan")
