"""Calls by two thresholds: negative, indeterminate, positive."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest
from sklearn.metrics import confusion_matrix, precision_score, recall_score

from medllm.evaluate import (
    answers,
    evaluate_model,
    evaluate_predictions,
    open_study,
    write_evaluation,
)
from medllm.evaluate.answers import Answers
from medllm.evaluate.performance import figures_of
from medllm.evaluate.table import read_predictions
from medllm.evaluate.thresholds import OwnThresholds
from medllm.models import Calibration
from medllm.models.card import UNFITTED

pytestmark = pytest.mark.usefixtures("few_resamples")

LOW, HIGH = 0.3, 0.6


def _answers(predictions, low=LOW, high=HIGH):
    probabilities = predictions.probabilities
    called = dataclasses.replace(
        predictions, called=probabilities >= high, ruled_out=probabilities < low
    )
    return Answers.of(called, "pneumonia")


def test_calls_are_counted_by_label_and_the_rule_out_is_that_of_scikit_learn(
    simulated_predictions,
):
    one = _answers(simulated_predictions)
    three = figures_of(one, OwnThresholds(HIGH, "shipped", LOW)).three_way
    calls = np.digitize(one.probabilities, [LOW, HIGH])
    without, with_finding = confusion_matrix(one.labels, calls, labels=[0, 1, 2])[:2].tolist()
    counted = (three.negative, three.indeterminate, three.positive)
    assert [one.with_finding for one in counted] == with_finding
    assert [one.without_finding for one in counted] == without
    assert three.indeterminate_share.value == pytest.approx((calls == 1).mean())
    point, kept = three.lower_threshold, one.probabilities >= LOW
    assert (point.threshold, point.threshold_source) == (LOW, "shipped")
    assert point.sensitivity.value == pytest.approx(recall_score(one.labels, kept))
    assert point.specificity.value == pytest.approx(recall_score(one.labels, kept, pos_label=0))
    npv = precision_score(one.labels, kept, pos_label=0)
    assert point.negative_predictive_value.value == pytest.approx(npv)


def test_its_intervals_are_those_of_resampled_patients(simulated_predictions, monkeypatch):
    monkeypatch.setattr(answers, "N_RESAMPLES", 1000)
    one = _answers(simulated_predictions)
    three = figures_of(one, OwnThresholds(HIGH, "shipped", LOW)).three_way
    rng = np.random.default_rng(7)
    places = [np.flatnonzero(np.array(one.patients) == name) for name in sorted({*one.patients})]
    kept = one.probabilities >= LOW
    between = kept & (one.probabilities < HIGH)
    drawn = []
    for _ in range(1000):
        at = np.concatenate([places[index] for index in rng.integers(len(places), size=400)])
        drawn.append((kept[at][one.labels[at] == 1].mean(), between[at].mean()))
    told = (three.lower_threshold.sensitivity, three.indeterminate_share)
    for interval, values in zip(told, np.transpose(drawn), strict=True):
        # 1,000 resamples fix the ends of an interval of .05 to a few thousandths.
        wanted = np.percentile(values, [2.5, 97.5])
        assert [interval.low, interval.high] == pytest.approx(wanted, abs=0.006)


def test_where_no_positive_is_called_negative_the_interval_is_exact(simulated_predictions):
    one = _answers(simulated_predictions, low=1e-9)
    three = figures_of(one, OwnThresholds(HIGH, "shipped", 1e-9)).three_way
    n = len({one.patients[at] for at in np.flatnonzero(one.labels)})
    sensitivity = three.lower_threshold.sensitivity
    assert (sensitivity.value, sensitivity.high) == (1, 1)
    assert sensitivity.low == pytest.approx(0.025 ** (1 / n))
    # Two thresholds are told of, though no image is called negative.
    assert (three.negative.with_finding, three.negative.without_finding) == (0, 0)


def test_one_threshold_leaves_no_third_call(simulated_predictions):
    one = _answers(simulated_predictions, low=HIGH)
    assert figures_of(one, OwnThresholds(HIGH, "shipped", HIGH)).three_way is None
    assert figures_of(one, OwnThresholds(HIGH, "shipped")).three_way is None


def test_a_model_without_thresholds_has_no_figures_of_calls(simulated_predictions):
    one = _answers(simulated_predictions, low=0, high=1.1)
    figures = figures_of(one, OwnThresholds(None, "the model is not calibrated"))
    assert figures.three_way is None
    for name in (
        *("sensitivity", "specificity", "f1"),
        *("positive_predictive_value", "negative_predictive_value"),
    ):
        assert getattr(figures, name).value is None
        assert getattr(figures, name).low is None
    assert {figures.true_positive, figures.true_negative} == {None}
    assert {figures.false_positive, figures.false_negative} == {None}
    assert figures.auroc.value is not None
    # A threshold that was chosen elsewhere is tried all the same.
    fixed = figures_of(one, OwnThresholds(None, ""), OwnThresholds(0.5, "")).fixed_threshold
    wanted = recall_score(one.labels, one.probabilities >= 0.5)
    assert fixed.sensitivity.value == pytest.approx(wanted)


@pytest.fixture
def site(images, tmp_path):
    root = tmp_path / "site"
    root.mkdir()
    rows = ["path,patient_id,pneumonia,sex"]
    for at, path in enumerate(images):
        (root / path.name).write_bytes(path.read_bytes())
        rows.append(f"{path.name},p{at // 2},{at % 2},{'FM'[at % 4 > 1]}")
    (root / "labels.csv").write_text("\n".join(rows))
    return open_study("csv", root)


def _with(model, calibration):
    return model.asking(
        dataclasses.replace(one, calibration=calibration) for one in model.card.questions
    )


def _page(evaluation, study, out):
    write_evaluation(evaluation, study, out)
    return (out / "report.html").read_text()


@pytest.fixture
def between(tiny_model, site):
    """A calibration that leaves some of the site's images between its thresholds."""
    told = tiny_model.predict([one.radiograph() for one in site.selection.records], ["pneumonia"])
    answers = np.array([one.findings[0].log_odds for one in told])
    low, high = 1 / (1 + np.exp(-np.quantile(answers, [0.3, 0.7])))
    return Calibration(low=float(low), high=float(high), fitted_on="a site")


