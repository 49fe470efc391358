"""Calibration on validation patients, and measurement with intervals by patient."""

from __future__ import annotations

import dataclasses
import logging
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from jaxtyping import Float, Int, UInt8
from sklearn.linear_model import LogisticRegression
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

from medllm.errors import TrainingError
from medllm.findings import FINDINGS
from medllm.metrics import (
    Estimate,
    auroc,
    basic_interval,
    brier,
    clustered_bootstrap,
    exact_share,
    expected_calibration_error,
    sensitivity,
    specificity,
)
from medllm.models import Calibration, Comparison, Measurement, Model
from medllm.models.calibration import at_prevalence, fit_calibration, probability_of
from medllm.train.image_set import ImageSet
from medllm.train.measured_sets import Chosen, choose, measured_sets, patients_of
from medllm.train.recipe import MeasuredSet

_LOG = logging.getLogger(__name__)

# None of a finding that could not be learned.
Scorer = Callable[[ImageSet, str], Float[np.ndarray, " images"] | None]

_THUMBNAIL = 32
# Images that thumbnails are made of at a time.
_CHUNK = 64


def scores_by_source(
    model: Model, sets: Mapping[str, ImageSet], findings: Sequence[str]
) -> dict[str, np.ndarray]:
    """Score each source once, for all findings: the image is most of the cost.

    Args:
        model: The model.
        sets: Images by source.
        findings: Keys, the columns of the scores.

    Returns:
        Uncalibrated log-odds by source, a row an image.
    """
    return {name: images.scores(model, findings) for name, images in sets.items()}


def calibrate(model: Model, validation: Mapping[str, ImageSet]) -> Model:
    """Fit temperature, bias and thresholds of each question on validation patients.

    Data sets weigh the same, whatever their size, so that the largest does not decide alone, and
    so do the images with and without the finding of each, so that the log-odds do not learn which
    set has more of them: the probability supposes one half. Phantoms are left out where there are
    patients.

    Args:
        model: A model whose card is not calibrated.
        validation: Patients no weight was fitted on, by source; phantoms where there are none.

    Returns:
        The calibrated model. A finding whose log-odds do not rank the patients, or that no data
        set has with and without, is left out, and the card's limitations say so.

    Raises:
        TrainingError: No finding can be calibrated.
    """
    patients = patients_of(validation)
    log_odds = scores_by_source(model, patients, model.card.findings)
    questions, left_out = [], []
    for column, question in enumerate(model.card.questions):
        scores = {name: rows[:, column] for name, rows in log_odds.items()}
        try:
            calibration = _fitted(question.finding, patients, scores)
        except TrainingError as error:
            left_out.append((question.finding, error))
        else:
            questions.append(dataclasses.replace(question, calibration=calibration))
    if not questions:
        raise left_out[0][1]
    return _without(_with_questions(model, questions), left_out)


def _without(model: Model, left_out: Sequence[tuple[str, TrainingError]]) -> Model:
    """Say in the log and in the card which findings were trained and are not answered for."""
    limitations = list(model.card.limitations)
    for finding, error in left_out:
        _LOG.warning("%s is left out of the checkpoint: %s", finding, error)
        limitations.append(
            f"It was also trained on {FINDINGS[finding].name} and does not answer for it: on the "
            "validation images its log-odds could not be calibrated."
        )
    card = dataclasses.replace(model.card, limitations=tuple(limitations))
    return dataclasses.replace(model, card=card)


def _fitted(
    finding: str, sets: Mapping[str, ImageSet], log_odds: Mapping[str, np.ndarray]
) -> Calibration:
    kind, more = "validation patients of", "patients (data, shares)"
    if "phantom" in sets:
        kind, more = "validation", "phantoms (data, count)"
    names = {"phantom": "phantoms"}
    known = [choose(images, finding, names.get(name, name), {}) for name, images in sets.items()]
    # A set that has only one of the two says nothing of how they differ.
    chosen = [one for one in known if len(set(one.labels)) == 2]
    if not chosen:
        raise TrainingError(
            f"{finding} cannot be calibrated: no data set has {kind.partition(' ')[0]} images with "
            f"it and without it. Give it more validation {more}."
        )
    truth = np.concatenate([one.labels for one in chosen])
    weights = np.concatenate([_balanced(one.labels) for one in chosen])
    weights *= len(truth) / weights.sum()
    told = " and ".join(f"{one.name} ({len(one.rows)} images)" for one in chosen)
    try:
        return fit_calibration(
            np.concatenate([log_odds[one.source][one.rows] for one in chosen]),
            truth,
            weights=weights,
            fitted_on=(
                f"{kind} {told}, "
                + ("the data sets, and in each " if len(chosen) > 1 else "")
                + "images with and without the finding weighing the same"
            ),
        )
    except ValueError as error:
        raise TrainingError(
            f"{finding} cannot be calibrated on {told}: {error} Train longer, or give it more "
            f"validation {more}."
        ) from error


def _balanced(labels: Int[np.ndarray, " images"]) -> Float[np.ndarray, " images"]:
    """Let the images with and those without each weigh one half together."""
    weights: np.ndarray = 0.5 / np.bincount(labels, minlength=2)[labels]
    return weights


