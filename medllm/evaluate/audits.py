"""What the figures may owe to something else than the radiograph."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
from jaxtyping import Float, Int
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import cohen_kappa_score
from sklearn.model_selection import StratifiedGroupKFold
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import OneHotEncoder

from medllm.evaluate.answers import Answers, Resampled, intervals, resamples_for
from medllm.evaluate.audit_document import (
    Audits,
    ImageUseAudit,
    LabelNoiseAudit,
    PromptAudit,
    ShortcutAudit,
)
from medllm.evaluate.probes import BLURRED, Probe
from medllm.evaluate.table import Predictions
from medllm.findings import FINDINGS
from medllm.metrics import auroc
from medllm.models import Calibration

# As for the calibration of a model: fewer patients of a class say nothing.
_MIN_CASES = 20
_FOLDS = 5


def audit(
    predictions: Predictions,
    answers: Sequence[Answers],
    groups: Mapping[str, Sequence[str]],
    *,
    probes: Sequence[Probe] = (),
    blank: Mapping[str, float] | None = None,
    calibrations: Mapping[str, Calibration] | None = None,
) -> Audits:
    """Make all audits that the data allow.

    Args:
        predictions: The predictions.
        answers: A finding each; those with too few cases are left out.
        groups: Group of each image, by attribute.
        probes: What was asked of the sample.
        blank: Log-odds of a blank image by finding; None for predictions that were given.
        calibrations: By finding, for the calls of a reworded question.

    Returns:
        The audits.
    """
    kept = [
        one
        for one in answers
        if min(one.labels.sum(), len(one.labels) - one.labels.sum()) >= _MIN_CASES
    ]
    noise = [
        row
        for one in answers
        for source, labels in predictions.other_labels.items()
        if (row := _label_noise(predictions, one, source, labels)) is not None
    ]
    image_use, prompts = [], []
    for one in kept:
        sample = _Sample.of(predictions, one)
        if sample is None or blank is None or calibrations is None:
            continue
        image_use.append(_image_use(sample, one, blank[one.finding]))
        prompts += _prompts(sample, one, predictions, probes, calibrations[one.finding])
    return Audits(
        image_use=tuple(image_use),
        shortcuts=tuple(row for one in kept for row in _shortcuts(predictions, one, groups)),
        prompts=tuple(prompts),
        label_noise=tuple(noise),
    )


class _Sample:
    """The probed images with a label of one finding."""

    def __init__(self, predictions: Predictions, answers: Answers, probed: np.ndarray) -> None:
        column = predictions.findings.index(answers.finding)
        self.at = answers.at[probed]
        self.labels = answers.labels[probed]
        self.log_odds = answers.log_odds[probed]
        self.patients = [predictions.patients[index] for index in self.at]
        self.probes = {name: values[self.at, column] for name, values in predictions.probes.items()}

    @classmethod
    def of(cls, predictions: Predictions, answers: Answers) -> _Sample | None:
        """Take them; nothing where there are too few of a class."""
        if BLURRED not in predictions.probes:
            return None
        column = predictions.findings.index(answers.finding)
        probed = ~np.isnan(predictions.probes[BLURRED][answers.at, column])
        n_positive = int(answers.labels[probed].sum())
        if min(n_positive, int(probed.sum()) - n_positive) < _MIN_CASES:
            return None
        return cls(predictions, answers, probed)

    def area(self, scores: np.ndarray) -> Resampled:
        """AUROC of the labels by some scores, on chosen images."""
        return lambda at: auroc(scores[at], self.labels[at])


def _image_use(sample: _Sample, answers: Answers, blank: float) -> ImageUseAudit:
    real, blurred = sample.area(sample.log_odds), sample.area(sample.probes[BLURRED])
    measured = intervals(
        {"real": real, "blurred": blurred, **_minus(real, blurred)},
        sample.patients,
        resamples_for(len(sample.labels)),
    )
    return ImageUseAudit(
        finding=answers.finding,
        n=len(sample.labels),
        **measured,
        blank_log_odds=blank,
        real_log_odds=float(sample.log_odds.mean()),
    )


def _minus(first: Resampled, second: Resampled) -> dict[str, Resampled]:
    """Give the difference of two areas, to be resampled in pairs."""
    return {"auroc_difference": lambda at: first(at) - second(at)}


def _prompts(
    sample: _Sample,
    answers: Answers,
    predictions: Predictions,
    probes: Sequence[Probe],
    calibration: Calibration,
) -> list[PromptAudit]:
    asked: list[tuple[str, str, np.ndarray]] = []
    for one in probes:
        if one.name in sample.probes and one.kind != "blurred":
            text = one.name.format(name=FINDINGS[answers.finding].name)
            asked.append((one.kind, text, sample.probes[one.name]))
    for column, finding in enumerate(predictions.findings):
        if finding != answers.finding:
            text = FINDINGS[finding].question
            asked.append(("another finding", text, predictions.log_odds[sample.at, column]))
    return [_prompt(sample, answers.finding, *one, calibration) for one in asked]


def _prompt(
    sample: _Sample,
    finding: str,
    kind: str,
    question: str,
    log_odds: Float[np.ndarray, " images"],
    calibration: Calibration,
) -> PromptAudit:
    own, other = sample.area(sample.log_odds), sample.area(log_odds)
    measured = intervals(
        {"auroc": other, **_minus(other, own)},
        sample.patients,
        resamples_for(len(sample.labels)),
    )
    # The log-odds from which on the call is positive.
    edge = calibration.temperature * (
        np.log(calibration.high / (1 - calibration.high)) - calibration.bias
        if 0 < calibration.high < 1
        else np.inf
    )
    changed = float(((log_odds >= edge) != (sample.log_odds >= edge)).mean())
    return PromptAudit(
        finding=finding,
        kind=kind,
        question=question,
        n=len(sample.labels),
        **measured,
        mean_shift=float(np.abs(log_odds - sample.log_odds).mean()),
        calls_changed=changed if kind == "reworded" else None,
    )


def _shortcuts(
    predictions: Predictions, answers: Answers, groups: Mapping[str, Sequence[str]]
) -> list[ShortcutAudit]:
    sizes = [f"{int(rows)} x {int(columns)}" for rows, columns in predictions.shapes]
    facts = {**groups, "image size": sizes} if len(set(sizes)) > 1 else dict(groups)
    told = {name: np.array([values[at] for at in answers.at]) for name, values in facts.items()}
    told = {name: values for name, values in told.items() if len(np.unique(values)) > 1}
    alone = {name: values[:, None] for name, values in told.items()}
    if len(told) > 1:
        alone["all of these"] = np.stack(list(told.values()), axis=1)
    rows = []
    for name, values in alone.items():
        fitted = _cross_fitted(values, answers)
        if fitted is not None:
            rows.append(_shortcut(name, *fitted, answers))
    return rows


def _cross_fitted(
    facts: np.ndarray, answers: Answers
) -> tuple[Float[np.ndarray, " images"], Int[np.ndarray, " images"]] | None:
    """Predict each patient's labels from the facts by a fit on the others; scores and folds."""
    owners: tuple[set[str], set[str]] = (set(), set())
    for patient, label in zip(answers.patients, answers.labels.tolist(), strict=True):
        owners[label].add(patient)
    if min(map(len, owners)) < _FOLDS:
        return None
    # Values that few images have are one.
    classifier = make_pipeline(
        OneHotEncoder(handle_unknown="infrequent_if_exist", min_frequency=5),
        LogisticRegression(class_weight="balanced", max_iter=1000),
    )
    scores, folds = np.empty(len(facts)), np.empty(len(facts), dtype=int)
    parts = StratifiedGroupKFold(_FOLDS, shuffle=True, random_state=0)
    for fold, (others, held_out) in enumerate(
        parts.split(facts, answers.labels, np.asarray(answers.patients))
    ):
        classifier.fit(facts[others], answers.labels[others])
        scores[held_out] = classifier.decision_function(facts[held_out])
        folds[held_out] = fold
    return scores, folds


