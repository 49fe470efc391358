"""The reliability plot: predicted probability against observed frequency, before and after."""

from __future__ import annotations

import math
import textwrap
from dataclasses import dataclass
from io import BytesIO
from typing import Any

import matplotlib
from matplotlib.backends.backend_svg import FigureCanvasSVG
from matplotlib.figure import Figure

from medllm.evaluate.recalibration.cross_fit import N_FOLDS
from medllm.evaluate.recalibration.figures import CalibrationFigures
from medllm.evaluate.recalibration.recalibrate import Recalibration, Refitted
from medllm.findings import FINDINGS

_CAPTION = (
    "Points: bins of equal count, at their mean probability; bars: 95% intervals for the number "
    "of patients in the bin. Bands: from the lower to the upper threshold, where the call is "
    "indeterminate. Before: the calibration that the model came with. After: each patient's "
    f"probability is from a fit on the other patients, in {N_FOLDS} folds."
)

# All in inches. One unit of probability is as long on both axes.
_COLUMNS = 3
_UNIT = 3.3
_X_RANGE = (-0.03, 1.03)
_Y_RANGE = (-0.155, 1.03)
_LEFT, _ABOVE, _BELOW, _RIGHT = 0.62, 0.78, 0.5, 0.2
_CAPTION_LINE, _HEAD_LINE = 0.14, 0.22
_GREY = "#6b6b6b"


@dataclass(frozen=True)
class _Style:
    """How one of the two calibrations is drawn.

    Attributes:
        label: Words of the legend.
        color: One of Okabe and Ito's, told apart with any colour vision.
        marker: matplotlib's sign for the points.
        line: matplotlib's sign for the line between them.
        band: Height of its thresholds' band, in units of frequency below 0.
    """

    label: str
    color: str
    marker: str
    line: str
    band: float


_BEFORE = _Style("before", "#D55E00", "s", "--", -0.07)
_AFTER = _Style("after, cross-fitted", "#0072B2", "o", "-", -0.12)


def draw_reliability(recalibration: Recalibration) -> Figure:
    """Draw a panel a refitted finding.

    Args:
        recalibration: The figures; at least one finding was refitted.

    Returns:
        The figure. Points are bins of equal count with 95% intervals; below them lie the
        thresholds.
    """
    findings = recalibration.refitted
    columns = min(_COLUMNS, len(findings))
    rows = math.ceil(len(findings) / columns)
    panel_width, panel_height = (_UNIT * (high - low) for low, high in (_X_RANGE, _Y_RANGE))
    width = columns * (_LEFT + panel_width + _RIGHT)
    title = f"Calibration of {recalibration.source.card.name} on {recalibration.dataset}"
    head = textwrap.wrap(title, int(width * 11))
    caption = textwrap.wrap(_CAPTION, int(width * 17))
    foot = len(caption) * _CAPTION_LINE + 0.15
    height = 0.1 + len(head) * _HEAD_LINE + rows * (_ABOVE + panel_height + _BELOW) + foot
    figure = Figure(figsize=(width, height), facecolor="white")
    FigureCanvasSVG(figure)
    for index, one in enumerate(findings):
        row, column = divmod(index, columns)
        left = column * (_LEFT + panel_width + _RIGHT) + _LEFT
        bottom = foot + (rows - row - 1) * (_ABOVE + panel_height + _BELOW) + _BELOW
        _draw_panel(
            figure.add_axes(
                (left / width, bottom / height, panel_width / width, panel_height / height)
            ),
            one,
        )
    # Names may hold a dollar sign, which is no formula.
    plain: dict[str, Any] = {"parse_math": False, "linespacing": 1.3}
    middle = 0.5
    figure.text(middle, 1 - 0.1 / height, "\n".join(head), ha="center", va="top", size=11, **plain)
    figure.text(middle, 0.1 / height, "\n".join(caption), ha="center", size=7, color=_GREY, **plain)
    return figure


def reliability_svg(recalibration: Recalibration) -> bytes:
    """Draw the plot as an SVG file.

    Args:
        recalibration: The figures; at least one finding was refitted.

    Returns:
        The file; the same bytes for the same figures.
    """
    # matplotlib's ids are random without a salt, and it writes the time without being told.
    with matplotlib.rc_context({"svg.hashsalt": "medllm"}):
        stream = BytesIO()
        draw_reliability(recalibration).savefig(
            stream, format="svg", metadata={"Date": None, "Title": "Reliability before and after"}
        )
    return stream.getvalue()


def _draw_panel(axes: Any, one: Refitted) -> None:
    axes.plot([0, 1], [0, 1], color=_GREY, linewidth=0.9, zorder=1, label="perfect")
    _draw_side(axes, one.before, _BEFORE)
    _draw_side(axes, one.after, _AFTER)
    ticks = [0, 0.2, 0.4, 0.6, 0.8, 1]
    axes.set(xlim=_X_RANGE, ylim=_Y_RANGE, xticks=ticks, yticks=ticks)
    axes.set_xlabel("predicted probability", fontsize=9)
    axes.set_ylabel("observed frequency", fontsize=9)
    axes.grid(color="#e9e9e9", linewidth=0.6)
    axes.set_axisbelow(True)
    axes.tick_params(labelsize=8, color=_GREY)
    axes.spines[["top", "right"]].set_visible(False)
    axes.spines[["left", "bottom"]].set_color(_GREY)
    axes.legend(loc="upper left", fontsize=7.5, frameon=False, handlelength=2.4)
    place = {"transform": axes.transAxes, "va": "bottom"}
    axes.text(0, 1.135, FINDINGS[one.finding].name, fontsize=10, **place)
    axes.text(0, 1.015, _words(one), fontsize=7, color=_GREY, linespacing=1.35, **place)


def _draw_side(axes: Any, figures: CalibrationFigures, style: _Style) -> None:
    frequencies = [one.frequency for one in figures.bins]
    axes.errorbar(
        [one.probability for one in figures.bins],
        [one.value for one in frequencies],
        yerr=[
            [one.value - one.low for one in frequencies],
            [one.high - one.value for one in frequencies],
        ],
        label=style.label,
        color=style.color,
        marker=style.marker,
        linestyle=style.line,
        markersize=4.5,
        linewidth=1.0,
        elinewidth=0.8,
        capsize=1.5,
        zorder=3,
    )
    low, high = figures.calibration.low, figures.calibration.high
    axes.plot([0, 1], [style.band] * 2, color=style.color, linewidth=0.6)
    axes.plot([low, high], [style.band] * 2, "|-", color=style.color, linewidth=3.5, markersize=7)


def _words(one: Refitted) -> str:
    def change(name: str) -> str:
        old, new = (getattr(side, name.lower()).value for side in (one.before, one.after))
        # Adding 0 turns a rounded -0 into 0.
        return f"{name} {round(old, 2) + 0:.2f} \N{RIGHTWARDS ARROW} {round(new, 2) + 0:.2f}"

    return (
        f"{one.n} images of {one.n_patients} patients, {one.n_positive} images with it\n"
        f"{change('Brier')}    {change('ECE')}\n{change('slope')}    {change('intercept')}"
    )
