from __future__ import annotations

import dataclasses

import numpy as np
import pytest
from sklearn.metrics import average_precision_score, confusion_matrix, roc_auc_score, roc_curve

from medllm.evaluate.answers import Answers
from medllm.evaluate.performance import averages, figures_of, operating_point
from medllm.evaluate.thresholds import OwnThresholds


def _answers(simulated_predictions, finding="pneumonia"):
    return Answers.of(simulated_predictions, finding)


def test_figures_agree_with_scikit_learn(simulated_predictions):
    one = _answers(simulated_predictions)
    figures = figures_of(one, OwnThresholds(0.6, "shipped"))
    assert figures.auroc.value == pytest.approx(roc_auc_score(one.labels, one.probabilities))
    assert figures.auprc.value == pytest.approx(
        average_precision_score(one.labels, one.probabilities)
    )
    (tn, fp), (fn, tp) = confusion_matrix(one.labels, one.called)
    assert (
        figures.true_negative,
        figures.false_positive,
        figures.false_negative,
        figures.true_positive,
    ) == (tn, fp, fn, tp)
    assert figures.sensitivity.value == pytest.approx(tp / (tp + fn))
    assert figures.positive_predictive_value.value == pytest.approx(tp / (tp + fp))
    assert figures.n == len(one.labels)
    assert figures.n_patients == len(set(one.patients))
    assert figures.prevalence == pytest.approx(one.labels.mean())
    assert (figures.threshold, figures.threshold_source) == (0.6, "shipped")
    assert figures.fixed_threshold is None


def test_an_ece_lies_within_its_interval_though_resampling_raises_it(simulated_predictions):
    # The simulated answers are calibrated: nearly all of the ECE is chance, and the percentiles of
    # its resamples are .031 to .077.
    ece = figures_of(_answers(simulated_predictions), OwnThresholds(0.6, "shipped")).ece
    assert ece.low < 0.01 < ece.value == pytest.approx(0.0387, abs=1e-4)
    assert ece.value <= ece.high < 0.05


def test_images_without_a_label_or_a_score_count_for_nothing(simulated_predictions):
    labels, probabilities = (
        simulated_predictions.labels.copy(),
        simulated_predictions.probabilities.copy(),
    )
    labels[0, 0], labels[1, 0], probabilities[2, 0] = np.nan, 0.5, np.nan

    changed = dataclasses.replace(simulated_predictions, labels=labels, probabilities=probabilities)
    one = _answers(changed)
    assert one.at.tolist() == list(range(3, len(labels)))


def test_a_threshold_of_other_patients_is_measured_beside_the_shipped_one(simulated_predictions):
    one = _answers(simulated_predictions)
    figures = figures_of(one, OwnThresholds(0.9, "shipped"), OwnThresholds(0.2, "other"))
    assert figures.fixed_threshold.threshold == 0.2
    wanted = (one.probabilities[one.labels == 1] >= 0.2).mean()
    assert figures.fixed_threshold.sensitivity.value == pytest.approx(wanted)
    assert figures.fixed_threshold.sensitivity.value > figures.sensitivity.value - 1e-12


def test_the_thinned_curve_keeps_both_ends_and_lies_on_the_whole_one(simulated_predictions):
    one = _answers(simulated_predictions)
    curve = figures_of(one, OwnThresholds(0.5, "")).roc
    fall_out, recall, _ = roc_curve(one.labels, one.probabilities)
    assert (curve.x[0], curve.y[0], curve.x[-1], curve.y[-1]) == (0, 0, 1, 1)
    assert len(curve.x) <= 202
    assert set(zip(curve.x, curve.y, strict=True)) <= set(
        zip(fall_out.tolist(), recall.tolist(), strict=True)
    )
    # Little of the area is lost.
    assert np.trapezoid(curve.y, curve.x) == pytest.approx(
        roc_auc_score(one.labels, one.probabilities), abs=0.005
    )


