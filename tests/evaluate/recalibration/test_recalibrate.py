from __future__ import annotations

import dataclasses

import numpy as np
import pytest
from scipy.optimize import minimize

from medllm.datasets import ImageRecord
from medllm.errors import LabelError
from medllm.evaluate import (
    MIN_PATIENTS,
    ScoredRecord,
    findings_to_fit,
    recalibrate,
)
from medllm.evaluate.recalibration.recalibrate import LIMITATION
from medllm.metrics import auroc
from medllm.models.calibration import probability_of

# Enough where no interval is looked at.
FEW = 20


@pytest.fixture(scope="module")
def result(tiny_model, simulated):
    """A model at temperature 1 on patients who call for temperature 3 and bias -0.5."""
    return recalibrate(tiny_model, simulated(), "Site A", n_resamples=200)


def test_the_fit_is_that_of_an_independent_logistic_regression(result, simulated):
    rows = simulated()
    x = np.array([row.log_odds["pneumonia"] for row in rows])
    y = np.array([row.record.labels["pneumonia"] for row in rows])

    def loss(weights):
        linear = weights[0] * x + weights[1]
        return np.logaddexp(0, linear).sum() - linear @ y

    slope, bias = minimize(loss, [1.0, 0.0], method="BFGS", options={"gtol": 1e-6}).x
    got = result.refitted[0].after.calibration
    # scikit-learn's lbfgs stops at a gradient of 1e-4 an image.
    assert 1 / got.temperature == pytest.approx(slope, rel=2e-3)
    assert got.bias == pytest.approx(bias, abs=2e-3)
    # And the simulation's own values lie within four standard errors.
    assert got.temperature == pytest.approx(3.0, abs=0.6)
    assert got.bias == pytest.approx(-0.5, abs=0.4)


def test_a_miscalibrated_model_is_brought_back(result):
    (one,) = result.refitted
    before, after = one.before, one.after
    assert before.slope.value == pytest.approx(1 / 3, abs=0.07)
    assert before.slope.high < 1
    assert after.slope.low < 1 < after.slope.high
    assert abs(after.slope.value - 1) < 0.1
    assert before.intercept.high < 0
    assert after.intercept.low < 0 < after.intercept.high
    assert after.ece.value < before.ece.value / 2
    assert one.brier_change.high < 0
    assert one.brier_change.value == pytest.approx(after.brier.value - before.brier.value)


def test_no_calibration_changes_the_auroc(result, simulated):
    rows = simulated()
    labels = np.array([row.record.labels["pneumonia"] for row in rows])
    values = [row.log_odds["pneumonia"] for row in rows]
    for side in (result.refitted[0].before, result.refitted[0].after):
        probabilities = np.array([probability_of(value, side.calibration) for value in values])
        # Far log-odds round to one probability, and ties count half.
        assert auroc(probabilities, labels) == pytest.approx(
            result.refitted[0].auroc.value, abs=1e-4
        )


def test_figures_of_the_fit_itself_are_not_reported(result, simulated):
    """On the very images it was fitted on, the slope is 1 and the intercept 0 to many digits."""
    after = result.refitted[0].after
    assert abs(after.slope.value - 1) > 1e-3
    assert abs(after.intercept.value) > 1e-5


def test_intervals_are_by_patient(tiny_model, simulated):
    # Each patient's image four times over: four times the images, not one observation more.
    once = simulated(n_patients=100, images_a_patient=1)
    fourfold = recalibrate(tiny_model, once * 4, "x", n_resamples=200).refitted[0]
    alone = recalibrate(tiny_model, once, "x", n_resamples=200).refitted[0]
    widths = [one.before.brier.high - one.before.brier.low for one in (fourfold, alone)]
    assert widths[0] == pytest.approx(widths[1], rel=0.1)


def test_the_card_says_what_it_was_fitted_on_and_loses_what_no_longer_holds(result, tiny_model):
    card = result.model.card
    (question, *others) = card.questions
    one = result.refitted[0]
    assert question.calibration.fitted_on == (
        f"Site A: 800 images of 400 patients, {one.n_positive} images with the finding"
    )
    (measured,) = question.measurements
    assert measured.test_set == "Site A; calibration cross-fitted over patients, 5 folds"
    assert (measured.n, measured.brier, measured.ece) == (800, one.after.brier, one.after.ece)
    assert (measured.auroc, measured.sensitivity) == (one.auroc, one.after.sensitivity)
    assert tuple(others) == tiny_model.card.questions[1:]
    assert card.version == "0+recalibrated"
    assert card.limitations == ("It knows nothing.", LIMITATION)
    assert result.model.network is tiny_model.network


def test_recalibrating_again_says_so_once(result, simulated):
    again = recalibrate(result.model, simulated(seed=1), "Site B", n_resamples=FEW).model.card
    assert again.limitations.count(LIMITATION) == 1
    assert again.version == "0+recalibrated"
    assert "Site B" in again.questions[0].calibration.fitted_on
    assert len(again.questions[0].measurements) == 1


def test_the_version_of_a_model_of_others_stays_words(tiny_model, simulated):
    card = dataclasses.replace(tiny_model.card, base="someone/model", version="as published")
    model = dataclasses.replace(tiny_model, card=card)
    for _ in range(2):
        model = recalibrate(model, simulated(n_patients=100), "x", n_resamples=FEW).model
        assert model.card.version == "as published, recalibrated"


