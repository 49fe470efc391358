import pytest

from medllm.evaluate import wording
from medllm.evaluate.audit_wording import verdict
from medllm.evaluate.document import (
    ImageUseAudit,
    Interval,
    LabelNoiseAudit,
    PromptAudit,
    ShortcutAudit,
)

NOT_DEFINED = (None, None, None)


def _interval(low, value, high):
    return Interval(value=value, low=low, high=high)


@pytest.mark.parametrize(
    ("real", "blurred", "shuffled", "tone", "words"),
    [
        ((0.8, 0.85, 0.9), (0.6, 0.7, 0.79), (0.45, 0.5, 0.55), "clear", "its detail is used"),
        ((0.8, 0.85, 0.9), (0.7, 0.8, 0.85), (0.45, 0.5, 0.55), "alarm", "blurred image ranks as"),
        ((0.8, 0.85, 0.9), (0.7, 0.8, 0.84), (0.45, 0.5, 0.55), "caution", "intervals overlap"),
        ((0.6, 0.75, 0.9), (0.5, 0.6, 0.8), (0.4, 0.5, 0.6), "caution", "intervals overlap"),
        ((0.5, 0.6, 0.7), (0.5, 0.6, 0.7), (0.4, 0.5, 0.6), "caution", "better than chance, even"),
        ((0.8, 0.85, 0.9), (0.6, 0.7, 0.75), (0.51, 0.6, 0.7), "alarm", "another patient's image"),
    ],
)
def test_an_image_is_used_where_its_interval_lies_above_the_blurred_ones(
    real, blurred, shuffled, tone, words
):
    areas = {"real": real, "blurred": blurred, "shuffled": shuffled}
    common = {"finding": "edema", "n": 9, "blank_log_odds": 0, "real_log_odds": 0}
    row = ImageUseAudit(**common, **{key: _interval(*ends) for key, ends in areas.items()})
    found = verdict(row)
    assert found.tone == tone
    assert words in found.words
    for area in areas:
        assert verdict(row.model_copy(update={area: _interval(*NOT_DEFINED)})) is None


@pytest.mark.parametrize(
    ("facts", "tone"),
    [
        ((0.5, 0.55, 0.6), "clear"),
        ((0.51, 0.6, 0.69), "caution"),
        ((0.51, 0.6, 0.7), "alarm"),
        (NOT_DEFINED, None),
    ],
)
def test_facts_alarm_where_they_are_not_shown_to_tell_less_than_the_model(facts, tone):
    model = _interval(0.7, 0.75, 0.8)
    row = ShortcutAudit(
        finding="edema", facts="view", n=9, auroc=_interval(*facts), model_auroc=model
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
    ("second", "tone"),
    [
        ((0.6, 0.65, 0.7), "clear"),
        ((0.6, 0.65, 0.69), "alarm"),
        ((0.81, 0.9, 1), "alarm"),
        (NOT_DEFINED, None),
    ],
)
def test_labels_alarm_where_the_intervals_by_two_sources_lie_apart(second, tone):
    counts = dict.fromkeys(("both_positive", "only_first", "only_second", "both_negative"), 1)
    first = _interval(0.7, 0.75, 0.8)
    row = LabelNoiseAudit(
        finding="edema",
        source="other",
        n=4,
        **counts,
        kappa=None,
        auroc=first,
        auroc_second=_interval(*second),
    )
    found = verdict(row)
    assert (found and found.tone) == tone


def test_numbers_below_0_have_a_minus_sign_and_what_is_undefined_a_dash():
    assert wording.number(-0.12, 2) == "\N{MINUS SIGN}0.12"
    assert wording.number(None) == wording.ends(None) == wording.with_ends(None) == "\N{EN DASH}"
    assert wording.share(None) == wording.p_value(None) == "\N{EN DASH}"
    assert wording.with_ends(_interval(None, 0.5, None)) == "0.500 (\N{EN DASH})"
