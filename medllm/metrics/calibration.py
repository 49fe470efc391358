"""How far a probability can be believed."""

from __future__ import annotations

import numpy as np
from jaxtyping import Float, Int


def brier(probabilities: Float[np.ndarray, " images"], labels: Int[np.ndarray, " images"]) -> float:
    """Mean squared difference of probability and label.

    Args:
        probabilities: 0 to 1.
        labels: 1 or 0.

    Returns:
        0 (perfect) to 1.

    Source:
        Brier, Monthly Weather Review 1950, for two classes, one of them counted.
    """
    return float(np.mean((probabilities - labels) ** 2))


def expected_calibration_error(
    probabilities: Float[np.ndarray, " images"],
    labels: Int[np.ndarray, " images"],
    *,
    n_bins: int = 10,
) -> float:
    """Mean distance of probability and frequency over bins of equal count.

    Bins of equal count, since bins of equal width are nearly empty where a model is sure.

    Args:
        probabilities: 0 to 1.
        labels: 1 or 0.
        n_bins: Bins; fewer where there are fewer images.

    Returns:
        0 (perfect) to 1.

    Source:
        Nguyen and O'Connor, EMNLP 2015 (adaptive binning); Naeini et al., AAAI 2015.
    """
    order = np.argsort(probabilities, kind="stable")
    bins = np.array_split(order, min(n_bins, len(order)))
    gaps = [abs(probabilities[chosen].mean() - labels[chosen].mean()) for chosen in bins]
    return float(np.average(gaps, weights=[len(chosen) for chosen in bins]))
