from __future__ import annotations

import dataclasses
import math

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import roc_auc_score

from medllm.errors import TrainingError
from medllm.models import Calibration, Model
from medllm.train import measure as measure_module
from medllm.train.image_set import ImageSet
from medllm.train.measure import (
    _measurement,
    _thumbnails,
    beside,
    calibrate,
    measure,
    thumbnail_baseline,
)
from medllm.train.measured_sets import Chosen, choose, measured_sets
from medllm.train.recipe import MeasuredSet


def patients(source="csv", count=40, seed=0):
    """Images that are brighter above with the finding, two a patient; one in ten is misread."""
    generator = np.random.default_rng(seed)
    seen = generator.integers(0, 2, count)
    pixels = generator.integers(90, 96, (count, 64, 64)).astype(np.uint8)
    pixels[seen == 1, :32] += 60
    labels = np.where(np.arange(count) % 10 == 3, 1 - seen, seen)
    attributes = [
        {"sex": "FM"[index % 2], "age_years": str(10 + index * 2), "view_position": "PA"}
        for index in range(count)
    ]
    return ImageSet(
        source,
        torch.from_numpy(pixels),
        [f"p{index // 2}" for index in range(count)],
        [{"pneumonia": int(label)} for label in labels],
        attributes,
        [{} for _ in labels],
    )


class Brightness(Model):
    """Log-odds that are known by heart: how much brighter the upper half is than the lower."""

    def log_odds(self, pixel_values, findings=None):
        upper, lower = pixel_values[:, :, :32], pixel_values[:, :, 32:]
        difference = upper.mean(dim=(1, 2, 3)) - lower.mean(dim=(1, 2, 3))
        return difference[:, None].repeat(1, len(self.questions(findings)))


class Darkness(Brightness):
    """The opposite."""

    def log_odds(self, pixel_values, findings=None):
        return -super().log_odds(pixel_values, findings)


@pytest.fixture
def model(new_tiny_model):
    tiny = new_tiny_model(("pneumonia",))
    return Brightness(tiny.network, tiny.tokenizer, tiny.card)


def test_measurement_agrees_with_counting():
    labels = np.array([1, 1, 0, 0, 0])
    chosen = Chosen("a set", "nih", np.arange(5), labels, list("abcde"))
    calibration = Calibration(temperature=1.0, bias=0.0, low=0.2, high=0.5)
    got = _measurement(calibration, chosen, np.array([2.0, -1.0, -2.0, 1.0, -3.0]), "somebody")
    assert (got.test_set, got.n, got.n_positive) == ("a set; somebody", 5, 2)
    assert got.sensitivity.value == 0.5
    assert got.specificity.value == pytest.approx(2 / 3)
    assert got.auroc.value == pytest.approx(5 / 6)


def test_a_sensitivity_of_none_has_an_interval_by_patients():
    # Four images with the finding, of three patients; exact: 1 - 0.025^(1/3).
    labels = np.array([1, 1, 1, 1, 0, 0])
    chosen = Chosen("a set", "nih", np.arange(6), labels, list("aabcde"))
    calibration = Calibration(temperature=1.0, bias=0.0, low=0.2, high=0.5)
    got = _measurement(calibration, chosen, np.array([-2.0, -1.0, -2.0, -1.0, 1.0, -3.0]), "")
    assert (got.sensitivity.value, got.sensitivity.low) == (0, 0)
    assert got.sensitivity.high == pytest.approx(0.7076, abs=1e-4)
    assert got.specificity.value == 0.5


def test_only_images_with_a_label_and_the_wanted_attribute_are_chosen():
    images = patients()
    del images.labels[4]["pneumonia"]
    chosen = choose(images, "pneumonia", "women", {"sex": ["F"]})
    assert chosen.rows.tolist() == [row for row in range(0, 40, 2) if row != 4]
    assert chosen.labels.tolist() == [images.labels[row]["pneumonia"] for row in chosen.rows]
    assert chosen.patients == [images.patients[row] for row in chosen.rows]


def test_an_image_with_a_soft_label_is_not_chosen():
    images = patients()
    images.labels[4]["pneumonia"] = 0.6
    chosen = choose(images, "pneumonia", "all", {})
    assert chosen.rows.tolist() == [row for row in range(40) if row != 4]


