"""How well acquisition facts alone tell the labels."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
from jaxtyping import Float, Int
from sklearn.linear_model import LogisticRegression
from sklearn.model_selection import StratifiedGroupKFold
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import OneHotEncoder

from medllm.evaluate.answers import Answers, difference, intervals, resamples_for
from medllm.evaluate.audits.document import ShortcutAudit
from medllm.evaluate.table import Predictions
from medllm.metrics import auroc

_FOLDS = 5


def shortcuts(
    predictions: Predictions, answers: Answers, groups: Mapping[str, Sequence[str]]
) -> list[ShortcutAudit]:
    """Measure how well acquisition facts alone tell a finding's labels.

    Args:
        predictions: For the size of each file's image, which is a fact where it varies.
        answers: Of the finding.
        groups: Group of each image, by attribute.

    Returns:
        An audit an attribute, and one of all together; none of those that do not vary, or where
        a class has fewer patients than there are folds.
    """
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
        {"auroc": area, "model_auroc": model, "auroc_difference": difference(model, area)},
        answers.patients,
        resamples_for(len(labels)),
    )
    return ShortcutAudit(finding=answers.finding, facts=facts, n=len(labels), **measured)
