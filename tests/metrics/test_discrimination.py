from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from sklearn.metrics import (
    average_precision_score,
    f1_score,
    precision_score,
    roc_curve,
)

from medllm.metrics import (
    auroc,
    average_precision,
    delong_interval,
    f1,
    negative_predictive_value,
    positive_predictive_value,
    sensitivity,
    sensitivity_threshold,
    specificity,
    specificity_threshold,
    youden_threshold,
)

# Few values, so that ties are common.
ROWS = st.lists(st.tuples(st.integers(-4, 4), st.integers(0, 1)), min_size=1, max_size=40)

# Eight with the finding and twelve without; called from 0.6 upwards.
LABELS = np.repeat([1, 0], [8, 12])
WITH_FINDING = [0.9, 0.8, 0.8, 0.7, 0.6, 0.55, 0.3, 0.2]
WITHOUT = [0.75, 0.6, 0.5, 0.45, 0.4, 0.4, 0.35, 0.3, 0.25, 0.2, 0.1, 0.05]
SCORES = np.array([*WITH_FINDING, *WITHOUT])
CALLED = SCORES >= 0.6


def _columns(rows):
    scores, labels = np.array(rows).T
    return scores.astype(float), labels


def _same(got, wanted):
    return got == pytest.approx(wanted, abs=1e-12, nan_ok=True)


@settings(deadline=None)
@given(rows=ROWS)
def test_average_precision_agrees_with_scikit_learn_ties_included(rows):
    scores, labels = _columns(rows)
    assume(labels.any())
    assert _same(average_precision(scores, labels), average_precision_score(labels, scores))


def test_average_precision_by_hand():
    # From the top: 1 of 1, then 2 of 3 and 3 of 4 with the tie taken whole.
    scores, labels = np.array([4.0, 3.0, 3.0, 2.0]), np.array([1, 0, 1, 1])
    assert average_precision(scores, labels) == pytest.approx((1 + 2 / 3 + 3 / 4) / 3)


def test_a_model_that_tells_nothing_has_the_share_of_positives():
    assert average_precision(np.zeros(20), LABELS) == pytest.approx(8 / 20)


def test_without_positives_there_is_no_average_precision():
    assert math.isnan(average_precision(np.arange(3.0), np.zeros(3, dtype=int)))


def test_a_score_that_is_no_number_has_no_rank():
    scores, labels = np.array([0.1, np.nan, 0.3, 0.4]), np.array([0, 1, 0, 1])
    assert math.isnan(auroc(scores, labels))
    assert math.isnan(average_precision(scores, labels))
    measured = delong_interval(scores, labels)
    assert np.isnan([measured.value, measured.low, measured.high]).all()


@settings(deadline=None)
@given(rows=ROWS)
def test_figures_of_calls_agree_with_scikit_learn(rows):
    scores, labels = _columns(rows)
    called = scores > 0
    nothing = {"zero_division": np.nan}
    assert _same(
        positive_predictive_value(called, labels), precision_score(labels, called, **nothing)
    )
    assert _same(
        negative_predictive_value(called, labels), precision_score(1 - labels, ~called, **nothing)
    )
    assert _same(f1(called, labels), f1_score(labels, called, **nothing))


def test_figures_of_calls_agree_with_confidenceinterval():
    # As confidenceinterval 1.0.5 gives them, which adds 1e-7 to the denominators of all but F1.
    assert positive_predictive_value(CALLED, LABELS) == pytest.approx(0.7142857, abs=1e-7)
    assert negative_predictive_value(CALLED, LABELS) == pytest.approx(0.7692308, abs=1e-7)
    assert sensitivity(CALLED, LABELS) == pytest.approx(0.6250000, abs=1e-7)
    assert specificity(CALLED, LABELS) == pytest.approx(0.8333333, abs=1e-7)
    assert f1(CALLED, LABELS) == pytest.approx(0.6666666667, abs=1e-10)
    assert auroc(SCORES, LABELS) == pytest.approx(0.7760416, abs=1e-6)