def measure(
    model: Model,
    sets: Mapping[str, ImageSet],
    wanted: Sequence[MeasuredSet],
    told: Mapping[str, str],
) -> Model:
    """Measure each question, with intervals by patient.

    Args:
        model: A calibrated model.
        sets: Images that no weight was fitted on, by source.
        wanted: Which of them.
        told: Which patients these are, in words, by source.

    Returns:
        The model with the figures in its card.
    """
    questions = []
    log_odds = scores_by_source(model, sets, model.card.findings)
    for column, question in enumerate(model.card.questions):
        figures = [
            _measurement(
                question.calibration,
                one,
                log_odds[one.source][one.rows, column],
                told.get(one.source, ""),
            )
            for one in measured_sets(sets, wanted, question.finding)
        ]
        questions.append(dataclasses.replace(question, measurements=tuple(figures)))
    return _with_questions(model, questions)


def _with_questions(model: Model, questions: Sequence[Any]) -> Model:
    card = dataclasses.replace(model.card, questions=tuple(questions))
    return dataclasses.replace(model, card=card)


def _measurement(
    calibration: Calibration, chosen: Chosen, log_odds: Float[np.ndarray, " chosen"], told: str
) -> Measurement:
    labels = chosen.labels
    # How probable a finding is follows from how frequent it is, and sets differ in that.
    own = calibration
    if calibration.prevalence is not None:
        own = at_prevalence(calibration, float(labels.mean()))
    probabilities = np.array([probability_of(value, own) for value in log_odds])
    called = probabilities >= own.high

    def interval(figure: Any, values: np.ndarray) -> Estimate:
        return clustered_bootstrap(lambda at: figure(values[at], labels[at]), chosen.patients)

    def share(figure: Any, label: int) -> Estimate:
        return exact_share(interval(figure, called), labels == label, chosen.patients)

    return Measurement(
        test_set=f"{chosen.name}; {told}" if told else chosen.name,
        n=len(labels),
        n_positive=int(labels.sum()),
        auroc=interval(auroc, log_odds),
        sensitivity=share(sensitivity, 1),
        specificity=share(specificity, 0),
        brier=interval(brier, probabilities),
        ece=basic_interval(interval(expected_calibration_error, probabilities)),
        subgroup=chosen.subgroup,
    )


def beside(
    model: Model,
    name: str,
    scores_of: Scorer,
    sets: Mapping[str, ImageSet],
    wanted: Sequence[MeasuredSet],
) -> list[Comparison]:
    """Compare with a baseline that was trained and is tested on the same patients.

    Args:
        model: The finished model.
        name: Name of the baseline.
        scores_of: Its scores of all images of a source, for a finding.
        sets: Images that no weight was fitted on, by source.
        wanted: Which of them.

    Returns:
        A row a finding that the baseline could learn and set of patients: both AUROCs and their
        difference, each with its interval.
    """
    rows = []
    log_odds = scores_by_source(model, sets, model.card.findings)
    for column, finding in enumerate(model.card.findings):
        theirs = {source: scores_of(images, finding) for source, images in sets.items()}
        for one in measured_sets(sets, wanted, finding):
            if one.subgroup:
                continue
            if (other := theirs[one.source]) is not None:
                scores = log_odds[one.source][one.rows, column], other[one.rows]
                rows.append(Comparison(finding, one.name, name, *_compared(one, *scores)))
    return rows


def _compared(
    chosen: Chosen, ours: Float[np.ndarray, " chosen"], theirs: Float[np.ndarray, " chosen"]
) -> list[Estimate]:
    """Give both AUROCs and their difference, resampled in pairs."""

    def area(scores: np.ndarray, at: np.ndarray) -> float:
        return auroc(scores[at], chosen.labels[at])

    figures = (
        lambda at: area(ours, at),
        lambda at: area(theirs, at),
        lambda at: area(ours, at) - area(theirs, at),
    )
    return [clustered_bootstrap(figure, chosen.patients) for figure in figures]


def thumbnail_baseline(train: Mapping[str, ImageSet], findings: Sequence[str]) -> Scorer:
    """Fit logistic regression on thumbnails of 32 x 32 pixels.

    Args:
        train: What the model was trained on; phantoms are left out where there are patients.
        findings: Keys.

    Returns:
        Its scores of a source's images, for a finding; None of one that all these patients have,
        or none.
    """
    small = {name: _thumbnails(images.pixels) for name, images in patients_of(train).items()}
    fitted = {}
    for finding in findings:
        chosen = [choose(train[name], finding, name, {}) for name in small]
        labels = np.concatenate([one.labels for one in chosen])
        if len(np.unique(labels)) < 2:
            continue
        classifier = LogisticRegression(C=0.01, max_iter=2000, class_weight="balanced")
        fitted[finding] = make_pipeline(StandardScaler(), classifier).fit(
            np.concatenate([small[one.source][one.rows] for one in chosen]), labels
        )

    def scores(images: ImageSet, finding: str) -> Float[np.ndarray, " images"] | None:
        one = fitted.get(finding)
        return None if one is None else one.decision_function(_thumbnails(images.pixels))

    return scores


def _thumbnails(
    pixels: UInt8[torch.Tensor, "images size size"],
) -> Float[np.ndarray, "images pixels"]:
    # Of all images at once the numbers would take many times the memory of the images themselves.
    small = [
        F.interpolate(chunk[:, None].float() / 255, size=(_THUMBNAIL,) * 2, mode="area")
        for chunk in torch.split(pixels, _CHUNK)
    ]
    flat: np.ndarray = torch.cat(small).flatten(1).double().numpy()
    return flat
