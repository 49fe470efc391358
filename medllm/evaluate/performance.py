"""What the probabilities of one finding are worth, and of all findings together."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np
from jaxtyping import Bool, Float, Int
from scipy.special import logit
from sklearn.metrics import precision_recall_curve, roc_curve

from medllm.evaluate.answers import (
    Answers,
    Resampled,
    changed,
    exact_interval,
    intervals,
    resamples_for,
)
from medllm.evaluate.calibration_figures import bins_of
from medllm.evaluate.document import (
    Averages,
    Bin,
    Curve,
    FindingFigures,
    NetBenefit,
    OperatingPoint,
)
from medllm.evaluate.section import Interval
from medllm.evaluate.table import Predictions
from medllm.metrics import (
    auroc,
    average_precision,
    basic_interval,
    brier,
    calibration_intercept,
    calibration_slope,
    delong_interval,
    expected_calibration_error,
    f1,
    negative_predictive_value,
    net_benefit,
    net_benefit_of_all,
    positive_predictive_value,
    reliability_bins,
    sensitivity,
    specificity,
    youden_threshold,
)

# Points of a curve that a picture can show.
_POINTS = 200
_ACTED_ON = np.linspace(0.01, 0.99, 99)


def figures_of(
    answers: Answers,
    threshold: float,
    source: str,
    fixed: float | None = None,
    *,
    fixed_source: str = "",
    supposed: float | None = None,
) -> FindingFigures:
    """Measure one finding, with intervals by patient.

    Args:
        answers: Its answers; at least one.
        threshold: Probability from which on the call is positive.
        source: Where that is from, in words.
        fixed: A threshold taken over from other images; None without.
        fixed_source: What that was fixed on, in words.
        supposed: Share of positives that the probabilities suppose; None where not known.

    Returns:
        The figures.
    """
    labels, probabilities = answers.labels, answers.probabilities
    # A probability of 0 or 1 is as sure as a double can be.
    calibrated = logit(np.clip(probabilities, 1e-12, 1 - 1e-12))
    measured = intervals(
        {
            "auroc": lambda at: auroc(probabilities[at], labels[at]),
            "auprc": lambda at: average_precision(probabilities[at], labels[at]),
            "brier": lambda at: brier(probabilities[at], labels[at]),
            "ece": lambda at: expected_calibration_error(probabilities[at], labels[at]),
            "calibration_slope": lambda at: calibration_slope(calibrated[at], labels[at]),
            "calibration_intercept": lambda at: calibration_intercept(calibrated[at], labels[at]),
        },
        answers.patients,
        resamples_for(len(labels)),
    )
    measured["ece"] = changed(measured["ece"], basic_interval)
    point = operating_point(answers, answers.called, threshold, source)
    figures = {
        **point.model_dump(),
        **measured,
        **_curves(answers),
        "n": len(labels),
        "n_positive": int(labels.sum()),
        "n_patients": len(set(answers.patients)),
        "prevalence": float(labels.mean()),
        "supposed_prevalence": supposed,
        "auroc_delong": Interval.of(delong_interval(probabilities, labels)),
        "youden_threshold": youden_threshold(probabilities, labels),
        "fixed_threshold": None
        if fixed is None
        else operating_point(answers, probabilities >= fixed, fixed, fixed_source),
    }
    return FindingFigures.model_validate(figures)


def operating_point(
    answers: Answers, called: Bool[np.ndarray, " images"], threshold: float, source: str
) -> OperatingPoint:
    """Measure calls.

    Args:
        answers: The answers.
        called: Whether each is called positive.
        threshold: At which probability.
        source: Where that is from, in words.

    Returns:
        The figures.
    """
    labels = answers.labels
    shares: dict[str, Callable[..., float]] = {
        "sensitivity": sensitivity,
        "specificity": specificity,
        "positive_predictive_value": positive_predictive_value,
        "negative_predictive_value": negative_predictive_value,
        "f1": f1,
    }

    def resampled(share: Callable[..., float]) -> Resampled:
        return lambda at: share(called[at], labels[at])

    measured = intervals(
        {name: resampled(share) for name, share in shares.items()},
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
    return OperatingPoint(
        threshold=threshold,
        threshold_source=source,
        true_positive=int((called & (labels == 1)).sum()),
        false_positive=int((called & (labels == 0)).sum()),
        true_negative=int((~called & (labels == 0)).sum()),
        false_negative=int((~called & (labels == 1)).sum()),
        **measured,
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
    return Averages(**measured)


def _curves(answers: Answers) -> dict[str, object]:
    labels, probabilities = answers.labels, answers.probabilities
    empty = Curve(x=(), y=())
    roc = precision_recall = empty
    if answers.both:
        fall_out, recall, _ = roc_curve(labels, probabilities)
        roc = _thinned(fall_out, recall)
        precision, recall, _ = precision_recall_curve(labels, probabilities)
        precision_recall = _thinned(recall[::-1], precision[::-1])
    bins = reliability_bins(probabilities, labels, answers.patients, n_bins=bins_of(len(labels)))
    return {
        "roc": roc,
        "precision_recall": precision_recall,
        "reliability": tuple(
            Bin(probability=one.probability, frequency=Interval.of(one.frequency), n=one.n)
            for one in bins
        ),
        "net_benefit": NetBenefit(
            thresholds=tuple(_ACTED_ON.round(2).tolist()),
            model=tuple(net_benefit(probabilities, labels, _ACTED_ON).tolist()),
            everyone=tuple(net_benefit_of_all(labels, _ACTED_ON).tolist()),
        ),
    }


def _thinned(x: Float[np.ndarray, " points"], y: Float[np.ndarray, " points"]) -> Curve:
    """Keep the points nearest to equal steps along the curve, both ends among them."""
    along = np.concatenate([[0.0], np.cumsum(np.abs(np.diff(x)) + np.abs(np.diff(y)))])
    if len(x) > _POINTS:
        wanted = np.linspace(0, along[-1], _POINTS)
        kept = np.unique(np.searchsorted(along, wanted, side="left").clip(0, len(x) - 1))
        kept = np.union1d(kept, [0, len(x) - 1])
        x, y = x[kept], y[kept]
    return Curve(x=tuple(x.tolist()), y=tuple(y.tolist()))