def test_figures_of_calls_are_not_numbers_where_they_divide_by_nought():
    none, everyone = np.zeros(3, dtype=bool), np.ones(3, dtype=bool)
    some = np.array([0, 1, 1])
    assert math.isnan(positive_predictive_value(none, some))
    assert math.isnan(negative_predictive_value(everyone, some))
    assert math.isnan(f1(none, np.zeros(3, dtype=int)))
    # Positives that nobody called, and calls without a positive, are plain failures.
    assert f1(none, some) == 0
    assert f1(everyone, np.zeros(3, dtype=int)) == 0


@given(rows=ROWS)
def test_f1_is_the_harmonic_mean_of_its_parts(rows):
    scores, labels = _columns(rows)
    called = scores > 0
    parts = positive_predictive_value(called, labels), sensitivity(called, labels)
    assume(not math.isnan(sum(parts)))
    wanted = 2 * parts[0] * parts[1] / sum(parts) if sum(parts) else 0
    assert f1(called, labels) == pytest.approx(wanted, abs=1e-12)


@settings(deadline=None)
@given(rows=ROWS)
def test_youdens_threshold_is_the_best_of_all_and_the_highest_of_as_good(rows):
    scores, labels = _columns(rows)
    assume(0 < labels.sum() < len(labels))
    sums = {
        edge: sensitivity(scores >= edge, labels) + specificity(scores >= edge, labels)
        for edge in set(scores.tolist())
    }
    # Equal sums may differ in the last digit; others differ by 1 / 20^2 at least.
    wanted = max(edge for edge, total in sums.items() if total > max(sums.values()) - 1e-9)
    assert youden_threshold(scores, labels) == wanted


@pytest.mark.parametrize("seed", range(5))
def test_youdens_threshold_is_the_corner_of_scikit_learns_curve(seed):
    rng = np.random.default_rng(seed)
    labels = (rng.random(300) < 0.3).astype(int)
    scores = labels + rng.normal(size=300)
    fall_out, recall, edges = roc_curve(labels, scores, drop_intermediate=False)
    assert youden_threshold(scores, labels) == edges[np.argmax(recall - fall_out)]


@given(rows=ROWS, wanted=st.one_of(st.floats(0.01, 1), st.sampled_from([0.25, 0.5, 0.75])))
def test_no_higher_score_reaches_the_sensitivity(rows, wanted):
    scores, labels = _columns(rows)
    assume(labels.any())
    edge = sensitivity_threshold(scores, labels, wanted)
    assert edge in scores
    assert sensitivity(scores >= edge, labels) >= wanted
    assert sensitivity(scores > edge, labels) < wanted


def test_a_sensitivity_that_a_number_of_positives_gives_exactly_takes_no_more():
    # In doubles 0.07 * 100 is 7.000000000000001, which eight positives would be needed for.
    scores = np.arange(100.0)
    assert sensitivity_threshold(scores, np.ones(100, dtype=int), 0.07) == 93


def test_all_positives_are_called_at_full_sensitivity():
    assert sensitivity_threshold(SCORES, LABELS, 1.0) == 0.2


@given(rows=ROWS, wanted=st.one_of(st.floats(0.01, 1), st.sampled_from([0.25, 0.5, 0.75])))
def test_no_lower_score_reaches_the_specificity(rows, wanted):
    scores, labels = _columns(rows)
    assume(not labels.all())
    edge = specificity_threshold(scores, labels, wanted)
    reached = [one for one in scores if specificity(scores >= one, labels) >= wanted]
    assert edge == min(reached) if reached else math.isnan(edge)


def test_a_threshold_needs_the_classes_it_speaks_of():
    scores, none = np.arange(3.0), np.zeros(3, dtype=int)
    assert math.isnan(specificity_threshold(scores, 1 - none, 0.9))
    assert math.isnan(specificity_threshold(scores * math.nan, none, 0.9))
    assert math.isnan(youden_threshold(scores, none))
    assert math.isnan(youden_threshold(scores, 1 - none))
    assert math.isnan(sensitivity_threshold(scores, none, 0.9))


@pytest.mark.parametrize("wanted", [0, -0.1, 1.01, 90, math.nan])
def test_a_sensitivity_that_cannot_be_is_refused(wanted):
    for choose in (sensitivity_threshold, specificity_threshold):
        with pytest.raises(ValueError, match="above 0 and at most 1"):
            choose(SCORES, LABELS, wanted)
