"""The curves of several models in one plot, as SVG fragments for inline use."""

from __future__ import annotations

from collections.abc import Mapping
from itertools import cycle

from markupsafe import Markup

from medllm.evaluate.comparison.curves import ComparedCurves, ModelCurves
from medllm.evaluate.panel import BLUE, GREEN, GREY, INK, VERMILLION, Axis, Line, Marker, Panel
from medllm.evaluate.wording import number

# Told apart without colour, by dashes and marker; the first model's line is whole.
_LOOKS: tuple[tuple[Line, Marker], ...] = (
    (Line(BLUE, width=2.2), "circle"),
    (Line(VERMILLION, "8 4"), "square"),
    (Line(INK, "2 3"), "diamond"),
    (Line(GREEN, "10 3 2 3"), "circle"),
    (Line(GREY, "5 2"), "square"),
)
_CHANCE = Line(GREY, dashes="1 5", width=1.2)
# Letters of a name that the key has room for.
_LONGEST = 36


def compared_roc(name: str, curves: ComparedCurves) -> Markup:
    """Draw the ROC curve of each model with its operating point.

    Args:
        name: The finding, for who does not see the plot.
        curves: The models' curves on the same images.

    Returns:
        The `svg` element.
    """
    panel = Panel(Axis.up_to("1 \N{MINUS SIGN} specificity", 1), Axis.up_to("sensitivity", 1))
    panel.line([0, 1], [0, 1], _CHANCE, "chance")
    said = []
    for (model, one), (look, marker) in zip(curves.models.items(), cycle(_LOOKS), strict=False):
        panel.line(one.roc.x, one.roc.y, look, _short(model), marker)
        if one.sensitivity is not None and one.specificity is not None:
            panel.point(1 - one.specificity, one.sensitivity, look.color, marker)
        said.append(
            f"{model}: at its own threshold sensitivity {number(one.sensitivity)}, "
            f"specificity {number(one.specificity)}"
        )
    return panel.svg(f"ROC curves of {name}. {'; '.join(said)}.")


def compared_reliability(name: str, curves: ComparedCurves) -> Markup:
    """Draw predicted probability against observed frequency of each model.

    Args:
        name: The finding, for who does not see the plot.
        curves: The models' curves on the same images.

    Returns:
        The `svg` element; both axes end at the same round number, so that a rare finding is seen.
    """
    reached = _reached(curves.models)
    panel = Panel(
        Axis.up_to("predicted probability", reached), Axis.up_to("observed frequency", reached)
    )
    panel.line([0, 1], [0, 1], _CHANCE, "perfect")
    for (model, one), (look, marker) in zip(curves.models.items(), cycle(_LOOKS), strict=False):
        x = [part.probability for part in one.reliability]
        y = [part.frequency.value or 0 for part in one.reliability]
        panel.line(x, y, look, _short(model), marker)
        for part in one.reliability:
            low, value, high = part.frequency.low, part.frequency.value, part.frequency.high
            if low is not None and high is not None:
                panel.bar([part.probability] * 2, [low, high], look.color)
            panel.point(part.probability, value or 0, look.color, marker)
    return panel.svg(f"Reliability of {name}: {', '.join(curves.models)}. {_said(curves.models)}")


def _reached(models: Mapping[str, ModelCurves]) -> float:
    return max(
        max(part.probability, part.frequency.high or part.frequency.value or 0)
        for one in models.values()
        for part in one.reliability
    )


def _said(models: Mapping[str, ModelCurves]) -> str:
    return " ".join(
        f"{name}: at {number(bins[0].probability, 2)} predicted "
        f"{number(bins[0].frequency.value, 2)} observed, at {number(bins[-1].probability, 2)} "
        f"{number(bins[-1].frequency.value, 2)}."
        for name, one in models.items()
        if (bins := one.reliability)
    )


def _short(words: str) -> str:
    return words if len(words) <= _LONGEST else words[: _LONGEST - 1] + "\N{HORIZONTAL ELLIPSIS}"
