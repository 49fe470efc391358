"""The four curves of a finding, as SVG fragments for inline use."""

from __future__ import annotations

from itertools import pairwise

from markupsafe import Markup

from medllm.evaluate.document import FindingFigures, OperatingPoint
from medllm.evaluate.panel import BLUE, GREEN, GREY, INK, VERMILLION, Axis, Line, Marker, Panel
from medllm.evaluate.section import Interval
from medllm.evaluate.wording import number, with_ends

_CURVE = Line(BLUE, width=2.2)
_CHANCE = Line(GREY, dashes="2 4", width=1.4)
_NOT_DRAWN = "not defined: a class is missing"


def roc(name: str, figures: FindingFigures) -> Markup:
    """Draw the ROC curve with the operating points.

    Args:
        name: The finding, for who does not see the plot.
        figures: Its figures.

    Returns:
        The `svg` element.
    """
    panel = Panel(Axis.up_to("1 \N{MINUS SIGN} specificity", 1), Axis.up_to("sensitivity", 1))
    panel.line([0, 1], [0, 1], _CHANCE, "chance")
    _curve(panel, figures.roc.x, figures.roc.y)
    for point, color, marker, words in _operating_points(figures):
        alarms = _complement(point.specificity)
        _cross(panel, alarms, point.sensitivity, color)
        _mark(panel, alarms, point.sensitivity, color, marker, words)
    return panel.svg(f"ROC curve of {name}: AUROC {with_ends(figures.auroc)}. {_said(figures)}")


def precision_recall(name: str, figures: FindingFigures) -> Markup:
    """Draw the precision-recall curve over the prevalence, with the operating points.

    Args:
        name: The finding, for who does not see the plot.
        figures: Its figures.

    Returns:
        The `svg` element.
    """
    panel = Panel(
        Axis.up_to("sensitivity (recall)", 1),
        Axis.up_to("positive predictive value (precision)", 1),
    )
    words = f"prevalence {number(figures.prevalence)} (chance)"
    panel.line([0, 1], [figures.prevalence] * 2, _CHANCE, words)
    _curve(panel, figures.precision_recall.x, figures.precision_recall.y)
    for point, color, marker, words in _operating_points(figures):
        _cross(panel, point.sensitivity, point.positive_predictive_value, color)
        _mark(panel, point.sensitivity, point.positive_predictive_value, color, marker, words)
    return panel.svg(
        f"Precision-recall curve of {name}: AUPRC {with_ends(figures.auprc)}, "
        f"prevalence {number(figures.prevalence)}."
    )


def reliability(name: str, figures: FindingFigures) -> Markup:
    """Draw predicted probability against observed frequency.

    Args:
        name: The finding, for who does not see the plot.
        figures: Its figures.

    Returns:
        The `svg` element; both axes end at the same round number, so that a rare finding is seen.
    """
    reached = [figures.prevalence]
    for one in figures.reliability:
        reached += [one.probability, one.frequency.high or one.frequency.value or 0]
    panel = Panel(
        Axis.up_to("predicted probability", max(reached)),
        Axis.up_to("observed frequency", max(reached)),
    )
    panel.line([0, 1], [0, 1], _CHANCE, "perfect")
    drawn = [one for one in figures.reliability if one.frequency.value is not None]
    for one in drawn:
        if one.frequency.low is not None and one.frequency.high is not None:
            ends = [one.frequency.low, one.frequency.high]
            panel.bar([one.probability] * 2, ends, BLUE)
    values = [one.frequency.value or 0 for one in drawn]
    panel.line([one.probability for one in drawn], values, Line(BLUE, width=1))
    for index, (one, value) in enumerate(zip(drawn, values, strict=True)):
        words = "bin of equal count, 95% interval" if index == 0 else ""
        panel.point(one.probability, value, BLUE, "circle", words)
    if not drawn:
        panel.note("not defined")
    return panel.svg(
        f"Reliability of {name}: ECE {with_ends(figures.ece)}, "
        f"slope {with_ends(figures.calibration_slope, 2)}, "
        f"intercept {with_ends(figures.calibration_intercept, 2)}."
    )


