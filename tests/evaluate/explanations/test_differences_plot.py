from __future__ import annotations

import re

from medllm.evaluate.forest import Compared, draw_differences
from medllm.evaluate.panel import BLUE, GREY, VERMILLION
from medllm.evaluate.section import Interval

BETTER = Compared("better", Interval(value=0.2, low=0.1, high=0.3))
UNSURE = Compared("unsure", Interval(value=-0.1, low=-0.3, high=0.1))
CONTROL = Compared("edges", Interval(value=-0.2, low=-0.3, high=-0.1), is_control=True)


def colours(plot):
    return re.findall(r'fill="(#\w+)" stroke="#fff"', plot)


def test_only_an_interval_on_one_side_of_none_stands_out_and_a_control_never():
    assert colours(draw_differences("x", [BETTER])) == [VERMILLION]
    assert colours(draw_differences("x", [UNSURE])) == [BLUE]
    assert colours(draw_differences("x", [CONTROL])) == [GREY]


def test_the_axis_holds_every_interval_and_the_line_of_none():
    plot = draw_differences("x", [BETTER])
    ticks = [float(tick) for tick in re.findall(r">(-?\d\.\d\d)</text>", plot)]
    assert min(ticks) == 0
    assert max(ticks) >= 0.3
    assert "mean map" in plot


def test_who_does_not_see_the_plot_is_told_its_numbers():
    plot = draw_differences("Nodule, hit rate", [BETTER, UNSURE])
    said = re.search(r'aria-label="([^"]*)"', plot).group(1)
    assert said.startswith("Nodule, hit rate: difference from the mean map.")
    assert "better 0.20 (0.10 to 0.30)" in said


def test_an_undefined_end_leaves_the_point_alone():
    alone = Compared("alone", Interval(value=0.1, low=None, high=None))
    assert colours(draw_differences("x", [alone])) == [BLUE]
