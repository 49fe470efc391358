from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from medllm.errors import CheckpointError
from medllm.models import Calibration
from medllm.models.calibration import at_prevalence, call_of, fit_calibration, probability_of


@given(log_odds=st.floats(-1e4, 1e4), temperature=st.floats(0.1, 10), bias=st.floats(-5, 5))
def test_probability_is_the_logistic_function_and_never_overflows(log_odds, temperature, bias):
    calibration = Calibration(temperature, bias)
    got = probability_of(log_odds, calibration)
    scaled = log_odds / temperature + bias
    assert 0 <= got <= 1
    if abs(scaled) < 500:
        assert got == pytest.approx(1 / (1 + math.exp(-scaled)), rel=1e-9)


@pytest.mark.parametrize(
    ("probability", "call"),
    [(0.299, "negative"), (0.3, "indeterminate"), (0.599, "indeterminate"), (0.6, "positive")],
)
def test_calls_on_both_sides_of_each_threshold(probability, call):
    assert call_of(probability, Calibration(low=0.3, high=0.6)) == call


def _sample(n, temperature, bias, seed=0):
    """Log-odds that are calibrated after division by the temperature and adding the bias."""
    rng = np.random.default_rng(seed)
    log_odds = rng.normal(scale=3, size=n)
    chance = 1 / (1 + np.exp(-(log_odds / temperature + bias)))
    return log_odds, (rng.random(n) < chance).astype(int)


def test_the_fit_finds_the_temperature_and_the_bias_that_made_the_labels():
    log_odds, labels = _sample(20_000, temperature=2.0, bias=-0.7)
    got = fit_calibration(log_odds, labels, fitted_on="a simulation")
    # The standard error of slope and intercept at this size is about .01 and .02.
    assert got.temperature == pytest.approx(2.0, abs=0.1)
    assert got.bias == pytest.approx(-0.7, abs=0.08)
    assert got.fitted_on == "a simulation"


@pytest.mark.parametrize("scale", [1e-6, 1e4])
def test_log_odds_of_another_scale_get_the_same_probabilities(scale):
    log_odds, labels = _sample(2_000, temperature=2.0, bias=-0.7)
    own = fit_calibration(log_odds, labels, fitted_on="a simulation")
    scaled = fit_calibration(scale * (log_odds + 3), labels, fitted_on="a simulation")
    assert scaled.temperature == pytest.approx(scale * own.temperature, rel=1e-3)
    assert (scaled.low, scaled.high) == pytest.approx((own.low, own.high), rel=1e-3)


def test_thresholds_give_the_wanted_sensitivity_and_specificity():
    log_odds, labels = _sample(5_000, temperature=1.5, bias=0.0)
    got = fit_calibration(log_odds, labels, fitted_on="a simulation")
    probabilities = np.array([probability_of(value, got) for value in log_odds])
    assert (probabilities[labels == 1] >= got.low).mean() >= 0.95
    assert (probabilities[labels == 0] < got.high).mean() >= 0.95
    # And no further than needed.
    assert (probabilities[labels == 1] > got.low + 0.01).mean() < 0.96
    assert (probabilities[labels == 0] < got.high - 0.01).mean() < 0.96
    assert got.low < got.high


def test_classes_that_do_not_overlap_leave_nothing_indeterminate():
    log_odds = np.concatenate([np.linspace(-5, -1, 50), np.linspace(1, 5, 50)])
    log_odds[[0, -1]] = log_odds[[-1, 0]]  # one outlier a class keeps the fit finite
    labels = np.repeat([0, 1], 50)
    got = fit_calibration(log_odds, labels, fitted_on="a simulation")
    assert got.low == got.high


def test_a_source_with_more_weight_decides_the_bias():
    log_odds, labels = _sample(2_000, temperature=1.0, bias=0.0)
    even = fit_calibration(log_odds, labels, fitted_on="x")
    weights = np.where(labels == 0, 3.0, 1.0)
    heavier = fit_calibration(log_odds, labels, fitted_on="x", weights=weights)
    # Three times the odds against: the bias falls by log 3, which is 1.10.
    assert heavier.bias == pytest.approx(even.bias - 1.10, abs=0.1)


@pytest.mark.parametrize(
    ("labels", "message"),
    [(np.ones(4, dtype=int), "with and without"), (np.array([1, 1, 0, 0]), "do not rank")],
)
def test_data_that_cannot_be_calibrated_on_is_refused(labels, message):
    with pytest.raises(ValueError, match=message):
        fit_calibration(np.array([-2.0, -1.0, 1.0, 2.0]), labels, fitted_on="x")


def test_a_sample_of_another_prevalence_is_calibrated_when_it_is_told():
    log_odds, labels = _sample(60_000, temperature=1.5, bias=0.4)
    fitted = fit_calibration(log_odds, labels, fitted_on="a simulation")
    assert fitted.prevalence == pytest.approx(labels.mean())
    # The same patients with and without, of whom most with the finding are missing.
    kept = (labels == 0) | (np.random.default_rng(1).random(len(labels)) < 0.1)
    rare, truth = log_odds[kept], labels[kept]
    moved = at_prevalence(fitted, truth.mean())
    told, untold = (
        np.mean([probability_of(value, calibration) for value in rare])
        for calibration in (moved, fitted)
    )
    # The mean of some 30,000 labels is known to .002.
    assert told == pytest.approx(truth.mean(), abs=0.01)
    assert untold > truth.mean() + 0.1


@given(
    log_odds=st.floats(-20, 20),
    first=st.floats(0.01, 0.99),
    second=st.floats(0.01, 0.99),
)
def test_another_prevalence_moves_probabilities_and_no_calls(log_odds, first, second):
    fitted = Calibration(1.3, 0.2, low=0.3, high=0.6, prevalence=first)
    moved = at_prevalence(fitted, second)
    before, after = probability_of(log_odds, fitted), probability_of(log_odds, moved)
    assert call_of(after, moved) == call_of(before, fitted)
    assert (after >= before) == (second >= first) or after == pytest.approx(before)
    back = at_prevalence(moved, first)
    assert probability_of(log_odds, back) == pytest.approx(before)


def test_another_prevalence_moves_no_call_of_the_images_that_the_thresholds_are_of():
    moved_calls = []
    for seed in range(40):
        log_odds, labels = _sample(300, temperature=2.0, bias=-0.7, seed=seed)
        fitted = fit_calibration(log_odds, labels, fitted_on="a simulation")
        for prevalence in (0.001, 0.02, 0.3, 0.9, 0.999):
            moved = at_prevalence(fitted, prevalence)
            moved_calls += [
                (seed, prevalence, value)
                for value in log_odds.tolist()
                if call_of(probability_of(value, moved), moved)
                != call_of(probability_of(value, fitted), fitted)
            ]
    assert moved_calls == []


@pytest.mark.parametrize("prevalence", [0, 1, -0.1, float("nan")])
def test_a_prevalence_that_is_none_is_refused(prevalence):
    with pytest.raises(ValueError, match="wanted is a share above 0 and below 1"):
        at_prevalence(Calibration(prevalence=0.5), prevalence)


def test_a_calibration_of_unknown_prevalence_cannot_be_moved(tiny_model):
    with pytest.raises(ValueError, match="does not say which prevalence"):
        at_prevalence(Calibration(), 0.2)
    with pytest.raises(CheckpointError, match="of 'pneumonia' does not say which prevalence"):
        tiny_model.at_prevalence(0.2)
