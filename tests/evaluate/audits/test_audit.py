from __future__ import annotations

import dataclasses

import numpy as np
import pytest
from sklearn.metrics import cohen_kappa_score, roc_auc_score

from medllm.evaluate.answers import Answers
from medllm.evaluate.audits.audit import audit
from medllm.evaluate.audits.probes import Probe
from medllm.models import Calibration

CALIBRATIONS = {key: Calibration(temperature=3, bias=-0.5) for key in ("pneumonia", "effusion")}


def _audited(predictions, groups=None, **rest):
    answers = [Answers.of(predictions, key) for key in predictions.findings]
    return audit(predictions, answers, groups or {}, **rest)


def test_a_view_that_tells_the_label_is_found_and_a_coin_is_not(simulated_predictions):
    rng = np.random.default_rng(0)
    labels = simulated_predictions.labels[:, 0]
    told = rng.random(len(labels)) < 0.8
    view = np.where((labels == 1) == told, "AP", "PA").tolist()
    coin = rng.choice(["a", "b"], len(labels)).tolist()
    rows = {
        row.facts: row
        for row in _audited(simulated_predictions, {"view": view, "coin": coin}).shortcuts
    }
    assert set(rows) == {"view", "coin", "all of these"}
    # Right in 80% of either class.
    assert rows["view"].auroc.value == pytest.approx(0.8, abs=0.04)
    assert rows["view"].auroc.low > 0.5
    assert rows["coin"].auroc.low < 0.55
    wanted = roc_auc_score(labels, simulated_predictions.log_odds[:, 0])
    assert rows["view"].model_auroc.value == pytest.approx(wanted)
    gap = rows["view"].auroc_difference
    assert gap.value == pytest.approx(wanted - rows["view"].auroc.value)


def test_the_size_of_the_images_is_a_fact_where_it_varies(simulated_predictions):
    labels = simulated_predictions.labels[:, :1]
    shapes = np.where(labels == 1, [[1024.0, 1024.0]], [[2000.0, 1500.0]])
    sized = dataclasses.replace(simulated_predictions, shapes=shapes)
    (row,) = _audited(sized).shortcuts
    assert (row.facts, row.auroc.value) == ("image size", 1)
    assert _audited(simulated_predictions).shortcuts == ()


def test_a_patients_own_images_do_not_tell_the_shortcut(simulated_predictions):
    # A fact that names the patient tells nothing of other patients.
    facts = {"site": list(simulated_predictions.patients)}
    (row,) = _audited(simulated_predictions, facts).shortcuts
    assert row.auroc.value == pytest.approx(0.5, abs=0.06)


@pytest.fixture(scope="module")
def probed(two_findings):
    rng = np.random.default_rng(1)
    log_odds = two_findings.log_odds
    sample = (rng.random(len(log_odds)) < 0.7)[:, None]
    probes = {
        "blurred": np.where(sample, rng.normal(size=log_odds.shape), np.nan),
        "Is {name} present?": np.where(sample, log_odds + 1.5, np.nan),
        "Is there evidence of a fracture?": np.where(sample, -log_odds, np.nan),
    }
    return dataclasses.replace(two_findings, probes=probes), sample[:, 0]


@pytest.fixture(scope="module")
def audits(probed, tiny_model):
    predictions, _ = probed
    kinds = ("blurred", "reworded", "another finding")
    probes = [
        Probe(name, kind, tiny_model) for name, kind in zip(predictions.probes, kinds, strict=True)
    ]
    return _audited(
        predictions,
        probes=probes,
        blank={"pneumonia": -0.25, "effusion": 0.5},
        calibrations=CALIBRATIONS,
    )


def test_without_the_image_nothing_is_told(audits, probed):
    predictions, sample = probed
    row, other = audits.image_use
    assert (row.finding, other.finding) == ("pneumonia", "effusion")
    assert row.n == sample.sum()
    wanted = roc_auc_score(predictions.labels[sample, 0], predictions.log_odds[sample, 0])
    assert row.real.value == pytest.approx(wanted)
    assert row.blurred.low < 0.5 < row.blurred.high
    assert row.auroc_difference.value == pytest.approx(row.real.value - row.blurred.value)
    assert row.auroc_difference.low > 0
    assert (row.blank_log_odds, other.blank_log_odds) == (-0.25, 0.5)
    assert row.real_log_odds == pytest.approx(predictions.log_odds[sample, 0].mean())


def test_the_lungs_are_audited_where_they_were_found_for_what_lies_in_them(probed, tiny_model):
    predictions, _ = probed
    rng = np.random.default_rng(2)
    found = rng.random(len(predictions.log_odds)) < 0.6
    hidden = np.where(found[:, None], rng.normal(size=predictions.log_odds.shape), np.nan)
    probes = predictions.probes | {"lungs hidden": hidden, "thorax hidden": -hidden}
    told = dataclasses.replace(predictions, findings=("pneumonia", "cardiomegaly"), probes=probes)
    (row,) = _audited(
        told,
        blank=dict.fromkeys(told.findings, 0.0),
        calibrations=dict.fromkeys(told.findings, Calibration()),
    ).lungs
    labels = told.labels[found, 0]
    assert (row.finding, row.n) == ("pneumonia", found.sum())
    wanted = roc_auc_score(labels, told.log_odds[found, 0])
    assert row.auroc.value == pytest.approx(wanted)
    without = roc_auc_score(labels, hidden[found, 0])
    assert row.auroc_hidden.value == pytest.approx(without)
    assert row.auroc_outside.value == pytest.approx(1 - without)
    assert row.auroc_difference.value == pytest.approx(wanted - without)
    assert row.auroc_difference.low > 0