def decision_curve(name: str, figures: FindingFigures) -> Markup:
    """Draw the net benefit of acting on the model, on everyone and on no one.

    Args:
        name: The finding, for who does not see the plot.
        figures: Its figures.

    Returns:
        The `svg` element; what lies far below 0 is cut off.
    """
    curve = figures.net_benefit
    end = max(curve.thresholds, default=1)
    panel = Panel(
        Axis.up_to("threshold probability", end),
        Axis.up_to("net benefit", max((*curve.model, *curve.everyone), default=1), below=True),
    )
    panel.line([0, end], [0, 0], Line(GREY, width=1.4), "act on no one")
    panel.line(curve.thresholds, curve.everyone, Line(VERMILLION, "7 4"), "act on everyone")
    panel.line(curve.thresholds, curve.model, _CURVE, "act on the model")
    if not curve.thresholds:
        panel.note("not defined")
    ahead = [
        threshold
        for threshold, model, everyone in zip(
            curve.thresholds, curve.model, curve.everyone, strict=True
        )
        if model > max(everyone, 0)
    ]
    words = _ranges(ahead, curve.thresholds) or "none of the thresholds drawn"
    return panel.svg(
        f"Decision curve of {name}: acting on the model has the highest net benefit at {words}."
    )


def _curve(panel: Panel, x: tuple[float, ...], y: tuple[float, ...]) -> None:
    panel.line(x, y, _CURVE)
    if not x:
        panel.note(_NOT_DRAWN)


def _operating_points(
    figures: FindingFigures,
) -> list[tuple[OperatingPoint, str, Marker, str]]:
    points: list[tuple[OperatingPoint, str, Marker, str]] = []
    if figures.true_positive is not None:
        points.append((figures, INK, "circle", _named("model's threshold", figures)))
    if figures.three_way is not None:
        lower = figures.three_way.lower_threshold
        points.append((lower, GREEN, "diamond", _named("lower threshold", lower)))
    if (fixed := figures.fixed_threshold) is not None:
        points.append((fixed, VERMILLION, "square", _named("threshold taken over", fixed)))
    return points


def _named(words: str, point: OperatingPoint) -> str:
    return words if point.threshold is None else f"{words}, {number(point.threshold)}"


def _mark(panel: Panel, x: Interval, y: Interval, color: str, marker: Marker, words: str) -> None:
    if x.value is not None and y.value is not None:
        panel.point(x.value, y.value, color, marker, words)


def _cross(panel: Panel, x: Interval, y: Interval, color: str) -> None:
    """Draw both intervals of a point."""
    if x.value is None or y.value is None:
        return
    if x.low is not None and x.high is not None:
        panel.bar([x.low, x.high], [y.value] * 2, color)
    if y.low is not None and y.high is not None:
        panel.bar([x.value] * 2, [y.low, y.high], color)


def _complement(interval: Interval) -> Interval:
    """Turn specificity into the share of false alarms, where it is drawn."""
    low, value, high = (
        None if end is None else 1 - end for end in (interval.high, interval.value, interval.low)
    )
    return Interval(value=value, low=low, high=high)


def _said(figures: FindingFigures) -> str:
    return " ".join(
        f"{words[0].upper()}{words[1:]}: sensitivity {with_ends(point.sensitivity)}, "
        f"specificity {with_ends(point.specificity)}."
        for point, _, _, words in _operating_points(figures)
    )


def _ranges(chosen: list[float], all_of_them: tuple[float, ...]) -> str:
    """Name the runs of neighbouring thresholds, such as `0.05 to 0.40 and 0.60`."""
    places = [all_of_them.index(one) for one in chosen]
    breaks = [0, *(i + 1 for i, (a, b) in enumerate(pairwise(places)) if b != a + 1), len(places)]
    runs = [chosen[start:stop] for start, stop in pairwise(breaks) if start < stop]
    return " and ".join(
        number(run[0], 2) if len(run) == 1 else f"{number(run[0], 2)} to {number(run[-1], 2)}"
        for run in runs
    )
