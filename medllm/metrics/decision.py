"""What acting on a probability gains, in the currency of true positives."""

from __future__ import annotations

import numpy as np
from jaxtyping import Float, Int


def net_benefit(
    probabilities: Float[np.ndarray, " images"],
    labels: Int[np.ndarray, " images"],
    thresholds: Float[np.ndarray, " thresholds"],
) -> Float[np.ndarray, " thresholds"]:
    """True positives an image, less the false positives weighted by the odds of the threshold.

    Over thresholds it is the model's decision curve, to be set against `net_benefit_of_all` and
    against 0, which is the net benefit of calling no image.

    Args:
        probabilities: 0 to 1, calibrated.
        labels: 1 or 0.
        thresholds: The probabilities from which a call is positive; 0 to below 1. One of 0.1
            says that a missed finding is nine times as bad as a false alarm.

    Returns:
        At most the share of positives; below 0 the calls do more harm than good. NaN
        without images, or where a probability is NaN.

    Raises:
        ValueError: A threshold is below 0, or 1 or more.

    Source:
        Vickers and Elkin, Medical Decision Making 2006.

    Example:
        >>> net_benefit(np.array([0.1, 0.3, 0.6, 0.8]), np.array([0, 1, 0, 1]), np.array([0.2]))
        array([0.4375])
    """
    odds = _odds(thresholds)
    if not len(labels) or np.isnan(probabilities).any():
        return np.full(len(thresholds), np.nan)
    positive = labels == 1
    true_positives = _count_called(probabilities[positive], thresholds)
    false_positives = _count_called(probabilities[~positive], thresholds)
    benefit: Float[np.ndarray, " thresholds"]
    benefit = (true_positives - false_positives * odds) / len(labels)
    return benefit


def net_benefit_of_all(
    labels: Int[np.ndarray, " images"], thresholds: Float[np.ndarray, " thresholds"]
) -> Float[np.ndarray, " thresholds"]:
    """Net benefit of calling every image positive.

    Args:
        labels: 1 or 0.
        thresholds: As for `net_benefit`.

    Returns:
        The share of positives at threshold 0, falling; 0 where the threshold is that share. NaN
        without images.

    Raises:
        ValueError: A threshold is below 0, or 1 or more.

    Source:
        Vickers and Elkin, Medical Decision Making 2006.

    Example:
        >>> net_benefit_of_all(np.array([0, 0, 0, 1]), np.array([0.0, 0.25]))
        array([0.25, 0.  ])
    """
    share = float(labels.mean()) if len(labels) else float("nan")
    benefit: Float[np.ndarray, " thresholds"] = share - (1 - share) * _odds(thresholds)
    return benefit


def _odds(thresholds: Float[np.ndarray, " thresholds"]) -> Float[np.ndarray, " thresholds"]:
    outside = thresholds[~((thresholds >= 0) & (thresholds < 1))]
    if len(outside):
        raise ValueError(f"a threshold is {outside[0]}; it must be 0 or more and below 1.")
    odds: Float[np.ndarray, " thresholds"] = thresholds / (1 - thresholds)
    return odds


def _count_called(
    probabilities: Float[np.ndarray, " some"], thresholds: Float[np.ndarray, " thresholds"]
) -> Int[np.ndarray, " thresholds"]:
    # By sorting, so that no array of images times thresholds is made.
    return len(probabilities) - np.searchsorted(np.sort(probabilities), thresholds, side="left")
