"""How well a number tells images with a finding from those without."""

from __future__ import annotations

import numpy as np
from jaxtyping import Bool, Float, Int


def auroc(scores: Float[np.ndarray, " images"], labels: Int[np.ndarray, " images"]) -> float:
    """Area under the ROC curve: the chance that a positive outranks a negative, ties half.

    Args:
        scores: Higher speaks for the finding.
        labels: 1 or 0.

    Returns:
        0 to 1; NaN where a class is missing or a score is NaN.

    Source:
        Mann-Whitney U over the number of pairs (Hanley and McNeil, Radiology 1982).

    Example:
        >>> auroc(np.array([0.1, 0.4, 0.35, 0.8]), np.array([0, 0, 1, 1]))
        0.75
    """
    positives, negatives = scores[labels == 1], np.sort(scores[labels == 0])
    # NaN would rank above every number.
    if not len(positives) or not len(negatives) or np.isnan(scores).any():
        return float("nan")
    # Twice the number of negatives that each positive outranks. The same as by ranks, and ten
    # times faster than scipy's rankdata on some hundred images, which are resampled often.
    outranked = np.searchsorted(negatives, positives, "left") + np.searchsorted(
        negatives, positives, "right"
    )
    return float(outranked.sum() / (2 * len(positives) * len(negatives)))


def average_precision(
    scores: Float[np.ndarray, " images"], labels: Int[np.ndarray, " images"]
) -> float:
    """Area under the precision-recall curve: precision averaged over steps of sensitivity.

    It is not interpolated, and equal scores are one step. Not scikit-learn's, whose checks of
    its input take longer than the sum: a bootstrap asks for it a thousand times.

    Args:
        scores: Higher speaks for the finding.
        labels: 1 or 0.

    Returns:
        Above 0 to 1; the share of positives is the level of chance. NaN without positives, or
        where a score is NaN.

    Source:
        Buckley and Voorhees, SIGIR 2000; Davis and Goadrich, ICML 2006 (why not interpolated).

    Example:
        >>> round(average_precision(np.array([0.1, 0.4, 0.35, 0.8]), np.array([0, 0, 1, 1])), 4)
        0.8333
    """
    _, hits, alarms = _cuts(scores, labels)
    if not hits.any():
        return float("nan")
    return float(np.diff(hits, prepend=0) @ (hits / (hits + alarms)) / hits[-1])


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


def positive_predictive_value(
    called: Bool[np.ndarray, " images"], labels: Int[np.ndarray, " images"]
) -> float:
    """Share of the called that are positive, also named precision.

    It holds for the share of positives in these images, not for another.

    Args:
        called: Whether the call is positive.
        labels: 1 or 0.

    Returns:
        0 to 1; NaN where none is called.
    """
    return float((labels[called] == 1).mean()) if called.any() else float("nan")


def negative_predictive_value(
    called: Bool[np.ndarray, " images"], labels: Int[np.ndarray, " images"]
) -> float:
    """Share of those not called that are negative.

    It holds for the share of positives in these images, not for another.

    Args:
        called: Whether the call is positive.
        labels: 1 or 0.

    Returns:
        0 to 1; NaN where all are called.
    """
    return float((labels[~called] == 0).mean()) if (~called).any() else float("nan")


def f1(called: Bool[np.ndarray, " images"], labels: Int[np.ndarray, " images"]) -> float:
    """Harmonic mean of sensitivity and positive predictive value.

    Args:
        called: Whether the call is positive.
        labels: 1 or 0.

    Returns:
        0 to 1; NaN where there is no positive and none is called.

    Source:
        van Rijsbergen, Information Retrieval 1979, chapter 7; as twice the true positives over
        positives and called.
    """
    total = int(called.sum() + labels.sum())
    return 2 * int(labels[called].sum()) / total if total else float("nan")


