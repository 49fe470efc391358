from __future__ import annotations

import math

import numpy as np
import pytest
from scipy.special import expit
from scipy.stats import norm

from medllm.metrics import (
    basic_interval,
    clustered_bootstrap,
    clustered_difference,
    expected_calibration_error,
    holm,
)


def _means(first, second):
    return (
        lambda at: float(first[at].mean()),
        lambda at: float(second[at].mean()),
    )


def _nought(_):
    return 0.0


def _names(n):
    return [str(index) for index in range(n)]


def test_the_difference_is_that_of_one_figure_and_p_is_counted_on_its_resamples():
    rng = np.random.default_rng(0)
    first, second = rng.normal(0.15, size=90), rng.normal(size=90)
    patients = [str(index // 3) for index in range(90)]
    one, other = _means(first, second)
    got = clustered_difference(one, other, patients, n_resamples=199, seed=4)
    seen = []

    def difference(at):
        seen.append(one(at) - other(at))
        return seen[-1]

    alone = clustered_bootstrap(difference, patients, n_resamples=199, seed=4)
    assert got.difference == alone
    resampled = np.array(seen[:-1])
    below, above = (resampled <= 0).sum(), (resampled >= 0).sum()
    assert got.p_value == 2 * (min(below, above) + 1) / 200
    assert 0.01 < got.p_value < 1


def test_swapping_the_models_turns_the_sign_and_keeps_p():
    rng = np.random.default_rng(1)
    one, other = _means(rng.normal(0.2, size=60), rng.normal(size=60))
    got = clustered_difference(one, other, _names(60))
    swapped = clustered_difference(other, one, _names(60))
    assert got.difference.value == -swapped.difference.value
    # The percentiles are interpolated from the other side, which may move the last digit.
    assert got.difference.low == pytest.approx(-swapped.difference.high, abs=1e-12)
    assert got.p_value == swapped.p_value


@pytest.mark.parametrize("shift", [0.1, 0.2])
def test_p_is_that_of_a_test_of_a_mean(shift):
    noise = np.random.default_rng(2).normal(size=400)
    noise = (noise - noise.mean()) / noise.std()
    got = clustered_difference(*_means(noise + shift, np.zeros(400)), _names(400), n_resamples=4000)
    # The standard error is 1 / 20; 4,000 resamples leave .003 in a p-value of .046.
    assert got.p_value == pytest.approx(2 * norm.sf(20 * shift), abs=0.01)


@pytest.mark.parametrize("sign", [1, -1])
def test_a_gap_that_all_resamples_agree_on_has_the_p_of_its_standard_error(sign):
    noise = np.random.default_rng(5).normal(size=400)
    noise = (noise - noise.mean()) / noise.std()
    for n_resamples in (200, 2000):
        got = clustered_difference(
            *_means(sign * (noise + 0.25), np.zeros(400)), _names(400), n_resamples=n_resamples
        )
        # z is 5. The error of 200 resamples is known to a twentieth, twice that is half a unit
        # of z, and p then changes by a factor of 15; the bound of 200 resamples is 1e-2.
        assert 6e-7 / 15 < got.p_value < 6e-7 * 15
        assert holm(np.full(60, got.p_value)).max() < 0.001


def test_a_gap_that_all_resamples_agree_on_is_never_less_certain_than_they_are():
    noise = np.random.default_rng(2).normal(size=400)
    noise = (noise - noise.mean()) / noise.std()
    figures = _means(noise + 0.08, np.zeros(400))
    got = clustered_difference(*figures, _names(400), n_resamples=19, seed=22)
    # z is 1.6, a p of .11, but of these 19 resamples none is beyond 0.
    assert got.p_value == pytest.approx(2 / 20)


@pytest.mark.parametrize("n_patients", [2, 5, 20])
def test_few_patients_who_agree_are_not_made_more_of(n_patients):
    first = 1 + np.arange(n_patients) / 1e4
    got = clustered_difference(*_means(first, np.zeros(n_patients)), _names(n_patients))
    assert got.p_value == pytest.approx(2.0 ** (1 - n_patients))


def test_one_patient_has_no_interval_and_no_test_whatever_the_images():
    scores, others = np.random.default_rng(6).normal(0.3, size=(2, 50))
    got = clustered_bootstrap(lambda at: float(scores[at].mean()), ["one"] * 50)
    assert got.value == scores.mean()
    assert math.isnan(got.low)
    assert math.isnan(got.high)
    compared = clustered_difference(*_means(scores, others), ["one"] * 50)
    assert compared.difference.value == scores.mean() - others.mean()
    assert math.isnan(compared.difference.low)
    assert math.isnan(compared.p_value)


def test_the_same_model_twice_has_p_one():
    values = np.random.default_rng(3).normal(size=30)
    got = clustered_difference(*_means(values, values), _names(30))
    assert (got.difference.value, got.difference.low, got.difference.high) == (0, 0, 0)
    assert got.p_value == 1


def test_no_p_value_is_nought():
    got = clustered_difference(*_means(np.ones(20), np.zeros(20)), _names(20), n_resamples=99)
    assert got.p_value == pytest.approx(2 / 100)


def test_images_of_one_patient_are_not_further_evidence():
    values = np.repeat(np.random.default_rng(4).normal(0.25, size=20), 10)
    figures = _means(values, np.zeros(200))
    apart = clustered_difference(*figures, _names(200))
    together = clustered_difference(*figures, [str(index // 10) for index in range(200)])
    assert apart.difference.value == together.difference.value
    assert apart.p_value < 0.01 < together.p_value


def test_resamples_without_a_figure_are_not_counted():
    def halves(at):
        return 1.0 if at[0] < 10 else math.nan

    got = clustered_difference(halves, lambda _: 0.0, _names(20), n_resamples=100)
    # About half of the resamples, four standard errors of 5 on either side.
    assert 2 / 71 < got.p_value < 2 / 31


def test_where_most_resamples_have_no_figure_there_is_no_interval():
    # On all images it is defined, and on resamples that draw two given patients of 20: .40.
    def rare(at):
        return 0.5 if {3, 4} <= set(at.tolist()) else math.nan

    got = clustered_bootstrap(rare, _names(20))
    assert got.value == 0.5
    assert math.isnan(got.low)
    assert math.isnan(got.high)
    never = clustered_difference(
        lambda at: 1.0 if len(set(at)) == 20 else math.nan, _nought, _names(20)
    )
    assert never.difference.value == 1
    assert math.isnan(never.difference.low)
    assert math.isnan(never.p_value)
    assert basic_interval(got) is got


def _ece(n, slope, seed, n_resamples=200):
    """Draw probabilities that are too sure by the slope, and give their ECE both ways."""
    rng = np.random.default_rng(seed)
    log_odds = rng.normal(-1, 1.2, n)
    probabilities = expit(slope * log_odds)
    labels = (rng.random(n) < expit(log_odds)).astype(int)
    resampled = []

    def ece(at):
        resampled.append(expected_calibration_error(probabilities[at], labels[at]))
        return resampled[-1]

    return clustered_bootstrap(ece, _names(n), n_resamples=n_resamples), np.array(resampled[:-1])


@pytest.mark.parametrize("slope", [1.0, 1.3, 2.0])
def test_a_basic_interval_is_that_of_the_definition_and_holds_its_figure(slope):
    for seed in range(8):
        percentiles, resampled = _ece(150, slope, seed)
        got = basic_interval(percentiles)
        assert got.value == percentiles.value
        assert 0 <= got.low <= got.value <= got.high
        # Davison and Hinkley: 2 t - t*, with t* the other quantile of the resamples.
        low, high = 2 * got.value - np.quantile(resampled, [0.975, 0.025])
        assert got.low == pytest.approx(min(max(low, 0), got.value))
        assert got.high == pytest.approx(max(high, got.value))


def test_a_basic_interval_covers_the_ece_of_the_population_more_often_than_percentiles():
    slope = 1.3
    rng = np.random.default_rng(9)
    log_odds = rng.normal(-1, 1.2, 400_000)
    labels = (rng.random(len(log_odds)) < expit(log_odds)).astype(int)
    truth = expected_calibration_error(expit(slope * log_odds), labels)
    drawn = [_ece(200, slope, seed, n_resamples=100)[0] for seed in range(40)]
    covered = [one.low <= truth <= one.high for one in map(basic_interval, drawn)]
    # 95% is not reached at 200 images, where the ECE's own bias is half of it; a standard error
    # of 40 is 5 in 100.
    assert np.mean(covered) > 0.75
    assert np.mean([one.low <= truth <= one.high for one in drawn]) < 0.4
