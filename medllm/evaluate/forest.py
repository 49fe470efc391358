"""Forest plots, figures with intervals one below the other, as SVG fragments."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from itertools import groupby

from markupsafe import Markup

from medllm.evaluate.document import SubgroupFigures
from medllm.evaluate.panel import (
    BLUE,
    GREY,
    GRID,
    INK,
    VERMILLION,
    Marker,
    mark,
    opening,
    text,
)
from medllm.evaluate.section import Interval
from medllm.evaluate.subgroups import UNKNOWN
from medllm.evaluate.wording import attribute, count, number, with_ends

# Beside the marker's shape and colour, so that a flag is seen without either.
FLAG = "\N{BLACK UP-POINTING TRIANGLE}"

# In units of the view box, of which one is about a CSS pixel.
_WIDTH, _ROW, _HEAD = 760, 21, 26
_COUNTS, _PLOT, _PLOT_END, _WORDS = 290, 315, 555, 575
_LONGEST = 26
_NAMES, _DIFFERENCES_END, _LONGEST_NAME = 210, 590, 30


def draw_forest(name: str, overall: Interval, groups: Sequence[SubgroupFigures]) -> Markup:
    """Draw a row a group, under headings of what divides the images.

    Args:
        name: The finding, for who does not see the plot.
        overall: Its AUROC on all images; a vertical line.
        groups: Its groups; those of one attribute stand together.

    Returns:
        The `svg` element. Groups that differ by more than noise have a diamond and a sign.
    """
    low, high, step = _range([overall, *(one.auroc for one in groups if one.auroc)])

    def across(value: float) -> float:
        return _PLOT + (_PLOT_END - _PLOT) * (value - low) / (high - low)

    rows = list(_rows(groups))
    bottom = _HEAD + _ROW * (len(rows) + 1)
    ticks = [low + index * step for index in range(round((high - low) / step) + 1)]
    parts = [_heads(bottom)]
    parts += [_tick(across(tick), f"{tick:.2f}", bottom) for tick in ticks]
    if overall.value is not None:
        line = Markup('<path d="M{0:.1f} {1}V{2}" stroke="{3}" stroke-dasharray="4 3"/>')
        parts.append(line.format(across(overall.value), _HEAD - 4, bottom, GREY))
    parts.append(text(0, _HEAD + 14, "All images", bold=True))
    parts += _estimate(overall, _HEAD + 10, across, INK, "square")
    parts.append(text(_WORDS, _HEAD + 14, with_ends(overall)))
    for index, row in enumerate(rows, start=1):
        top = _HEAD + _ROW * index
        if isinstance(row, str):
            parts.append(text(0, top + 15, row, bold=True))
            continue
        flagged = row.larger_than_noise
        parts.append(text(16, top + 14, _short(row.group), bold=flagged))
        counts = f"{count(row.n)} ({count(row.n_positive)})"
        parts.append(text(_COUNTS, top + 14, counts, anchor="end"))
        if row.auroc is None:
            parts.append(text(_WORDS, top + 14, no_area(row), color=GREY))
            continue
        color = VERMILLION if flagged else BLUE
        parts += _estimate(row.auroc, top + 10, across, color, "diamond" if flagged else "circle")
        words = f"{with_ends(row.auroc)} {FLAG}" if flagged else with_ends(row.auroc)
        parts.append(text(_WORDS, top + 14, words, bold=flagged))
    return Markup("").join(
        (opening(_WIDTH, bottom + 38, _said(name, overall, groups)), *parts, Markup("</svg>"))
    )


@dataclass(frozen=True)
class Compared:
    """A row of `draw_differences`.

    Attributes:
        name: What is compared.
        difference: With its interval.
        is_control: Whether it is there to be beaten, and not in question itself.
    """

    name: str
    difference: Interval
    is_control: bool = False


def draw_differences(name: str, rows: Sequence[Compared], *, against: str = "mean map") -> Markup:
    """Draw differences about a line of none.

    Args:
        name: The figure, for who does not see the plot.
        rows: At least one.
        against: What the rows differ from.

    Returns:
        The `svg` element. A difference whose interval lies on one side of 0 is drawn in another
        colour and shape; a control is grey.
    """
    low, high, step = _range([Interval(value=0, low=0, high=0), *(one.difference for one in rows)])

    def across(value: float) -> float:
        return _NAMES + (_DIFFERENCES_END - _NAMES) * (value - low) / (high - low)

    bottom = _HEAD + _ROW * len(rows)
    ticks = [low + index * step for index in range(round((high - low) / step) + 1)]
    parts = [_tick(across(tick), number(tick, 2), bottom) for tick in ticks]
    none = Markup('<path d="M{0:.1f} {1}V{2}" stroke="{3}" stroke-dasharray="4 3"/>')
    parts.append(none.format(across(0), _HEAD - 4, bottom, GREY))
    parts.append(text(across(0), 14, _short(against), anchor="middle", color=GREY))
    for index, row in enumerate(rows):
        top = _HEAD + _ROW * index
        beyond = _beyond_zero(row.difference)
        color = GREY if row.is_control else VERMILLION if beyond else BLUE
        marker: Marker = "square" if row.is_control else "diamond" if beyond else "circle"
        parts.append(
            text(
                0, top + 14, _short(row.name, _LONGEST_NAME), color=GREY if row.is_control else INK
            )
        )
        parts += _estimate(row.difference, top + 10, across, color, marker)
        words = with_ends(row.difference, 2)
        parts.append(text(_DIFFERENCES_END + 14, top + 14, words, color=INK))
    said = "; ".join(f"{row.name} {with_ends(row.difference, 2)}" for row in rows)
    return Markup("").join(
        (
            opening(_WIDTH, bottom + 24, f"{name}: difference from the {against}. {said}."),
            *parts,
            Markup("</svg>"),
        )
    )


def no_area(row: SubgroupFigures) -> str:
    """Say why a group has no AUROC."""
    return "counted alone" if row.group == UNKNOWN else "too few cases"


def _beyond_zero(interval: Interval) -> bool:
    low, high = interval.low, interval.high
    return low is not None and high is not None and (low > 0 or high < 0)


def _rows(groups: Sequence[SubgroupFigures]) -> Iterator[str | SubgroupFigures]:
    """Give each attribute's heading before its groups."""
    for key, members in groupby(groups, lambda one: one.attribute):
        yield _short(attribute(key)).capitalize()
        yield from members