def youden_threshold(
    scores: Float[np.ndarray, " images"], labels: Int[np.ndarray, " images"]
) -> float:
    """Choose the threshold with the highest sum of sensitivity and specificity.

    It is to be chosen on other images than those whose sensitivity is then reported.

    Args:
        scores: Higher speaks for the finding.
        labels: 1 or 0.

    Returns:
        One of the scores, from which upwards a call is positive (`scores >= threshold`); of
        several as good, the highest. NaN where a class is missing or a score is NaN.

    Source:
        Youden, Cancer 1950.

    Example:
        >>> youden_threshold(np.array([0.1, 0.4, 0.35, 0.8]), np.array([0, 0, 1, 1]))
        0.8
    """
    edges, hits, alarms = _cuts(scores, labels)
    if not hits.any() or not alarms.any():
        return float("nan")
    # In whole numbers, so that ties are ties.
    return float(edges[np.argmax(hits * alarms[-1] - alarms * hits[-1])])


def sensitivity_threshold(
    scores: Float[np.ndarray, " images"], labels: Int[np.ndarray, " images"], sensitivity: float
) -> float:
    """Choose the highest threshold that reaches a sensitivity.

    It is to be chosen on other images than those whose sensitivity is then reported.

    Args:
        scores: Higher speaks for the finding.
        labels: 1 or 0.
        sensitivity: The least wanted, above 0 and at most 1.

    Returns:
        One of the scores, from which upwards a call is positive (`scores >= threshold`). NaN
        without positives, or where a score is NaN.

    Raises:
        ValueError: `sensitivity` is 0 or less, or above 1.

    Example:
        >>> sensitivity_threshold(np.array([0.1, 0.4, 0.35, 0.8]), np.array([0, 0, 1, 1]), 0.9)
        0.35
    """
    _require_share("sensitivity", sensitivity)
    edges, hits, _ = _cuts(scores, labels)
    if not hits.any():
        return float("nan")
    # As a share and not as a number of positives: 7 of 100 are 0.07, yet 0.07 * 100 is above 7.
    return float(edges[np.argmax(hits / hits[-1] >= sensitivity)])


def specificity_threshold(
    scores: Float[np.ndarray, " images"], labels: Int[np.ndarray, " images"], specificity: float
) -> float:
    """Choose the lowest threshold that reaches a specificity.

    It is to be chosen on other images than those whose specificity is then reported.

    Args:
        scores: Higher speaks for the finding.
        labels: 1 or 0.
        specificity: The least wanted, above 0 and at most 1.

    Returns:
        One of the scores, from which upwards a call is positive (`scores >= threshold`). NaN
        without negatives, where none of the scores reaches it, or where one is NaN.

    Raises:
        ValueError: `specificity` is 0 or less, or above 1.

    Example:
        >>> specificity_threshold(np.array([0.1, 0.4, 0.35, 0.8]), np.array([0, 0, 1, 1]), 0.9)
        0.8
    """
    _require_share("specificity", specificity)
    edges, _, alarms = _cuts(scores, labels)
    n = alarms[-1] if len(alarms) else 0
    reached = np.flatnonzero((n - alarms) / max(n, 1) >= specificity)
    return float(edges[reached[-1]]) if n and len(reached) else float("nan")


def _require_share(name: str, share: float) -> None:
    if not 0 < share <= 1:
        raise ValueError(f"{name} is {share}; it must be above 0 and at most 1.")


def _cuts(
    scores: Float[np.ndarray, " images"], labels: Int[np.ndarray, " images"]
) -> tuple[Float[np.ndarray, " edges"], Int[np.ndarray, " edges"], Int[np.ndarray, " edges"]]:
    """Give the distinct scores, the highest first, and the positives and negatives from each up.

    There are none where a score is NaN, which has no rank.
    """
    order = np.argsort(-scores, kind="stable")[: 0 if np.isnan(scores).any() else None]
    falling = scores[order]
    last = np.flatnonzero(np.append(falling[1:] != falling[:-1], True)[: len(falling)])
    hits = np.cumsum(labels[order])[last]
    return falling[last], hits, last + 1 - hits
