import copy
import json
from dataclasses import replace
from pathlib import Path

import jsonschema
import numpy as np
import pytest

from medllm.dicom.header import Identity
from medllm.findings import FINDINGS
from medllm.metrics import Estimate
from medllm.models.measured import (
    LocalisedFinding,
    MeasuredExplanations,
    MeasuredMethod,
    UsualRange,
)
from medllm.report import build_report, html
from medllm.report.json import as_dict, encode

SCHEMA = json.loads(
    (Path(__file__).parents[2] / "docs" / "reference" / "report.schema.json").read_text()
)


def _closed(schema):
    """The same schema without room for keys that it does not describe."""
    if isinstance(schema, dict):
        closed = {key: _closed(value) for key, value in schema.items()}
        if "properties" in schema and "required" in schema:
            closed["additionalProperties"] = False
        return closed
    return [_closed(item) for item in schema] if isinstance(schema, list) else schema


def _violations(content, schema=SCHEMA):
    return [error.message for error in jsonschema.Draft202012Validator(schema).iter_errors(content)]


def test_what_was_measured_of_the_method_that_explained_is_cited(scan, prediction, explanations):
    estimate = Estimate(0.42, 0.3, 0.5)
    figures = LocalisedFinding(119, estimate, Estimate(0.6, 0.5, 0.7), estimate, None)
    maps = {
        explanations[0].method: MeasuredMethod({explanations[0].finding: figures}),
        "another-method": MeasuredMethod({explanations[0].finding: figures}),
    }
    kept = MeasuredExplanations("rsna", "test", 119, 119, "1", maps)
    card = replace(prediction.card, explanations=(kept,))
    report = build_report(scan, replace(prediction, card=card), explanations)
    (stated, cited) = as_dict(report)["model"]["explanation_measurements"]
    assert stated == "Hit rate 0.71 on drawn opacities."
    name = FINDINGS[explanations[0].finding].name
    assert cited == (
        f"On 119 radiographs of rsna (test) with an outline of {name}, the strongest point of "
        f"{explanations[0].method} lay in the outline in 42% (95% interval 30% to 50%), that of a "
        "fixed map, the same for all, in 60% (95% interval 50% to 70%)."
    )
    page = html.encode(report).decode()
    assert f"<li>{cited}</li>" in page


def test_the_schema_is_one():
    jsonschema.Draft202012Validator.check_schema(SCHEMA)


def test_the_file_follows_the_schema_and_every_key_is_described(report):
    content = json.loads(encode(report))
    assert _violations(content) == []
    assert _violations(content, _closed(SCHEMA)) == []


def test_a_contrast_and_other_methods_follow_the_schema(compared):
    content = json.loads(encode(compared))
    assert _violations(content, _closed(SCHEMA)) == []
    findings = {entry["finding"]: entry for entry in content["findings"]}
    rather = findings["effusion"]
    assert rather["explanation"]["against"] == "cardiomegaly"
    assert "Why pleural effusion rather than cardiomegaly" in rather["reason"]
    first = findings["pneumonia"]["explanation"]
    assert first["against"] is None
    assert [other["method"] for other in first["others"]] == [
        "occlusion",
        "rise",
        "grad-cam",
        "attention-rollout",
    ]
    assert [other["correlation"] for other in first["others"]] == [0.863, -0.191, 0.124, None]
    assert first["others"][2]["explanation"]["verdict"] == "do not use"
    assert first["others"][3]["explanation"] is None
    assert first["others"][3]["refusal"] == "the encoder gives no attention weights."


def test_a_picture_without_header_follows_the_schema(scan, prediction):
    bare = type(scan)(pixels=scan.pixels, path=scan.path, file_format="png", sha256=scan.sha256)
    report = build_report(bare, replace(prediction, sop_instance_uid=None, warnings=()))
    assert _violations(json.loads(encode(report)), _closed(SCHEMA)) == []


@pytest.mark.parametrize(
    ("path", "value"),
    [
        (("findings", 0, "call"), "likely"),
        (("findings", 0, "probability"), 1.2),
        (("findings", 0, "explanation", "verdict"), "good"),
        (("findings", 0, "explanation", "map", "values"), [0.1]),
        (("image", "sha256"), "abc"),
        (("schema_version",), 2),
    ],
)
def test_the_schema_refuses_what_it_should(report, path, value):
    content = copy.deepcopy(as_dict(report))
    at = content
    for key in path[:-1]:
        at = at[key]
    at[path[-1]] = value
    assert _violations(content)


def test_written_and_read_back_is_equal(report):
    assert json.loads(encode(report)) == as_dict(report)


def test_the_map_read_back_is_the_map(report, explanations):
    read = json.loads(encode(report))["findings"][0]["explanation"]["map"]
    values = np.array(read["values"])
    assert values.shape == (read["rows"], read["columns"])
    np.testing.assert_array_equal(values, explanations[0].map.values)
    assert tuple(read["box"]) == explanations[0].map.box


def test_a_value_that_is_not_defined_is_null(scan, prediction, explanations):
    checks = tuple(replace(check, value=float("nan")) for check in explanations[0].checks)
    report = build_report(scan, prediction, [replace(explanations[0], checks=checks)])
    content = json.loads(encode(report))
    assert content["findings"][0]["explanation"]["checks"][0]["value"] is None
    assert b"NaN" not in encode(report)
    assert _violations(content) == []


def test_a_finding_without_explanation_has_no_such_key(report):
    content = as_dict(report)["findings"]
    assert [entry["finding"] for entry in content if "explanation" not in entry] == ["pneumothorax"]


def test_identity_is_there_only_when_asked_for(scan, prediction, report):
    assert as_dict(report)["patient"]["identity"] is None
    named = build_report(scan, prediction, identity=Identity(patient_id="P-1"))
    content = json.loads(encode(named))
    assert content["patient"]["identity"]["patient_id"] == "P-1"
    assert _violations(content, _closed(SCHEMA)) == []


def test_the_path_is_left_out_because_it_can_hold_a_name(report):
    assert b"a.dcm" not in encode(report)


def test_a_check_stands_beside_what_its_value_usually_is(scan, prediction, explanations):
    own = explanations[0]
    check = own.checks[0].name
    ranges = {"phantom": UsualRange(300, 0.31, 0.97), "rsna": UsualRange(40, -0.1, 0.5)}
    kept = [
        MeasuredExplanations(
            name, "all", one.n, one.n, "1", {own.method: MeasuredMethod({}, usual={check: one})}
        )
        for name, one in ranges.items()
    ]
    card = replace(prediction.card, explanations=tuple(kept))
    report = build_report(scan, replace(prediction, card=card), [own])
    content = json.loads(encode(report))
    assert not _violations(content, _closed(SCHEMA))
    (told,) = [entry for entry in content["findings"] if entry["finding"] == own.finding]
    first, *others = told["explanation"]["checks"]
    assert first["usual"] == {
        "phantom": {"n": 300, "low": 0.31, "high": 0.97},
        "rsna": {"n": 40, "low": -0.1, "high": 0.5},
    }
    assert all(other["usual"] == {} for other in others)
    page = html.encode(report).decode()
    assert (
        "usually 0.310 to 0.970 on phantom, n = 300; \N{MINUS SIGN}0.100 to 0.500 on rsna" in page
    )
    assert page.count("usually") == 1
