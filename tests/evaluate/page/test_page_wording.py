import pytest

from medllm.evaluate import wording
from medllm.evaluate.audits.document import (
    ImageUseAudit,
    IndicationAudit,
    LabelNoiseAudit,
    LungsAudit,
    PromptAudit,
    ShortcutAudit,
)
from medllm.evaluate.audits.wording import verdict
from medllm.evaluate.section import Interval

NOT_DEFINED = (None, None, None)


def _interval(low, value, high):
    return Interval(value=value, low=low, high=high)


def _assert_verdict(row, areas, tone, words):
    """See that a row is judged so, and not at all where one of its areas is not defined."""
    found = verdict(row)
    assert found.tone == tone
    assert words in found.words
    for area in areas:
        assert verdict(row.model_copy(update={area: _interval(*NOT_DEFINED)})) is None


@pytest.mark.parametrize(
    ("real", "blurred", "difference", "tone", "words"),
    [
        # The two intervals overlap; in pairs the difference is plain.
        ((0.8, 0.85, 0.9), (0.7, 0.8, 0.85), (0.01, 0.05, 0.09), "clear", "its detail is used"),
        ((0.8, 0.85, 0.9), (0.7, 0.8, 0.85), (-0.01, 0.05, 0.1), "alarm", "blurred image ranks as"),
        ((0.6, 0.75, 0.9), (0.5, 0.6, 0.8), (-0.1, 0.15, 0.4), "caution", "better with the image"),
        ((0.5, 0.6, 0.7), (0.4, 0.5, 0.6), (0.01, 0.1, 0.2), "caution", "better than chance, even"),
    ],
)
def test_an_image_is_used_where_it_ranks_better_than_itself_blurred(
    real, blurred, difference, tone, words
):
    areas = {"real": real, "blurred": blurred, "auroc_difference": difference}
    common = {"finding": "edema", "n": 9, "blank_log_odds": 0, "real_log_odds": 0}
    row = ImageUseAudit(**common, **{key: _interval(*ends) for key, ends in areas.items()})
    _assert_verdict(row, areas, tone, words)


@pytest.mark.parametrize(
    ("auroc", "hidden", "difference", "outside", "tone", "words"),
    [
        ((0.8, 0.9, 1), (0.4, 0.5, 0.6), (0.3, 0.4, 0.5), (0.4, 0.5, 0.6), "clear", "Not shown"),
        ((0.8, 0.9, 1), (0.6, 0.7, 0.8), (0.1, 0.2, 0.3), (0.4, 0.5, 0.6), "caution", "yet better"),
        ((0.8, 0.9, 1), (0.6, 0.7, 0.8), (0.1, 0.2, 0.3), (0.6, 0.7, 0.8), "alarm", "surrounds"),
        ((0.8, 0.9, 1), (0.7, 0.9, 1), (-0.1, 0, 0.1), (0.4, 0.5, 0.6), "alarm", "Ranks as well"),
        ((0.5, 0.6, 0.7), (0.4, 0.5, 0.6), (0, 0.1, 0.2), (0.6, 0.7, 0.8), "caution", "even with"),
    ],
)
def test_what_is_left_without_the_lungs_speaks_against_the_ranking(
    auroc, hidden, difference, outside, tone, words
):
    areas = {"auroc": auroc, "auroc_hidden": hidden, "auroc_difference": difference}
    areas["auroc_outside"] = outside
    row = LungsAudit(finding="edema", n=9, **{key: _interval(*ends) for key, ends in areas.items()})
    _assert_verdict(row, areas, tone, words)


@pytest.mark.parametrize(
    ("facts", "difference", "tone"),
    [
        ((0.5, 0.55, 0.6), (-0.1, 0, 0.1), "clear"),
        ((0.51, 0.6, 0.75), (0.01, 0.1, 0.2), "caution"),
        ((0.51, 0.6, 0.69), (0, 0.1, 0.2), "alarm"),
        (NOT_DEFINED, (0, 0.1, 0.2), None),
        ((0.51, 0.6, 0.7), NOT_DEFINED, None),
    ],
)
def test_facts_alarm_where_they_are_not_shown_to_tell_less_than_the_model(facts, difference, tone):
    row = ShortcutAudit(
        finding="edema",
        facts="view",
        n=9,
        auroc=_interval(*facts),
        model_auroc=_interval(0.7, 0.75, 0.8),
        auroc_difference=_interval(*difference),
    )
    found = verdict(row)
    assert (found and found.tone) == tone


