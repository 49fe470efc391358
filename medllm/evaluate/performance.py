"""What the probabilities of one finding are worth, and of all findings together."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np
from jaxtyping import Bool, Int
from scipy.special import logit

from medllm.evaluate.answers import (
    UNDEFINED,
    Answers,
    Resampled,
    exact_interval,
    intervals,
    resamples_for,
    unless_perfect,
)
from medllm.evaluate.curves import net_benefit_of, precision_recall_of, reliability_of, roc_of
from medllm.evaluate.document import (
    Averages,
    CallCounts,
    FindingFigures,
    OperatingPoint,
    ThreeWayCalls,
)
from medllm.evaluate.section import Interval
from medllm.evaluate.table import Predictions
from medllm.evaluate.thresholds import OwnThresholds
from medllm.metrics import (
    auroc,
    average_precision,
    calibration_intercept,
    calibration_slope,
    delong_interval,
    f1,
    negative_predictive_value,
    positive_predictive_value,
    probability_figures,
    sensitivity,
    specificity,
    youden_threshold,
)

# By call, then label, positive first.
_COUNTS = ("true_positive", "false_positive", "false_negative", "true_negative")
_SHARES: dict[str, Callable[..., float]] = {
    "sensitivity": sensitivity,
    "specificity": specificity,
    "positive_predictive_value": positive_predictive_value,
    "negative_predictive_value": negative_predictive_value,
    "f1": f1,
}


def figures_of(
    answers: Answers,
    own: OwnThresholds,
    fixed: OwnThresholds | None = None,
    *,
    supposed: float | None = None,
) -> FindingFigures:
    """Measure one finding, with intervals by patient.

    Args:
        answers: Its answers; at least one.
        own: What it was called by.
        fixed: A threshold taken over from other images; None without.
        supposed: Share of positives that the probabilities suppose; None where not known.

    Returns:
        The figures.
    """
    labels, probabilities = answers.labels, answers.probabilities
    # A probability of 0 or 1 is as sure as a double can be.
    calibrated = logit(np.clip(probabilities, 1e-12, 1 - 1e-12))
    n_resamples = resamples_for(len(labels))
    measured = intervals(
        {
            "auprc": lambda at: average_precision(probabilities[at], labels[at]),
            "calibration_slope": lambda at: calibration_slope(calibrated[at], labels[at]),
            "calibration_intercept": lambda at: calibration_intercept(calibrated[at], labels[at]),
        },
        answers.patients,
        n_resamples,
    )
    measured["auprc"] = unless_perfect(measured["auprc"])
    of_probabilities = probability_figures(
        probabilities, labels, answers.patients, n_resamples=n_resamples
    )
    measured |= {name: Interval.of(one) for name, one in of_probabilities.items()}
    nothing_called = own.upper is None and not answers.decided
    point = operating_point(
        answers, None if nothing_called else answers.called, own.upper, own.source
    )
    figures = {
        **point.model_dump(),
        **measured,
        "roc": roc_of(answers),
        "precision_recall": precision_recall_of(answers),
        "reliability": reliability_of(answers),
        "net_benefit": net_benefit_of(answers),
        "n": len(labels),
        "n_positive": int(labels.sum()),
        "n_patients": len(set(answers.patients)),
        "prevalence": float(labels.mean()),
        "supposed_prevalence": supposed,
        "auroc_delong": Interval.of(delong_interval(probabilities, labels)),
        "youden_threshold": youden_threshold(probabilities, labels),
        "fixed_threshold": None
        if fixed is None or fixed.upper is None
        else operating_point(answers, probabilities >= fixed.upper, fixed.upper, fixed.source),
        "three_way": _three_way(answers, own),
    }
    return FindingFigures.model_validate(figures)


def operating_point(
    answers: Answers,
    called: Bool[np.ndarray, " images"] | None,
    threshold: float | None,
    source: str,
) -> OperatingPoint:
    """Measure calls.

    Args:
        answers: The answers.
        called: Whether each is called positive; None where there are no calls.
        threshold: At which probability; None where that is not known.
        source: Where that is from, in words.

    Returns:
        The figures.
    """
    told: dict[str, object] = {"threshold": threshold, "threshold_source": source}
    if called is None:
        undefined = dict.fromkeys(_COUNTS) | dict.fromkeys(_SHARES, UNDEFINED)
        return OperatingPoint.model_validate(told | undefined)
    labels = answers.labels

    def resampled(share: Callable[..., float]) -> Resampled:
        return lambda at: share(called[at], labels[at])

    measured = intervals(
        {name: resampled(share) for name, share in _SHARES.items()},
        answers.patients,
        resamples_for(len(labels)),
    )
    of_whom = {
        "sensitivity": labels == 1,
        "specificity": labels == 0,
        "positive_predictive_value": called,
        "negative_predictive_value": ~called,
    }
    for name, among in of_whom.items():
        measured[name] = exact_interval(measured[name], among, answers.patients)
    counts = (
        int((side & (labels == label)).sum()) for side in (called, ~called) for label in (1, 0)
    )
    return OperatingPoint.model_validate(
        {**told, **dict(zip(_COUNTS, counts, strict=True)), **measured}
    )


def _three_way(answers: Answers, own: OwnThresholds) -> ThreeWayCalls | None:
    """Count the calls by label, and measure what ruling out is worth."""
    indeterminate = ~(answers.called | answers.ruled_out)
    # Calls that were given come without thresholds, and tell of two by an indeterminate one.
    given = own.upper is None and answers.decided and bool(indeterminate.any())
    if not given and (own.lower is None or own.lower == own.upper):
        return None

    def count(chosen: Bool[np.ndarray, " images"]) -> CallCounts:
        labels = answers.labels[chosen]
        return CallCounts(
            with_finding=int((labels == 1).sum()), without_finding=int((labels == 0).sum())
        )

    share = intervals(
        {"share": lambda at: float(indeterminate[at].mean())},
        answers.patients,
        resamples_for(len(answers.labels)),
    )["share"]
    everyone = np.ones(len(answers.labels), bool)
    return ThreeWayCalls(
        negative=count(answers.ruled_out),
        indeterminate=count(indeterminate),
        positive=count(answers.called),
        indeterminate_share=exact_interval(share, everyone, answers.patients),
        lower_threshold=operating_point(answers, ~answers.ruled_out, own.lower, own.source),
    )


def averages(predictions: Predictions, answers: Sequence[Answers]) -> Averages | None:
    """Average over findings: the mean of the figures, and all answers in one pot.

    Args:
        predictions: All predictions.
        answers: Those of the findings that have both classes.

    Returns:
        The averages; None for fewer than two findings.
    """
    if len(answers) < 2:
        return None
    columns = [predictions.findings.index(one.finding) for one in answers]
    labels, scores = predictions.labels[:, columns], predictions.probabilities[:, columns]
    known = np.isin(labels, (0, 1)) & ~np.isnan(scores)
    kept = np.flatnonzero(known.any(axis=1))

    def macro(figure: Callable[..., float]) -> Resampled:
        def mean(at: Int[np.ndarray, " chosen"]) -> float:
            rows = kept[at]
            values = []
            for column in range(len(columns)):
                chosen = rows[known[rows, column]]
                values.append(figure(scores[chosen, column], labels[chosen, column].astype(int)))
            return float(np.mean(values))

        return mean

    def micro(figure: Callable[..., float]) -> Resampled:
        def pooled(at: Int[np.ndarray, " chosen"]) -> float:
            rows = kept[at]
            chosen = known[rows]
            return figure(scores[rows][chosen], labels[rows][chosen].astype(int))

        return pooled

    measured = intervals(
        {
            "macro_auroc": macro(auroc),
            "macro_auprc": macro(average_precision),
            "micro_auroc": micro(auroc),
            "micro_auprc": micro(average_precision),
        },
        [predictions.patients[index] for index in kept.tolist()],
        # All findings are ranked again at every resample.
        resamples_for(len(kept) * len(answers)),
    )
    return Averages(**{name: unless_perfect(one) for name, one in measured.items()})
