"""Calibration on validation patients, and measurement with intervals."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from jaxtyping import Bool, Float, Int, UInt8
from sklearn.linear_model import LogisticRegression
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

from medllm.metrics import (
    Estimate,
    auroc,
    brier,
    clustered_bootstrap,
    expected_calibration_error,
    sensitivity,
    specificity,
)
from medllm.models import Measurement, Model
from medllm.models.calibration import fit_calibration, probability_of
from medllm.train.parts import PhantomPart, RealPart

_THUMBNAIL = 32


@dataclasses.dataclass(frozen=True, eq=False)
class TestSet:
    """Images that one finding is measured on.

    Attributes:
        name: What it is, in words.
        dataset: `kermany`, `nih` or `phantom`.
        chosen: Which images of the part.
        labels: 1 or 0 of the chosen.
        patients: Patient of each of the chosen.
    """

    # pytest would take a class of this name for a test.
    __test__ = False

    name: str
    dataset: str
    chosen: Bool[np.ndarray, " images"]
    labels: Int[np.ndarray, " chosen"]
    patients: Sequence[str]


def calibrate(model: Model, validation: RealPart) -> Model:
    """Fit temperature, bias and thresholds of each question on validation patients.

    The two data sets weigh the same, whatever their size: one is of children with a high
    share of pneumonia, the other of adults.

    Args:
        model: A model whose card is not calibrated.
        validation: Patients no weight was fitted on.

    Returns:
        The calibrated model.
    """
    questions = []
    for question in model.card.questions:
        scores, labels, weights = [], [], []
        for dataset in validation.records:
            truth = validation.labels(dataset, (question.finding,))[:, 0]
            known = ~truth.isnan()
            scores.append(validation.log_odds(model, dataset, (question.finding,))[known, 0])
            labels.append(truth[known])
            weights.append(torch.full((int(known.sum()),), 1 / int(known.sum())))
        calibration = fit_calibration(
            torch.cat(scores).double().numpy(),
            torch.cat(labels).long().numpy(),
            weights=torch.cat(weights).double().numpy() * sum(map(len, weights)) / len(weights),
            fitted_on=(
                "validation patients of Kermany (10%) and of the NIH sample (15%), "
                "both sets weighing the same"
            ),
        )
        questions.append(dataclasses.replace(question, calibration=calibration))
    card = dataclasses.replace(model.card, questions=tuple(questions))
    return dataclasses.replace(model, card=card)


def test_sets(finding: str, real: RealPart, patients: str) -> list[TestSet]:
    """Choose the images that a finding is measured on.

    Args:
        finding: `pneumonia` or `lung_opacity`.
        real: The part.
        patients: Which patients these are, in words.

    Returns:
        Kermany's patients; NIH's as RSNA's radiologists read them, once against all
        others and once against the normal alone.
    """
    read = [record.attributes["rsna_class"] for record in real.records["nih"]]
    others = np.array([bool(word) for word in read])
    normal = np.array([word in ("Lung Opacity", "Normal") for word in read])
    everything = np.ones(len(real.records["kermany"]), dtype=bool)
    named = (
        ("Kermany, children", "kermany", everything),
        ("NIH, adults, read by RSNA, opacity against all others", "nih", others),
        ("NIH, adults, read by RSNA, opacity against normal", "nih", normal),
    )
    return [
        TestSet(
            name=f"{name}; {patients}",
            dataset=dataset,
            chosen=chosen,
            labels=real.labels(dataset, (finding,))[chosen, 0].long().numpy(),
            patients=[
                record.patient_id
                for record, wanted in zip(real.records[dataset], chosen, strict=True)
                if wanted
            ],
        )
        for name, dataset, chosen in named
    ]


def measure(model: Model, real: RealPart, phantoms: PhantomPart, patients: str) -> Model:
    """Measure each question on patients and on phantoms, with intervals by patient.

    Args:
        model: A calibrated model.
        real: Patients it was not trained on.
        phantoms: Phantoms of seeds that were not trained on.
        patients: Which patients these are, in words.

    Returns:
        The model with the figures in its card.
    """
    questions = []
    for question in model.card.questions:
        key = question.finding
        figures = []
        for test in test_sets(key, real, patients):
            scores = real.log_odds(model, test.dataset, (key,))[:, 0].double().numpy()
            figures.append(_measurement(question.calibration, test, scores[test.chosen]))
        truth = phantoms.labels((key,))[:, 0]
        known = ~truth.isnan().numpy()
        test = TestSet(
            name="phantoms of unseen seeds",
            dataset="phantom",
            chosen=known,
            labels=truth[known].long().numpy(),
            patients=[str(index) for index in np.flatnonzero(known)],
        )
        scores = phantoms.log_odds(model, (key,))[:, 0].double().numpy()
        figures.append(_measurement(question.calibration, test, scores[known]))
        questions.append(dataclasses.replace(question, measurements=tuple(figures)))
    card = dataclasses.replace(model.card, questions=tuple(questions))
    return dataclasses.replace(model, card=card)


def _measurement(
    calibration: Any, test: TestSet, log_odds: Float[np.ndarray, " chosen"]
) -> Measurement:
    probabilities = np.array([probability_of(value, calibration) for value in log_odds])
    called = probabilities >= calibration.high
    labels = test.labels

    def interval(figure: Any, values: np.ndarray) -> Estimate:
        return clustered_bootstrap(lambda at: figure(values[at], labels[at]), test.patients)

    return Measurement(
        test_set=test.name,
        n=len(labels),
        n_positive=int(labels.sum()),
        auroc=interval(auroc, log_odds),
        sensitivity=interval(sensitivity, called),
        specificity=interval(specificity, called),
        brier=interval(brier, probabilities),
        ece=interval(expected_calibration_error, probabilities),
    )


def compare_with_thumbnails(
    model: Model, train: RealPart, test: RealPart, patients: str
) -> list[dict[str, Any]]:
    """Compare with logistic regression on thumbnails, trained and tested on the same patients.

    Args:
        model: The finished model.
        train: What it was trained on.
        test: What it was measured on.
        patients: Which patients these are, in words.

    Returns:
        A row a finding, test set and training set of the baseline: both AUROCs and their
        difference, each with its interval.
    """
    rows = []
    for finding in model.card.findings:
        for sources in (("kermany",), ("kermany", "nih")):
            baseline = _fit_thumbnails(train, finding, sources)
            for part in test_sets(finding, test, patients):
                ours = test.log_odds(model, part.dataset, (finding,))[:, 0].double().numpy()
                theirs = baseline.decision_function(_thumbnails(test.pixels[part.dataset]))
                rows.append(
                    {"finding": finding, "test_set": part.name, "baseline": "+".join(sources)}
                    | _compared(part, ours[part.chosen], theirs[part.chosen])
                )
    return rows


def _compared(
    test: TestSet, ours: Float[np.ndarray, " chosen"], theirs: Float[np.ndarray, " chosen"]
) -> dict[str, Any]:
    def area(scores: np.ndarray, at: np.ndarray) -> float:
        return auroc(scores[at], test.labels[at])

    figures = {
        "model_auroc": lambda at: area(ours, at),
        "thumbnails_auroc": lambda at: area(theirs, at),
        "difference": lambda at: area(ours, at) - area(theirs, at),
    }
    return {
        name: dataclasses.asdict(clustered_bootstrap(figure, test.patients))
        for name, figure in figures.items()
    }


def _fit_thumbnails(train: RealPart, finding: str, sources: Sequence[str]) -> Any:
    pixels, labels = [], []
    for dataset in sources:
        truth = train.labels(dataset, (finding,))[:, 0]
        known = ~truth.isnan()
        pixels.append(_thumbnails(train.pixels[dataset][known]))
        labels.append(truth[known].long().numpy())
    classifier = LogisticRegression(C=0.01, max_iter=2000, class_weight="balanced")
    return make_pipeline(StandardScaler(), classifier).fit(
        np.concatenate(pixels), np.concatenate(labels)
    )


def _thumbnails(
    pixels: UInt8[torch.Tensor, "images size size"],
) -> Float[np.ndarray, "images pixels"]:
    small = F.interpolate(pixels[:, None].float() / 255, size=(_THUMBNAIL,) * 2, mode="area")
    flat: np.ndarray = small.flatten(1).double().numpy()
    return flat