def _range(intervals: Sequence[Interval]) -> tuple[float, float, float]:
    """Give the axis' ends and the step of its ticks."""
    reached = [
        end for one in intervals for end in (one.low, one.value, one.high) if end is not None
    ] or [0.5, 1.0]
    low, high = math.floor(min(reached) * 10), math.ceil(max(reached) * 10)
    high = max(high, low + 1)
    if high - low <= 5:
        return low / 10, high / 10, 0.05 if high - low <= 2 else 0.1
    # Whole steps, so that 0 and 1 are ticks.
    return low // 2 / 5, -(-high // 2) / 5, 0.2


def _heads(bottom: float) -> Markup:
    return Markup("").join(
        (
            text(0, 14, "Group", color=GREY),
            text(_COUNTS, 14, "n (with finding)", anchor="end", color=GREY),
            text((_PLOT + _PLOT_END) / 2, bottom + 33, "AUROC", anchor="middle"),
            text(_WORDS, 14, "AUROC (95% interval)", color=GREY),
        )
    )


def _tick(at: float, words: str, bottom: float) -> Markup:
    line = Markup('<path d="M{:.1f} {}V{}" stroke="{}"/>').format(at, _HEAD, bottom, GRID)
    return line + text(round(at, 1), bottom + 16, words, anchor="middle", color=GREY)


def _estimate(
    interval: Interval, y: float, across: Callable[[float], float], color: str, marker: Marker
) -> list[Markup]:
    if interval.value is None:
        return []
    point = mark(across(interval.value), y, color, marker)
    if interval.low is None or interval.high is None:
        return [point]
    bar = Markup('<path d="M{:.1f} {}H{:.1f}" stroke="{}" stroke-width="1.6"/>')
    return [bar.format(across(interval.low), y, across(interval.high), color), point]


def _short(words: str, longest: int = _LONGEST) -> str:
    return words if len(words) <= longest else words[: longest - 1] + "\N{HORIZONTAL ELLIPSIS}"


def _said(name: str, overall: Interval, groups: Sequence[SubgroupFigures]) -> str:
    flagged = [f"{attribute(one.attribute)} {one.group}" for one in groups if one.larger_than_noise]
    differ = f"Differ by more than noise: {', '.join(flagged) or 'none'}."
    return (
        f"Forest plot of {name}: AUROC by group beside {with_ends(overall)} on all images. "
        f"{differ} The table below holds the figures."
    )
