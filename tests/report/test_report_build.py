from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path

import numpy as np
import pytest

from medllm.dicom.radiograph import Gate
from medllm.dicom.read import radiograph_of
from medllm.errors import ReportError
from medllm.metrics import Estimate
from medllm.models.measured import (
    LocalisedFinding,
    MeasuredExplanations,
    MeasuredMethod,
    UsualRange,
)
from medllm.report import build_report, html
from medllm.report.document import usual_ranges
from medllm.report.json import as_dict

MADE_AT = datetime(2025, 3, 14, 15, 9, 26, tzinfo=UTC)


def _entry(report, key):
    return next(entry for entry in report.findings if entry.finding.key == key)


def test_positive_comes_first_and_the_urgent_first_among_them(report):
    # Cardiomegaly is more probable than pneumonia and less urgent, effusion is indeterminate,
    # pneumothorax is the most urgent of all and negative.
    order = [entry.finding.key for entry in report.findings]
    assert order == ["pneumonia", "cardiomegaly", "effusion", "pneumothorax"]


def test_the_impression_says_call_threshold_and_where(report):
    entry = _entry(report, "pneumonia")
    assert entry.answer == (
        "Pneumonia: positive (calibrated probability 0.87, above the 0.62 threshold)."
    )
    assert entry.reason == (
        "Explanation: supported - strongest in the patient's right lower zone "
        "(41% of the positive attribution); hiding whole regions says the same."
    )


def test_an_indeterminate_call_names_both_thresholds(report):
    answer = _entry(report, "effusion").answer
    assert "between the thresholds 0.30 and 0.70" in answer


def test_a_probability_that_was_never_calibrated_is_called_so(report):
    assert "uncalibrated probability 0.01" in _entry(report, "pneumothorax").answer
    assert "(calibrated probability" in _entry(report, "pneumonia").answer


def test_a_map_that_must_not_be_used_is_not_drawn_and_the_reason_stands(report):
    entry = _entry(report, "cardiomegaly")
    assert entry.overlay is None
    assert (
        entry.withheld
        == "Blurring the marked area changes the answer no more than blurring others."
    )
    # The impression says which checks forbid it; what they found stands with the explanation.
    assert entry.reason == (
        "Explanation: do not use - it failed the deletion check, without which a map says nothing "
        "of the answer, so that no map is drawn."
    )
    assert _entry(report, "pneumonia").overlay is not None


def test_a_finding_without_explanation_says_so(scan, prediction):
    report = build_report(scan, prediction)
    assert {entry.reason for entry in report.findings} == {"Not explained in this report."}


def test_when_nothing_is_raised_the_impression_says_it(scan, prediction):
    negative = tuple(replace(answer, call="negative") for answer in prediction.findings)
    report = build_report(scan, replace(prediction, findings=negative))
    assert report.raised == ()
    assert report.conclusion[0] == "No finding is positive or indeterminate."


def test_two_calls_of_one_printed_number_are_told_apart(scan, prediction):
    # Cardiomegaly's lower threshold is 0.35, pneumonia's 0.381.
    said = {"cardiomegaly": (0.348, "negative"), "effusion": (0.3481, "indeterminate")}
    findings = tuple(
        replace(answer, probability=said[answer.finding][0], call=said[answer.finding][1])
        for answer in prediction.findings
        if answer.finding in said
    )
    report = build_report(scan, replace(prediction, findings=findings))
    assert report.conclusion[0] == (
        "Negative, with probability: cardiomegaly 0.35 (just below the 0.35 threshold)."
    )


def test_what_was_measured_of_single_findings_is_not_cited_of_a_contrast(
    scan, prediction, compared
):
    why = _entry(compared, "effusion").explanation
    rate = Estimate(0.42, 0.3, 0.5)
    figures = LocalisedFinding(119, rate, None, None, None)
    usual = {why.checks[0].name: UsualRange(300, 0.31, 0.97)}
    maps = {why.method: MeasuredMethod({"effusion": figures}, usual=usual)}
    card = replace(
        prediction.card,
        explanations=(MeasuredExplanations("rsna", "test", 119, 119, "1", maps),),
    )
    by_itself = replace(why, against=None, log_odds=0.1279)
    cited = {}
    for one in (by_itself, why):
        report = build_report(scan, replace(prediction, card=card), [one])
        told = as_dict(report)["model"]["explanation_measurements"]
        ranges = usual_ranges(one, one.checks[0], card)
        page = html.encode(report).decode()
        cited[one.against] = len(told), len(ranges), page.count("usually")
    assert cited == {None: (2, 1, 1), "cardiomegaly": (1, 0, 0)}


