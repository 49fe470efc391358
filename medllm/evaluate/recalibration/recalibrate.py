"""A model's calibration fitted again on a site's own patients, and what that changes."""

from __future__ import annotations

import dataclasses
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from jaxtyping import Int

from medllm.datasets import ImageRecord
from medllm.errors import LabelError
from medllm.evaluate.predictions import ScoredRecord
from medllm.evaluate.recalibration.cross_fit import (
    N_FOLDS,
    Calibrated,
    NotFittedError,
    apply,
    cross_fit,
    fit,
)
from medllm.evaluate.recalibration.figures import CalibrationFigures, calibration_figures
from medllm.metrics import Estimate, auroc, brier, clustered_bootstraps
from medllm.models import Measurement, Model, Question
from medllm.models.card import NOT_MEASURED, RECALIBRATED

# Patients with a finding, and as many without. Two parameters are fitted, and ten cases of the
# rarer class a parameter are the usual floor (Peduzzi et al., J Clin Epidemiol 1996); and of 20
# patients a threshold at 95% can leave out one. Patients, since a patient's images are alike.
MIN_PATIENTS = 20
# The reason of a finding that the data has no label for.
NO_LABEL = "no label"
NOT_ASKED = "not asked for"

LIMITATION = (
    "Recalibrated: a finding's probability and call hold for patients like those its calibration "
    "was fitted on. Figures measured at the calibration before it were taken out."
)


@dataclass(frozen=True)
class Refitted:
    """A finding with a new calibration.

    Attributes:
        finding: Its key.
        n: Images with a label that were scored.
        n_positive: Those with the finding.
        n_patients: Patients these images are of.
        before: The model's own calibration on these images.
        after: The calibration fitted on all of these images; its figures and bins are from
            fits that left the image's patient out.
        auroc: Of the log-odds; no calibration changes it.
        brier_change: Brier score after minus before, resampled in pairs; below 0 is better.
    """

    finding: str
    n: int
    n_positive: int
    n_patients: int
    before: CalibrationFigures
    after: CalibrationFigures
    auroc: Estimate
    brier_change: Estimate


@dataclass(frozen=True)
class Kept:
    """A finding that keeps its calibration.

    Attributes:
        finding: Its key.
        reason: Why, in words.
    """

    finding: str
    reason: str


@dataclass(frozen=True)
class Recalibration:
    """A recalibrated model and the figures for it.

    Attributes:
        source: The model as it was.
        model: The same network with the new card; not saved yet.
        dataset: Name of the data, as it stands in the card.
        n_images: Images that were scored.
        n_patients: Their patients.
        errors: Number of images that could not be scored, a code.
        refitted: Findings with a new calibration.
        kept: Findings of the model that keep theirs.
    """

    source: Model
    model: Model
    dataset: str
    n_images: int
    n_patients: int
    errors: Mapping[str, int]
    refitted: tuple[Refitted, ...]
    kept: tuple[Kept, ...]


def findings_to_fit(
    model: Model, records: Sequence[ImageRecord], asked: Sequence[str] | None = None
) -> tuple[list[str], tuple[Kept, ...]]:
    """Divide a model's findings by the labels that a data set has, before anything is scored.

    Args:
        model: The model.
        records: The data set.
        asked: Keys of the findings to fit; all of the model when None.

    Returns:
        Keys of the findings with enough patients of both classes; and those without, or that are
        not asked for.

    Raises:
        LabelError: No finding has enough, or a label is soft.
        MedllmError: The model has no such finding.
    """
    wanted = {question.finding for question in model.questions(asked)}
    short = {
        finding: _too_few(records, finding) if finding in wanted else NOT_ASKED
        for finding in model.card.findings
    }
    kept = tuple(Kept(finding, reason) for finding, reason in short.items() if reason)
    if len(kept) == len(short):
        raise LabelError(
            f"nothing can be fitted: {_joined(kept)}. Label at least {MIN_PATIENTS} patients with "
            f"and {MIN_PATIENTS} without a finding that '{model.card.name}' answers for.",
            code="too-few-labels",
        )
    return [finding for finding, reason in short.items() if not reason], kept


def recalibrate(
    model: Model,
    scored: Iterable[ScoredRecord],
    dataset: str,
    *,
    kept: Sequence[Kept] = (),
    n_resamples: int = 1000,
) -> Recalibration:
    """Fit temperature, bias and thresholds of each finding on a site's own patients.

    The new calibration is fitted on all of them. What it is worth is measured by cross-fitting:
    each patient's probabilities come from a fit on the patients of the other folds. A finding
    with fewer than `MIN_PATIENTS` patients with it, or without it, keeps its calibration, as
    does one whose classes do not overlap or are ranked the wrong way round.

    In the new card a refitted finding has one measurement, the cross-fitted one on this data:
    the sensitivity, specificity, Brier score and ECE that stood there were those of the old
    calibration.

    Args:
        model: The model; its weights are not touched.
        scored: The data set's records with log-odds for the findings to fit.
        dataset: Name of the data, as it shall stand in the card; no path.
        kept: Findings that shall keep their calibration, from `findings_to_fit`.
        n_resamples: Resamples of the intervals.

    Returns:
        The recalibrated model with its figures.

    Raises:
        LabelError: No finding could be fitted, or a label is soft.
    """
    rows = list(scored)
    read = [row for row in rows if row.error is None]
    refitted, left = [], {one.finding: one for one in kept}
    for question in model.card.questions:
        if question.finding in left:
            continue
        try:
            refitted.append(_refit(question, read, dataset, n_resamples))
        except NotFittedError as error:
            left[question.finding] = Kept(question.finding, str(error).rstrip("."))
    if not refitted:
        raise LabelError(
            f"nothing can be fitted: {_joined(left.values())}. {len(rows) - len(read)} of "
            f"{len(rows)} images could not be scored. More labelled images mend what is too few or "
            "too far apart. Where the log-odds do not rank the data, look whether the labels are "
            "the wrong way round or answer another question, and at the AUROC of medllm evaluate: "
            "the model may not see the finding.",
            code="too-few-labels",
        )
    return Recalibration(
        source=model,
        model=_with_new_card(model, refitted, dataset),
        dataset=dataset,
        n_images=len(read),
        n_patients=len({row.record.patient_id for row in read}),
        errors=Counter(row.error for row in rows if row.error is not None),
        refitted=tuple(refitted),
        kept=tuple(left.values()),
    )


