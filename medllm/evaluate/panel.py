"""Axes that are drawn on as an SVG fragment: no style sheet and no id, so that it stands anywhere.

Not matplotlib's SVG: its style attributes and style element are what the page's content security
policy forbids, and its shared ids would clash within one page.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

from markupsafe import Markup, escape

# Of Okabe and Ito's colours, told apart with any colour vision; text is dark enough to read.
BLUE, VERMILLION, GREEN = "#0072B2", "#D55E00", "#009E73"
INK, GREY, GRID = "#14202b", "#5b6670", "#e4e8ec"
_FONT = "system-ui, -apple-system, Segoe UI, Roboto, Helvetica, Arial, sans-serif"

Marker = Literal["circle", "square", "diamond"]

# In units of the view box, of which one is about a CSS pixel.
_WIDTH, _SIDE = 328, 258
_LEFT, _TOP = 60, 8
_BELOW_AXIS, _KEY_LINE, _KEY_LINES = 40, 16, 3


@dataclass(frozen=True)
class Axis:
    """An axis.

    Attributes:
        label: What it shows.
        low: Value at its start.
        high: Value at its end.
        ticks: Values that are named.
    """

    label: str
    low: float
    high: float
    ticks: tuple[float, ...]

    @classmethod
    def up_to(cls, label: str, highest: float, *, below: bool = False) -> Axis:
        """Make an axis that ends at a round number.

        Args:
            label: What it shows.
            highest: Value that must lie on it; above 1 it ends at 1.
            below: Whether it goes a step below 0.

        Returns:
            The axis, from 0 or below, of at most six steps.
        """
        highest = min(max(highest, 0.001), 1)
        scale = 10 ** math.floor(math.log10(highest))
        step = next(s * scale for s in (0.2, 0.5, 1, 2) if highest <= 6 * s * scale)
        n_steps = math.ceil(highest / step - 1e-9)  # 0.6 / 0.1 is 5.999... or 6.000...1
        first = -1 if below else 0
        ticks = tuple(round(step * index, 9) for index in range(first, n_steps + 1))
        return cls(label, ticks[0], ticks[-1], ticks)


@dataclass(frozen=True)
class Line:
    """How a line is drawn: colour, dashes in SVG's words, width."""

    color: str
    dashes: str = "none"
    width: float = 1.8