def test_another_wording_is_measured_by_what_it_changes(audits, probed):
    predictions, sample = probed
    rows = {row.question: row for row in audits.prompts if row.finding == "pneumonia"}
    assert set(rows) == {
        "Is pneumonia present?",
        "Is there evidence of a fracture?",
        "Is there evidence of pleural effusion?",
    }
    reworded = rows["Is pneumonia present?"]
    assert (reworded.kind, reworded.auroc_difference.value) == ("reworded", 0)
    assert reworded.mean_shift == pytest.approx(1.5)
    before = predictions.probabilities[sample, 0] >= 0.5
    # Called from log-odds of 3 * .5 on.
    after = predictions.log_odds[sample, 0] + 1.5 >= 1.5
    assert reworded.calls_changed == pytest.approx((before != after).mean())


def test_the_name_of_another_finding_ranks_as_its_answers_do(audits, probed):
    predictions, sample = probed
    rows = {row.question: row for row in audits.prompts if row.finding == "pneumonia"}
    labels = predictions.labels[sample, 0]
    fracture = rows["Is there evidence of a fracture?"]
    wanted = roc_auc_score(labels, -predictions.log_odds[sample, 0])
    assert (fracture.kind, fracture.calls_changed) == ("another finding", None)
    assert fracture.auroc.value == pytest.approx(wanted)
    effusion = rows["Is there evidence of pleural effusion?"]
    assert effusion.auroc.value == pytest.approx(
        roc_auc_score(labels, predictions.log_odds[sample, 1])
    )


def test_an_indication_is_measured_beside_the_image(probed):
    predictions, _ = probed
    log_odds, labels = predictions.log_odds, predictions.labels
    probes = predictions.probes | {
        # Of an image in five the other patient's could not be told.
        "own indication": log_odds + 2 * labels,
        "another patient's indication": np.where(
            np.arange(len(labels))[:, None] % 5, -log_odds, np.nan
        ),
        "own indication of a blank image": labels + 0.0,
    }
    told = dataclasses.replace(predictions, probes=probes)
    row, other = _audited(
        told, blank={"pneumonia": 0.0, "effusion": 0.0}, calibrations=CALIBRATIONS
    ).indications
    assert (row.finding, other.finding) == ("pneumonia", "effusion")
    kept = np.arange(len(labels)) % 5 > 0
    seen, truth = log_odds[kept, 0], labels[kept, 0]
    wanted = roc_auc_score(truth, seen), roc_auc_score(truth, seen + 2 * truth)
    assert row.n == kept.sum()
    assert (row.auroc.value, row.auroc_told.value) == pytest.approx(wanted)
    assert row.told_difference.value == pytest.approx(wanted[1] - wanted[0])
    assert row.auroc_mistaken.value == pytest.approx(1 - wanted[0])
    assert row.mistaken_difference.value == pytest.approx(1 - 2 * wanted[0])
    assert row.auroc_alone.value == 1
    assert row.image_difference.value == pytest.approx(wanted[1] - 1)
    assert row.mean_shift == pytest.approx(2 * truth.mean())
    # Called from log-odds of 3 * .5 on.
    assert row.calls_changed == pytest.approx(((seen >= 1.5) != (-seen >= 1.5)).mean())
    assert _audited(predictions).indications == ()


def test_predictions_that_were_given_have_no_audit_of_image_and_prompt(probed):
    predictions, _ = probed
    audits = _audited(predictions)
    assert (audits.image_use, audits.prompts) == ((), ())


def test_two_sources_of_labels_are_counted_against_each_other(simulated_predictions):
    rng = np.random.default_rng(0)
    first = simulated_predictions.labels
    second = np.where(rng.random(first.shape) < 0.2, 1 - first, first)
    second[:100] = np.nan
    noisy = dataclasses.replace(simulated_predictions, other_labels={"mined from text": second})
    (row,) = _audited(noisy).label_noise
    one, two = first[100:, 0], second[100:, 0]
    assert (row.source, row.n) == ("mined from text", len(one))
    assert (row.both_positive, row.only_first, row.only_second, row.both_negative) == (
        int(((one == 1) & (two == 1)).sum()),
        int(((one == 1) & (two == 0)).sum()),
        int(((one == 0) & (two == 1)).sum()),
        int(((one == 0) & (two == 0)).sum()),
    )
    assert row.kappa == pytest.approx(cohen_kappa_score(one, two))
    gap = row.auroc_difference
    assert gap.value == pytest.approx(row.auroc.value - row.auroc_second.value)
    # In pairs, so narrower than the two intervals would tell.
    assert gap.low > row.auroc.low - row.auroc_second.high
    assert gap.low > 0


def test_too_few_cases_are_not_audited(arrayed, simulated):
    few = arrayed(simulated(n_patients=9))
    assert _audited(few, {"sex": ["F", "M"] * 9}).shortcuts == ()