def test_one_class_leaves_figures_undefined_and_not_wrong(simulated_predictions):
    ones = dataclasses.replace(
        simulated_predictions, labels=np.ones_like(simulated_predictions.labels)
    )
    figures = figures_of(_answers(ones), OwnThresholds(0.5, ""))
    assert figures.auroc.value is None
    assert figures.auroc_delong.value is None
    assert figures.specificity.value is None
    assert figures.calibration_slope.value is None
    assert figures.brier.value is not None
    assert figures.roc.x == ()


def test_calls_are_those_of_the_model_whatever_the_threshold_says(simulated_predictions):
    one = _answers(simulated_predictions)
    nobody = operating_point(one, np.zeros(len(one.labels), bool), 0.5, "")
    assert (nobody.true_positive, nobody.sensitivity.value) == (0, 0)
    assert nobody.positive_predictive_value.value is None
    # None and all of so many patients, exactly: 0.025 = (1 - high)^n.
    for share, label in ((nobody.sensitivity, 1), (nobody.specificity, 0)):
        n = len({one.patients[at] for at in np.flatnonzero(one.labels == label)})
        assert share.high - share.low == pytest.approx(1 - 0.025 ** (1 / n))


def test_one_patient_has_no_interval_but_an_exact_one_of_shares(simulated_predictions):
    alone = dataclasses.replace(
        simulated_predictions, patients=["p"] * len(simulated_predictions.paths)
    )
    figures = figures_of(_answers(alone), OwnThresholds(0.5, ""))
    for name in ("auroc", "auprc", "brier", "ece", "calibration_slope", "f1"):
        figure = getattr(figures, name)
        assert figure.value is not None
        assert (figure.low, figure.high) == (None, None)
    assert figures.sensitivity.high - figures.sensitivity.low > 0.9


def test_no_pair_out_of_order_is_not_certainty(two_findings):
    perfect = dataclasses.replace(two_findings, probabilities=0.2 + 0.6 * two_findings.labels)
    one = _answers(perfect)
    figures = figures_of(one, OwnThresholds(0.5, ""))
    rarer = min(
        len({one.patients[at] for at in np.flatnonzero(one.labels == label)}) for label in (0, 1)
    )
    assert (figures.auroc.value, figures.auroc.high) == (1, 1)
    assert figures.auroc.low == pytest.approx(0.025 ** (1 / rarer))
    assert (figures.auprc.value, figures.auprc.low) == (1, None)
    means = averages(perfect, [Answers.of(perfect, key) for key in perfect.findings])
    assert (means.macro_auroc.value, means.macro_auroc.low) == (1, None)


def test_averages_are_the_mean_of_the_findings_and_all_answers_in_one_pot(two_findings):
    answers = [Answers.of(two_findings, key) for key in two_findings.findings]
    means = averages(two_findings, answers)
    each = [roc_auc_score(one.labels, one.probabilities) for one in answers]
    assert means.macro_auroc.value == pytest.approx(np.mean(each))
    pooled = roc_auc_score(
        np.concatenate([one.labels for one in answers]),
        np.concatenate([one.probabilities for one in answers]),
    )
    assert means.micro_auroc.value == pytest.approx(pooled)
    assert means.macro_auroc.low < means.macro_auroc.value < means.macro_auroc.high
    assert averages(two_findings, answers[:1]) is None


def test_averages_of_findings_too_rare_to_resample_have_no_interval(two_findings):
    labels = np.zeros_like(two_findings.labels)
    # One patient each: .63 of the resamples draw the one, .40 both.
    labels[0, 0] = labels[-1, 1] = 1
    rare = dataclasses.replace(two_findings, labels=labels)
    means = averages(rare, [Answers.of(rare, key) for key in rare.findings])
    assert means.macro_auroc.value is not None
    assert means.macro_auroc.low is None
    assert means.micro_auroc.low is not None
