"""How long a map outlives the weights it is of, as a small SVG fragment."""

from __future__ import annotations

from collections.abc import Sequence

from markupsafe import Markup

from medllm.evaluate.explanations.document import Sanity
from medllm.evaluate.panel import BLUE, GREY, GRID, VERMILLION, mark, opening
from medllm.evaluate.section import Interval
from medllm.evaluate.wording import number

# In units of the view box, of which one is about a CSS pixel.
_WIDTH, _HEIGHT, _EDGE = 168, 60, 6


def draw_cascade(method: str, sanity: Sanity) -> Markup:
    """Draw a method's rank correlations over the steps of the cascade, from 1 to -1.

    Args:
        method: Its key.
        sanity: Where its figures are.

    Returns:
        The `svg` element: with sign a blue line, without it a vermillion one that ends in a
        diamond; a dotted line where the map is said to survive, and one at 0.
    """
    figures = sanity.methods[method]
    curves = (figures.rank_correlation, figures.rank_correlation_absolute)
    signed, absolute = ([1.0, *_values(curve)] for curve in curves)
    across = (_WIDTH - 2 * _EDGE) / max(1, len(sanity.steps))

    def place(step: int, value: float) -> tuple[float, float]:
        return _EDGE + across * step, _EDGE + (_HEIGHT - 2 * _EDGE) * (1 - value) / 2

    def line(values: Sequence[float], color: str) -> Markup:
        points = (place(step, value) for step, value in enumerate(values))
        drawn = Markup('<polyline points="{}" fill="none" stroke="{}" stroke-width="1.6"/>')
        return drawn.format(" ".join(f"{x:.1f},{y:.1f}" for x, y in points), color)

    def level(value: float, color: str, dashes: str) -> Markup:
        drawn = Markup('<path d="M{} {:.1f}H{}" stroke="{}" stroke-dasharray="{}"/>')
        return drawn.format(_EDGE, place(0, value)[1], _WIDTH - _EDGE, color, dashes)

    said = "; ".join(
        f"{words} {', '.join(number(value, 2) for value in values)}"
        for words, values in (("with sign", signed), ("without", absolute))
    )
    return Markup("").join(
        (
            opening(_WIDTH, _HEIGHT, f"{method}: rank correlation by step, {said}."),
            level(0, GRID, "none"),
            level(sanity.most_alike, GREY, "2 3"),
            line(signed, BLUE),
            line(absolute, VERMILLION),
            mark(*place(len(signed) - 1, signed[-1]), BLUE, "circle"),
            mark(*place(len(absolute) - 1, absolute[-1]), VERMILLION, "diamond"),
            Markup("</svg>"),
        )
    )


def _values(curve: Sequence[Interval]) -> list[float]:
    return [one.value for one in curve if one.value is not None]
