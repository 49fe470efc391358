from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.optimize import minimize_scalar
from scipy.special import expit
from sklearn.linear_model import LogisticRegression

from medllm.metrics import (
    calibration_intercept,
    calibration_slope,
    clustered_bootstrap,
    clustered_bootstraps,
    expected_calibration_error,
    reliability_bins,
    separated,
)


def _sample(n, slope, intercept, seed=0, scale=2.0):
    rng = np.random.default_rng(seed)
    log_odds = rng.normal(scale=scale, size=n)
    return log_odds, (rng.random(n) < expit(slope * log_odds + intercept)).astype(int)


@pytest.mark.parametrize("slope", [0.2, 1.0, 5.0, -0.5])
@pytest.mark.parametrize("seed", [0, 1])
def test_the_slope_is_that_of_scikit_learns_logistic_regression(slope, seed):
    log_odds, labels = _sample(300, slope, 0.7, seed, scale=3.0)
    wanted = LogisticRegression(C=np.inf, solver="newton-cholesky", tol=1e-10)
    wanted.fit(log_odds[:, None], labels)
    # Both are at the optimum to their own tolerance, far below 1e-6.
    assert calibration_slope(log_odds, labels) == pytest.approx(wanted.coef_[0, 0], abs=1e-6)


@settings(deadline=None)
@given(
    rows=st.lists(st.tuples(st.integers(-30, 30), st.integers(0, 1)), min_size=2, max_size=30),
)
def test_the_slope_is_at_the_maximum_of_the_likelihood_or_there_is_none(rows):
    log_odds, labels = np.array([x / 4 for x, _ in rows]), np.array([y for _, y in rows])
    slope = calibration_slope(log_odds, labels)
    assert math.isnan(slope) == separated(log_odds, labels)
    if math.isnan(slope):
        return
    # Given the slope, the best intercept; then the score equation of the slope must be nought.
    shift = calibration_intercept(slope * log_odds, labels)
    score = (labels - expit(slope * log_odds + shift)) @ (log_odds - log_odds.mean())
    assert abs(score) < 1e-5 * log_odds.std() * len(rows)


def test_the_intercept_maximises_the_likelihood_with_the_slope_held_at_one():
    log_odds, labels = _sample(500, 1.0, -0.8)

    def loss(shift):
        return np.logaddexp(0, log_odds + shift).sum() - (log_odds + shift) @ labels

    wanted = minimize_scalar(loss, bounds=(-5, 5), method="bounded", options={"xatol": 1e-9}).x
    # A flat minimum is found to the root of the precision of doubles.
    assert calibration_intercept(log_odds, labels) == pytest.approx(wanted, abs=1e-6)


def test_perfect_probabilities_have_slope_one_and_intercept_nought():
    log_odds, labels = _sample(40_000, 1.0, 0.0)
    # Standard errors at this size are .010 and .013.
    assert calibration_slope(log_odds, labels) == pytest.approx(1, abs=0.04)
    assert calibration_intercept(log_odds, labels) == pytest.approx(0, abs=0.05)


def test_log_odds_three_times_too_large_have_a_third_of_the_slope():
    log_odds, labels = _sample(2_000, 1.0, 0.0)
    slope = calibration_slope(log_odds, labels)
    assert calibration_slope(3 * log_odds + 1, labels) == pytest.approx(slope / 3, rel=1e-6)


@pytest.mark.parametrize(
    ("log_odds", "labels"),
    [
        ([0, 1, 2, 3], [0, 0, 1, 1]),
        ([0, 1, 1, 3], [1, 1, 0, 0]),
        ([1, 1], [0, 1]),
        ([1, 2], [1, 1]),
    ],
)
def test_there_is_no_slope_where_one_value_parts_the_classes(log_odds, labels):
    assert separated(np.array(log_odds, dtype=float), np.array(labels))
    assert math.isnan(calibration_slope(np.array(log_odds, dtype=float), np.array(labels)))


def test_an_overlap_below_the_precision_of_doubles_is_none():
    # The best slope would be about 1e16.
    log_odds, labels = np.array([0.0, -12.0, -2.2e-16]), np.array([1, 1, 0])
    assert math.isnan(calibration_slope(log_odds, labels))


def test_a_missing_class_has_no_intercept():
    assert math.isnan(calibration_intercept(np.zeros(3), np.ones(3, dtype=int)))


def test_bins_hold_equal_counts_with_wilsons_interval():
    probabilities = np.linspace(0.05, 0.95, 20)
    labels = np.array([0] * 8 + [1, 1] + [1] * 8 + [0, 0])
    low, high = reliability_bins(
        probabilities, labels, [str(index) for index in range(20)], n_bins=2
    )
    assert (low.n, high.n) == (10, 10)
    assert low.probability == pytest.approx(probabilities[:10].mean())
    assert high.frequency.value == pytest.approx(0.8)
    # Wilson's interval of 8 in 10, as R's binom::binom.wilson gives it.
    assert (high.frequency.low, high.frequency.high) == pytest.approx((0.4901625, 0.9433178))