def _too_few(records: Iterable[ImageRecord], finding: str) -> str:
    """Say why a finding has too few labels; nothing where it has enough."""
    patients: dict[float, set[str]] = {1: set(), 0: set()}
    for record in records:
        if finding not in record.labels:
            continue
        label = record.labels[finding]
        if label not in patients:
            raise LabelError(
                f"an image's label of '{finding}' is {label:g}: soft labels are for training, and "
                "no calibration is fitted on half a case. Read the data with "
                "uncertain=unknown, negative or positive.",
                code="soft-labels",
            )
        patients[label].add(record.patient_id)
    n_with, n_without = len(patients[1]), len(patients[0])
    if not n_with + n_without:
        return NO_LABEL
    if min(n_with, n_without) >= MIN_PATIENTS:
        return ""
    return f"{n_with} patients with and {n_without} without, wanted {MIN_PATIENTS} of each"


def _refit(
    question: Question, rows: Sequence[ScoredRecord], dataset: str, n_resamples: int
) -> Refitted:
    finding = question.finding
    known = [row for row in rows if finding in row.record.labels and finding in row.log_odds]
    if reason := _too_few([row.record for row in known], finding):
        raise NotFittedError(reason)
    log_odds = np.array([row.log_odds[finding] for row in known])
    labels = np.array([row.record.labels[finding] for row in known])
    patients = [row.record.patient_id for row in known]
    n, n_positive, n_patients = len(known), int(labels.sum()), len(set(patients))
    calibration = fit(
        log_odds,
        labels,
        f"{dataset}: {n} images of {n_patients} patients, {n_positive} images with the finding",
    )
    before = apply(question.calibration, log_odds)
    after = cross_fit(log_odds, labels, patients)

    def brier_of(images: Calibrated, at: Int[np.ndarray, " chosen"]) -> float:
        return brier(images.probabilities[at], labels[at])

    compared = clustered_bootstraps(
        {
            "auroc": lambda at: auroc(log_odds[at], labels[at]),
            "brier_change": lambda at: brier_of(after, at) - brier_of(before, at),
        },
        patients,
        n_resamples=n_resamples,
    )
    return Refitted(
        finding=finding,
        n=n,
        n_positive=n_positive,
        n_patients=n_patients,
        before=calibration_figures(
            question.calibration, before, labels, patients, n_resamples=n_resamples
        ),
        after=calibration_figures(calibration, after, labels, patients, n_resamples=n_resamples),
        **compared,
    )


def _with_new_card(model: Model, refitted: Sequence[Refitted], dataset: str) -> Model:
    new = {one.finding: one for one in refitted}
    questions = tuple(
        _with_calibration(question, new[question.finding], dataset)
        if question.finding in new
        else question
        for question in model.card.questions
        # A model of another's making can be asked anything; it answers for what was measured.
        if question.finding in new or question.calibration.is_fitted or not model.card.base
    )
    replaced = (LIMITATION, NOT_MEASURED)
    others = tuple(text for text in model.card.limitations if text not in replaced)
    card = dataclasses.replace(
        model.card,
        version=_recalibrated_version(model.card.version, in_words=bool(model.card.base)),
        questions=questions,
        limitations=(*others, LIMITATION),
    )
    return dataclasses.replace(model, card=card, sha256="")


def _recalibrated_version(version: str, *, in_words: bool) -> str:
    """Mark a version, once; that of a model of another's making is no number, but words."""
    mark = ", recalibrated" if in_words else "+recalibrated"
    return version.removesuffix(mark) + mark


def _with_calibration(question: Question, one: Refitted, dataset: str) -> Question:
    measurement = Measurement(
        test_set=f"{dataset}; {RECALIBRATED}, {N_FOLDS} folds",
        n=one.n,
        n_positive=one.n_positive,
        auroc=one.auroc,
        sensitivity=one.after.sensitivity,
        specificity=one.after.specificity,
        brier=one.after.brier,
        ece=one.after.ece,
    )
    return dataclasses.replace(
        question, calibration=one.after.calibration, measurements=(measurement,)
    )


def _joined(kept: Iterable[Kept]) -> str:
    return "; ".join(f"{one.finding}: {one.reason}" for one in kept)
