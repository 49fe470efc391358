from dataclasses import replace

import pytest

from medllm.explanation import Check
from medllm.explanation.record import ZoneEffect
from medllm.findings import finding
from medllm.models.card import UNFITTED, Calibration, Question
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


def test_that_the_map_and_the_hiding_of_regions_name_another_place_is_said(explanations, scan):
    agreeing = explanations[0]
    assert sentences.disagreement(agreeing) == ""
    outside = ZoneEffect("outside", None, 1.7, 0.1)
    disagreeing = replace(agreeing, zone_effects=(outside, *agreeing.zone_effects))
    assert sentences.disagreement(disagreeing) == (
        "The two disagree on the place that raised the answer most: the map says the patient's "
        "right lower zone, hiding whole regions says the area outside the thorax. Rely on the "
        "place only as far as both agree."
    )
    assert sentences.reason(disagreeing, scan) == (
        "Explanation: supported - strongest in the patient's right lower zone (41% of the positive "
        "attribution); hiding whole regions says the area outside the thorax instead."
    )
    assert sentences.reason(agreeing, scan).endswith("; hiding whole regions says the same.")
    # What lowers the answer is not set against what raises it.
    lowering = replace(outside, shapley=-1.7)
    assert sentences.disagreement(replace(agreeing, zone_effects=(lowering,))) == ""
    assert sentences.disagreement(replace(disagreeing, regions=())) == ""
    assert "raised the difference" in sentences.disagreement(replace(disagreeing, against="mass"))


def test_what_a_hidden_side_supposes_is_said_where_the_maps_place_has_none(explanations, scan):
    one = explanations[0]
    unknown = replace(scan, patient_orientation=None)
    supposed = ", if the image's left is the patient's right"
    central = replace(one, regions=(replace(one.regions[2], share=0.9),))
    assert sentences.place(central, unknown) == (
        "strongest in the mediastinum (heart included) (90% of the positive attribution); hiding "
        f"whole regions says the patient's right lower zone instead{supposed}"
    )
    sided = replace(one, zone_effects=(ZoneEffect("upper", "left", 1.7, 0.1),))
    told = sentences.place(sided, unknown)
    assert f"attribution){supposed}; hiding whole regions says the patient's left upper" in told
    assert told.count(supposed) == 1


def test_the_checks_are_told_in_short_with_those_that_decide_first(explanations):
    one = explanations[0]
    assert sentences.checks_in_short(one) == "2 of 2 passed"
    assert sentences.checks_in_short(replace(one, checks=())) == "none was made"
    failed = [Check(name, 0.1, "", passed=False, sentence="") for name in ("insertion", "on-text")]
    assert sentences.checks_in_short(replace(one, checks=(*one.checks, *failed))) == (
        "2 of 4 passed; failed: on-text, insertion (decides nothing)"
    )


def test_that_no_unlike_finding_could_be_set_against_the_map_is_said(explanations):
    one = explanations[0]
    kin, unlike = Question("lung_opacity", "?"), Question("effusion", "?")
    own = Question("pneumonia", "?")
    assert sentences.no_contrast(one, [own, kin]).startswith("The model answers for no finding")
    assert sentences.no_contrast(one, [own, unlike]) == ""
    assert sentences.no_contrast(replace(one, against="effusion"), [own, unlike])
    made = Check("contrast", 0.1, "", passed=True, sentence="")
    assert sentences.no_contrast(replace(one, checks=(made,)), [own, kin]) == ""
    assert sentences.no_contrast(replace(one, checks=()), [own, kin]) == ""


@pytest.mark.parametrize(
    ("log_odds", "said"), [(-2.0, "0.12, negative"), (0.0, "0.50, indeterminate")]
)
def test_an_answer_to_another_image_is_calibrated_and_called(log_odds, said):
    question = Question("mass", "?", calibration=Calibration(low=0.3, high=0.6, fitted_on="x"))
    assert sentences.called(log_odds, question) == said
    uncalled = replace(question, calibration=UNFITTED)
    assert sentences.called(log_odds, uncalled) == said.partition(",")[0]
