from dataclasses import replace

from medllm.explanation import Check
from medllm.findings import finding
from medllm.models.card import Calibration, Question
from medllm.models.prediction import FindingPrediction
from medllm.report import sentences


def called(call):
    return FindingPrediction("cardiomegaly", 2.3402, 0.5, call, "?", ("yes",), ("no",))


def test_the_impression_names_failed_checks_without_their_sentences(explanations):
    refused = explanations[1]
    assert sentences.reason(refused) == (
        "Explanation: do not use - it failed 1 of 2 checks (deletion), so that no map is drawn."
    )
    assert sentences.failed_checks(replace(refused, checks=())) == "its checks do not support it"
    assert "Blurring the marked area" in sentences.why_withheld(refused, called("positive"))
    told = Check("insertion", 0.2, "", passed=False, sentence="Of insertion.")
    weighed = Check("agreement", 0.1, "", passed=False, sentence="Of agreement.")
    with_others = replace(refused, checks=(told, weighed, *refused.checks))
    assert sentences.why_withheld(with_others, called("positive")) == sentences.why_withheld(
        refused, called("positive")
    )


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
