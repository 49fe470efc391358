from __future__ import annotations

import dataclasses

import numpy as np
import pytest
from scipy.special import ndtri
from scipy.stats import binomtest
from sklearn.metrics import roc_auc_score

from medllm.evaluate import answers
from medllm.evaluate.answers import Answers
from medllm.evaluate.subgroups import groups_of, subgroup_figures
from medllm.metrics import normal_p_value


def _measured(predictions, **groups):
    return subgroup_figures([Answers.of(predictions, key) for key in predictions.findings], groups)


def test_a_group_in_which_the_answers_are_noise_is_flagged_and_chance_is_not(
    simulated_predictions,
):
    rng = np.random.default_rng(0)
    n = len(simulated_predictions.paths)
    worse = rng.random(n) < 0.3
    probabilities = simulated_predictions.probabilities.copy()
    probabilities[worse, 0] = rng.permutation(probabilities[worse, 0])
    spoilt = dataclasses.replace(simulated_predictions, probabilities=probabilities)
    rows = _measured(
        spoilt,
        site=["B" if one else "A" for one in worse],
        coin=rng.choice(["heads", "tails"], n).tolist(),
    )
    flagged = {(row.attribute, row.group): row.larger_than_noise for row in rows}
    assert flagged == {
        ("site", "A"): True,
        ("site", "B"): True,
        ("coin", "heads"): False,
        ("coin", "tails"): False,
    }
    (bad,) = (row for row in rows if row.group == "B")
    labels = spoilt.labels[:, 0]
    inside = roc_auc_score(labels[worse], probabilities[worse, 0])
    outside = roc_auc_score(labels[~worse], probabilities[~worse, 0])
    assert bad.auroc.value == pytest.approx(inside)
    assert bad.auroc_difference.value == pytest.approx(inside - outside)
    assert bad.auroc_difference.high < 0
    assert (bad.n, bad.n_positive) == (worse.sum(), labels[worse].sum())


def test_a_false_alarm_is_as_rare_as_the_level_says(arrayed, simulated, monkeypatch):
    # Six groups of chance each, corrected together: one alarm in twenty runs is expected.
    monkeypatch.setattr(answers, "N_RESAMPLES", 200)
    alarms = 0
    for seed in range(12):
        predictions = arrayed(simulated(n_patients=200, seed=seed))
        rng = np.random.default_rng(seed)
        groups = {
            f"coin {at}": rng.choice(["a", "b"], len(predictions.paths)).tolist() for at in range(3)
        }
        alarms += any(row.larger_than_noise for row in _measured(predictions, **groups))
    # Binomial of 12 at .05: more than 3 has a chance of .002.
    assert alarms <= 3


def test_few_cases_are_counted_and_given_no_area(simulated_predictions):
    n = len(simulated_predictions.paths)
    rows = _measured(simulated_predictions, site=["few"] * 25 + ["many"] * (n - 25))
    few, many = rows
    assert (few.group, few.n, few.auroc, few.auroc_difference) == ("few", 25, None, None)
    # The others have a figure, but nothing to be compared with.
    assert many.auroc is not None
    assert (many.auroc_difference, many.p_value) == (None, None)
    assert not many.larger_than_noise