class Panel:
    """A square plot with a key below."""

    def __init__(self, x: Axis, y: Axis) -> None:
        """Start without anything drawn.

        Args:
            x: The axis below.
            y: The axis to the left.
        """
        self._x, self._y = x, y
        self._clipped: list[Markup] = []
        self._above: list[Markup] = []
        self._key: list[Markup] = []

    def line(
        self,
        x: Sequence[float],
        y: Sequence[float],
        look: Line,
        name: str = "",
        marker: Marker | None = None,
    ) -> None:
        """Draw a line; what lies outside of the axes is cut off.

        Args:
            x: Of the points.
            y: Of the points.
            look: How it is drawn.
            name: Its line in the key; none where it is empty.
            marker: Shape of the points that stand on it, for the key.
        """
        points = " ".join(
            f"{self._across(a):.1f},{self._up(b):.1f}" for a, b in zip(x, y, strict=True)
        )
        style = Markup('fill="none" stroke="{}" stroke-width="{}" stroke-dasharray="{}"').format(
            look.color, look.width, look.dashes
        )
        self._clipped.append(
            Markup('<polyline points="{}" stroke-linejoin="round" {}/>').format(points, style)
        )
        if name:
            at = self._key_height()
            sign = Markup('<path d="M{} {}h24" {}/>').format(_LEFT, at, style)
            if marker is not None:
                sign += mark(_LEFT + 12, at, look.color, marker)
            self._key.append(sign + text(_LEFT + 32, at + 4, name))

    def point(self, x: float, y: float, color: str, marker: Marker, name: str = "") -> None:
        """Draw a point.

        Args:
            x: Of the point.
            y: Of the point.
            color: Its fill.
            marker: Its shape.
            name: Its line in the key; none where it is empty.
        """
        self._above.append(mark(self._across(x), self._up(y), color, marker))
        if name:
            at = self._key_height()
            sign = mark(_LEFT + 12, at, color, marker)
            self._key.append(sign + text(_LEFT + 32, at + 4, name))

    def bar(self, x: Sequence[float], y: Sequence[float], color: str) -> None:
        """Draw a straight bar from the first to the last point, as an interval.

        Args:
            x: Of both ends.
            y: Of both ends.
            color: Of the bar.
        """
        start, end = ((self._across(a), self._up(b)) for a, b in zip(x, y, strict=True))
        self._clipped.append(
            Markup(
                '<path d="M{:.1f} {:.1f}L{:.1f} {:.1f}" stroke="{}" stroke-width="1.3"/>'
            ).format(*start, *end, color)
        )

    def note(self, words: str) -> None:
        """Write words into the middle, for what cannot be drawn.

        Args:
            words: The words.
        """
        self._above.append(
            text(_LEFT + _SIDE / 2, _TOP + _SIDE / 2, words, anchor="middle", color=GREY)
        )

    def svg(self, label: str) -> Markup:
        """Finish the fragment.

        Args:
            label: What the plot shows, for who does not see it.

        Returns:
            The `svg` element.
        """
        # Plots side by side are as high as each other, unless a key is long.
        n_lines = max(_KEY_LINES, len(self._key))
        height = _TOP + _SIDE + _BELOW_AXIS + _KEY_LINE * n_lines
        clip = Markup('<svg x="{0}" y="{1}" width="{2}" height="{2}" viewBox="{0} {1} {2} {2}">')
        return Markup("").join(
            (
                opening(_WIDTH, height, label),
                self._axes(),
                clip.format(_LEFT, _TOP, _SIDE),
                *self._clipped,
                Markup("</svg>"),
                *self._above,
                *self._key,
                Markup("</svg>"),
            )
        )

    def _across(self, value: float) -> float:
        return _LEFT + _SIDE * (value - self._x.low) / (self._x.high - self._x.low)

    def _up(self, value: float) -> float:
        return _TOP + _SIDE * (self._y.high - value) / (self._y.high - self._y.low)

    def _key_height(self) -> float:
        return _TOP + _SIDE + _BELOW_AXIS + 6 + _KEY_LINE * len(self._key)

    def _axes(self) -> Markup:
        bottom = _TOP + _SIDE
        parts = []
        for tick in self._x.ticks:
            at = round(self._across(tick), 1)
            parts.append(Markup('<path d="M{} {}V{}" stroke="{}"/>').format(at, _TOP, bottom, GRID))
            parts.append(text(at, bottom + 15, f"{tick:g}", anchor="middle", color=GREY))
        for tick in self._y.ticks:
            at = round(self._up(tick), 1)
            line = Markup('<path d="M{} {}H{}" stroke="{}"/>')
            parts.append(line.format(_LEFT, at, _LEFT + _SIDE, GRID))
            parts.append(
                text(
                    _LEFT - 7,
                    at + 4,
                    f"{tick:g}".replace("-", "\N{MINUS SIGN}"),
                    anchor="end",
                    color=GREY,
                )
            )
        frame = Markup('<path d="M{} {}V{}H{}" fill="none" stroke="{}"/>')
        parts.append(frame.format(_LEFT, _TOP, bottom, _LEFT + _SIDE, GREY))
        parts.append(text(_LEFT + _SIDE / 2, bottom + 31, self._x.label, anchor="middle"))
        turned = Markup('<g transform="translate(12 {}) rotate(-90)">{}</g>')
        parts.append(turned.format(_TOP + _SIDE / 2, text(0, 0, self._y.label, anchor="middle")))
        return Markup("").join(parts)


def opening(width: float, height: float, label: str) -> Markup:
    """Open an `svg` element that is read out as one picture."""
    opened = Markup(
        '<svg viewBox="0 0 {} {}" role="img" aria-label="{}" font-family="{}" font-size="12">'
    )
    return opened.format(width, height, label, _FONT)


def text(
    x: float, y: float, words: str, *, anchor: str = "start", color: str = INK, bold: bool = False
) -> Markup:
    """Write words; they are escaped."""
    weight = Markup(' font-weight="650"') if bold else Markup("")
    return Markup('<text x="{:g}" y="{:g}" text-anchor="{}" fill="{}"{}>{}</text>').format(
        x, y, anchor, color, weight, escape(words)
    )


def mark(x: float, y: float, color: str, marker: Marker) -> Markup:
    """Draw a marker about a point."""
    shape = {
        "circle": Markup('<circle cx="{:.1f}" cy="{:.1f}" r="4.2"').format(x, y),
        "square": Markup('<path d="M{:.1f} {:.1f}h8v8h-8z"').format(x - 4, y - 4),
        "diamond": Markup('<path d="M{:.1f} {:.1f}l6 6-6 6-6-6z"').format(x, y - 6),
    }[marker]
    return shape + Markup(' fill="{}" stroke="#fff"/>').format(color)