def _shortcut(
    facts: str,
    scores: Float[np.ndarray, " images"],
    folds: Int[np.ndarray, " images"],
    answers: Answers,
) -> ShortcutAudit:
    labels = answers.labels

    def area(at: Int[np.ndarray, " chosen"]) -> float:
        # Within the folds: a fact weighs a little more in one fit than in another, and ranked
        # together its images would be parted by that.
        chosen = [at[folds[at] == fold] for fold in range(_FOLDS)]
        areas = np.array([auroc(scores[one], labels[one]) for one in chosen])
        return float(np.nanmean(areas)) if not np.isnan(areas).all() else float("nan")

    def model(at: Int[np.ndarray, " chosen"]) -> float:
        return auroc(answers.log_odds[at], labels[at])

    measured = intervals(
        {"auroc": area, "model_auroc": model, **_minus(model, area)},
        answers.patients,
        resamples_for(len(labels)),
    )
    return ShortcutAudit(finding=answers.finding, facts=facts, n=len(labels), **measured)


def _label_noise(
    predictions: Predictions,
    answers: Answers,
    source: str,
    labels: Float[np.ndarray, "images findings"],
) -> LabelNoiseAudit | None:
    second = labels[answers.at, predictions.findings.index(answers.finding)]
    known = np.isin(second, (0, 1))
    if not known.any():
        return None
    one, two = answers.labels[known], second[known].astype(int)
    log_odds = answers.log_odds[known]

    def by(labels: Int[np.ndarray, " images"]) -> Resampled:
        return lambda at: auroc(log_odds[at], labels[at])

    measured = intervals(
        {"auroc": by(one), "auroc_second": by(two), **_minus(by(one), by(two))},
        [patient for patient, is_known in zip(answers.patients, known, strict=True) if is_known],
        resamples_for(len(one)),
    )
    varied = len(np.unique(np.concatenate([one, two]))) > 1
    return LabelNoiseAudit(
        finding=answers.finding,
        source=source,
        n=len(one),
        both_positive=int(((one == 1) & (two == 1)).sum()),
        only_first=int(((one == 1) & (two == 0)).sum()),
        only_second=int(((one == 0) & (two == 1)).sum()),
        both_negative=int(((one == 0) & (two == 0)).sum()),
        kappa=float(cohen_kappa_score(one, two)) if varied else None,
        **measured,
    )
