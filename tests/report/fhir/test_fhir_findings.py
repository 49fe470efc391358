"""The findings as Observations, and the regions of their maps."""

from dataclasses import replace
from math import inf, nan

import numpy as np
import pytest
from matplotlib.path import Path as Outline
from pydicom.sr.codedict import codes

from medllm.explanation.record import AttributionMap, ZoneEffect
from medllm.findings import FINDINGS
from medllm.report import build_report
from medllm.report.document import BANNER
from medllm.report.json import as_dict

R4B, R5 = "report.fhir-r4b.json", "report.fhir-r5.json"
HL7 = "http://terminology.hl7.org/CodeSystem/"


def _components(observation):
    found = {}
    for component in observation["component"]:
        (value,) = (item for key, item in component.items() if key.startswith(("value", "data")))
        at = component["code"]["text"]
        assert at not in found
        found[at] = value["value"] if isinstance(value, dict) and "value" in value else value
    return found


def _entry(report, key):
    (entry,) = (one for one in report.findings if one.finding.key == key)
    return entry


@pytest.mark.parametrize("name", [R4B, R5])
def test_every_number_is_that_of_the_json_report(report, bundles, supposing, name):
    report = supposing(report, 0.2)
    observations = bundles(report)[name].observations
    expected = as_dict(report)["findings"]
    assert list(observations) == [one["name"] for one in expected]
    for one in expected:
        found = _components(observations[one["name"]])
        calibration, explanation = one["calibration"], one.get("explanation")
        assert found["probability"] == one["probability"]
        assert found["log-odds, uncalibrated"] == one["log_odds"]
        assert found["threshold: negative below"] == calibration["low"]
        assert found["threshold: positive from"] == calibration["high"]
        assert found["calibration fitted on"] == calibration["fitted_on"]
        assert found.get("prevalence supposed") == calibration["prevalence"]
        assert found.get("explanation: verdict") == (explanation and explanation["verdict"])
        assert found.get("explanation: method") == (explanation and explanation["method"])
        checks = {f"check: {one['name']}": one for one in (explanation or {"checks": []})["checks"]}
        assert {at: value for at, value in found.items() if at.startswith("check: ")} == {
            at: check["value"] for at, check in checks.items()
        }
        for component in observations[one["name"]]["component"]:
            if check := checks.get(component["code"]["text"]):
                assert component["referenceRange"] == [{"text": check["reference"]}]
                said = "passed" if check["passed"] else "not passed"
                assert component["interpretation"] == [{"text": said}]


@pytest.mark.parametrize("name", [R4B, R5])
def test_a_call_is_a_coded_value_and_the_words_are_those_of_the_report(report, encoded, name):
    bundle = encoded[name]
    expected = {
        "positive": (codes.SCT.Present.value, "POS"),
        "indeterminate": (codes.SCT.Indeterminate.value, "IND"),
        "negative": ("272519000", "NEG"),
    }
    for entry in report.findings:
        observation = bundle.observations[entry.finding.name.capitalize()]
        value, interpretation = expected[entry.prediction.call]
        assert observation["valueCodeableConcept"]["coding"][0]["code"] == value
        assert observation["valueCodeableConcept"]["text"] == entry.prediction.call
        assert observation["interpretation"][0]["coding"][0]["code"] == interpretation
        assert observation["code"]["coding"][0]["code"] == entry.finding.code.value
        assert entry.question.text in observation["method"]["text"]
        assert [one["coding"][0]["code"] for one in observation["category"]] == ["imaging"]
        assert observation["bodySite"]["coding"][0]["code"] == "51185008"  # SNOMED CT: thorax
        notes = [note["text"] for note in observation["note"]]
        assert notes[:2] == [BANNER, f"{entry.answer} {entry.reason}"]
    found = bundle.one("DiagnosticReport")
    assert found["conclusion"].split("\n\n") == [f"{BANNER}.", *as_dict(report)["impression"]]
    assert "conclusionCode" not in found
    assert {"value": report.report_id, "type": {"text": "medllm report id"}} in found["identifier"]


