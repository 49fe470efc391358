import pytest

from medllm.explanation.record import Region
from medllm.findings import finding
from medllm.metrics import Estimate
from medllm.models.card import Calibration, Question
from medllm.models.prediction import FindingPrediction
from medllm.report import wording


@pytest.mark.parametrize(
    ("value", "said"),
    [
        (0.0, "<0.001"),
        (0.00049, "<0.001"),
        (0.0051, "0.005"),
        (0.01, "0.01"),
        (0.5, "0.50"),
        (0.99, "0.99"),
        (0.9961, "0.996"),
        (1.0, ">0.999"),
    ],
)
def test_a_probability_is_never_said_to_be_certain(value, said):
    assert wording.probability(value) == said


@pytest.mark.parametrize(
    ("value", "said"), [(1.005, "+1.00"), (-2.5, "\N{MINUS SIGN}2.50"), (-0.004, "0.00")]
)
def test_log_odds_carry_their_sign(value, said):
    assert wording.signed(value) == said


@pytest.mark.parametrize(
    ("part", "said"),
    [
        (Region("upper", "left", 0.5, 1.0), "the patient's left upper zone"),
        (Region("mediastinum", None, 0.5, 1.0), "the mediastinum (heart included)"),
        (Region("outside", None, 0.5, 1.0), "the area outside the thorax"),
    ],
)
def test_a_side_is_the_patients(part, said):
    assert wording.region(part) == said


@pytest.mark.parametrize(
    ("years", "said"),
    [(None, "not stated"), (0.5, "6 months"), (54.0, "54 years"), (90.0, "90 years or over")],
)
def test_an_age_over_89_is_not_told(years, said):
    assert wording.age(years) == said


def test_odds_turn_with_the_sign():
    # e^1.0986 is 3.
    assert wording.odds(1.0986) == "3.0 to 1 for yes"
    assert wording.odds(-1.0986) == "3.0 to 1 for no"
    assert wording.odds(900.0) == "over 8000 to 1 for yes"


def test_a_figure_that_is_not_defined_is_not_a_number():
    nan = float("nan")
    assert wording.interval(Estimate(nan, nan, nan)) == "not defined"
    assert wording.measured(nan) == "not defined"
    assert wording.interval(Estimate(0.812, 0.764, 0.858)) == "0.81 (0.76 to 0.86)"


def test_a_value_that_prints_like_its_threshold_is_not_said_to_be_above_it():
    question = Question("mass", "?", calibration=Calibration(low=0.3, high=0.6201, fitted_on="x"))
    said = FindingPrediction("mass", 1.0, 0.6204, "positive", "?", ("yes",), ("no",))
    assert wording.answer(finding("mass"), question, said) == (
        "Lung mass: positive (calibrated probability 0.62, at the 0.62 threshold)."
    )
