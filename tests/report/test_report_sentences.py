from dataclasses import replace

import pytest

from medllm.explanation import Check
from medllm.explanation.record import ZoneEffect
from medllm.findings import finding
from medllm.models.card import Calibration, Question
from medllm.models.prediction import FindingPrediction
from medllm.report import sentences


def called(call):
    return FindingPrediction("cardiomegaly", 2.3402, 0.5, call, "?", ("yes",), ("no",))


def test_the_impression_names_the_checks_that_forbid_a_map_without_their_sentences(
    explanations, scan
):
    refused = explanations[1]
    assert sentences.reason(refused, scan) == (
        "Explanation: do not use - it failed the deletion check, without which a map says nothing "
        "of the answer, so that no map is drawn."
    )
    assert sentences.failed_checks(replace(refused, checks=())) == "its checks do not support it"
    assert "Blurring the marked area" in sentences.why_withheld(refused, called("positive"))
    told = Check("insertion", 0.2, "", passed=False, sentence="Of insertion.")
    weighed = Check("contrast", 0.97, "", passed=False, sentence="Of contrast.")
    with_others = replace(refused, checks=(told, weighed, *refused.checks))
    assert sentences.why_withheld(with_others, called("positive")) == sentences.why_withheld(
        refused, called("positive")
    )
    assert sentences.reason(with_others, scan) == sentences.reason(refused, scan)
    moved = replace(weighed, name="stability")
    more = replace(refused, checks=(*with_others.checks, moved))
    assert sentences.failed_checks(more).startswith("it failed the deletion and stability checks,")


def test_the_impression_says_why_a_map_is_weak(explanations, scan):
    shown = explanations[0]
    told = Check("insertion", 0.2, "", passed=False, sentence="")
    for names, why in (
        (["agreement"], "it failed the agreement check"),
        (["agreement", "on-text"], "it failed the agreement and on-text checks"),
        (["unconfirmed"], "no second method could confirm it"),
        (
            ["unconfirmed", "on-text"],
            "it failed the on-text check and no second method could confirm it",
        ),
    ):
        failed = [Check(name, 0.1, "", passed=False, sentence="") for name in names]
        weak = replace(shown, verdict="weak", checks=(told, *failed))
        assert sentences.reason(weak, scan).startswith(f"Explanation: weak, since {why} - ")
    supported = replace(shown, verdict="supported", checks=(told,))
    assert sentences.reason(supported, scan).startswith("Explanation: supported - ")


def test_a_value_that_prints_like_its_threshold_is_not_said_to_be_above_it():
    question = Question("mass", "?", calibration=Calibration(low=0.3, high=0.6201, fitted_on="x"))
    said = FindingPrediction("mass", 1.0, 0.6204, "positive", "?", ("yes",), ("no",))
    assert sentences.answer(finding("mass"), question, said) == (
        "Lung mass: positive (calibrated probability 0.62, at the 0.62 threshold)."
    )


def test_a_refused_map_of_a_negative_call_says_that_an_absence_has_no_place(explanations):
    refused = explanations[1]
    # The call is the calibrated one, whatever the sign of the log-odds.
    assert refused.log_odds > 0
    no, yes = (sentences.why_withheld(refused, called(call)) for call in ("negative", "positive"))
    assert no.startswith(yes)
    assert "no place that a map could mark" in no
    assert "no place" not in yes
    difference = replace(refused, against="mass")
    assert sentences.why_withheld(difference, called("negative")) == yes
    uncalled = replace(refused, log_odds=-1.0)
    assert sentences.why_withheld(uncalled, called("indeterminate")) == yes


@pytest.mark.parametrize(
    ("probability", "said"),
    [(0.418, "lung mass 0.42 (just below the 0.42 threshold)"), (0.414, "lung mass 0.41")],
)
def test_a_negative_number_that_prints_like_its_threshold_is_said_to_be_below_it(probability, said):
    question = Question("mass", "?", calibration=Calibration(low=0.421, high=0.8, fitted_on="x"))
    answer = replace(called("negative"), finding="mass", probability=probability)
    assert sentences.negative(finding("mass"), question, answer) == said
    assert not sentences.is_close(question, replace(answer, call="indeterminate"))


def test_that_the_map_and_the_hiding_of_regions_name_another_place_is_said(explanations):
    agreeing = explanations[0]
    assert sentences.disagreement(agreeing) == ""
    outside = ZoneEffect("outside", None, 1.7, 0.1)
    disagreeing = replace(agreeing, zone_effects=(outside, *agreeing.zone_effects))
    assert sentences.disagreement(disagreeing) == (
        "The two disagree on the place that raised the answer most: the map says the patient's "
        "right lower zone, hiding whole regions says the area outside the thorax. Rely on the "
        "place only as far as both agree."
    )
    # What lowers the answer is not set against what raises it.
    lowering = replace(outside, shapley=-1.7)
    assert sentences.disagreement(replace(agreeing, zone_effects=(lowering,))) == ""
    assert sentences.disagreement(replace(disagreeing, regions=())) == ""
    assert "raised the difference" in sentences.disagreement(replace(disagreeing, against="mass"))