def test_regions_are_outlined_in_pixels_of_the_source(report, bundles, scan):
    # Larger than the picture that the lines are drawn on, and wider than high.
    large = np.zeros((1200, 2400), dtype=np.float32)
    large[0, 0] = 1
    scan = replace(scan, pixels=large)
    explanation = _entry(report, "pneumonia").explanation
    box = (0.0, 0.0, 2400.0, 1200.0)
    explanation = replace(explanation, map=AttributionMap(explanation.map.values, box))
    changed = build_report(scan, report.prediction, [explanation], made_at=report.made_at)
    bundle = bundles(changed)[R5]
    selection = bundle.one("ImagingSelection")
    assert selection["studyUid"] == "1.2.3"
    assert selection["seriesUid"] == "1.2.3.4"
    (instance,) = selection["instance"]
    assert instance["uid"] == "1.2.3.4.5"
    outlines = [
        Outline(np.reshape(region["coordinate"], (-1, 2))) for region in instance["imageRegion2D"]
    ]
    assert all(region["regionType"] == "polyline" for region in instance["imageRegion2D"])
    values = explanation.map.values
    hot = np.unravel_index(values.argmax(), values.shape)
    assert tuple(hot) == (8, 3)
    x, y = (hot[1] + 0.5) * 200, (hot[0] + 0.5) * 100  # a patch is 200 wide and 100 high
    assert sum(outline.contains_point((x, y)) for outline in outlines) == 1
    # The area holds half of what is positive: summed over a fine grid of points.
    at = np.stack(np.meshgrid(np.arange(10, 2400, 20), np.arange(10, 1200, 20)), -1).reshape(-1, 2)
    inside = np.any([outline.contains_points(at) for outline in outlines], axis=0)
    weights = np.maximum(values, 0)[(at[:, 1] // 100), (at[:, 0] // 200)]
    # Patches are smoothed into each other before the line is drawn.
    assert weights[inside].sum() / weights.sum() == pytest.approx(0.5, abs=0.08)
    (observation,) = [one for one in bundle.of("Observation") if len(one["derivedFrom"]) == 2]
    assert observation["code"]["text"] == "Pneumonia"


def test_what_must_not_be_used_has_no_region_and_no_place_and_its_reason(report, encoded):
    bundle = encoded[R5]
    entry = _entry(report, "cardiomegaly")
    assert entry.explanation.verdict == "do not use"
    observation = bundle.observations["Cardiomegaly"]
    assert len(observation["derivedFrom"]) == 1
    assert "explanation: place" not in _components(observation)
    assert _components(observation)["explanation: verdict"] == "do not use"
    assert observation["note"][-1]["text"] == entry.withheld
    assert not [one for one in bundle.of("ImagingSelection") if "cardio" in one["code"]["text"]]
    place = _components(bundle.observations["Pneumonia"])["explanation: place"]
    assert place.startswith("strongest in the patient's right lower zone (41%")


def test_a_contrast_says_what_is_explained(compared, bundles):
    written = bundles(compared)
    for bundle in written.values():
        observation = bundle.observations["Pleural effusion"]
        found = _components(observation)
        (entry,) = (one for one in as_dict(compared)["findings"] if one["finding"] == "effusion")
        assert found["explanation: rather than"] == "cardiomegaly"
        difference = found["explanation: difference of log-odds"]
        assert difference == entry["explanation"]["log_odds"] == 0.1279 - 2.3402
        assert found["log-odds, uncalibrated"] == 0.1279
        assert _entry(compared, "effusion").contrast in [
            note["text"] for note in observation["note"]
        ]
        selections = bundle.of("ImagingSelection")
        expected = 1 if bundle is written[R5] else 0
        assert (
            sum("rather than cardiomegaly" in one["code"]["text"] for one in selections) == expected
        )


@pytest.mark.parametrize(
    ("value", "code"),
    [(nan, "not-a-number"), (inf, "positive-infinity"), (-inf, "negative-infinity")],
)
def test_a_value_that_is_not_finite_is_absent_with_its_reason(
    scan, prediction, explanations, bundles, value, code
):
    checks = tuple(replace(check, value=value) for check in explanations[0].checks)
    report = build_report(scan, prediction, [replace(explanations[0], checks=checks)])
    for bundle in bundles(report).values():
        component = bundle.observations["Pneumonia"]["component"][-1]
        assert component["dataAbsentReason"]["coding"] == [
            {"system": HL7 + "data-absent-reason", "code": code}
        ]
        assert "valueQuantity" not in component


def test_a_finding_without_a_code_has_words_alone(report, bundles):
    uncoded = replace(report.findings[3], finding=FINDINGS["pleural_thickening"])
    bundle = bundles(replace(report, findings=(*report.findings[:3], uncoded)))[R4B]
    assert bundle.observations["Pleural thickening"]["code"] == {"text": "Pleural thickening"}


@pytest.mark.parametrize("name", [R4B, R5])
def test_an_answer_without_thresholds_has_no_value_and_says_why(scan, uncalled, bundles, name):
    observation = bundles(build_report(scan, uncalled))[name].observations["Pneumonia"]
    assert "valueCodeableConcept" not in observation
    assert "interpretation" not in observation
    assert observation["dataAbsentReason"]["text"] == "not called: no threshold was chosen"
    assert observation["dataAbsentReason"]["coding"][0]["code"] == "unsupported"
    found = _components(observation)
    assert not any(at.startswith("threshold") for at in found)
    assert found["calibration fitted on"] == "not calibrated"


@pytest.mark.parametrize("name", [R4B, R5])
def test_the_place_says_where_the_hiding_of_regions_names_another(
    scan, prediction, explanations, bundles, name
):
    outside = (ZoneEffect("outside", None, 1.7, 0.1),)
    report = build_report(scan, prediction, [replace(explanations[0], zone_effects=outside)])
    found = _components(bundles(report)[name].observations["Pneumonia"])
    assert found["explanation: place"].endswith(
        "; hiding whole regions says the area outside the thorax instead"
    )
