from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from MLstatkit.delong import Delong_test
from scipy.special import expit, logit
from scipy.stats import norm

from medllm.metrics import auroc, clustered_difference, delong_difference, delong_interval

# DeLong, DeLong and Clarke-Pearson, Biometrics 1988: 43 patients with ovarian cancer; albumin,
# total protein, K-G score (the lower the better) and whether surgery helped.
# fmt: off
_OVARIAN = np.array([
    [3.0, 5.8, 10, 0], [3.2, 6.3, 5, 1], [3.9, 6.8, 3, 1], [2.8, 4.8, 6, 0],
    [3.2, 5.8, 3, 1], [0.9, 4.0, 5, 0], [2.5, 5.7, 8, 0], [1.6, 5.6, 5, 1],
    [3.8, 5.7, 5, 1], [3.7, 6.7, 6, 1], [3.2, 5.4, 4, 1], [3.8, 6.6, 6, 1],
    [4.1, 6.6, 5, 1], [3.6, 5.7, 5, 1], [4.3, 7.0, 4, 1], [3.6, 6.7, 4, 0],
    [2.3, 4.4, 6, 1], [4.2, 7.6, 4, 0], [4.0, 6.6, 6, 0], [3.5, 5.8, 6, 1],
    [3.8, 6.8, 7, 1], [3.0, 4.7, 8, 0], [4.5, 7.4, 5, 1], [3.7, 7.4, 5, 1],
    [3.1, 6.6, 6, 1], [4.1, 8.2, 6, 1], [4.3, 7.0, 5, 1], [4.3, 6.5, 4, 1],
    [3.2, 5.1, 5, 1], [2.6, 4.7, 6, 1], [3.3, 6.8, 6, 0], [1.7, 4.0, 7, 0],
    [3.7, 6.1, 5, 1], [3.3, 6.3, 7, 1], [4.2, 7.7, 6, 1], [3.5, 6.2, 5, 1],
    [2.9, 5.7, 9, 0], [2.1, 4.8, 7, 1], [2.8, 6.2, 8, 0], [4.0, 7.0, 7, 1],
    [3.3, 5.7, 6, 1], [3.7, 6.9, 5, 1], [3.6, 6.6, 5, 1],
])
# fmt: on
ALBUMIN, PROTEIN, K_G = _OVARIAN[:, 0], _OVARIAN[:, 1], -_OVARIAN[:, 2]
HELPED = _OVARIAN[:, 3].astype(int)

# Few values, so that ties are common; two models and a label an image, two images a class.
ROWS = st.lists(
    st.tuples(st.integers(-4, 4), st.integers(-4, 4), st.integers(0, 1)), min_size=4, max_size=40
).filter(lambda rows: 2 <= sum(label for _, _, label in rows) <= len(rows) - 2)


def _columns(rows):
    first, second, labels = np.array(rows).T
    return first.astype(float), second.astype(float), labels


def _sample(n, seed, *, n_values=None):
    rng = np.random.default_rng(seed)
    labels = (rng.random(n) < 0.3).astype(int)
    shared = rng.normal(size=n)
    models = [labels * gain + shared + rng.normal(size=n) for gain in (1.5, 1.2)]
    if n_values:
        models = [np.round(model * n_values / 6) for model in models]
    return *models, labels


def _covariance(models, labels):
    """DeLong et al. 1988, equations 4 to 6, over all pairs."""
    kernels = []
    for scores in models:
        pairs = scores[labels == 1][:, None] - scores[labels == 0][None, :]
        kernels.append((pairs > 0) + 0.5 * (pairs == 0))
    by_positive = np.cov([kernel.mean(axis=1) for kernel in kernels])
    by_negative = np.cov([kernel.mean(axis=0) for kernel in kernels])
    covariance = by_positive / (labels == 1).sum() + by_negative / (labels == 0).sum()
    return [kernel.mean() for kernel in kernels], covariance


def _standard_error(estimate):
    """Undo the logit scale."""
    width = logit(estimate.high) - logit(estimate.low)
    return width / 2 / norm.ppf(0.975) * estimate.value * (1 - estimate.value)


@pytest.mark.parametrize("n_values", [None, 5])
@pytest.mark.parametrize("seed", range(4))
def test_both_agree_with_the_structural_components_of_all_pairs(seed, n_values):
    first, second, labels = _sample(150, seed, n_values=n_values)
    values, covariance = _covariance([first, second], labels)
    for scores, value, variance in zip([first, second], values, np.diag(covariance), strict=True):
        got = delong_interval(scores, labels)
        half = 1.959963984540054 * math.sqrt(variance) / (value * (1 - value))
        # Sums in another order; double precision leaves twelve digits.
        assert got.value == pytest.approx(value, abs=1e-12)
        assert got.low == pytest.approx(expit(logit(value) - half), abs=1e-12)
        assert got.high == pytest.approx(expit(logit(value) + half), abs=1e-12)
    got = delong_difference(first, second, labels)
    difference, error = values[0] - values[1], math.sqrt([1, -1] @ covariance @ [1, -1])
    assert got.difference.value == pytest.approx(difference, abs=1e-12)
    assert got.difference.low == pytest.approx(difference - 1.959963984540054 * error, abs=1e-12)
    assert got.difference.high == pytest.approx(difference + 1.959963984540054 * error, abs=1e-12)
    assert got.p_value == pytest.approx(2 * norm.sf(abs(difference) / error), abs=1e-10)


