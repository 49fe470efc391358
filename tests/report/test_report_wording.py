from dataclasses import replace

import numpy as np
import pytest
from PIL import Image

from medllm.data import Preprocessing
from medllm.dicom import read_radiograph
from medllm.dicom.radiograph import Gate
from medllm.explanation.record import Region
from medllm.findings import FINDINGS
from medllm.metrics import Estimate
from medllm.models.card import Question
from medllm.phantom import make_phantom, write_dicom
from medllm.report import view, wording
from medllm.report.gate_names import gate_name


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
        (0.99949, "0.999"),
        (0.9995, ">0.999"),
        (0.0005, "0.001"),
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


def test_a_title_has_no_article():
    keys = ("pneumonia", "mass", "enlarged_cardiomediastinum", "pleural_other", "covid_19")
    assert [wording.title(FINDINGS[key]) for key in keys] == [
        "Pneumonia",
        "Lung mass",
        "Enlarged cardiomediastinum",
        "Pleural abnormality",
        "COVID-19",
    ]


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
    ("correlation", "said"),
    [
        (0.86, "0.86, much alike"),
        (0.4, "0.40, much alike"),
        (0.39, "0.39, partly alike"),
        (0.2, "0.20, partly alike"),
        (0.19, "0.19, unlike"),
        (-0.19, "\N{MINUS SIGN}0.19, unlike"),
    ],
)
def test_maps_are_compared_without_a_word_on_the_place(correlation, said):
    # Maps that are unlike patch by patch can be strongest in the same zone.
    assert wording.alike(correlation) == said


@pytest.mark.parametrize(
    ("orientation", "end"),
    [
        (("L", "F"), "attribution)"),
        (("R", "F"), "attribution)"),
        (("A", "F"), "attribution), if the image's left is the patient's right"),
        (None, "attribution), if the image's left is the patient's right"),
    ],
)
def test_a_side_is_named_as_a_fact_only_where_the_file_says_which_is_which(
    scan, explanations, orientation, end
):
    scan = replace(scan, patient_orientation=orientation)
    said = wording.where(explanations[0], scan)
    assert said.endswith(end)
    middle = replace(explanations[0], regions=(Region("mediastinum", None, 0.5, 1.0),))
    assert wording.where(middle, scan).endswith("attribution)")


@pytest.mark.parametrize(
    ("stated", "failed", "known", "said"),
    [
        ("PA", (), ("view-unknown",), "PA"),
        (None, ("lateral-view",), ("view-unknown",), "lateral"),
        ("LL", ("lateral-view",), ("view-unknown",), "LL"),
        (None, (), ("lateral-view", "view-unknown"), "frontal"),
        (None, ("view-unknown",), ("lateral-view",), None),
        (None, (), (), None),
    ],
)
def test_the_view_is_that_which_the_input_checks_found(scan, stated, failed, known, said):
    gates = [Gate(code, "warning", code in known, "") for code in failed + known]
    assert view.view(replace(scan, view_position=stated, gates=tuple(gates))) == said


def test_a_lateral_view_has_no_sides_whatever_its_header_says(scan):
    lateral = replace(scan, gates=(Gate("lateral-view", "warning", False, "lateral"),))
    assert view.sides(scan) == ("patient's R", "L")
    assert view.sides(replace(scan, patient_orientation=("R", "F"))) == ("patient's L", "R")
    assert view.sides(lateral) is None
    assert view.supposed(lateral) == ", if the view were frontal"


@pytest.mark.parametrize(
    ("years", "said"),
    [(None, "not stated"), (54.0, "54 years"), (89.0, "89 years"), (90.0, "90 years or over")],
)
def test_an_age_over_89_is_not_told(years, said):
    assert wording.age(years) == said


@pytest.mark.parametrize(
    ("months", "said"),
    [
        (10 / 30, "under 1 month"),
        (1, "1 month"),
        (1.9, "1 month"),
        *((n, f"{n} months") for n in range(2, 24)),
        (23.9, "23 months"),
        (24, "2 years"),
        (30, "2 years"),
        (35, "2 years"),
        (42, "3 years"),
        (17 * 12 + 11, "17 years"),
        *((12 * n, f"{n} years") for n in range(3, 90)),
    ],
)
def test_an_age_is_in_completed_years_and_of_small_children_in_months(months, said):
    # As a header's Patient's Age in months becomes years.
    assert wording.age(months * (1 / 12)) == said


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


def test_an_interval_without_width_is_not_told_as_one():
    # Of 30 none was found: every resample has none too, which says nothing of how sure that is.
    assert wording.interval(Estimate(0.0, 0.0, 0.0)) == "0.00 (no interval)"
    # Of too few images DeLong's has no ends.
    nan = float("nan")
    assert wording.interval(Estimate(0.8, nan, nan)) == "0.80 (no interval)"


@pytest.mark.parametrize(
    ("value", "said"),
    [
        (1.0, "1.000"),
        (0.34286, "0.343"),
        (0.000977, "0.001"),
        (-0.00467, "\N{MINUS SIGN}0.005"),
        (-0.0001, "0.000"),
    ],
)
def test_values_of_checks_stand_below_each_other_with_as_many_decimals(value, said):
    assert wording.measured(value) == said


def test_a_contract_is_said_by_name_and_without_what_is_not_set():
    said = wording.contract(Preprocessing(size=378, unread=6, channels=3, std=(0.5, 0.4, 0.3)))
    assert said.startswith("size 378, channels 3, aspect stretch, unread 6, interpolation area")
    assert "std 0.5 0.4 0.3" in said
    assert "None" not in said


def test_test_sets_have_letters_where_there_are_several(card):
    (first, *_) = card.questions
    (known,) = first.measurements
    other = replace(known, test_set="another set")
    women = replace(known, test_set="women of it", subgroup="women")
    both = replace(first, measurements=(known, women, other))
    assert wording.letters_of_sets([both, first]) == {known.test_set: "A", "another set": "B"}
    assert wording.letters_of_sets([first, first]) == {known.test_set: ""}
    assert wording.letters_of_sets([Question("mass", "?")]) == {}
    many = replace(first, measurements=tuple(replace(known, test_set=str(at)) for at in range(28)))
    assert list(wording.letters_of_sets([many]).values())[-3:] == ["Z", "AA", "AB"]


def test_every_gate_of_a_file_has_a_name_in_words_for_either_outcome(tmp_path):
    phantom = make_phantom(1, size=128)
    Image.fromarray(np.rint(phantom.pixels * 255).astype(np.uint8)).save(tmp_path / "a.png")
    scans = (
        read_radiograph(write_dicom(phantom, tmp_path / "a.dcm")),
        read_radiograph(tmp_path / "a.png"),
    )
    gates = [gate for scan in scans for gate in scan.gates]
    assert len({gate.code for gate in gates}) > 20
    for gate in gates:
        names = {gate_name(replace(gate, passed=passed)) for passed in (True, False)}
        assert len(names) == 2
        assert gate.code not in names
