from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from sklearn.metrics import brier_score_loss, roc_auc_score

from medllm.metrics import (
    auroc,
    average_precision,
    brier,
    calibration_intercept,
    calibration_slope,
    clustered_bootstrap,
    delong_difference,
    delong_interval,
    expected_calibration_error,
    f1,
    negative_predictive_value,
    net_benefit,
    net_benefit_of_all,
    otsu_threshold,
    positive_predictive_value,
    reliability_bins,
    sensitivity,
    sensitivity_threshold,
    specificity,
    youden_threshold,
)

_OF_SCORES = (
    *(auroc, average_precision, brier, calibration_intercept, calibration_slope),
    *(expected_calibration_error, youden_threshold),
)
_OF_CALLS = (f1, negative_predictive_value, positive_predictive_value, sensitivity, specificity)


@given(
    rows=st.lists(st.tuples(st.integers(-3, 3), st.integers(0, 1)), min_size=2, max_size=60).filter(
        lambda rows: len({label for _, label in rows}) == 2
    )
)
def test_auroc_agrees_with_scikit_learn_ties_included(rows):
    scores, labels = np.array(rows, dtype=float).T
    labels = labels.astype(int)
    assert auroc(scores, labels) == pytest.approx(roc_auc_score(labels, scores), abs=1e-12)


def test_figures_of_a_missing_class_are_not_numbers():
    ones = np.ones(3, dtype=int)
    assert math.isnan(auroc(np.arange(3.0), ones))
    assert math.isnan(specificity(np.ones(3, dtype=bool), ones))
    assert math.isnan(sensitivity(np.ones(3, dtype=bool), 1 - ones))


def test_sensitivity_and_specificity_by_hand():
    called = np.array([True, True, False, True])
    labels = np.array([1, 1, 1, 0])
    assert sensitivity(called, labels) == pytest.approx(2 / 3)
    assert specificity(called, labels) == 0


def test_brier_agrees_with_scikit_learn():
    probabilities, labels = np.array([0.1, 0.8, 0.6]), np.array([0, 1, 0])
    assert brier(probabilities, labels) == pytest.approx(brier_score_loss(labels, probabilities))


def test_calibration_error_by_hand():
    # Two bins of two: |.15 - .5| and |.85 - 1|, each with weight one half.
    probabilities, labels = np.array([0.1, 0.2, 0.8, 0.9]), np.array([0, 1, 1, 1])
    got = expected_calibration_error(probabilities, labels, n_bins=2)
    assert got == pytest.approx((0.35 + 0.15) / 2)


def test_the_bootstrap_covers_the_standard_error_of_a_mean():
    values = np.random.default_rng(0).normal(size=400)
    got = clustered_bootstrap(
        lambda at: float(values[at].mean()), [str(index) for index in range(400)]
    )
    assert got.value == pytest.approx(values.mean())
    half = 1.96 * values.std() / 20  # normal theory; 1,000 resamples leave about 5% of error
    assert (got.high - got.low) / 2 == pytest.approx(half, rel=0.12)


def test_images_of_one_patient_widen_the_interval():
    # 40 patients with ten equal images each are 40 observations, not 400.
    patients = np.repeat(np.random.default_rng(1).normal(size=40), 10)
    alone = clustered_bootstrap(
        lambda at: float(patients[at].mean()), [str(index) for index in range(400)]
    )
    together = clustered_bootstrap(
        lambda at: float(patients[at].mean()), [str(index // 10) for index in range(400)]
    )
    ratio = (together.high - together.low) / (alone.high - alone.low)
    assert ratio == pytest.approx(math.sqrt(10), rel=0.15)


def test_a_bootstrap_of_nothing_is_refused():
    with pytest.raises(ValueError, match="at least one image"):
        clustered_bootstrap(lambda _: 0.0, [])


def test_of_no_image_each_figure_is_no_number():
    scores, labels, called = np.zeros(0), np.zeros(0, dtype=int), np.zeros(0, dtype=bool)
    compared = delong_difference(scores, scores, labels)
    figures = {
        **{figure.__name__: figure(scores, labels) for figure in _OF_SCORES},
        **{figure.__name__: figure(called, labels) for figure in _OF_CALLS},
        "sensitivity_threshold": sensitivity_threshold(scores, labels, 0.9),
        "otsu_threshold": otsu_threshold(scores),
        "delong_interval": delong_interval(scores, labels).value,
        "delong_difference": compared.difference.value,
        "p_value": compared.p_value,
        "net_benefit": net_benefit(scores, labels, np.array([0.2])).item(),
        "net_benefit_of_all": net_benefit_of_all(labels, np.array([0.2])).item(),
    }
    assert {name for name, value in figures.items() if not math.isnan(value)} == set()
    assert reliability_bins(scores, labels, []) == ()


def test_a_score_that_is_no_number_leaves_no_figure_of_its_images():
    scores, labels = np.array([0.1, np.nan, 0.3, 0.4]), np.array([0, 1, 0, 1])
    figures = {figure.__name__: figure(scores, labels) for figure in _OF_SCORES}
    figures["sensitivity_threshold"] = sensitivity_threshold(scores, labels, 0.5)
    figures["net_benefit"] = net_benefit(scores, labels, np.array([0.2])).item()
    figures["otsu_threshold"] = otsu_threshold(scores)
    assert {name for name, value in figures.items() if not math.isnan(value)} == set()