def _drop_labels(rows, finding, keep):
    """Take the label away from all images but those of the first `keep` patients with it."""
    kept, seen = [], set()
    for row in rows:
        labels = dict(row.record.labels)
        if labels[finding] and len(seen | {row.record.patient_id}) > keep:
            del labels[finding]
        elif labels[finding]:
            seen.add(row.record.patient_id)
        kept.append(dataclasses.replace(row, record=dataclasses.replace(row.record, labels=labels)))
    return kept


def test_a_finding_with_too_few_patients_keeps_its_calibration(tiny_model, simulated):
    rows = _drop_labels(
        simulated(("pneumonia", "effusion"), n_patients=100), "effusion", MIN_PATIENTS - 1
    )
    result = recalibrate(tiny_model, rows, "x", n_resamples=FEW)
    assert [one.finding for one in result.refitted] == ["pneumonia"]
    reasons = {one.finding: one.reason for one in result.kept}
    assert reasons["effusion"].startswith("19 patients with and ")
    assert reasons["effusion"].endswith("without, wanted 20 of each")
    assert reasons["nodule"] == "no label"
    assert result.model.card.questions[1:] == tiny_model.card.questions[1:]


def test_twenty_patients_are_enough_and_many_images_of_one_are_not(tiny_model, simulated):
    enough = _drop_labels(simulated(n_patients=100), "pneumonia", MIN_PATIENTS)
    assert recalibrate(tiny_model, enough, "x", n_resamples=FEW).refitted[0].finding == "pneumonia"
    one_patient = [
        dataclasses.replace(row, record=dataclasses.replace(row.record, patient_id="p"))
        for row in simulated(n_patients=100)
    ]
    with pytest.raises(LabelError, match="pneumonia: 1 patients with and 1 without"):
        recalibrate(tiny_model, one_patient, "x", n_resamples=FEW)


def test_findings_are_chosen_before_anything_is_scored(tiny_model, simulated):
    rows = _drop_labels(simulated(("pneumonia", "effusion"), n_patients=100), "effusion", 3)
    records = [row.record for row in rows]
    findings, kept = findings_to_fit(tiny_model, records)
    assert findings == ["pneumonia"]
    assert [one.finding for one in kept] == ["effusion", "nodule"]
    assert kept[0].reason.startswith("3 patients with and ")
    # What was decided before is told, though those findings were then not scored.
    only = [dataclasses.replace(r, log_odds={"pneumonia": r.log_odds["pneumonia"]}) for r in rows]
    assert recalibrate(tiny_model, only, "x", kept=kept, n_resamples=FEW).kept == kept
    few = [record for record in records if record.patient_id in {"p1", "p2", "p3"}]
    with pytest.raises(LabelError, match="nothing can be fitted: pneumonia: . patients with"):
        findings_to_fit(tiny_model, few)
    other = [ImageRecord("csv", records[0].path, "p", {"mass": 1})]
    with pytest.raises(LabelError, match="pneumonia: no label; effusion: no label; nodule: no"):
        findings_to_fit(tiny_model, other)


def test_a_soft_label_is_refused_before_and_after_scoring(tiny_model, simulated):
    rows = simulated(n_patients=100)
    soft = dataclasses.replace(rows[7].record, labels={"pneumonia": 0.5})
    rows[7] = dataclasses.replace(rows[7], record=soft)
    with pytest.raises(LabelError, match=r"'pneumonia' is 0\.5: soft labels are for") as error:
        findings_to_fit(tiny_model, [row.record for row in rows])
    assert error.value.code == "soft-labels"
    with pytest.raises(LabelError, match="soft labels"):
        recalibrate(tiny_model, rows, "x", n_resamples=FEW)


def test_unreadable_images_are_counted_and_left_out(tiny_model, simulated):
    rows = simulated(n_patients=100)
    bad = [
        ScoredRecord(row.record, error=code, message="x")
        for row, code in zip(rows[:3], ["truncated", "truncated", "empty-file"], strict=True)
    ]
    result = recalibrate(tiny_model, bad + rows[3:], "x", n_resamples=FEW)
    assert result.errors == {"truncated": 2, "empty-file": 1}
    assert result.n_images == result.refitted[0].n == 197
    with pytest.raises(LabelError, match="no label.* 3 of 3 images could not be scored"):
        recalibrate(tiny_model, bad, "x", n_resamples=FEW)


def test_classes_that_do_not_overlap_keep_the_calibration_and_say_why(tiny_model, simulated):
    rows = [
        dataclasses.replace(
            row, log_odds={"pneumonia": row.record.labels["pneumonia"] * 4.0 + index / 1000}
        )
        for index, row in enumerate(simulated(n_patients=100))
    ]
    with pytest.raises(LabelError, match="pneumonia: the log-odds .* do not overlap"):
        recalibrate(tiny_model, rows, "x", n_resamples=FEW)
    turned = [
        dataclasses.replace(row, log_odds={"pneumonia": -row.log_odds["pneumonia"]})
        for row in simulated(n_patients=100)
    ]
    with pytest.raises(
        LabelError,
        match="pneumonia: the fitted slope is .* do not rank .* labels are the wrong way",
    ):
        recalibrate(tiny_model, turned, "x", n_resamples=FEW)
