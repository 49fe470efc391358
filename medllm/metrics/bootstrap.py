"""Intervals by resampling patients, so that a patient's images stay together."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
from jaxtyping import Int


@dataclass(frozen=True)
class Estimate:
    """A figure with its 95% interval."""

    value: float
    low: float
    high: float


def clustered_bootstrap(
    figure: Callable[[Int[np.ndarray, " chosen"]], float],
    clusters: Sequence[str],
    *,
    n_resamples: int = 1000,
    seed: int = 0,
) -> Estimate:
    """Estimate a figure with a percentile interval, resampling whole patients.

    Args:
        figure: From the indices of the chosen images, repeats included, to the figure; NaN
            where it is not defined, such as an AUROC of one class, and such resamples are left
            out.
        clusters: The patient of each image.
        n_resamples: Resamples drawn.
        seed: Seed of the resampling.

    Returns:
        The figure on all images and its 95% interval.

    Raises:
        ValueError: There is no image, or the figure is defined on no resample.

    Source:
        Field and Welsh, J R Stat Soc B 2007 (cluster bootstrap).
    """
    if not clusters:
        raise ValueError("an interval needs at least one image.")
    _, codes = np.unique(np.asarray(clusters), return_inverse=True)
    order = np.argsort(codes, kind="stable")
    members = np.split(order, np.cumsum(np.bincount(codes))[:-1])
    generator = np.random.default_rng(seed)
    values = []
    for _ in range(n_resamples):
        drawn = generator.integers(len(members), size=len(members))
        values.append(figure(np.concatenate([members[index] for index in drawn])))
    defined = np.asarray(values)[~np.isnan(values)]
    if not len(defined):
        raise ValueError("the figure is defined on no resample; there are too few cases.")
    low, high = np.percentile(defined, [2.5, 97.5])
    return Estimate(figure(np.arange(len(codes))), float(low), float(high))
