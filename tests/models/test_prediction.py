from __future__ import annotations

from dataclasses import replace

import pytest

from medllm.errors import LabelError
from medllm.models import Calibration, FindingPrediction, Prediction, Question


@pytest.fixture
def predicted(tiny_model):
    """Make the prediction of one finding from its probability, thresholds and call."""

    def make(probability: float, low: float, high: float, call: str) -> Prediction:
        calibration = Calibration(low=low, high=high, fitted_on="patients")
        question = replace(tiny_model.card.questions[0], calibration=calibration)
        card = replace(tiny_model.card, questions=(question,))
        answer = FindingPrediction("pneumonia", 1.0, probability, call, "prompt", (), ())
        return Prediction("in/study.dcm", None, "1" * 64, "tiny", "0" * 64, card, (answer,))

    return make


@pytest.mark.parametrize(
    ("probability", "low", "high", "call", "words"),
    [
        (0.95, 0.2, 0.84, "positive", "0.95 positive"),
        # On both sides of a threshold that two digits do not show.
        (0.8387, 0.2, 0.8387, "positive", "0.84 positive"),
        (0.8351, 0.2, 0.8387, "indeterminate", "0.835 (below 0.839) indeterminate"),
        (0.1996, 0.2, 0.84, "negative", "0.1996 (below 0.2000) negative"),
        (0.84 - 1e-9, 0.2, 0.84, "indeterminate", "0.84 (just below 0.84) indeterminate"),
        # What is no threshold, and what is far from one, stays short.
        (0.998, 0.0, 1.0, "indeterminate", ">0.99 indeterminate"),
        (0.83, 0.2, 0.84, "indeterminate", "0.83 indeterminate"),
        (0.0049, 0.2, 0.84, "negative", "<0.01 negative"),
        (0.0051, 0.2, 0.84, "negative", "0.01 negative"),
        (0.0, 0.0, 1.0, "indeterminate", "<0.01 indeterminate"),
        (0.003, 0.004, 0.5, "negative", "0.003 (below 0.004) negative"),
        (0.0002, 0.001, 0.5, "negative", "0.0002 (below 0.0010) negative"),
        (1e-9, 2e-8, 0.5, "negative", "1e-09 (just below 2e-08) negative"),
    ],
)
def test_what_is_printed_tells_the_call(predicted, probability, low, high, call, words):
    prediction = predicted(probability, low, high, call)
    assert prediction.in_words() == (f"pneumonia {words}",)
    assert repr(prediction) == f"Prediction(study.dcm: pneumonia {words})"


def test_an_answer_that_was_never_calibrated_says_so(tiny_model, predicted):
    card = replace(tiny_model.card, questions=(Question("pneumonia", "?"),))
    prediction = replace(predicted(0.7, 0.5, 0.5, "positive"), card=card)
    assert prediction.in_words() == ("pneumonia 0.70 positive, uncalibrated",)


def test_an_answer_is_looked_up_by_its_finding(predicted):
    prediction = predicted(0.95, 0.2, 0.84, "positive")
    assert prediction["pneumonia"] is prediction.findings[0]
    with pytest.raises(LabelError, match="no answer for 'gout'; it has those for: pneumonia"):
        prediction["gout"]


def test_a_model_is_named_with_its_findings(tiny_model):
    assert repr(tiny_model) == "Model(tiny 0: pneumonia, effusion, nodule)"


def test_answers_are_rows_of_a_table(predicted):
    assert predicted(0.95, 0.2, 0.84, "positive").as_rows() == [
        {
            "path": "in/study.dcm",
            "finding": "pneumonia",
            "log_odds": 1.0,
            "probability": 0.95,
            "call": "positive",
        }
    ]