# The areas and the intervals on the plain scale as confidenceinterval 1.0.5 gives them.
@pytest.mark.parametrize(
    ("scores", "value", "low", "high"),
    [
        (ALBUMIN, 0.73655903, 0.55488145, 0.91823661),
        (K_G, 0.72580636, 0.52427971, 0.92733300),
        (PROTEIN, 0.64784930, 0.45176008, 0.84393857),
    ],
)
def test_the_spread_is_that_of_confidenceinterval_on_delongs_own_patients(scores, value, low, high):
    got = delong_interval(scores, HELPED)
    # It reckons in float32, whose steps here are 6e-8.
    assert got.value == pytest.approx(value, abs=1e-6)
    assert _standard_error(got) == pytest.approx((high - low) / 2 / 1.959963985, abs=1e-6)


# z and p as MLstatkit 0.1.91 gives them.
@pytest.mark.parametrize(
    ("first", "second", "z", "p_value"),
    [
        (ALBUMIN, K_G, 0.1127782690, 0.9102063472),
        (PROTEIN, K_G, -0.7452183897, 0.4561397075),
        (PROTEIN, ALBUMIN, -1.5900292593, 0.1118282101),
    ],
)
def test_the_comparison_is_that_of_mlstatkit_on_delongs_own_patients(first, second, z, p_value):
    got = delong_difference(first, second, HELPED)
    error = (got.difference.high - got.difference.low) / 2 / 1.959963984540054
    assert got.difference.value / error == pytest.approx(z, abs=1e-9)  # the digits given
    assert got.p_value == pytest.approx(p_value, abs=1e-9)


@pytest.mark.parametrize("n_values", [None, 3, 12])
@pytest.mark.parametrize("seed", range(3))
def test_the_comparison_is_that_of_mlstatkit(seed, n_values):
    first, second, labels = _sample(400, seed, n_values=n_values)
    # Its z is of the second minus the first.
    z, p_value, *_ = Delong_test(labels, second, first)
    got = delong_difference(first, second, labels)
    error = (got.difference.high - got.difference.low) / 2 / 1.959963984540054
    assert got.difference.value / error == pytest.approx(z, abs=1e-9)
    assert got.p_value == pytest.approx(p_value, abs=1e-10)


@settings(deadline=None)
@given(rows=ROWS)
def test_the_interval_holds_the_auroc_and_stays_in_its_range(rows):
    scores, _, labels = _columns(rows)
    got = delong_interval(scores, labels)
    assert got.value == auroc(scores, labels)
    flat = got.value in (0, 1) or len(np.unique(scores)) == 1
    assert math.isnan(got.low) == math.isnan(got.high) == flat
    if not flat:
        assert 0 <= got.low <= got.value <= got.high <= 1


@settings(deadline=None)
@given(rows=ROWS)
def test_only_ranks_count_and_turning_them_round_mirrors_the_interval(rows):
    scores, _, labels = _columns(rows)
    got = delong_interval(scores, labels)
    assume(not math.isnan(got.low))
    assert delong_interval(np.exp(scores) - 7, labels) == got
    turned = delong_interval(-scores, labels)
    # 1 - x loses up to two digits of the logit's near its ends.
    assert (turned.low, turned.value, turned.high) == pytest.approx(
        (1 - got.high, 1 - got.value, 1 - got.low), abs=1e-12
    )


@settings(deadline=None)
@given(rows=ROWS)
def test_the_comparison_is_antisymmetric(rows):
    first, second, labels = _columns(rows)
    one, other = (
        delong_difference(first, second, labels),
        delong_difference(second, first, labels),
    )
    assert one.difference.value == -other.difference.value
    assert one.p_value == other.p_value or math.isnan(one.p_value + other.p_value)
    if not math.isnan(one.difference.low):
        assert (one.difference.low, one.difference.high) == (
            -other.difference.high,
            -other.difference.low,
        )
        assert -1 <= one.difference.low <= one.difference.value <= one.difference.high <= 1


@settings(deadline=None)
@given(rows=ROWS)
def test_the_p_value_and_the_interval_agree_on_the_level(rows):
    first, second, labels = _columns(rows)
    got = delong_difference(first, second, labels)
    assume(not math.isnan(got.difference.low))
    assume(abs(got.p_value - 0.05) > 1e-9)
    excluded = got.difference.low > 0 or got.difference.high < 0
    assert excluded == (got.p_value < 0.05)


