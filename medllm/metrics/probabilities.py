"""What probabilities of one finding are worth without a threshold, with intervals."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from jaxtyping import Float, Int

from medllm.metrics.bootstrap import Estimate, basic_interval, clustered_bootstraps
from medllm.metrics.calibration import brier, expected_calibration_error
from medllm.metrics.discrimination import auroc
from medllm.metrics.exact import exact_area


def probability_figures(
    probabilities: Float[np.ndarray, " images"],
    labels: Int[np.ndarray, " images"],
    clusters: Sequence[str],
    *,
    n_resamples: int = 1000,
) -> dict[str, Estimate]:
    """Measure ranking and calibration, each with the interval that suits it.

    Args:
        probabilities: 0 to 1.
        labels: 1 or 0.
        clusters: The patient of each image.
        n_resamples: Resamples drawn; those that `clustered_bootstraps` draws of these patients.

    Returns:
        `auroc` (as of `exact_area`), `brier` and `ece` (as of `basic_interval`). The AUROC is NaN
        where a class is missing.

    Raises:
        ValueError: There is no image.

    Example:
        >>> given, truth = np.array([0.1, 0.4, 0.35, 0.8]), np.array([0, 0, 1, 1])
        >>> got = probability_figures(given, truth, ["a", "b", "c", "d"])
        >>> {name: round(one.value, 2) for name, one in got.items()}
        {'auroc': 0.75, 'brier': 0.16, 'ece': 0.34}
    """
    measured = clustered_bootstraps(
        {
            "auroc": lambda at: auroc(probabilities[at], labels[at]),
            "brier": lambda at: brier(probabilities[at], labels[at]),
            "ece": lambda at: expected_calibration_error(probabilities[at], labels[at]),
        },
        clusters,
        n_resamples=n_resamples,
    )
    return {
        "auroc": exact_area(measured["auroc"], labels, clusters),
        "brier": measured["brier"],
        "ece": basic_interval(measured["ece"]),
    }
