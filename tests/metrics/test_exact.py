from __future__ import annotations

import math

import numpy as np
import pytest
from scipy.stats import binomtest

from medllm.metrics import Estimate, auroc, clustered_bootstrap, exact_area, exact_share

NAN = float("nan")


def _names(n):
    return [str(index) for index in range(n)]


@pytest.mark.parametrize("n", [1, 12, 74, 5000])
@pytest.mark.parametrize("value", [0.0, 1.0])
def test_a_share_of_none_or_all_has_the_exact_interval(value, n):
    for low in (value, NAN):  # as resampled, and of one patient, who cannot be resampled
        got = exact_share(Estimate(value, low, low), np.ones(n, dtype=bool), _names(n))
        exact = binomtest(round(value * n), n).proportion_ci(method="exact")
        assert (got.value, got.low, got.high) == pytest.approx((value, exact.low, exact.high))


@pytest.mark.parametrize(("hits", "n"), [(1, 2), (4, 5), (12, 13), (18, 19)])
def test_a_share_of_few_patients_has_the_exact_interval(hits, n):
    # Two images a patient, which say the same: they are not twice as many.
    patients = [str(index // 2) for index in range(2 * n)]
    share = hits / n
    got = exact_share(Estimate(share, 0.9, 0.9), np.ones(2 * n, dtype=bool), patients)
    exact = binomtest(hits, n).proportion_ci(method="exact")
    assert (got.value, got.low, got.high) == pytest.approx((share, exact.low, exact.high))


@pytest.mark.parametrize("share", [Estimate(0.25, 0.0, 0.6), Estimate(0.999, 0.99, 1.0)])
def test_a_share_between_of_many_keeps_the_interval_of_its_resamples(share):
    assert exact_share(share, np.ones(20, dtype=bool), _names(20)) == share


def test_a_share_of_no_image_stays_undefined():
    got = exact_share(Estimate(NAN, NAN, NAN), np.zeros(3, dtype=bool), _names(3))
    assert math.isnan(got.value)


@pytest.mark.parametrize("sign", [1, -1])
def test_an_area_without_a_pair_out_of_order_is_not_certain(sign):
    labels = np.repeat([0, 1], [30, 10])
    patients, scores = _names(40), sign * np.arange(40.0)
    percentiles = clustered_bootstrap(lambda at: auroc(scores[at], labels[at]), patients)
    assert percentiles.low == percentiles.high  # as if nothing else were possible
    got = exact_area(percentiles, labels, patients)
    # Ten pairs of patients that have nobody in common, all in order.
    exact = binomtest(10 if sign == 1 else 0, 10).proportion_ci(method="exact")
    assert (got.low, got.high) == pytest.approx((exact.low, exact.high))


def test_the_interval_of_a_perfect_area_covers_the_area_of_the_population():
    rng, n = np.random.default_rng(0), 8
    covered = []
    for _ in range(2000):
        scores = np.concatenate([rng.normal(size=12), rng.normal(2.2, size=n)])
        labels = np.repeat([0, 1], [12, n])
        value = auroc(scores, labels)
        got = exact_area(Estimate(value, 0.0, 1.0), labels, _names(20))
        covered.append(got.low <= 0.940 <= got.high)  # Phi(2.2 / sqrt(2))
        assert value == 1 or (got.low, got.high) == (0, 1)
    assert np.mean(covered) >= 0.95


def test_an_area_between_has_no_interval_where_one_patient_is_all_of_a_class():
    labels, patients = np.array([0, 0, 0, 1, 1]), ["a", "b", "c", "d", "d"]
    got = exact_area(Estimate(0.8, 0.7, 0.9), labels, patients)
    assert got.value == 0.8
    assert math.isnan(got.low)
    assert math.isnan(got.high)
    two = exact_area(Estimate(0.8, 0.7, 0.9), labels, ["a", "b", "c", "d", "e"])
    assert two == Estimate(0.8, 0.7, 0.9)
