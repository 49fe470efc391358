from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from medllm.metrics import net_benefit, net_benefit_of_all

# In twentieths, so that a threshold often is one of the probabilities.
ROWS = st.lists(st.tuples(st.integers(0, 20), st.integers(0, 1)), min_size=1, max_size=40)
THRESHOLDS = st.lists(st.integers(0, 19), max_size=10)

LABELS = np.repeat([1, 0], [8, 12])
WITH_FINDING = [0.9, 0.8, 0.8, 0.7, 0.6, 0.55, 0.3, 0.2]
WITHOUT = [0.75, 0.6, 0.5, 0.45, 0.4, 0.4, 0.35, 0.3, 0.25, 0.2, 0.1, 0.05]
PROBABILITIES = np.array([*WITH_FINDING, *WITHOUT])


def _columns(rows):
    twentieths, labels = np.array(rows).T
    return twentieths / 20, labels


@settings(deadline=None)
@given(rows=ROWS, twentieths=THRESHOLDS)
def test_net_benefit_is_the_papers_formula(rows, twentieths):
    probabilities, labels = _columns(rows)
    thresholds = np.array(twentieths, dtype=float) / 20
    wanted = []
    for threshold in thresholds:
        calls = [label for p, label in zip(probabilities, labels, strict=True) if p >= threshold]
        n_true, n_false = calls.count(1), calls.count(0)
        weight = threshold / (1 - threshold)
        wanted.append(n_true / len(labels) - n_false / len(labels) * weight)
    # The same figures divided in another order.
    assert net_benefit(probabilities, labels, thresholds) == pytest.approx(wanted, abs=1e-12)


def test_both_curves_are_those_of_dcurves():
    # As dcurves 1.1.7 gives them, to six digits.
    thresholds = np.array([0.1, 0.32, 0.42, 0.58, 0.72, 0.85])
    model = [0.338889, 0.135294, 0.155172, 0.111905, 0.021429, 0.050000]
    everyone = [0.333333, 0.117647, -0.034483, -0.428571, -1.142857, -3.000000]
    got = net_benefit(PROBABILITIES, LABELS, thresholds)
    assert got == pytest.approx(model, abs=1e-6)
    assert net_benefit_of_all(LABELS, thresholds) == pytest.approx(everyone, abs=1e-6)


@given(rows=ROWS, twentieths=THRESHOLDS)
def test_calling_everyone_is_a_model_that_is_always_sure(rows, twentieths):
    _, labels = _columns(rows)
    thresholds = np.array(twentieths, dtype=float) / 20
    sure = net_benefit(np.ones(len(labels)), labels, thresholds)
    assert net_benefit_of_all(labels, thresholds) == pytest.approx(sure, abs=1e-12)


@given(rows=ROWS, twentieths=THRESHOLDS)
def test_nothing_gains_more_than_a_perfect_model(rows, twentieths):
    probabilities, labels = _columns(rows)
    thresholds = np.array(twentieths, dtype=float) / 20
    perfect = net_benefit(labels.astype(float), labels, np.maximum(thresholds, 0.05))
    assert perfect == pytest.approx(labels.mean(), abs=1e-12)
    assert (net_benefit(probabilities, labels, thresholds) <= labels.mean() + 1e-12).all()


def test_calling_everyone_gains_nothing_where_the_threshold_is_the_share_of_positives():
    assert net_benefit_of_all(LABELS, np.array([8 / 20])) == pytest.approx([0], abs=1e-15)


def test_a_probability_at_the_threshold_is_called():
    probabilities, labels = np.array([0.3, 0.1]), np.array([1, 0])
    just_above = np.nextafter(0.3, 1)
    assert net_benefit(probabilities, labels, np.array([0.3, just_above])).tolist() == [0.5, 0]


@pytest.mark.parametrize("threshold", [-0.01, 1.0, 10, math.nan])
def test_a_threshold_without_odds_is_refused(threshold):
    thresholds = np.array([0.1, threshold])
    with pytest.raises(ValueError, match="0 or more and below 1"):
        net_benefit(PROBABILITIES, LABELS, thresholds)
    with pytest.raises(ValueError, match="0 or more and below 1"):
        net_benefit_of_all(LABELS, thresholds)
