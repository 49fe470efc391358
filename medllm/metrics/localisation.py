"""How well a map over an image finds what is known to be there."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal

import numpy as np
from jaxtyping import Bool, Float, Int

from medllm.metrics.discrimination import auroc


def pointing_game(
    values: Float[np.ndarray, "rows columns"], truth: Bool[np.ndarray, "rows columns"]
) -> float:
    """Say whether the highest pixel lies within the truth, without tolerance.

    Args:
        values: The map; higher speaks for the finding.
        truth: Where the finding is.

    Returns:
        1 or 0; where several pixels are highest, the share of them that lies within. So a flat
        map gets what a point drawn at random would.

    Source:
        Zhang et al., International Journal of Computer Vision 2018, without their 15 pixels of
        tolerance, which would make a small finding a large one.

    Example:
        >>> pointing_game(np.array([[0.1, 0.9], [0.2, 0.3]]), np.array([[False, True]] * 2))
        1.0
    """
    return float(truth[values == values.max()].mean())


def otsu_threshold(values: Float[np.ndarray, "*shape"]) -> float:
    """Divide values into low and high ones, so that the two groups differ most.

    All cuts between two values are tried, not those of a histogram: on a map of few values the
    bins would decide.

    Args:
        values: Any number of them.

    Returns:
        The highest of the low values: what is above it is high. On equal values nothing is. NaN
        without values, or where one is NaN: again nothing is above it.

    Source:
        Otsu, IEEE Transactions on Systems, Man, and Cybernetics 1979: the largest variance
        between the groups.

    Example:
        >>> otsu_threshold(np.array([1.0, 2.0, 1.0, 9.0, 8.0]))
        2.0
    """
    ordered = np.sort(values, axis=None).astype(float)
    # NaN is sorted to the end.
    if not len(ordered) or np.isnan(ordered[-1]):
        return float("nan")
    below = np.arange(1, len(ordered))
    sums = np.cumsum(ordered)
    means = sums[:-1] / below
    above = len(ordered) - below
    differences = (sums[-1] - sums[:-1]) / above - means
    # A cut between two equal values is none.
    between = np.where(ordered[1:] > ordered[:-1], below * above * differences**2, 0)
    return float(ordered[np.argmax(between)] if between.any() else ordered[-1])


def intersection_over_union(
    marked: Bool[np.ndarray, "rows columns"], truth: Bool[np.ndarray, "rows columns"]
) -> float:
    """Say how far two areas are the same.

    Args:
        marked: What a map marks, such as `values > otsu_threshold(values)`.
        truth: Where the finding is.

    Returns:
        Area of both over area of either, 0 to 1; NaN where both are empty.

    Example:
        >>> intersection_over_union(np.array([[True, True]]), np.array([[False, True]]))
        0.5
    """
    union = (marked | truth).sum()
    return float((marked & truth).sum() / union) if union else float("nan")


def relevance_mass(
    values: Float[np.ndarray, "rows columns"], truth: Bool[np.ndarray, "rows columns"]
) -> float:
    """Say what share of the positive attribution lies within the truth.

    Args:
        values: Signed attribution.
        truth: Where the finding is.

    Returns:
        0 to 1; a map spread evenly gets the truth's share of the area. NaN where nothing is
        positive.

    Source:
        Arras et al., Information Fusion 2022 (relevance mass accuracy).

    Example:
        >>> relevance_mass(np.array([[3.0, 1.0, -5.0]]), np.array([[True, False, False]]))
        0.75
    """
    positive = np.maximum(values, 0)
    total = positive.sum()
    return float(positive[truth].sum() / total) if total > 0 else float("nan")


def energy_ratio(
    values: Float[np.ndarray, "rows columns"], truth: Bool[np.ndarray, "rows columns"]
) -> float:
    """Say how much denser the positive attribution is within the truth than on the whole.

    Args:
        values: Signed attribution.
        truth: Where the finding is.

    Returns:
        Relevance mass over the truth's share of the area, 0 or more; 1 is an even spread. NaN
        where nothing is positive or the truth is empty.

    Example:
        >>> energy_ratio(np.array([[3.0, 1.0, 0.0, 0.0]]), np.array([[True, False, False, False]]))
        3.0
    """
    return relevance_mass(values, truth) / float(truth.mean()) if truth.any() else float("nan")


def pixel_auroc(
    values: Float[np.ndarray, "rows columns"],
    truth: Bool[np.ndarray, "rows columns"],
    within: Bool[np.ndarray, "rows columns"] | None = None,
) -> float:
    """Say how often a pixel of the truth has a higher value than one beside it.

    Args:
        values: The map; higher speaks for the finding.
        truth: Where the finding is.
        within: Pixels that count, such as the lungs: to avoid the corners of the image is no
            merit there. All when None.

    Returns:
        0 to 1, ties half; .5 is chance. NaN where all pixels that count are of one kind.

    Example:
        >>> pixel_auroc(np.array([[3.0, 2.0, 1.0]]), np.array([[True, False, True]]))
        0.5
    """
    chosen = np.ones_like(truth) if within is None else within
    return auroc(values[chosen], truth[chosen].astype(int))


def image_half(truth: Bool[np.ndarray, "rows columns"]) -> Literal["left", "right"] | None:
    """Say in which half of the image the truth lies.

    Args:
        truth: Where the finding is.

    Returns:
        The half of the IMAGE, of which `left` is mostly the patient's right; None where the
        truth lies in both, or is empty. The middle column of an odd number is in neither.
    """
    middle = truth.shape[1] / 2
    columns = np.flatnonzero(truth.any(axis=0))
    if not len(columns):
        return None
    if columns[-1] + 1 <= middle:
        return "left"
    return "right" if columns[0] >= middle else None


def side_hit(
    values: Float[np.ndarray, "rows columns"], truth: Bool[np.ndarray, "rows columns"]
) -> float:
    """Say whether the half of the image with a one-sided truth holds more positive attribution.

    Args:
        values: Signed attribution.
        truth: Where the finding is.

    Returns:
        1, 0, or a half where both hold the same; NaN where the truth is not one-sided.

    Example:
        >>> side_hit(np.array([[2.0, 0.0, 1.0, 0.0]]), np.array([[True, True, False, False]]))
        1.0
    """
    half = image_half(truth)
    if half is None:
        return float("nan")
    columns = values.shape[1]
    positive = np.maximum(values, 0).sum(axis=0)
    left = float(positive[: columns // 2].sum())
    right = float(positive[(columns + 1) // 2 :].sum())
    return float(np.heaviside(left - right if half == "left" else right - left, 0.5))


def balanced_side_accuracy(
    hits: Float[np.ndarray, " images"], in_left_half: Bool[np.ndarray, " images"]
) -> float:
    """Average hits over the two sides, so that always naming the frequent side gains nothing.

    Args:
        hits: As of `side_hit`; an image that has NaN is left out.
        in_left_half: Whether the truth lies in the image's left half.

    Returns:
        Mean of the shares of hits on both sides; .5 is chance. NaN where one side has no image.
    """
    known = ~np.isnan(hits)
    left, right = hits[known & in_left_half], hits[known & ~in_left_half]
    if not len(left) or not len(right):
        return float("nan")
    return float((left.mean() + right.mean()) / 2)


def tuned_overlap(
    overlaps: Float[np.ndarray, "images thresholds"],
    folds: Int[np.ndarray, " images"],
) -> tuple[Float[np.ndarray, " images"], Sequence[int]]:
    """Give each image the overlap at the threshold that is best on the images of other folds.

    Args:
        overlaps: Intersection over union at each threshold tried.
        folds: The fold of each image; a patient's images are in one.

    Returns:
        The overlap of each image, and the place of the threshold chosen for each fold, in the
        folds' order. NaN, and no threshold, where there is one fold alone.
    """
    chosen: list[int] = []
    tuned = np.full(len(overlaps), np.nan)
    names = np.unique(folds)
    if len(names) < 2:
        return tuned, chosen
    for fold in names:
        held_out = folds == fold
        best = int(np.argmax(overlaps[~held_out].mean(axis=0)))
        tuned[held_out] = overlaps[held_out, best]
        chosen.append(best)
    return tuned, chosen
