from __future__ import annotations

from xml.etree import ElementTree

import pytest

from medllm.evaluate import draw_reliability, recalibrate, reliability_svg


@pytest.fixture(scope="module")
def result(tiny_model, simulated):
    return recalibrate(
        tiny_model,
        simulated(("pneumonia", "effusion"), n_patients=100),
        r"Site A, $\frac$",
        n_resamples=50,
    )


def test_a_panel_a_finding_shows_the_bins_and_the_thresholds(result):
    figure = draw_reliability(result)
    assert len(figure.axes) == 2
    for axes, one in zip(figure.axes, result.refitted, strict=True):
        lines = {line.get_label(): line for line in axes.get_lines()}
        assert lines["perfect"].get_xydata().tolist() == [[0, 0], [1, 1]]
        for container, side in zip(axes.containers, (one.before, one.after), strict=True):
            points = container.lines[0].get_xydata().tolist()
            assert points == [[b.probability, b.frequency.value] for b in side.bins]
            (bars,) = container.lines[2]
            ends = [segment[:, 1].tolist() for segment in bars.get_segments()]
            for (low, high), b in zip(ends, side.bins, strict=True):
                assert (low, high) == pytest.approx((b.frequency.low, b.frequency.high))
            band = [side.calibration.low, side.calibration.high]
            assert any(list(line.get_xdata()) == band for line in axes.get_lines())
        assert axes.get_xlabel() == "predicted probability"
        assert axes.get_ylabel() == "observed frequency"
        assert [text.get_text() for text in axes.get_legend().get_texts()] == [
            "perfect",
            "before",
            "after, cross-fitted",
        ]


def test_bins_are_of_equal_count(result):
    for one in result.refitted:
        counts = [b.n for b in one.after.bins]
        assert sum(counts) == one.n
        assert max(counts) - min(counts) <= 1


def test_the_page_says_how_the_figures_were_made(result):
    figure = draw_reliability(result)
    words = " ".join(text.get_text() for text in figure.texts).replace("\n", " ")
    assert r"Calibration of tiny on Site A, $\frac$" in words
    assert "After: each patient's probability is from a fit on the other patients" in words


def test_the_same_figures_give_the_same_bytes(result):
    svg = reliability_svg(result)
    assert svg == reliability_svg(result)
    assert ElementTree.fromstring(svg).tag.endswith("svg")  # noqa: S314 - our own file


def test_no_global_state_is_touched(result):
    from matplotlib import pyplot, rcParams

    before = dict(rcParams)
    reliability_svg(result)
    assert pyplot.get_fignums() == []
    assert dict(rcParams) == before
