"""Exact intervals, where resampling gives none or one that is too narrow."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from jaxtyping import Bool, Int
from scipy.stats import beta

from medllm.metrics.bootstrap import Estimate

# Percentiles of fewer resampled patients are too narrow for a share.
_FEW = 20


def exact_share(
    share: Estimate, among: Bool[np.ndarray, " images"], clusters: Sequence[str]
) -> Estimate:
    """Give a share its exact interval where it is 0 or 1, or of fewer than 20 patients.

    A share of 0 or 1 is that on each resample, too.

    Args:
        share: A share of some images, with its interval by resampling.
        among: The images that it is a share of.
        clusters: The patient of each image; several images of one tell no more than one does.

    Returns:
        The share with its exact 95% interval for the number of patients, or as it was.

    Source:
        Clopper and Pearson, Biometrika 1934.

    Example:
        >>> patients = [str(index) for index in range(30)]
        >>> got = exact_share(Estimate(0.0, 0.0, 0.0), np.ones(30, dtype=bool), patients)
        >>> got.low, round(got.high, 3)
        (0.0, 0.116)
    """
    n = _patients(among, clusters)
    if n < 1 or np.isnan(share.value) or (0 < share.value < 1 and n >= _FEW):
        return share
    hits = share.value * n
    low = float(beta.ppf(0.025, hits, n - hits + 1)) if hits > 0 else 0.0
    high = float(beta.ppf(0.975, hits + 1, n - hits)) if hits < n else 1.0
    return Estimate(share.value, low, high)


def exact_area(
    area: Estimate, labels: Int[np.ndarray, " images"], clusters: Sequence[str]
) -> Estimate:
    """Give an AUROC of 0 or 1 the interval that resampling cannot, and none of a single patient.

    So many pairs of patients as the rarer class has, each patient in one, are independent; and of
    an AUROC of 1 all are in order.

    Args:
        area: An AUROC, with its interval by resampling.
        labels: 1 or 0.
        clusters: The patient of each image.

    Returns:
        An AUROC of 0 or 1 with the exact 95% interval of that share of pairs, wider than need be;
        one between without interval where the images of a class are of one patient, and else as it
        was.

    Source:
        Clopper and Pearson, Biometrika 1934, for the pairs.

    Example:
        >>> patients, labels = [str(index) for index in range(40)], np.repeat([0, 1], [30, 10])
        >>> got = exact_area(Estimate(1.0, 1.0, 1.0), labels, patients)
        >>> round(got.low, 3), got.high
        (0.692, 1.0)
    """
    n = min(_patients(labels == label, clusters) for label in (0, 1))
    if area.value in (0, 1):
        beyond = 1 - 0.025 ** (1 / n)
        return Estimate(area.value, *((1 - beyond, 1.0) if area.value else (0.0, beyond)))
    return area if n > 1 else Estimate(area.value, float("nan"), float("nan"))


def _patients(among: Bool[np.ndarray, " images"], clusters: Sequence[str]) -> int:
    return len({clusters[at] for at in np.flatnonzero(among).tolist()})
