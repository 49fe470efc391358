import re
from xml.etree import ElementTree

import pytest

from medllm.evaluate import plots
from medllm.evaluate.document import SubgroupFigures
from medllm.evaluate.forest import draw_forest
from medllm.evaluate.panel import Axis

# The square of a panel, in units of its view box; see panel.py.
LEFT, TOP, SIDE = 60, 8, 258
DRAWN = (plots.roc, plots.precision_recall, plots.reliability, plots.decision_curve)


def _read(svg):
    return ElementTree.fromstring(str(svg))  # noqa: S314 - our own fragment


def _curves(svg):
    return [
        [tuple(map(float, point.split(","))) for point in line.get("points").split()]
        for line in _read(svg).iter("polyline")
    ]


def _places(svg):
    return [(float(one.get("cx")), float(one.get("cy"))) for one in _read(svg).iter("circle")]


def _placed(x, y, end=1.0):
    at = LEFT + SIDE * x / end, TOP + SIDE * (1 - y / end)
    return pytest.approx(at, abs=0.051)  # one decimal is written


def test_the_roc_curve_runs_through_the_documents_points(make_figures):
    figures = make_figures(0)
    chance, curve = _curves(plots.roc("x", figures))
    assert chance == [_placed(0, 0), _placed(1, 1)]
    assert curve == [_placed(x, y) for x, y in zip(figures.roc.x, figures.roc.y, strict=True)]


def test_the_operating_points_lie_at_their_sensitivity(make_figures):
    figures = make_figures(0)
    place, key = _places(plots.roc("x", figures))
    assert place == _placed(1 - figures.specificity.value, figures.sensitivity.value)
    assert key[1] > TOP + SIDE
    place, _ = _places(plots.precision_recall("x", figures))
    assert place == _placed(figures.sensitivity.value, figures.positive_predictive_value.value)
    words = "".join(_read(plots.roc("x", figures)).itertext())
    assert "model's threshold, 0.100" in words
    assert "threshold taken over, 0.214" in words
    assert "taken over" not in plots.roc("x", make_figures(0, fixed=False))


def test_the_prevalence_is_the_chance_of_precision(make_figures):
    figures = make_figures(0)
    chance, _ = _curves(plots.precision_recall("x", figures))
    assert chance == [_placed(0, figures.prevalence), _placed(1, figures.prevalence)]


def test_the_bins_have_their_intervals_on_axes_that_end_with_them(make_figures):
    figures = make_figures(6)
    svg = plots.reliability("x", figures)
    end = 0.08  # the highest interval of this finding ends above .06, and six steps are most
    places = _places(svg)
    values = [(one.probability, one.frequency.value) for one in figures.reliability]
    # The last circle is the key's.
    assert places[:-1] == [_placed(*value, end) for value in values]
    bars = re.findall(r'd="M([\d.]+) ([\d.]+)L([\d.]+) ([\d.]+)"', svg)
    for bar, one in zip(bars, figures.reliability, strict=True):
        x, low, _, high = map(float, bar)
        assert (x, low) == _placed(one.probability, one.frequency.low, end)
        assert (x, high) == _placed(one.probability, one.frequency.high, end)


def test_the_decision_curve_shows_model_everyone_and_no_one(make_figures):
    figures = make_figures(0)
    svg = plots.decision_curve("x", figures)
    lines = _curves(svg)
    assert [len(line) for line in lines] == [2, 50, 50]
    (start, level), (_, same) = lines[0]
    assert start == LEFT
    assert level == same
    curve = figures.net_benefit
    # 0 lies a step of .05 above the lower end, of four to .15.
    heights = [TOP + SIDE * (1 - (value + 0.05) / 0.2) for value in curve.model]
    assert [y for _, y in lines[2]] == pytest.approx(heights, abs=0.051)
    assert "acting on the model has the highest net benefit at 0.05 to 0.38" in svg


@pytest.mark.parametrize("draw", DRAWN)
def test_nothing_to_draw_is_said(draw, undefined):
    svg = draw("x", undefined)
    assert "not defined" in "".join(_read(svg).itertext())
    assert "nan" not in svg


@pytest.mark.parametrize("draw", DRAWN)
def test_a_fragment_needs_no_style_and_escapes_its_name(draw, make_figures):
    svg = draw("<b>", make_figures(0))
    for one in _read(svg).iter():
        assert one.tag != "style"
        assert not {"style", "class", "id"} & set(one.attrib)
    assert "<b>" not in svg


@pytest.mark.parametrize(
    ("highest", "ticks"),
    [
        (1, (0, 0.2, 0.4, 0.6, 0.8, 1)),
        (0.6, (0, 0.1, 0.2, 0.3, 0.4, 0.5, 0.6)),
        (0.121, (0, 0.05, 0.1, 0.15)),
        (0.02, (0, 0.005, 0.01, 0.015, 0.02)),
        (3, (0, 0.2, 0.4, 0.6, 0.8, 1)),
    ],
)
def test_an_axis_ends_at_the_next_round_number(highest, ticks):
    assert Axis.up_to("x", highest).ticks == pytest.approx(ticks)


def test_a_forest_has_a_row_a_group_under_its_attribute(fourteen):
    groups = [one for one in fourteen.subgroups if one.finding == "atelectasis"]
    overall = fourteen.findings["atelectasis"].auroc
    svg = draw_forest("atelectasis", overall, groups)
    words = [text.text for text in _read(svg).iter("text")]
    assert [one for one in words if one in ("Sex", "Age group", "View position")] == [
        "Sex",
        "Age group",
        "View position",
    ]
    at = words.index("F")
    assert words[at : at + 3] == ["F", "10,714 (892)", "0.862 (0.823 to 0.893)"]
    at = words.index("not stated")
    assert words[at : at + 3] == ["not stated", "17 (2)", "too few cases"]
    # A diamond and a sign each, so that a flag is seen without its colour.
    flagged = sum(one.larger_than_noise for one in groups)
    assert flagged == 3
    assert svg.count("l6 6-6 6-6-6z") == flagged
    assert sum(one.endswith("▲") for one in words) == flagged
    assert "Differ by more than noise: age group 0 to 17, view position AP" in svg


def test_the_overall_line_and_each_interval_lie_on_one_axis(fourteen):
    groups = [one for one in fourteen.subgroups if one.finding == "atelectasis"][:1]
    overall = fourteen.findings["atelectasis"].auroc
    svg = draw_forest("atelectasis", overall, groups)
    low, high = 0.8, 0.9  # rounded to tenths, around .823 to .893

    def across(value):
        return 315 + 240 * (value - low) / (high - low)

    (line,) = re.findall(r'd="M([\d.]+) \d+V\d+" stroke="#\w+" stroke-dasharray', svg)
    assert float(line) == pytest.approx(across(overall.value), abs=0.051)
    bars = re.findall(r'd="M([\d.]+) \d+H([\d.]+)"', svg)
    ends = [tuple(map(float, bar)) for bar in bars]
    one = groups[0].auroc
    assert ends[1] == pytest.approx((across(one.low), across(one.high)), abs=0.051)


def test_a_forest_of_groups_without_figures_is_drawn(undefined):
    group = SubgroupFigures(
        finding="edema", attribute="sex", group="<i>" + "x" * 90, n=3, n_positive=0
    )
    svg = draw_forest("edema", undefined.auroc, [group])
    words = [text.text for text in _read(svg).iter("text")]
    assert "<i>" + "x" * 22 + "…" in words
    assert "too few cases" in words