def test_many_images_of_few_patients_are_too_few_cases(simulated_predictions):
    n = len(simulated_predictions.paths)
    site = ["one"] * (n // 2) + ["other"] * (n - n // 2)
    patients = list(simulated_predictions.patients)
    patients[: n // 2] = [f"p{at % 3}" for at in range(n // 2)]
    labels = simulated_predictions.labels[: n // 2, 0]
    assert min(labels.sum(), (1 - labels).sum()) > 20
    of_three = dataclasses.replace(simulated_predictions, patients=patients)
    one, other = _measured(of_three, site=site)
    assert (one.auroc, one.p_value) == (None, None)
    assert other.auroc is not None
    assert other.auroc_difference is None


def test_shares_of_five_or_more_have_exact_intervals(arrayed, simulated):
    predictions = arrayed(simulated(n_patients=200, images_a_patient=1))
    labels, called = predictions.labels[:, 0], predictions.called[:, 0]
    positives, negatives = np.flatnonzero(labels == 1), np.flatnonzero(labels == 0)
    site = np.full(len(labels), "rest", dtype=object)
    site[positives[:19]], site[negatives[:28]] = "nineteen", "nineteen"
    site[positives[19:23]], site[negatives[28:33]] = "four", "four"
    rows = {row.group: row for row in _measured(predictions, site=site.tolist())}

    def exact(chosen):
        test = binomtest(int(chosen.sum()), len(chosen)).proportion_ci(method="exact")
        return pytest.approx((chosen.mean(), test.low, test.high))

    def told(interval):
        return interval.value, interval.low, interval.high

    row = rows["nineteen"]
    assert (row.n, row.n_positive, row.auroc) == (47, 19, None)
    assert told(row.sensitivity) == exact(called[positives[:19]])
    assert 0 < row.sensitivity.value < 1
    row = rows["four"]
    assert (row.n_positive, row.sensitivity) == (4, None)
    assert told(row.specificity) == exact(~called[negatives[28:33]])


def test_several_images_of_a_patient_tell_no_more_than_one(arrayed, simulated):
    predictions = arrayed(simulated(n_patients=200, images_a_patient=1))
    one = Answers.of(predictions, "pneumonia")
    few = {"site": [*["few"] * 15, *["rest"] * 185]}
    (once, _) = subgroup_figures([one], few)
    (doubled, _) = subgroup_figures([one.chosen(np.repeat(np.arange(200), 2))], few)
    assert 5 <= once.n_positive <= doubled.n_positive < 20
    assert once.sensitivity is not None
    assert doubled.sensitivity.low == pytest.approx(once.sensitivity.low)
    assert doubled.sensitivity.high == pytest.approx(once.sensitivity.high)


def test_blank_values_are_counted_in_a_row_of_their_own(simulated_predictions):
    n = len(simulated_predictions.paths)
    sex = (["F", "M", ""] * n)[:n]
    rows = _measured(simulated_predictions, sex=sex)
    assert [row.group for row in rows] == ["F", "M", "unknown"]
    unknown = rows[-1]
    blank = np.array(sex) == ""
    labels = simulated_predictions.labels[:, 0]
    assert (unknown.n, unknown.n_positive) == (blank.sum(), labels[blank].sum())
    assert (unknown.auroc, unknown.sensitivity, unknown.specificity) == (None, None, None)
    assert (unknown.auroc_difference, unknown.p_value) == (None, None)
    assert sum(row.n for row in rows) == n


def test_ages_are_grouped_and_unknown_ones_are_in_no_group(arrayed, simulated):
    rows = simulated(n_patients=5)
    ages = ["17", "18", "39.5", "40", "59", "60", "79", "80", "414", ""]
    predictions = arrayed(
        rows, {"age_years": ages, "sex": ["F"] * 10, "scanner": list("aabbccdd  ")}
    )
    assert groups_of(predictions) == {
        "age group": [
            "under 18",
            "18 to 39",
            "18 to 39",
            "40 to 59",
            "40 to 59",
            "60 to 79",
            "60 to 79",
            "80 and over",
            "80 and over",
            "",
        ]
    }
    # One sex alone divides nothing; a column divides where it is asked for.
    assert groups_of(predictions, ["scanner"])["scanner"] == [*"aabbccdd", "", ""]


def test_rare_values_are_joined(arrayed, simulated):
    rows = simulated(n_patients=50)
    sites = [f"s{at % 20 if at < 40 else at % 4}" for at in range(100)]
    groups = groups_of(arrayed(rows, {"site": sites}), ["site"])["site"]
    assert len(set(groups)) == 8
    assert "others" in groups
    assert {"s0", "s1", "s2", "s3"} <= set(groups)


def test_images_of_unknown_group_are_among_the_others(simulated_predictions):
    n = len(simulated_predictions.paths)
    values = ["F"] * (n // 2) + [""] * (n - n // 2)
    row, unknown = _measured(simulated_predictions, sex=values)
    assert (row.group, unknown.group) == ("F", "unknown")
    assert row.auroc_difference is not None


def test_two_groups_that_hold_all_images_are_one_test(simulated_predictions):
    n = len(simulated_predictions.paths)
    coin = np.random.default_rng(1).choice(["heads", "tails"], n).tolist()
    heads, tails = _measured(simulated_predictions, coin=coin)
    assert heads.p_value == tails.p_value
    # A test alone is not corrected.
    gap = heads.auroc_difference
    alone = normal_p_value(gap.value, (gap.high - gap.low) / (2 * ndtri(0.975)))
    assert heads.p_value == pytest.approx(alone)


def test_age_groups_stand_by_age(simulated_predictions):
    n = len(simulated_predictions.paths)
    wanted = ["under 18", "18 to 39", "40 to 59", "60 to 79", "80 and over"]
    rows = _measured(simulated_predictions, age=(wanted * n)[:n])
    assert [row.group for row in rows] == wanted


def test_a_share_of_one_has_an_interval(simulated_predictions):
    called = np.ones_like(simulated_predictions.called)
    n = len(simulated_predictions.paths)
    all_called = dataclasses.replace(simulated_predictions, called=called)
    row, _ = _measured(all_called, sex=["F"] * (n // 2) + ["M"] * (n - n // 2))
    assert (row.sensitivity.value, row.sensitivity.high) == (1, 1)
    assert 0.9 < row.sensitivity.low < 1
    assert (row.specificity.value, row.specificity.low) == (0, 0)
    assert 0 < row.specificity.high < 0.1
