from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from medllm.evaluate.recalibration.cross_fit import (
    N_FOLDS,
    NotFittedError,
    apply,
    cross_fit,
    fit,
    folds_by_patient,
)
from medllm.models.calibration import call_of, fit_calibration, probability_of


def _arrays(rows):
    log_odds = np.array([row.log_odds["pneumonia"] for row in rows])
    labels = np.array([row.record.labels["pneumonia"] for row in rows])
    return log_odds, labels, [row.record.patient_id for row in rows]


@given(
    images=st.lists(
        st.tuples(st.sampled_from("abcdefghijklmnopq"), st.integers(0, 1)), min_size=1, max_size=80
    )
)
def test_no_patient_is_in_two_folds(images):
    patients, labels = [p for p, _ in images], np.array([label for _, label in images])
    folds = folds_by_patient(patients, labels)
    for patient in set(patients):
        assert len({f for f, p in zip(folds.tolist(), patients, strict=True) if p == patient}) == 1
    assert set(folds.tolist()) <= set(range(N_FOLDS))


def test_each_fold_has_its_share_of_patients_with_the_finding():
    labels = np.array([1] * 20 + [0] * 83)
    folds = folds_by_patient([f"p{index}" for index in range(103)], labels)
    assert np.bincount(folds[labels == 1]).tolist() == [4] * 5
    assert np.ptp(np.bincount(folds[labels == 0])) <= 1


def test_folds_do_not_hang_on_the_order_of_the_images(simulated):
    _, labels, patients = _arrays(simulated(n_patients=60))
    folds = folds_by_patient(patients, labels)
    backwards = folds_by_patient(patients[::-1], labels[::-1])
    assert folds.tolist() == backwards[::-1].tolist()


def test_a_patients_probability_comes_from_the_other_folds_alone(simulated):
    log_odds, labels, patients = _arrays(simulated(n_patients=100))
    got = cross_fit(log_odds, labels, patients)
    folds = folds_by_patient(patients, labels)
    for fold in range(N_FOLDS):
        others = fit_calibration(log_odds[folds != fold], labels[folds != fold], fitted_on="x")
        for index in np.flatnonzero(folds == fold):
            probability = probability_of(log_odds[index].item(), others)
            assert got.probabilities[index] == probability
            assert got.called[index] == (call_of(probability, others) == "positive")
    # And so a patient's labels do not move the patient's own probability.
    mine = np.array(patients) == "p7"
    changed = np.where(mine, 1 - labels, labels)
    # Of one kind before and after, so that the folds stay as they are.
    if set(labels[mine]) == {0, 1}:
        again = cross_fit(log_odds, changed, patients)
        assert again.probabilities[mine].tolist() == got.probabilities[mine].tolist()


def test_the_logit_and_the_probability_are_the_same_number(simulated):
    log_odds, labels, _ = _arrays(simulated(n_patients=50))
    got = apply(fit(log_odds, labels, "x"), log_odds)
    np.testing.assert_allclose(
        got.log_odds, np.log(got.probabilities / (1 - got.probabilities)), atol=1e-9
    )


@pytest.mark.parametrize(
    ("log_odds", "labels", "message"),
    [
        ([-2.0, -1.0, 1.0, 2.0], [0, 0, 1, 1], "do not overlap"),
        ([-2.0, -1.0, 1.0, 2.0], [1, 1, 0, 0], "do not overlap"),
        ([-2.0, -1.0, 1.0, 2.0], [1, 0, 1, 0], "do not rank"),
    ],
)
def test_data_without_a_best_calibration_is_refused(log_odds, labels, message):
    with pytest.raises(NotFittedError, match=message):
        fit(np.array(log_odds), np.array(labels), "x")