def test_failed_checks_come_first_and_the_models_own_are_kept(scan, prediction):
    own = Gate("out-of-distribution", "warning", False, "Unlike the training images.")
    refused = Gate("too-small", "error", False, "Accepted on request.")
    report = build_report(
        replace(scan, gates=(*scan.gates, refused)),
        replace(prediction, warnings=(*prediction.warnings, own)),
    )
    codes = [gate.code for gate in report.gates]
    # "lossy" is among the image's gates and the prediction's warnings, and is told once.
    assert codes == ["too-small", "lossy", "out-of-distribution", "image-size", "frontal-view"]


def test_the_limits_of_the_model_are_among_the_reports(report, card):
    assert set(card.limitations) < set(report.limitations)


def test_the_report_id_follows_from_image_model_and_time(scan, prediction):
    def report_id(**changed):
        return build_report(scan, prediction, **({"made_at": MADE_AT} | changed)).report_id

    assert report_id() == report_id()
    assert report_id() != report_id(made_at=MADE_AT.replace(second=27))


def test_a_report_is_pseudonymous_unless_asked(report):
    assert report.identity is None


@pytest.mark.parametrize(
    "changed", [{"image_sha256": "b1" * 32}, {"path": str(Path("in/DOE_JANE.dcm"))}]
)
def test_a_prediction_of_another_image_is_refused_without_naming_it(scan, prediction, changed):
    with pytest.raises(ReportError, match="another image") as caught:
        build_report(scan, replace(prediction, **changed))
    assert "DOE" not in str(caught.value)


def test_a_prediction_of_another_image_in_the_same_file_is_refused(tiny_model, tmp_path):
    values = np.random.default_rng(0).integers(256, size=(2, 96, 96), dtype=np.uint8)
    first, second = (radiograph_of(image, tmp_path / "images.npz") for image in values)
    (prediction,) = tiny_model.predict([first])
    build_report(first, prediction)
    with pytest.raises(ReportError, match="another image"):
        build_report(second, prediction)


def test_an_explanation_of_other_log_odds_is_refused(scan, prediction, explanations):
    # The difference is 0.02, twice what is taken for rounding.
    other = replace(explanations[0], log_odds=explanations[0].log_odds + 0.02)
    with pytest.raises(ReportError, match=r"log-odds 2\.515, the prediction's are 2\.495"):
        build_report(scan, prediction, [other])


def test_an_explanation_of_an_unasked_finding_is_refused(scan, prediction, explanations):
    with pytest.raises(ReportError, match="'hernia', which the prediction does not answer"):
        build_report(scan, prediction, [replace(explanations[0], finding="hernia")])


def test_two_explanations_of_one_finding_are_refused(scan, prediction, explanations):
    with pytest.raises(ReportError, match="two explanations"):
        build_report(scan, prediction, [explanations[0], explanations[0]])


def test_a_contrast_has_to_be_of_the_difference_of_the_two_answers(
    scan, prediction, explanations, compared
):
    entry = _entry(compared, "effusion")
    assert entry.reason.startswith(
        "Why pleural effusion rather than cardiomegaly (difference of log-odds "
        "\N{MINUS SIGN}2.21): weak - strongest"
    )
    assert entry.contrast.startswith(
        "The log-odds of pleural effusion are +0.13, those of cardiomegaly +2.34: the model "
        "answers yes to cardiomegaly more readily than to pleural effusion."
    )
    assert _entry(compared, "pneumonia").contrast is None
    # Its own log-odds, 0.128, and not the difference.
    by_itself = replace(explanations[2], against="cardiomegaly")
    with pytest.raises(ReportError, match=r"'effusion' against 'cardiomegaly' is of .* -2\.212"):
        build_report(scan, prediction, [by_itself])
    with pytest.raises(ReportError, match="against 'hernia', which the prediction does not answer"):
        build_report(scan, prediction, [replace(explanations[2], against="hernia")])


