"""What the figures may owe to something else than the radiograph."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
from jaxtyping import Float, Int
from sklearn.metrics import cohen_kappa_score

from medllm.evaluate.answers import Answers, Resampled, difference, intervals, resamples_for
from medllm.evaluate.audits.document import (
    Audits,
    ImageUseAudit,
    IndicationAudit,
    LabelNoiseAudit,
    LungsAudit,
    PromptAudit,
)
from medllm.evaluate.audits.hiding import LUNGS_HIDDEN, THORAX_HIDDEN
from medllm.evaluate.audits.probes import BLURRED, INDICATED, INDICATION_ALONE, MISTAKEN, Probe
from medllm.evaluate.audits.shortcuts import shortcuts
from medllm.evaluate.table import Predictions
from medllm.findings import FINDINGS, IN_LUNGS
from medllm.metrics import auroc
from medllm.models import Calibration

# As for the calibration of a model: fewer patients of a class say nothing.
_MIN_CASES = 20


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
    image_use, lungs, prompts, indications = [], [], [], []
    for one in kept:
        sample = _Sample.of(predictions, one, BLURRED)
        if sample is None or blank is None or calibrations is None:
            continue
        image_use.append(_image_use(sample, one, blank[one.finding]))
        seen = _Sample.of(predictions, one, LUNGS_HIDDEN, THORAX_HIDDEN)
        if one.finding in IN_LUNGS and seen is not None:
            lungs.append(_lungs(seen, one.finding))
        prompts += _prompts(sample, one, predictions, probes, calibrations[one.finding])
        if (told := _Sample.of(predictions, one, INDICATED, MISTAKEN)) is not None:
            indications.append(_indication(told, one.finding, calibrations[one.finding]))
    return Audits(
        image_use=tuple(image_use),
        lungs=tuple(lungs),
        shortcuts=tuple(row for one in kept for row in shortcuts(predictions, one, groups)),
        prompts=tuple(prompts),
        indications=tuple(indications),
        label_noise=tuple(noise),
    )


class _Sample:
    """The images that some probes were asked of, with a label of one finding."""

    def __init__(self, predictions: Predictions, answers: Answers, probed: np.ndarray) -> None:
        column = predictions.findings.index(answers.finding)
        self.at = answers.at[probed]
        self.labels = answers.labels[probed]
        self.log_odds = answers.log_odds[probed]
        self.patients = [predictions.patients[index] for index in self.at]
        self.probes = {name: values[self.at, column] for name, values in predictions.probes.items()}

    @classmethod
    def of(cls, predictions: Predictions, answers: Answers, *probes: str) -> _Sample | None:
        """Take them; nothing where there are too few of a class."""
        if not set(probes) <= set(predictions.probes):
            return None
        column = predictions.findings.index(answers.finding)
        asked = np.array([predictions.probes[name][answers.at, column] for name in probes])
        probed = ~np.isnan(asked).any(axis=0)
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
        {"real": real, "blurred": blurred, "auroc_difference": difference(real, blurred)},
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


def _lungs(sample: _Sample, finding: str) -> LungsAudit:
    real, hidden = sample.area(sample.log_odds), sample.area(sample.probes[LUNGS_HIDDEN])
    measured = intervals(
        {
            "auroc": real,
            "auroc_hidden": hidden,
            "auroc_difference": difference(real, hidden),
            "auroc_outside": sample.area(sample.probes[THORAX_HIDDEN]),
        },
        sample.patients,
        resamples_for(len(sample.labels)),
    )
    return LungsAudit(finding=finding, n=len(sample.labels), **measured)


def _prompts(
    sample: _Sample,
    answers: Answers,
    predictions: Predictions,
    probes: Sequence[Probe],
    calibration: Calibration,
) -> list[PromptAudit]:
    asked: list[tuple[str, str, np.ndarray]] = []
    for one in probes:
        if one.name in sample.probes and one.kind in ("reworded", "another finding"):
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
        {"auroc": other, "auroc_difference": difference(other, own)},
        sample.patients,
        resamples_for(len(sample.labels)),
    )
    changed = _calls_changed(sample, log_odds, calibration)
    return PromptAudit(
        finding=finding,
        kind=kind,
        question=question,
        n=len(sample.labels),
        **measured,
        mean_shift=float(np.abs(log_odds - sample.log_odds).mean()),
        calls_changed=changed if kind == "reworded" else None,
    )


def _calls_changed(
    sample: _Sample, log_odds: Float[np.ndarray, " images"], calibration: Calibration
) -> float | None:
    if not 0 < calibration.high < 1:
        return None  # it calls nothing
    # The log-odds from which on the call is positive.
    odds = calibration.high / (1 - calibration.high)
    edge = calibration.temperature * (np.log(odds) - calibration.bias)
    return float(((log_odds >= edge) != (sample.log_odds >= edge)).mean())


def _indication(sample: _Sample, finding: str, calibration: Calibration) -> IndicationAudit:
    told, mistaken = sample.probes[INDICATED], sample.probes[MISTAKEN]
    areas = {
        "auroc": sample.area(sample.log_odds),
        "auroc_told": sample.area(told),
        "auroc_mistaken": sample.area(mistaken),
        "auroc_alone": sample.area(sample.probes[INDICATION_ALONE]),
    }
    gaps = {
        "told_difference": ("auroc_told", "auroc"),
        "mistaken_difference": ("auroc_mistaken", "auroc"),
        "image_difference": ("auroc_told", "auroc_alone"),
    }
    measured = intervals(
        areas | {name: difference(areas[one], areas[other]) for name, (one, other) in gaps.items()},
        sample.patients,
        resamples_for(len(sample.labels)),
    )
    return IndicationAudit(
        finding=finding,
        n=len(sample.labels),
        **measured,
        mean_shift=float(np.abs(told - sample.log_odds).mean()),
        calls_changed=_calls_changed(sample, mistaken, calibration),
    )


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
        {
            "auroc": by(one),
            "auroc_second": by(two),
            "auroc_difference": difference(by(one), by(two)),
        },
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
