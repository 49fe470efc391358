"""Intervals by resampling patients, so that a patient's images stay together."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from jaxtyping import Float, Int


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
    return clustered_bootstraps({"figure": figure}, clusters, n_resamples=n_resamples, seed=seed)[
        "figure"
    ]


def clustered_bootstraps(
    figures: Mapping[str, Callable[[Int[np.ndarray, " chosen"]], float]],
    clusters: Sequence[str],
    *,
    n_resamples: int = 1000,
    seed: int = 0,
) -> dict[str, Estimate]:
    """Estimate several figures on the same resamples; each as `clustered_bootstrap` would.

    Args:
        figures: As for `clustered_bootstrap`, by name.
        clusters: The patient of each image.
        n_resamples: Resamples drawn.
        seed: Seed of the resampling.

    Returns:
        Each figure on all images and its 95% interval.

    Raises:
        ValueError: There is no image, or a figure is defined on no resample.
    """
    if not clusters:
        raise ValueError("an interval needs at least one image.")
    _, codes = np.unique(np.asarray(clusters), return_inverse=True)
    order = np.argsort(codes, kind="stable")
    sizes = np.bincount(codes)
    starts = np.cumsum(sizes) - sizes
    generator = np.random.default_rng(seed)
    values: dict[str, list[float]] = {name: [] for name in figures}
    for _ in range(n_resamples):
        drawn = generator.integers(len(sizes), size=len(sizes))
        # The images of the drawn patients one after another, without a loop over patients.
        ends = np.cumsum(sizes[drawn])
        offsets = np.repeat(starts[drawn] - ends + sizes[drawn], sizes[drawn])
        chosen = order[offsets + np.arange(ends[-1])]
        for name, figure in figures.items():
            values[name].append(figure(chosen))
    everyone = np.arange(len(codes))
    return {
        name: _percentiles(figure(everyone), np.asarray(values[name]))
        for name, figure in figures.items()
    }


def _percentiles(value: float, resampled: Float[np.ndarray, " resamples"]) -> Estimate:
    defined = resampled[~np.isnan(resampled)]
    if not len(defined):
        raise ValueError("the figure is defined on no resample; there are too few cases.")
    low, high = np.percentile(defined, [2.5, 97.5])
    return Estimate(value, float(low), float(high))
