"""Intervals by resampling patients, so that a patient's images stay together."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from jaxtyping import Float, Int
from scipy.special import ndtr


@dataclass(frozen=True)
class Estimate:
    """A figure with its interval, of 95% where nothing else was asked for.

    `low` and `high` are NaN where resampling gives none: there is one patient, or on most resamples
    there is no such figure.
    """

    value: float
    low: float
    high: float


@dataclass(frozen=True)
class Comparison:
    """Two models on the same images.

    Attributes:
        difference: A figure of the first minus that of the second, with its interval.
        p_value: Two-sided, of no difference.
    """

    difference: Estimate
    p_value: float


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
            out. Where they are more than half, the others are no sample of what could have been,
            and there is no interval.
        clusters: The patient of each image.
        n_resamples: Resamples drawn.
        seed: Seed of the resampling.

    Returns:
        The figure on all images and its 95% interval; none of one patient, whom each resample has.

    Raises:
        ValueError: There is no image.

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
        ValueError: There is no image.
    """
    resampled = _resample(figures, clusters, n_resamples=n_resamples, seed=seed)
    everyone = np.arange(len(clusters))
    return {
        name: _percentiles(figure(everyone), resampled[name]) for name, figure in figures.items()
    }


def clustered_difference(
    first: Callable[[Int[np.ndarray, " chosen"]], float],
    second: Callable[[Int[np.ndarray, " chosen"]], float],
    clusters: Sequence[str],
    *,
    n_resamples: int = 1000,
    seed: int = 0,
) -> Comparison:
    """Compare a figure of two models on the same resamples of whole patients.

    Args:
        first: Of one model, as for `clustered_bootstrap`.
        second: Of the other, on the same images.
        clusters: The patient of each image.
        n_resamples: Resamples drawn.
        seed: Seed of the resampling.

    Returns:
        The first minus the second with its 95% interval, and the p-value that agrees with it:
        twice the share of resamples on the far side of 0, both sides counting 0 itself. Where
        none lies there, it is that of a normal distribution as wide as the resamples, which
        their number does not bound: a correction for many tests could else find nothing. It is
        then at most 2 over one more than the resamples. It is never below the least that a test
        of so few patients can give, 2 to the power of one less their number, though the
        interval of so few may leave out 0. It is NaN where there is no interval.

    Raises:
        ValueError: There is no image.

    Source:
        Efron and Tibshirani, An Introduction to the Bootstrap, 1993, section 15.4; one is added
        to both counts, so that no p-value is 0 (Davison and Hinkley, 1997, section 4.2; section
        5.2 for the normal distribution). A test of k pairs by exchanging the models has 2^k
        outcomes.

    Example:
        >>> first, second = np.array([3.0, 4.0, 5.0, 8.0]), np.full(4, 2.0)
        >>> got = clustered_difference(
        ...     lambda at: first[at].mean(), lambda at: second[at].mean(), ["a", "b", "c", "d"]
        ... )
        >>> got.difference, round(got.p_value, 3)
        (Estimate(value=3.0, low=1.5, high=5.0), 0.125)
    """

    def difference(chosen: Int[np.ndarray, " chosen"]) -> float:
        return float(first(chosen) - second(chosen))

    resampled = _resample({"": difference}, clusters, n_resamples=n_resamples, seed=seed)[""]
    estimate = _percentiles(difference(np.arange(len(clusters))), resampled)
    if np.isnan(estimate.low):
        return Comparison(estimate, float("nan"))
    return Comparison(estimate, _p_value(estimate.value, resampled, len(set(clusters))))


def _p_value(value: float, resampled: Float[np.ndarray, " resamples"], n_patients: int) -> float:
    defined = resampled[~np.isnan(resampled)]
    beyond = min(int((defined <= 0).sum()), int((defined >= 0).sum()))
    counted = min(1.0, 2 * (beyond + 1) / (len(defined) + 1))
    error = float(defined.std())
    if error and not beyond:
        counted = min(counted, normal_p_value(value, error))
    return max(counted, 2.0 ** (1 - n_patients))


def normal_p_value(value: float, error: float) -> float:
    """Test a value against 0 by a normal distribution.

    Args:
        value: Such as a difference.
        error: Its standard error; above 0.

    Returns:
        The two-sided p-value.

    Example:
        >>> round(normal_p_value(-1.96, 1.0), 3)
        0.05
    """
    return float(2 * ndtr(-abs(value) / error))


def basic_interval(error: Estimate) -> Estimate:
    """Turn the interval of a figure that resampling raises about the figure.

    A mean of absolute gaps, as the ECE is, takes chance for an error, and a resample has the
    chance of the sample and its own: its percentiles lie too high, and often above the figure.
    As far as the resamples lie from the figure to one side, the truth is held to lie from it to
    the other.

    Args:
        error: A figure that is 0 or more, with the percentiles of its resamples.

    Returns:
        The figure with its 95% interval, from 0 on, and made to hold the figure; as it was where
        it has none.

    Source:
        Davison and Hinkley, 1997, section 5.2, basic bootstrap limits.

    Example:
        >>> basic_interval(Estimate(0.25, 0.1875, 0.625))
        Estimate(value=0.25, low=0.0, high=0.3125)
    """
    if np.isnan(error.low):
        return error
    low, high = 2 * error.value - error.high, 2 * error.value - error.low
    return Estimate(error.value, max(0.0, min(low, error.value)), max(high, error.value))


def _resample(
    figures: Mapping[str, Callable[[Int[np.ndarray, " chosen"]], float]],
    clusters: Sequence[str],
    *,
    n_resamples: int,
    seed: int,
) -> dict[str, Float[np.ndarray, " resamples"]]:
    """Draw whole patients, as many as there are, and give each figure on each draw.

    Each draw of one patient is that patient: as if no figure were defined.
    """
    if not len(clusters):
        raise ValueError("an interval needs at least one image.")
    _, codes = np.unique(np.asarray(clusters), return_inverse=True)
    order = np.argsort(codes, kind="stable")
    sizes = np.bincount(codes)
    if len(sizes) == 1:
        return {name: np.full(n_resamples, np.nan) for name in figures}
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
    return {name: np.asarray(of_each) for name, of_each in values.items()}


def _percentiles(value: float, resampled: Float[np.ndarray, " resamples"]) -> Estimate:
    defined = resampled[~np.isnan(resampled)]
    if len(defined) < len(resampled) / 2:
        return Estimate(value, float("nan"), float("nan"))
    low, high = np.percentile(defined, [2.5, 97.5])
    return Estimate(value, float(low), float(high))
