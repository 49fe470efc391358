"""How far a probability can be believed."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from jaxtyping import Float, Int
from scipy.optimize import brentq
from scipy.special import expit, logit, ndtri

from medllm.metrics.bootstrap import Estimate

# Newton's method doubles the correct digits a step; ten are usual, and the fit is convex.
_NEWTON_STEPS = 50
_TOLERANCE = 1e-9


def brier(probabilities: Float[np.ndarray, " images"], labels: Int[np.ndarray, " images"]) -> float:
    """Mean squared difference of probability and label.

    Args:
        probabilities: 0 to 1.
        labels: 1 or 0.

    Returns:
        0 (perfect) to 1; NaN without images, or where a probability is NaN.

    Source:
        Brier, Monthly Weather Review 1950, for two classes, one of them counted.
    """
    return float(np.mean((probabilities - labels) ** 2)) if len(labels) else float("nan")


def expected_calibration_error(
    probabilities: Float[np.ndarray, " images"],
    labels: Int[np.ndarray, " images"],
    *,
    n_bins: int = 10,
) -> float:
    """Mean distance of probability and frequency over bins of equal count.

    Bins of equal count, since bins of equal width are nearly empty where a model is sure. Images
    of one probability that fall into two bins count with their common frequency in both, so that
    the order of the rows is no matter.

    Args:
        probabilities: 0 to 1.
        labels: 1 or 0.
        n_bins: Bins; fewer where there are fewer images.

    Returns:
        0 (perfect) to 1; NaN without images, or where a probability is NaN.

    Source:
        Nguyen and O'Connor, EMNLP 2015 (adaptive binning); Naeini et al., AAAI 2015.
    """
    if not len(labels):
        return float("nan")
    order = np.argsort(probabilities, kind="stable")
    ranked, n_bins = probabilities[order], min(n_bins, len(order))
    frequencies = _frequencies(ranked, labels[order])
    bins = list(
        zip(np.array_split(ranked, n_bins), np.array_split(frequencies, n_bins), strict=True)
    )
    gaps = [abs(predicted.mean() - seen.mean()) for predicted, seen in bins]
    return float(np.average(gaps, weights=[len(seen) for _, seen in bins]))


def _frequencies(
    ranked: Float[np.ndarray, " images"], labels: Int[np.ndarray, " images"]
) -> Float[np.ndarray, " images"]:
    """Give each image the mean label of all that have its probability; these are in order."""
    groups = np.cumsum(np.diff(ranked, prepend=ranked[0]) > 0)
    means: np.ndarray = np.bincount(groups, weights=labels) / np.bincount(groups)
    return means[groups]


def calibration_slope(
    log_odds: Float[np.ndarray, " images"], labels: Int[np.ndarray, " images"]
) -> float:
    """Slope of the logistic regression of the label on the log-odds.

    Args:
        log_odds: Calibrated: the logit of the probability.
        labels: 1 or 0.

    Returns:
        1 is perfect; below 1 the probabilities are too extreme, above 1 too moderate. NaN
        where no finite slope is the best one: a class is missing, one value of the log-odds
        parts the classes, or one of them is NaN.

    Source:
        Cox, Biometrika 1958; Van Calster et al., BMC Medicine 2019.

    Example:
        >>> calibration_slope(np.array([-2.0, -2.0, 2.0, 2.0]), np.array([0, 1, 0, 1])) + 0.0
        0.0
    """
    if separated(log_odds, labels) or np.isnan(log_odds).any():
        return float("nan")
    # On a common scale, so that Newton's steps are well conditioned.
    scale = float(log_odds.std())
    design = np.stack([np.ones_like(log_odds), (log_odds - log_odds.mean()) / scale])

    def loss(weights: Float[np.ndarray, " 2"]) -> float:
        linear = weights @ design
        return float(np.logaddexp(0, linear).sum() - linear @ labels)

    weights, lowest = np.zeros(2), loss(np.zeros(2))
    for _ in range(_NEWTON_STEPS):
        fitted = expit(weights @ design)
        curvature = (design * (fitted * (1 - fitted))) @ design.T
        try:
            step = np.linalg.solve(curvature, design @ (labels - fitted))
        except np.linalg.LinAlgError:
            # The classes overlap by less than doubles can tell: as good as separated.
            return float("nan")
        # The loss is convex: a step that does not lower it was too long.
        while (reached := loss(weights + step)) > lowest and np.abs(step).max() > _TOLERANCE:
            step /= 2
        weights, lowest = weights + step, reached
        if np.abs(step).max() <= _TOLERANCE:
            break
    return float(weights[1]) / scale


def calibration_intercept(
    log_odds: Float[np.ndarray, " images"], labels: Int[np.ndarray, " images"]
) -> float:
    """Intercept of the logistic regression with the log-odds as offset (slope held at 1).

    Args:
        log_odds: Calibrated: the logit of the probability.
        labels: 1 or 0.

    Returns:
        0 is perfect, in log-odds; above 0 the finding is more frequent than predicted. It is
        also called calibration in the large. NaN where a class is missing or one of the log-odds
        is NaN.

    Source:
        Cox, Biometrika 1958; Van Calster et al., BMC Medicine 2019.

    Example:
        >>> calibration_intercept(np.zeros(4), np.array([0, 1, 1, 1])).__round__(4)
        1.0986
    """
    frequency = float(labels.mean()) if len(labels) else float("nan")
    if not 0 < frequency < 1 or np.isnan(log_odds).any():
        return float("nan")
    # If all log-odds were the highest, or the lowest, these would be the intercepts.
    target = float(logit(frequency))
    low, high = target - float(log_odds.max()) - 1, target - float(log_odds.min()) + 1
    return float(brentq(lambda shift: float(expit(log_odds + shift).mean()) - frequency, low, high))


def separated(log_odds: Float[np.ndarray, " images"], labels: Int[np.ndarray, " images"]) -> bool:
    """Say whether one value parts the classes, so that no finite logistic fit is the best.

    Args:
        log_odds: Of any scale.
        labels: 1 or 0.

    Returns:
        True where no image of one class lies above any of the other, or a class is missing.

    Source:
        Albert and Anderson, Biometrika 1984, for one variable.

    Example:
        >>> separated(np.array([0.0, 1.0, 1.0, 2.0]), np.array([0, 0, 1, 1]))
        True
    """
    with_finding, without = log_odds[labels == 1], log_odds[labels == 0]
    if not len(with_finding) or not len(without):
        return True
    return bool(without.max() <= with_finding.min() or with_finding.max() <= without.min())


@dataclass(frozen=True)
class ReliabilityBin:
    """Images of about the same probability.

    Attributes:
        probability: Their mean probability.
        frequency: Share of them with the finding, with its 95% interval.
        n: Number of images.
    """

    probability: float
    frequency: Estimate
    n: int


def reliability_bins(
    probabilities: Float[np.ndarray, " images"],
    labels: Int[np.ndarray, " images"],
    clusters: Sequence[str],
    *,
    n_bins: int = 10,
) -> tuple[ReliabilityBin, ...]:
    """Compare probability and frequency in bins of equal count, where ties count as for the ECE.

    The interval is Wilson's for the number of patients in the bin, not of images: as wide as if
    a patient's further images said nothing new, so that it is never too narrow.

    Args:
        probabilities: 0 to 1.
        labels: 1 or 0.
        clusters: The patient of each image.
        n_bins: Bins; fewer where there are fewer images.

    Returns:
        The bins, from the least probable to the most; none without images.

    Source:
        Wilson, J Am Stat Assoc 1927.
    """
    if not len(labels):
        return ()
    patients = np.asarray(clusters)
    # By patient where probabilities tie, so that the order of the rows is no matter.
    order = np.lexsort((patients, probabilities))
    ranked, patients = probabilities[order], patients[order]
    frequencies = _frequencies(ranked, labels[order])
    return tuple(
        ReliabilityBin(
            probability=float(ranked[chosen].mean()),
            frequency=_wilson(float(frequencies[chosen].mean()), len(np.unique(patients[chosen]))),
            n=len(chosen),
        )
        for chosen in np.array_split(np.arange(len(order)), min(n_bins, len(order)))
    )


def _wilson(share: float, n: int) -> Estimate:
    z = float(ndtri(0.975))
    middle = (share + z**2 / (2 * n)) / (1 + z**2 / n)
    half = z / (1 + z**2 / n) * math.sqrt(share * (1 - share) / n + z**2 / (4 * n**2))
    # The ends are 0 and 1 exactly where the share is; rounding must not part them from it.
    return Estimate(share, max(0.0, min(share, middle - half)), min(1.0, max(share, middle + half)))