def test_a_model_and_the_same_on_another_scale_do_not_differ():
    scores, _, labels = _sample(50, 0)
    got = delong_difference(scores, expit(scores), labels)
    assert got.difference.value == 0
    assert math.isnan(got.difference.low)
    assert got.p_value == 1


# Ten positives above 21 negatives: thirds and tenths would leave a spread of rounding errors.
_PARTED = np.repeat([0.0, 1.0], [21, 10])
_PARTED_LABELS = _PARTED.astype(int)


def test_two_perfect_models_are_equal_without_an_interval():
    got = delong_difference(_PARTED, np.arange(31.0), _PARTED_LABELS)
    assert (got.difference.value, got.p_value) == (0, 1)
    assert math.isnan(got.difference.low)
    assert math.isnan(got.difference.high)


@pytest.mark.parametrize("second", [np.zeros(31), -_PARTED])
def test_models_that_differ_without_spread_have_no_p_value(second):
    got = delong_difference(_PARTED, second, _PARTED_LABELS)
    assert got.difference.value == 1 - auroc(second, _PARTED_LABELS)
    assert math.isnan(got.p_value)
    assert math.isnan(got.difference.low)


@pytest.mark.parametrize(
    ("scores", "labels", "value"),
    [
        (_PARTED, _PARTED_LABELS, 1),
        (-_PARTED, _PARTED_LABELS, 0),
        (np.zeros(31), _PARTED_LABELS, 0.5),
        (np.array([2.0, 1.0, 3.0]), np.array([1, 0, 0]), 0.5),
        (np.array([2.0, 1.0, 3.0]), np.array([0, 1, 1]), 0.5),
    ],
)
def test_without_spread_the_auroc_has_no_interval(scores, labels, value):
    got = delong_interval(scores, labels)
    assert got.value == value
    assert math.isnan(got.low)
    assert math.isnan(got.high)


@pytest.mark.parametrize("labels", [np.zeros(3, dtype=int), np.ones(3, dtype=int)])
def test_a_missing_class_leaves_nothing(labels):
    scores = np.arange(3.0)
    compared = delong_difference(scores, scores, labels)
    for estimate in (delong_interval(scores, labels), compared.difference):
        assert math.isnan(estimate.value)
        assert math.isnan(estimate.low)
    assert math.isnan(compared.p_value)


def test_a_class_of_one_image_leaves_the_difference_alone():
    labels = np.array([1, 0, 0])
    got = delong_difference(np.array([2.0, 1.0, 3.0]), np.array([0.0, 1.0, 3.0]), labels)
    assert got.difference.value == 0.5
    assert math.isnan(got.difference.low)
    assert math.isnan(got.p_value)
    same = delong_difference(np.array([2.0, 1.0, 3.0]), np.array([2.0, 1.0, 3.0]), labels)
    assert math.isnan(same.p_value)


def test_a_tiny_study_cannot_claim_an_impossible_difference():
    labels = np.array([1, 1, 0, 0])
    got = delong_difference(np.array([3.0, 1.0, 0.0, 2.0]), np.array([0.0, 1.0, 3.0, 0.5]), labels)
    assert got.difference.low > -1
    assert got.difference.high == 1


def test_nineteen_of_twenty_intervals_hold_the_true_auroc():
    # Normal scores one apart have the AUROC Phi(1 / sqrt 2).
    true, rng, n_held = norm.cdf(1 / math.sqrt(2)), np.random.default_rng(0), 0
    labels = np.repeat([0, 1], [80, 40])
    for _ in range(600):
        got = delong_interval(rng.normal(size=120) + labels, labels)
        n_held += got.low <= true <= got.high
    # 600 draws leave a standard error of 0.9% at 95%.
    assert n_held / 600 == pytest.approx(0.95, abs=0.025)


def test_for_one_image_a_patient_the_bootstrap_says_the_same():
    first, second, labels = _sample(400, 3)
    wanted = delong_difference(first, second, labels)
    got = clustered_difference(
        lambda at: auroc(first[at], labels[at]),
        lambda at: auroc(second[at], labels[at]),
        [str(index) for index in range(400)],
    )
    assert got.difference.value == pytest.approx(wanted.difference.value, abs=1e-12)
    # 1,000 resamples leave about 5% of error at the ends and .015 in a p-value near .5.
    width = wanted.difference.high - wanted.difference.low
    assert got.difference.low == pytest.approx(wanted.difference.low, abs=0.1 * width)
    assert got.difference.high == pytest.approx(wanted.difference.high, abs=0.1 * width)
    assert got.p_value == pytest.approx(wanted.p_value, abs=0.06)