def test_one_probability_for_all_is_calibrated_in_any_order_of_the_rows():
    probabilities, labels = np.full(1000, 0.2), np.repeat([1, 0], [200, 800])
    names = [str(index) for index in range(1000)]
    assert expected_calibration_error(probabilities, labels) == pytest.approx(0, abs=1e-12)
    bins = reliability_bins(probabilities, labels, names)
    assert [one.n for one in bins] == [100] * 10
    assert [one.frequency.value for one in bins] == pytest.approx([0.2] * 10)


@settings(deadline=None)
@given(
    rows=st.lists(
        st.tuples(st.integers(0, 8), st.integers(0, 1), st.sampled_from("abcdef")),
        min_size=1,
        max_size=40,
    ),
    seed=st.integers(0, 9),
)
def test_the_order_of_the_rows_is_no_matter_to_bins_and_ece(rows, seed):
    shuffled = [rows[at] for at in np.random.default_rng(seed).permutation(len(rows))]
    found = []
    for order in (rows, shuffled):
        probabilities = np.array([p / 8 for p, _, _ in order])
        labels, patients = np.array([y for _, y, _ in order]), [who for _, _, who in order]
        bins = reliability_bins(probabilities, labels, patients, n_bins=4)
        figures = [(b.n, b.probability, b.frequency.low, b.frequency.high) for b in bins]
        found.append([expected_calibration_error(probabilities, labels), *np.ravel(figures)])
    assert found[0] == pytest.approx(found[1], abs=1e-12)


def test_without_ties_the_ece_is_that_of_the_definition():
    log_odds, labels = _sample(203, 0.5, 0.3)
    order = np.argsort(log_odds)
    wanted = sum(
        abs((expit(log_odds[chosen]) - labels[chosen]).sum())
        for chosen in np.array_split(order, 10)
    )
    assert expected_calibration_error(expit(log_odds), labels) == pytest.approx(wanted / 203)


def test_images_of_one_patient_count_once_in_a_bins_interval():
    probabilities, labels = np.full(20, 0.5), np.array([1, 0] * 10)
    apart = reliability_bins(probabilities, labels, list("abcdefghijklmnopqrst"), n_bins=1)[0]
    together = reliability_bins(probabilities, labels, ["a"] * 10 + ["b"] * 10, n_bins=1)[0]
    assert apart.frequency.low > together.frequency.low
    assert together.n == 20
    # Wilson's interval of 1 in 2.
    assert together.frequency.low == pytest.approx(0.0945, abs=1e-4)


@pytest.mark.parametrize("label", [0, 1])
def test_the_frequency_lies_in_its_interval_to_the_last_digit(label):
    for n in range(1, 60):
        names = [str(index) for index in range(n)]
        (one,) = reliability_bins(np.full(n, 0.5), np.full(n, label), names, n_bins=1)
        assert 0 <= one.frequency.low <= label <= one.frequency.high <= 1


def test_a_bin_without_a_case_is_not_certain():
    one = reliability_bins(np.full(5, 0.1), np.zeros(5, dtype=int), list("abcde"), n_bins=1)[0]
    assert one.frequency.low == 0
    # 1.96^2 / (5 + 1.96^2), Wilson's upper end at nought of five.
    assert one.frequency.high == pytest.approx(0.4345, abs=1e-4)


def test_several_figures_have_the_intervals_that_each_has_alone():
    values = np.random.default_rng(0).normal(size=60)
    patients = [str(index // 3) for index in range(60)]
    figures = {
        "mean": lambda at: float(values[at].mean()),
        "largest": lambda at: float(values[at].max()),
    }
    together = clustered_bootstraps(figures, patients, n_resamples=50, seed=3)
    for name, figure in figures.items():
        assert together[name] == clustered_bootstrap(figure, patients, n_resamples=50, seed=3)


def test_a_resample_holds_whole_patients():
    patients = np.array(list("abcaabd"))
    seen = []

    def look(at):
        seen.append(at)
        return 0.0

    clustered_bootstrap(look, patients.tolist(), n_resamples=30)
    wanted = {name: np.flatnonzero(patients == name).tolist() for name in "abcd"}
    for at in seen[:-1]:
        rest, drawn = at.tolist(), 0
        while rest:
            images = wanted[patients[rest[0]]]
            assert rest[: len(images)] == images
            rest, drawn = rest[len(images) :], drawn + 1
        assert drawn == 4