def test_an_evaluation_tells_the_three_calls_in_figures_and_on_its_page(
    tiny_model, site, between, tmp_path
):
    out = tmp_path / "out"
    evaluation = evaluate_model(site, _with(tiny_model, between), out, ["pneumonia"], workers=0)
    figures = evaluation.findings["pneumonia"]
    predictions = read_predictions(out / "predictions.parquet")
    labels, three = predictions.labels[:, 0], figures.three_way
    negative = predictions.probabilities[:, 0] < between.low
    assert 0 < negative.sum() < len(labels)
    assert three.negative.with_finding == (negative & (labels == 1)).sum()
    assert three.positive.with_finding == figures.true_positive
    assert three.lower_threshold.threshold == between.low
    page = _page(evaluation, site, out)
    assert "Three-way calls by finding" in page
    assert "Called negative" in page
    # The same fed back keeps its calls, and no threshold is made up for them.
    peer = tmp_path / "peer"
    again = evaluate_predictions(site, out / "predictions.parquet", peer)
    back = again.findings["pneumonia"]
    assert back.threshold is None
    assert back.threshold_source == "the calls that were given with the predictions"
    assert back.sensitivity == figures.sensitivity
    unknown = {"threshold": None, "threshold_source": back.threshold_source}
    wanted = three.lower_threshold.model_copy(update=unknown)
    assert back.three_way == three.model_copy(update={"lower_threshold": wanted})
    assert "Three-way calls by finding" in _page(again, site, peer)


def test_without_thresholds_the_page_has_dashes_and_the_reason(tiny_model, site, tmp_path):
    out = tmp_path / "out"
    evaluation = evaluate_model(site, _with(tiny_model, UNFITTED), out, ["pneumonia"], workers=0)
    figures = evaluation.findings["pneumonia"]
    assert (figures.threshold, figures.sensitivity.value, figures.true_negative) == (None,) * 3
    assert figures.threshold_source == "the model is not calibrated and calls nothing positive"
    assert evaluation.worst == {}
    assert {row.specificity for row in evaluation.subgroups} == {None}
    page = _page(evaluation, site, out)
    assert "No calls: the model is not calibrated and calls nothing positive." in page
    assert "Three-way calls" not in page
    # Its own predictions fed back call nothing either.
    again = evaluate_predictions(site, out / "predictions.parquet", tmp_path / "peer")
    assert again.findings["pneumonia"].sensitivity.value is None