def test_another_methods_map_is_drawn_unless_it_must_not_be_used(compared):
    entry = _entry(compared, "pneumonia")
    drawn = {other.method: other.overlay is not None for other in entry.others}
    assert drawn == {
        "occlusion": True,
        "rise": True,
        "grad-cam": False,
        "attention-rollout": False,
    }
    withheld = [other.withheld for other in entry.others]
    assert withheld[:2] == [None, None]
    assert withheld[2].startswith("Blurring the marked area changes the answer no more")
    assert withheld[3] == "the encoder gives no attention weights."


def test_another_methods_map_is_of_the_same_answer(scan, prediction, compared):
    first = _entry(compared, "pneumonia").explanation
    other = first.others[0]
    wrong = replace(other, explanation=replace(other.explanation, log_odds=2.6))
    with pytest.raises(ReportError, match="log-odds 2.600"):
        build_report(scan, prediction, [replace(first, others=(wrong,))])


def test_all_maps_of_a_report_have_one_scale(compared):
    overlays = [
        one.overlay
        for entry in compared.findings
        for one in (entry, *entry.others)
        if one.overlay is not None
    ]
    assert len(overlays) == 4
    # One log-odds on a hundredth of the 144 patches is full colour, whatever the map.
    assert {overlay.scale for overlay in overlays} == {100 / 144}


def test_a_map_that_is_not_finite_is_refused(scan, prediction, explanations):
    values = explanations[0].map.values.copy()
    values[0, 0] = np.nan
    broken = replace(explanations[0], map=replace(explanations[0].map, values=values))
    with pytest.raises(ReportError, match="not finite"):
        build_report(scan, prediction, [broken])


@pytest.mark.parametrize("changed", [{"log_odds": float("nan")}, {"probability": 1.2}])
def test_a_number_that_is_none_is_refused(scan, prediction, changed):
    first = replace(prediction.findings[0], **changed)
    with pytest.raises(ReportError, match="finite log-odds"):
        build_report(scan, replace(prediction, findings=(first,)))


def test_a_card_of_another_model_is_refused(scan, prediction, card):
    other = replace(card, questions=card.questions[:1])
    with pytest.raises(ReportError, match="no question for 'cardiomegaly'"):
        build_report(scan, replace(prediction, card=other))


def test_a_time_without_zone_is_refused(scan, prediction):
    with pytest.raises(ValueError, match="time zone"):
        build_report(scan, prediction, made_at=datetime(2025, 3, 14))


def test_a_probability_stands_with_the_prevalence_that_it_supposes(scan, rare):
    report = build_report(scan, rare, made_at=MADE_AT)
    assert _entry(report, "pneumonia").answer == (
        "Pneumonia: positive (calibrated probability 0.87 at a supposed prevalence of 8.3%, above "
        "the 0.62 threshold)."
    )
    calm = tuple(replace(one, call="negative") for one in rare.findings)
    said = build_report(scan, replace(rare, findings=calm), made_at=MADE_AT).conclusion[1]
    assert said.startswith(
        "Negative, with probability at a supposed prevalence of 8.3%, where one is known: "
    )


def test_what_is_not_called_is_told_before_what_is_negative(scan, uncalled):
    # As probable as can be, it is not called either.
    certain = (
        replace(one, probability=1.0, call="positive") if one.finding == "pneumonia" else one
        for one in uncalled.findings
    )
    report = build_report(scan, replace(uncalled, findings=tuple(certain)), made_at=MADE_AT)
    assert [(entry.finding.key, entry.call) for entry in report.findings] == [
        ("cardiomegaly", "positive"),
        ("effusion", "indeterminate"),
        ("pneumonia", "not called"),
        ("pneumothorax", "negative"),
    ]
    assert report.impression[2].startswith("Pneumonia: not called (uncalibrated probability >0.999")