@pytest.mark.parametrize(
    ("kind", "difference", "area", "tone"),
    [
        ("reworded", (-0.1, 0, 0.1), (0.7, 0.8, 0.9), "clear"),
        ("reworded", (-0.2, -0.1, -0.01), (0.7, 0.8, 0.9), "alarm"),
        ("reworded", (0.01, 0.1, 0.2), (0.7, 0.8, 0.9), "caution"),
        ("another finding", (-0.2, -0.1, -0.01), (0.5, 0.6, 0.7), "clear"),
        ("another finding", (-0.1, 0, 0.1), (0.51, 0.8, 0.9), "alarm"),
        ("another finding", (-0.3, -0.1, 0.1), (0.5, 0.6, 0.7), "caution"),
        ("another finding", (0.01, 0.1, 0.2), (0.7, 0.8, 0.9), "alarm"),
        ("another finding", NOT_DEFINED, (0.7, 0.8, 0.9), None),
    ],
)
def test_another_question_should_change_the_ranking_and_another_wording_should_not(
    kind, difference, area, tone
):
    row = PromptAudit(
        finding="edema",
        kind=kind,
        question="?",
        n=9,
        auroc=_interval(*area),
        auroc_difference=_interval(*difference),
        mean_shift=0,
        calls_changed=None,
    )
    found = verdict(row)
    assert (found and found.tone) == tone


@pytest.mark.parametrize(
    ("difference", "kappa", "tone"),
    [
        ((-0.01, 0.01, 0.03), 0.6, "clear"),
        ((-0.01, 0.01, 0.03), 0.59, "caution"),
        ((-0.01, 0.01, 0.03), None, "caution"),
        # NIH: 0.865 and 0.803, whose intervals overlap.
        ((0.018, 0.062, 0.108), 0.9, "alarm"),
        ((-0.1, -0.05, -0.01), 0.9, "alarm"),
        (NOT_DEFINED, 0.9, None),
    ],
)
def test_labels_alarm_where_the_ranking_by_two_sources_differs_in_pairs(difference, kappa, tone):
    counts = dict.fromkeys(("both_positive", "only_first", "only_second", "both_negative"), 1)
    row = LabelNoiseAudit(
        finding="edema",
        source="other",
        n=4,
        **counts,
        kappa=kappa,
        auroc=_interval(0.82, 0.865, 0.9),
        auroc_second=_interval(0.75, 0.803, 0.85),
        auroc_difference=_interval(*difference),
    )
    found = verdict(row)
    assert (found and found.tone) == tone


AREA, GAP = (0.7, 0.8, 0.9), (0.01, 0.1, 0.2)
NO_AREA, NO_GAP, LOSS = (0.4, 0.5, 0.6), (-0.1, 0.0, 0.1), (-0.4, -0.3, -0.2)


@pytest.mark.parametrize(
    ("seen", "told", "rise", "mistaken", "drop", "image", "tone", "words"),
    [
        (AREA, AREA, GAP, AREA, NO_GAP, GAP, "clear", "not shown to change"),
        (AREA, AREA, NO_GAP, AREA, LOSS, GAP, "caution", "Follows the text"),
        (AREA, AREA, NO_GAP, NO_AREA, LOSS, GAP, "alarm", "no ranking is left"),
        (AREA, AREA, NO_GAP, AREA, NO_GAP, NO_GAP, "alarm", "indication alone ranks as well"),
        (NO_AREA, AREA, GAP, NO_AREA, NO_GAP, NO_GAP, "alarm", "indication alone ranks as well"),
        (AREA, AREA, LOSS, AREA, NO_GAP, GAP, "alarm", "Ranks worse when it is told"),
        (AREA, NO_AREA, NO_GAP, AREA, NO_GAP, GAP, "caution", "than chance when it is told"),
        (NO_AREA, NO_AREA, NO_GAP, AREA, GAP, GAP, "caution", "than chance when it is told"),
    ],
)
def test_an_indication_alarms_where_the_text_answers_and_not_the_image(
    seen, told, rise, mistaken, drop, image, tone, words
):
    measured = {
        "auroc": seen,
        "auroc_told": told,
        "told_difference": rise,
        "auroc_mistaken": mistaken,
        "mistaken_difference": drop,
        "auroc_alone": NO_AREA,
        "image_difference": image,
    }
    row = IndicationAudit(
        finding="edema",
        n=9,
        mean_shift=0,
        calls_changed=0,
        **{key: _interval(*ends) for key, ends in measured.items()},
    )
    _assert_verdict(row, measured.keys() - {"auroc_alone"}, tone, words)


def test_numbers_below_0_have_a_minus_sign_and_what_is_undefined_a_dash():
    assert wording.number(-0.12, 2) == "\N{MINUS SIGN}0.12"
    assert wording.number(None) == wording.ends(None) == wording.with_ends(None) == "\N{EN DASH}"
    assert wording.share(None) == wording.p_value(None) == "\N{EN DASH}"
    assert wording.with_ends(_interval(None, 0.5, None)) == "0.500 (\N{EN DASH})"