def test_subgroups_with_too_few_cases_give_no_figure():
    images = patients()
    names = {one.subgroup for one in measured_sets({"csv": images}, (), "pneumonia")}
    # 4 images are of patients under 18; all views are PA, which divides nothing.
    assert names == {"", "women", "men", "18 to 59", "60 and older"}
    wanted = [MeasuredSet(name="old men", dataset="csv", where={"sex": ("M",)})]
    chosen = measured_sets({"csv": images}, wanted, "pneumonia")
    assert {one.name for one in chosen} == {"old men"}
    assert "women" not in {one.subgroup for one in chosen}


def test_data_sets_and_classes_weigh_the_same_in_the_calibration(model):
    sets = {"csv": patients(count=80), "nih": patients("nih", count=20, seed=1)}
    fitted = calibrate(model, sets).card.questions[0].calibration
    scores = [images.scores(model, ("pneumonia",))[:, 0] for images in sets.values()]
    labels = [images.truth(("pneumonia",))[:, 0].long().numpy() for images in sets.values()]
    # Repeated until each of the four groups has as many images.
    groups = [x[y == label] for x, y in zip(scores, labels, strict=True) for label in (0, 1)]
    most = math.lcm(*(len(group) for group in groups))
    by_hand = LogisticRegression(C=np.inf).fit(
        np.concatenate([np.repeat(group, most // len(group)) for group in groups])[:, None],
        np.repeat([0, 1, 0, 1], most),
    )
    # Two optimisations of the same smooth function, stopped at the same tolerance.
    assert 1 / fitted.temperature == pytest.approx(by_hand.coef_[0, 0], rel=0.02)
    assert fitted.prevalence == pytest.approx(0.5)
    assert "csv (80 images) and nih (20 images)" in fitted.fitted_on


def test_a_set_of_one_class_says_nothing_of_the_other_and_is_left_out(model):
    positives = [{"pneumonia": 1}] * 40
    sick = dataclasses.replace(patients("sick", count=40, seed=1), labels=positives)
    both = calibrate(model, {"csv": patients(), "sick": sick}).card.questions[0].calibration
    assert both == calibrate(model, {"csv": patients()}).card.questions[0].calibration
    with pytest.raises(TrainingError, match="no data set has validation images with it"):
        calibrate(model, {"sick": sick})


def test_calibration_error_is_of_the_probability_at_the_sets_own_prevalence(model):
    images = patients(count=120)
    fitted = calibrate(model, {"csv": images})
    # Of those with the finding most are read by nobody: it is rarer than where it was fitted.
    read = [i for i, row in enumerate(images.labels) if row["pneumonia"] == 0 or i % 3 == 0]
    images = dataclasses.replace(
        images, labels=[row if i in read else {} for i, row in enumerate(images.labels)]
    )
    scores = images.scores(fitted, ("pneumonia",))[read, 0]
    labels = np.array([images.labels[i]["pneumonia"] for i in read])
    calibration, share = fitted.card.questions[0].calibration, labels.mean()
    shifted = scores / calibration.temperature + calibration.bias + np.log(share / (1 - share))
    measured = measure(fitted, {"csv": images}, (), {}).card.questions[0].measurements[0]
    expected = np.mean((1 / (1 + np.exp(-shifted)) - labels) ** 2)
    assert measured.brier.value == pytest.approx(expected)
    # The call is that of the card, whatever the prevalence; the threshold is one of the scores.
    threshold = calibration.temperature * (
        np.log(calibration.high / (1 - calibration.high)) - calibration.bias
    )
    called = scores >= threshold - 1e-9
    assert measured.sensitivity.value == pytest.approx(called[labels == 1].mean(), abs=1e-9)


def test_a_model_is_calibrated_on_phantoms_where_there_are_no_patients_and_says_so(model):
    sets = {"phantom": patients("phantom", count=20, seed=1)}
    alone = calibrate(model, sets).card.questions[0].calibration
    assert alone.fitted_on == (
        "validation phantoms (20 images), images with and without the finding weighing the same"
    )
    beside_patients = calibrate(model, {"csv": patients(), **sets}).card.questions[0].calibration
    assert beside_patients == calibrate(model, {"csv": patients()}).card.questions[0].calibration
    assert beside_patients != alone


def test_figures_say_whether_they_are_of_patients_or_of_phantoms(model):
    sets = {"csv": patients(), "phantom": patients("phantom")}
    measured = measure(model, sets, (), {"csv": "held-out patients"}).card.questions[0].measurements
    assert {one.test_set for one in measured} == {
        "csv; held-out patients",
        "phantoms of unseen seeds",
    }
    del sets["csv"]
    (one,) = measure(model, sets, (), {"phantom": "held out"}).card.questions[0].measurements
    assert one.test_set == "phantoms of unseen seeds; held out"


@pytest.mark.parametrize(
    ("source", "told"),
    [
        ("csv", r"calibrated on csv \(40 images\).*validation patients \(data, shares\)"),
        ("phantom", r"calibrated on phantoms \(40 images\).*validation phantoms \(data, count\)"),
    ],
)
def test_log_odds_that_do_not_rank_cannot_be_calibrated(source, told, model):
    dark = Darkness(model.network, model.tokenizer, model.card)
    with pytest.raises(TrainingError, match=f"pneumonia cannot be {told}"):
        calibrate(dark, {source: patients(source)})


class Partly(Brightness):
    """Ranks by the first finding, and the wrong way round by the others."""

    def log_odds(self, pixel_values, findings=None):
        values = super().log_odds(pixel_values, findings)
        return torch.cat([values[:, :1], -values[:, 1:]], dim=1)


def test_a_finding_that_cannot_be_calibrated_is_left_out_and_the_others_stay(
    new_tiny_model, caplog
):
    tiny = new_tiny_model(("pneumonia", "lung_opacity"))
    images = patients()
    for row in images.labels:
        row["lung_opacity"] = row["pneumonia"]
    partly = Partly(tiny.network, tiny.tokenizer, tiny.card)
    card = calibrate(partly, {"csv": images}).card
    assert card.findings == ("pneumonia",)
    assert card.questions[0].calibration.fitted_on
    assert "trained on lung opacity and does not answer for it" in card.limitations[-1]
    assert "lung_opacity is left out of the checkpoint: lung_opacity cannot be" in caplog.text
    assert "log-odds do not rank" in caplog.text


def test_a_baseline_is_compared_on_the_same_images(model):
    train, unseen = {"csv": patients()}, {"csv": patients(seed=2)}
    scores_of = thumbnail_baseline(train, ["pneumonia"])
    row = beside(model, "thumbnails", scores_of, unseen, ())[0]
    truth = unseen["csv"].truth(("pneumonia",))[:, 0].long().numpy()
    theirs = roc_auc_score(truth, scores_of(unseen["csv"], "pneumonia"))
    ours = roc_auc_score(truth, unseen["csv"].scores(model, ("pneumonia",))[:, 0])
    assert row.baseline_auroc.value == pytest.approx(theirs)
    assert row.model_auroc.value == pytest.approx(ours)
    assert row.difference.value == pytest.approx(ours - theirs)


def test_a_finding_that_no_patient_has_is_not_compared(model):
    """Phantoms alone have it, and thumbnails are of patients."""
    train = {"csv": patients(), "phantom": patients(seed=3)}
    for row in train["csv"].labels:
        row["pneumonia"] = 0
    scores_of = thumbnail_baseline(train, ["pneumonia"])
    assert scores_of(train["csv"], "pneumonia") is None
    assert beside(model, "thumbnails", scores_of, {"csv": patients(seed=2)}, ()) == []


def test_thumbnails_of_many_images_are_those_of_each():
    pixels = patients(count=70).pixels
    alone = np.concatenate([_thumbnails(one[None]) for one in pixels])
    np.testing.assert_array_equal(_thumbnails(pixels), alone)


def test_thumbnails_are_made_of_few_images_at_a_time(monkeypatch):
    """In numbers, all images at once take many times what they take in bytes."""
    at_once, own = [], F.interpolate

    def interpolate(values, **options):
        at_once.append(len(values))
        return own(values, **options)

    monkeypatch.setattr(measure_module.F, "interpolate", interpolate)
    thumbnail_baseline({"csv": patients(count=200)}, ["pneumonia"])
    assert sum(at_once) == 200
    assert max(at_once) <= 64
