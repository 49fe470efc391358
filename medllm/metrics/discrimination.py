"""How well a number tells images with a finding from those without."""

from __future__ import annotations

import numpy as np
from jaxtyping import Bool, Float, Int
from scipy.stats import rankdata


def auroc(scores: Float[np.ndarray, " images"], labels: Int[np.ndarray, " images"]) -> float:
    """Area under the ROC curve: the chance that a positive outranks a negative, ties half.

    Args:
        scores: Higher speaks for the finding.
        labels: 1 or 0.

    Returns:
        0 to 1; NaN where a class is missing.

    Source:
        Mann-Whitney U over the number of pairs (Hanley and McNeil, Radiology 1982).

    Example:
        >>> auroc(np.array([0.1, 0.4, 0.35, 0.8]), np.array([0, 0, 1, 1]))
        0.75
    """
    n_positive = int(labels.sum())
    n_negative = len(labels) - n_positive
    if n_positive == 0 or n_negative == 0:
        return float("nan")
    ranks = rankdata(scores)[labels == 1].sum()
    return float((ranks - n_positive * (n_positive + 1) / 2) / (n_positive * n_negative))


def sensitivity(called: Bool[np.ndarray, " images"], labels: Int[np.ndarray, " images"]) -> float:
    """Share of the positives that are called.

    Args:
        called: Whether the call is positive.
        labels: 1 or 0.

    Returns:
        0 to 1; NaN without positives.
    """
    return float(called[labels == 1].mean()) if (labels == 1).any() else float("nan")


def specificity(called: Bool[np.ndarray, " images"], labels: Int[np.ndarray, " images"]) -> float:
    """Share of the negatives that are not called.

    Args:
        called: Whether the call is positive.
        labels: 1 or 0.

    Returns:
        0 to 1; NaN without negatives.
    """
    return float((~called[labels == 0]).mean()) if (labels == 0).any() else float("nan")
