"""The curves of one finding, as the documents hold them for the pages to draw."""

from __future__ import annotations

import numpy as np
from jaxtyping import Float
from sklearn.metrics import precision_recall_curve, roc_curve

from medllm.evaluate.answers import Answers
from medllm.evaluate.document import Bin, Curve, NetBenefit
from medllm.evaluate.recalibration.figures import bins_of
from medllm.evaluate.section import Interval
from medllm.metrics import net_benefit, net_benefit_of_all, reliability_bins

# Points of a curve that a picture can show.
_POINTS = 200
_EMPTY = Curve(x=(), y=())
_ACTED_ON = np.linspace(0.01, 0.99, 99)


def roc_of(answers: Answers) -> Curve:
    """Give the ROC curve; empty where a class is missing."""
    if not answers.both:
        return _EMPTY
    fall_out, recall, _ = roc_curve(answers.labels, answers.probabilities)
    return _thinned(fall_out, recall)


def precision_recall_of(answers: Answers) -> Curve:
    """Give the precision-recall curve; empty where a class is missing."""
    if not answers.both:
        return _EMPTY
    precision, recall, _ = precision_recall_curve(answers.labels, answers.probabilities)
    return _thinned(recall[::-1], precision[::-1])


def reliability_of(answers: Answers) -> tuple[Bin, ...]:
    """Give probability against frequency in bins of equal count."""
    bins = reliability_bins(
        answers.probabilities,
        answers.labels,
        answers.patients,
        n_bins=bins_of(len(answers.labels)),
    )
    return tuple(
        Bin(probability=one.probability, frequency=Interval.of(one.frequency), n=one.n)
        for one in bins
    )


def net_benefit_of(answers: Answers) -> NetBenefit:
    """Give the decision curve."""
    labels = answers.labels
    return NetBenefit(
        thresholds=tuple(_ACTED_ON.round(2).tolist()),
        model=tuple(net_benefit(answers.probabilities, labels, _ACTED_ON).tolist()),
        everyone=tuple(net_benefit_of_all(labels, _ACTED_ON).tolist()),
    )


def _thinned(x: Float[np.ndarray, " points"], y: Float[np.ndarray, " points"]) -> Curve:
    """Keep the points nearest to equal steps along the curve, both ends among them."""
    along = np.concatenate([[0.0], np.cumsum(np.abs(np.diff(x)) + np.abs(np.diff(y)))])
    if len(x) > _POINTS:
        wanted = np.linspace(0, along[-1], _POINTS)
        kept = np.unique(np.searchsorted(along, wanted, side="left").clip(0, len(x) - 1))
        kept = np.union1d(kept, [0, len(x) - 1])
        x, y = x[kept], y[kept]
    return Curve(x=tuple(x.tolist()), y=tuple(y.tolist()))
