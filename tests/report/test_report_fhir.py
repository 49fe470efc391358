import base64
import hashlib
import io
import json
import re
import sys
import xml.etree.ElementTree as ET
from dataclasses import replace
from importlib import import_module
from math import inf, nan
from pathlib import Path

import numpy as np
import pydicom
import pypdf
import pytest
from matplotlib.path import Path as Outline
from pydantic import BaseModel
from pydicom.sr.codedict import codes

from medllm.dicom import read_identity, read_radiograph
from medllm.dicom.header import Identity
from medllm.dicom.radiograph import PixelStep
from medllm.errors import ReportError
from medllm.explanation.record import AttributionMap
from medllm.findings import FINDINGS
from medllm.phantom import make_phantom, write_dicom
from medllm.report import build_report, fhir, html
from medllm.report.document import BANNER
from medllm.report.json import as_dict

R4B, R5 = "report.fhir-r4b.json", "report.fhir-r5.json"
LIBRARY = {R4B: "fhir.resources.R4B", R5: "fhir.resources"}
DICOM_UID = "urn:dicom:uid"
HL7 = "http://terminology.hl7.org/CodeSystem/"
SCT, DCM = "http://snomed.info/sct", "http://dicom.nema.org/resources/ontology/DCM"

# Every element of type `code` that a Bundle has: the value set that it is bound to, found at
# hl7.org/fhir/R4B/valueset-NAME.html and hl7.org/fhir/R5/valueset-NAME.html, and its codes.
# fhir.resources takes any word in their place. Of the status, only those stand here that do not
# say that a person has seen to it.
ALLOWED = {
    "Bundle.type": ("bundle-type", "transaction batch collection document message"),
    "Bundle.entry.request.method": ("http-verb", "GET HEAD POST PUT DELETE PATCH"),
    "DiagnosticReport.status": ("diagnostic-report-status", "registered partial preliminary"),
    "DiagnosticReport.text.status": ("narrative-status", "generated extensions additional empty"),
    "DiagnosticReport.presentedForm.contentType": ("mimetypes", "application/pdf text/html"),
    "DiagnosticReport.presentedForm.language": ("languages", "en"),
    "Observation.status": ("observation-status", "registered preliminary"),
    "Observation.component.valueQuantity.code": ("ucum-units", "1"),
    "ImagingStudy.status": (
        "imagingstudy-status",
        "registered available cancelled entered-in-error unknown",
    ),
    "ImagingSelection.status": ("imagingselection-status", "available entered-in-error unknown"),
    "ImagingSelection.instance.imageRegion2D.regionType": (
        "imagingselection-2dgraphictype",
        "point polyline interpolated circle ellipse",
    ),
    "Device.deviceName.type": (
        "device-nametype",
        "udi-label-name user-friendly-name patient-reported-name manufacturer-name model-name "
        "other",
    ),
    "Device.name.type": (
        "device-nametype",
        "registered-name user-friendly-name patient-reported-name",
    ),
    "Patient.gender": ("administrative-gender", "male female other unknown"),
    "Patient.name.extension.valueCode": ("name-v3-representation", "ABC SYL IDE"),
}
# Codes of HL7's own systems, from terminology.hl7.org; the others are looked up in pydicom.
HL7_CODES = {
    "observation-category": {"imaging": "Imaging"},
    "v2-0074": {"RAD": "Radiology"},
    "v2-0203": {"MR": None, "ACSN": None},
    "v3-ActReason": {"HRESCH": "healthcare research"},
    "v3-ObservationValue": {"AIAST": "Artificial Intelligence asserted"},
    "v3-ObservationInterpretation": {
        "POS": "Positive",
        "NEG": "Negative",
        "IND": "Indeterminate",
    },
    "data-absent-reason": {
        "not-a-number": None,
        "positive-infinity": None,
        "negative-infinity": None,
    },
}
MODALITIES = {"CR", "DX"}  # DICOM PS3.16 CID 29

PLANTED = Identity(
    patient_name="Zyxwvut^Quillon^Middle^Dr^III=山田^太郎=やまだ^たろう",
    patient_id="PID-4711-Q",
    patient_birth_date="19310405",
    accession_number="ACC-99812",
    study_date="20240607",
    study_time="081522",
    study_description="Thorax of the mayor",
    institution_name="Saint Nowhere Hospital",
    referring_physician_name="Vonderbar^Otto",
)


@pytest.fixture(scope="module")
def encoded(report):
    return fhir.encode(report)


@pytest.fixture
def bundles(monkeypatch):
    """Encode with the page in place of the PDF, which takes seconds and is looked at once."""

    def without(_):
        raise ReportError("WeasyPrint is not installed.", code="missing-library")

    monkeypatch.setattr(fhir.pdf, "encode", without)
    return lambda report: {name: json.loads(data) for name, data in fhir.encode(report).items()}


def _of(bundle, kind):
    found = (entry["resource"] for entry in bundle["entry"])
    return [resource for resource in found if resource["resourceType"] == kind]


def _one(bundle, kind):
    (resource,) = _of(bundle, kind)
    return resource


def _observations(bundle):
    return {one["code"]["text"]: one for one in _of(bundle, "Observation")}


def _components(observation):
    found = {}
    for component in observation["component"]:
        (value,) = (item for key, item in component.items() if key.startswith(("value", "data")))
        at = component["code"]["text"]
        assert at not in found
        found[at] = value["value"] if isinstance(value, dict) and "value" in value else value
    return found


def _model(name, content):
    return import_module(f"{LIBRARY[name]}.bundle").Bundle.model_validate(content)


def _elements(model, at):
    """Each element that fhir.resources read: its path, what it knows of it, its value."""
    if model.get_resource_type() == "Coding":
        return  # is checked with its system
    for name, field in type(model).model_fields.items():
        values = getattr(model, name)
        for value in values if isinstance(values, list) else [values]:
            if value is not None:
                path = f"{at}.{field.alias or name}"
                yield path, field, value
                if isinstance(value, BaseModel):
                    whole = path.endswith(".resource")
                    yield from _elements(value, value.get_resource_type() if whole else path)


def _entry(report, key):
    (entry,) = (one for one in report.findings if one.finding.key == key)
    return entry


def _bare(report, **changes):
    scan = replace(report.scan, **changes)
    said = replace(report.prediction, sop_instance_uid=scan.sop_instance_uid, warnings=())
    kept = [entry.explanation for entry in report.explained]
    return build_report(scan, said, kept, made_at=report.made_at, identity=report.identity)


@pytest.mark.parametrize("name", [R4B, R5])
def test_fhir_resources_reads_the_file_and_writes_the_same(encoded, name):
    content = json.loads(encoded[name])
    written = json.loads(_model(name, content).model_dump_json())
    for form in _one(content, "DiagnosticReport")["presentedForm"]:
        form["size"] = int(form["size"])
    assert written == json.loads(json.dumps(content).replace("+00:00", "Z"))


@pytest.mark.parametrize("name", [R4B, R5])
def test_every_number_is_that_of_the_json_report(report, bundles, name):
    report = _supposing(report, 0.2)
    observations = _observations(bundles(report)[name])
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
    bundle = json.loads(encoded[name])
    expected = {
        "positive": (codes.SCT.Present.value, "POS"),
        "indeterminate": (codes.SCT.Indeterminate.value, "IND"),
        "negative": ("272519000", "NEG"),
    }
    for entry in report.findings:
        observation = _observations(bundle)[entry.finding.name.capitalize()]
        value, interpretation = expected[entry.prediction.call]
        assert observation["valueCodeableConcept"]["coding"][0]["code"] == value
        assert observation["valueCodeableConcept"]["text"] == entry.prediction.call
        assert observation["interpretation"][0]["coding"][0]["code"] == interpretation
        assert observation["code"]["coding"][0]["code"] == entry.finding.code.value
        assert entry.question.text in observation["method"]["text"]
        notes = [note["text"] for note in observation["note"]]
        assert notes[:2] == [BANNER, f"{entry.answer} {entry.reason}"]
    found = _one(bundle, "DiagnosticReport")
    assert found["conclusion"].split("\n\n") == [f"{BANNER}.", *as_dict(report)["impression"]]
    assert "conclusionCode" not in found
    assert {"value": report.report_id, "type": {"text": "medllm report id"}} in found["identifier"]


@pytest.mark.parametrize("name", [R4B, R5])
def test_every_code_is_one_of_its_value_set(report, scan, encoded, bundles, name):
    named = replace(report, identity=PLANTED)
    seen = set()
    for content in (json.loads(encoded[name]), bundles(named)[name]):
        for path, field, value in _elements(_model(name, content), "Bundle"):
            known = (field.json_schema_extra or {}).get("enum_values", ["+"])
            assert value in known or known[-1] == "+", path
            if "Code()" in repr(field.annotation):
                assert value in ALLOWED[path][1].split(), path
                seen.add(path)
    only = {R4B: {"Device.deviceName.type"}, R5: {"Device.name.type"}}
    only[R5] |= {path for path in ALLOWED if path.startswith("ImagingSelection")}
    other = only[R5] if name == R4B else only[R4B]
    assert seen == set(ALLOWED) - other


def _codings(value):
    if isinstance(value, dict):
        if "system" in value and "code" in value and "value" not in value:
            yield value
        for item in value.values():
            yield from _codings(item)
    if isinstance(value, list):
        for item in value:
            yield from _codings(item)


def _is_known(coding):
    system, code, display = coding["system"], coding["code"], coding.get("display")
    if system.startswith(HL7):
        return HL7_CODES[system.removeprefix(HL7)][code] == display
    if system == "urn:ietf:rfc:3986":
        return re.fullmatch(r"urn:oid:[0-2](\.(0|[1-9]\d*))+", code)
    if system == "http://loinc.org":
        # HL7 International Patient Summary 1.0.0, ValueSet results-radiology-observations-uv-ips
        return (code, display) == ("36554-4", "XR Chest Single view")
    findings = {(one.code.value, one.code.meaning) for one in FINDINGS.values() if one.code}
    if system == DCM and code in MODALITIES:
        return display is None
    scheme = {SCT: codes.SCT, DCM: codes.DCM}[system]
    found = {(one.value, one.meaning.split(" (")[0]) for one in _concepts(scheme)}
    return (code, display) in findings | found


def _concepts(scheme):
    return [getattr(scheme, keyword) for keyword in scheme.dir() if _wanted(keyword)]


def _wanted(keyword):
    return re.match(
        "present|absent|indeterminate|thoracic|probability|artificial|image", keyword, 2
    )


@pytest.mark.parametrize("name", [R4B, R5])
def test_every_coding_is_known_by_its_code_system(report, encoded, bundles, name):
    for content in (json.loads(encoded[name]), bundles(replace(report, identity=PLANTED))[name]):
        for coding in _codings(content):
            assert _is_known(coding), coding


@pytest.mark.parametrize("name", [R4B, R5])
def test_every_reference_leads_to_a_resource_of_the_bundle_of_an_allowed_type(encoded, name):
    content = json.loads(encoded[name])
    kinds = {one["fullUrl"]: one["resource"]["resourceType"] for one in content["entry"]}
    referred = set()
    for path, field, value in _elements(_model(name, content), "Bundle"):
        if to := getattr(value, "reference", None):
            referred.add(to)
            assert kinds[to] in field.json_schema_extra["enum_reference_types"], path
    unreferred = {kinds[name] for name in set(kinds) - referred}
    assert unreferred == {"DiagnosticReport"}
    assert [kinds[one["reference"]] for one in _one(content, "DiagnosticReport")["result"]] == [
        "Observation"
    ] * 4


@pytest.mark.parametrize("name", [R4B, R5])
def test_a_second_post_finds_each_resource_by_its_identifier(encoded, name):
    content = json.loads(encoded[name])
    queries = set()
    for entry in content["entry"]:
        own = entry["resource"]["identifier"][0]
        assert entry["request"] == {
            "method": "POST",
            "url": entry["resource"]["resourceType"],
            "ifNoneExist": f"identifier={own['system']}|{own['value']}",
        }
        queries.add(entry["request"]["ifNoneExist"])
        assert "id" not in entry["resource"]
    assert len(queries) == len(content["entry"])
    # A server puts its own address wherever it finds that of the Bundle (hl7.org/fhir/http.html,
    # transaction): an identifier of the same words would be gone at the second POST.
    everywhere = re.findall(r'"(\w+)": "urn:uuid:', encoded[name].decode())
    assert set(everywhere) == {"fullUrl", "reference"}


def _names(bundle):
    return {entry["fullUrl"]: entry["resource"]["resourceType"] for entry in bundle["entry"]}


def test_the_same_report_is_the_same_bytes_and_a_later_one_has_the_same_names(report, bundles):
    first = bundles(report)
    assert bundles(report) == first
    later = bundles(replace(report, made_at=report.made_at.replace(year=2031), report_id="R-x"))
    assert later[R5] != first[R5]
    assert _names(later[R5]) == _names(first[R5])
    assert set(_names(first[R4B])) < set(_names(first[R5]))
    assert set(_names(first[R5]).values()) - set(_names(first[R4B]).values()) == {
        "ImagingSelection"
    }


@pytest.mark.parametrize(
    ("change", "kept"),
    [
        (lambda r: _with(r, "prediction", model_sha256="ab" * 32), {"ImagingStudy", "Patient"}),
        (lambda r: replace(r, software={**r.software, "medllm": "9"}), {"ImagingStudy", "Patient"}),
        (lambda r: _with(r, "scan", pipeline=(PixelStep("decode", "else"),)),
         {"ImagingStudy", "Device", "Patient"}),
        (lambda r: _with(r, "scan", sha256="ab" * 32), {"ImagingStudy", "Device"}),
        (lambda r: replace(r, findings=r.findings[:2]), {"ImagingStudy", "Device", "Patient"}),
        (lambda r: _supposing(r, 0.2), {"ImagingStudy", "Device", "Patient"}),
        (lambda r: replace(r, identity=PLANTED), {"ImagingStudy", "Device"}),
    ],
    ids=["model", "medllm", "pixels", "image", "questions", "prevalence", "identity"],
)  # fmt: skip
def test_another_report_has_other_names_but_shares_what_it_refers_to(report, bundles, change, kept):
    before, after = _names(bundles(report)[R5]), _names(bundles(change(report))[R5])
    assert {before[name] for name in set(before) & set(after)} == kept


def _supposing(report, prevalence):
    """The report by the same model, told how frequent the first finding is."""
    first, *others = report.findings
    calibration = replace(first.question.calibration, prevalence=prevalence)
    first = replace(first, question=replace(first.question, calibration=calibration))
    return replace(report, findings=(first, *others))


def _with(report, part, **changes):
    return replace(report, **{part: replace(getattr(report, part), **changes)})


@pytest.mark.usefixtures("pango")
def test_the_pdf_is_attached_whole(report, encoded):
    for name, kind in ((R4B, int), (R5, str)):  # integer64 of R5 is a string in JSON
        (form,) = _one(json.loads(encoded[name]), "DiagnosticReport")["presentedForm"]
        data = base64.b64decode(form["data"])
        assert form["contentType"] == "application/pdf"
        assert form["size"] == kind(len(data))
        digest = hashlib.sha1(data, usedforsecurity=False).digest()
        assert form["hash"] == base64.b64encode(digest).decode()
        assert BANNER in form["title"]
        pages = pypdf.PdfReader(io.BytesIO(data)).pages
        assert any(report.report_id in page.extract_text() for page in pages)


def test_where_no_pdf_can_be_made_the_page_is_attached_and_that_is_said(report, bundles, caplog):
    (form,) = _one(bundles(report)[R4B], "DiagnosticReport")["presentedForm"]
    assert form["contentType"] == "text/html"
    assert base64.b64decode(form["data"]) == html.encode(report)
    assert "HTML page in place of the PDF: WeasyPrint is not installed" in caplog.text


def test_the_narrative_is_plain_xhtml_whatever_the_model_card_says(report, bundles):
    card = replace(report.prediction.card, name="<script>x</script>", intended_use="a < b & c")
    hostile = replace(
        report,
        limitations=("It knows <b>no</b> & more.", *report.limitations),
        prediction=replace(report.prediction, card=card),
    )
    text = _one(bundles(hostile)[R5], "DiagnosticReport")["text"]
    assert text["status"] == "generated"
    root = ET.fromstring(text["div"])  # noqa: S314 - our own words
    assert {one.tag.removeprefix("{http://www.w3.org/1999/xhtml}") for one in root.iter()} == {
        *("div", "p", "b", "ul", "li")
    }
    said = ["".join(one.itertext()) for one in root]
    assert said[0] == BANNER
    assert said[1] == "Patient: female, 54 years"
    assert set(hostile.limitations) <= set(said)
    items = ["".join(one.itertext()) for one in root.iter("{http://www.w3.org/1999/xhtml}li")]
    assert items[:-1] == list(report.impression)
    assert items[-1].startswith("Input check not passed: Lossy Image Compression")


def test_the_device_is_the_model_with_its_version_and_hash(report, encoded):
    for name in (R4B, R5):
        found = _one(json.loads(encoded[name]), "Device")
        versions = {one["type"]["text"]: one["value"] for one in found["version"]}
        assert versions == {
            "medllm": report.software["medllm"],
            "model": "1.0",
            "SHA-256 of the model": "c0" * 32,
        }
        assert found["manufacturer"] == "medllm"
        names = found.get("name", found.get("deviceName"))
        assert "hand-made" in (names[0].get("value"), names[0].get("name"))


def test_the_study_is_named_as_far_as_the_header_goes(report, bundles):
    written = bundles(report)
    for name, only in ((R4B, lambda m: m), (R5, lambda m: m["coding"][0])):
        study = _one(written[name], "ImagingStudy")
        assert study["identifier"] == [{"system": DICOM_UID, "value": "urn:oid:1.2.3"}]
        assert only(study["modality"][0]) == {"system": DCM, "code": "DX"}
        (series,) = study["series"]
        assert (series["uid"], only(series["modality"])["code"]) == ("1.2.3.4", "DX")
        (instance,) = series["instance"]
        assert instance["uid"] == "1.2.3.4.5"
        assert instance["sopClass"]["code"] == "urn:oid:1.2.840.10008.5.1.4.1.1.1.1"
        assert "started" not in study
        assert "numberOfInstances" not in study  # what else the study holds is not known
    field = {R4B: "imagingStudy", R5: "study"}
    for name in (R4B, R5):
        (link,) = _one(written[name], "DiagnosticReport")[field[name]]
        assert _names(written[name])[link["reference"]] == "ImagingStudy"


@pytest.mark.parametrize(
    ("changes", "series", "instances"),
    [
        ({"series_instance_uid": None}, 0, 0),
        ({"modality": None}, 0, 0),
        ({"sop_class_uid": None}, 1, 0),
        ({"sop_instance_uid": "1." + "2" * 63}, 1, 0),
        ({"sop_instance_uid": "Zyxwvut^Quillon"}, 1, 0),
        ({"study_instance_uid": "1." + "2" * 62}, 1, 1),
    ],
    ids=str,
)
def test_a_header_with_gaps_gives_a_study_with_gaps(report, bundles, changes, series, instances):
    for bundle in bundles(_bare(report, **changes)).values():
        found = _one(bundle, "ImagingStudy").get("series", [])
        assert len(found) == series
        assert sum(len(one.get("instance", [])) for one in found) == instances
        assert "Zyxwvut" not in json.dumps(bundle)


NO_HEADER = {
    "file_format": "png",
    "gates": (),
    **dict.fromkeys(
        ("modality", "view_position", "age_years", "sex", "sop_class_uid", "sop_instance_uid",
         "series_instance_uid", "study_instance_uid", "body_part_examined", "pixel_spacing_mm",
         "spacing_source", "patient_orientation")
    ),
}  # fmt: skip


@pytest.mark.parametrize(
    ("changes", "kind"),
    [
        (NO_HEADER, "PNG"),
        ({"study_instance_uid": None}, "DICOM"),
        ({"study_instance_uid": "1." + "2" * 63}, "DICOM"),
    ],
    ids=["png", "no study", "long uid"],
)
def test_a_radiograph_of_no_study_says_so_and_refers_to_none(report, bundles, changes, kind):
    for name, bundle in bundles(_bare(report, **changes)).items():
        assert _of(bundle, "ImagingStudy") == _of(bundle, "ImagingSelection") == []
        for observation in _of(bundle, "Observation"):
            words = f"A {kind} file that names no study, SHA-256 {report.scan.sha256}"
            assert observation["derivedFrom"] == [{"display": words}]
        assert not {"study", "imagingStudy"} & set(_one(bundle, "DiagnosticReport"))
        _model(name, bundle)


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
    selection = _one(bundle, "ImagingSelection")
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
    (observation,) = [one for one in _of(bundle, "Observation") if len(one["derivedFrom"]) == 2]
    assert observation["code"]["text"] == "Pneumonia"


def test_what_must_not_be_used_has_no_region_and_no_place_and_its_reason(report, encoded):
    bundle = json.loads(encoded[R5])
    entry = _entry(report, "cardiomegaly")
    assert entry.explanation.verdict == "do not use"
    observation = _observations(bundle)["Cardiomegaly"]
    assert len(observation["derivedFrom"]) == 1
    assert "explanation: place" not in _components(observation)
    assert _components(observation)["explanation: verdict"] == "do not use"
    assert observation["note"][-1]["text"] == entry.withheld
    assert not [one for one in _of(bundle, "ImagingSelection") if "cardio" in one["code"]["text"]]
    place = _components(_observations(bundle)["Pneumonia"])["explanation: place"]
    assert place.startswith("strongest in the patient's right lower zone (41%")


def test_a_contrast_says_what_is_explained(compared, bundles):
    written = bundles(compared)
    for bundle in written.values():
        observation = _observations(bundle)["Pleural effusion"]
        found = _components(observation)
        (entry,) = (one for one in as_dict(compared)["findings"] if one["finding"] == "effusion")
        assert found["explanation: rather than"] == "cardiomegaly"
        difference = found["explanation: difference of log-odds"]
        assert difference == entry["explanation"]["log_odds"] == 0.1279 - 2.3402
        assert found["log-odds, uncalibrated"] == 0.1279
        assert _entry(compared, "effusion").contrast in [
            note["text"] for note in observation["note"]
        ]
        selections = _of(bundle, "ImagingSelection")
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
        component = _observations(bundle)["Pneumonia"]["component"][-1]
        assert component["dataAbsentReason"]["coding"] == [
            {"system": HL7 + "data-absent-reason", "code": code}
        ]
        assert "valueQuantity" not in component


def test_a_finding_without_a_code_has_words_alone(report, bundles):
    uncoded = replace(report.findings[3], finding=FINDINGS["pleural_thickening"])
    bundle = bundles(replace(report, findings=(*report.findings[:3], uncoded)))[R4B]
    assert _observations(bundle)["Pleural thickening"]["code"] == {"text": "Pleural thickening"}


def _planted_file(path):
    write_dicom(make_phantom(3, size=256), path)
    header = pydicom.dcmread(path)
    header.SpecificCharacterSet = "ISO_IR 192"
    header.PatientName, header.PatientID = PLANTED.patient_name, PLANTED.patient_id
    header.PatientBirthDate, header.AccessionNumber = "19310405", PLANTED.accession_number
    header.StudyDate, header.StudyTime = PLANTED.study_date, PLANTED.study_time
    header.StudyDescription = PLANTED.study_description
    header.InstitutionName = PLANTED.institution_name
    header.ReferringPhysicianName = PLANTED.referring_physician_name
    header.PatientComments = header.ImageComments = "seen with Zyxwvut"
    header.OtherPatientIDs = "OTHER-555"
    header.OperatorsName = "Operatrix^Una"
    header.private_block(0x0011, "PLANTED", create=True).add_new(1, "LO", "private Zyxwvut")
    header.save_as(path)
    return path


TRACES = ("Zyxwvut", "Quillon", "山田", "太郎", "やまだ", "4711", "19310405", "1931-04-05", "99812",
          "20240607", "2024-06-07", "081522", "mayor", "Nowhere", "Vonderbar", "OTHER-555",
          "Operatrix")  # fmt: skip


@pytest.fixture(scope="module")
def planted(tmp_path_factory, tiny_model):
    path = _planted_file(tmp_path_factory.mktemp("planted") / "a.dcm")
    scan = read_radiograph(path)
    return scan, tiny_model.predict([scan])[0], read_identity(path)


def test_no_trace_of_the_patient_without_with_identity(planted, bundles, caplog):
    scan, prediction, _ = planted
    report = build_report(scan, prediction)
    for bundle in bundles(report).values():
        (form,) = _one(bundle, "DiagnosticReport")["presentedForm"]
        everything = (
            json.dumps(bundle, ensure_ascii=False) + base64.b64decode(form["data"]).decode()
        )
        assert [trace for trace in TRACES if trace in everything + caplog.text] == []
        assert set(_one(bundle, "Patient")) == {"resourceType", "meta", "identifier", "gender"}
        assert "effectiveDateTime" not in json.dumps(bundle)


def test_with_identity_the_patient_and_the_order_are_named(planted, bundles):
    scan, prediction, identity = planted
    assert identity == PLANTED
    for bundle in bundles(build_report(scan, prediction, identity=identity)).values():
        patient = _one(bundle, "Patient")
        assert patient["birthDate"] == "1931-04-05"
        letters, ideographs, syllables = patient["name"]
        assert letters["extension"][0]["valueCode"] == "ABC"
        assert {key: letters[key] for key in ("family", "given", "prefix", "suffix")} == {
            "family": "Zyxwvut",
            "given": ["Quillon", "Middle"],
            "prefix": ["Dr"],
            "suffix": ["III"],
        }
        assert (ideographs["family"], ideographs["given"]) == ("山田", ["太郎"])
        assert (syllables["family"], syllables["given"]) == ("やまだ", ["たろう"])
        assert [one["extension"][0]["valueCode"] for one in (ideographs, syllables)] == [
            "IDE",
            "SYL",
        ]
        number = patient["identifier"][1]
        assert (number["type"]["coding"][0]["code"], number["value"]) == ("MR", "PID-4711-Q")
        assert "system" not in number  # which hospital gave it is not known
        found, study = _one(bundle, "DiagnosticReport"), _one(bundle, "ImagingStudy")
        assert found["basedOn"][0]["identifier"]["value"] == "ACC-99812"
        assert study["identifier"][1] == found["basedOn"][0]["identifier"]
        assert found["effectiveDateTime"] == study["started"] == "2024-06-07"
        assert {one["effectiveDateTime"] for one in _of(bundle, "Observation")} == {"2024-06-07"}
        assert study["description"] == "Thorax of the mayor"
        assert study["location"] == {"display": "Saint Nowhere Hospital"}
        assert study["referrer"] == {"display": "Vonderbar^Otto"}


@pytest.mark.parametrize("stored", ["1931", "19310231", "1931-04-05", "193104", "", None])
def test_what_is_no_date_is_left_out(report, bundles, stored):
    who = replace(PLANTED, patient_birth_date=stored, study_date=stored)
    for bundle in bundles(replace(report, identity=who)).values():
        assert "birthDate" not in _one(bundle, "Patient")
        assert "effectiveDateTime" not in _one(bundle, "DiagnosticReport")
        assert "started" not in _one(bundle, "ImagingStudy")


def test_a_patient_of_unknown_sex_has_none(report, bundles):
    bundle = bundles(replace(report, scan=replace(report.scan, sex=None)))[R4B]
    assert "gender" not in _one(bundle, "Patient")


@pytest.mark.parametrize(
    "path", ["cr_no_file_meta_monochrome1.dcm", "nih_dx_implicit_monochrome2.dcm"]
)
def test_real_radiographs_are_encoded(data_root, tiny_model, bundles, path):
    scan = read_radiograph(data_root / "dicom" / path)
    report = build_report(scan, tiny_model.predict([scan])[0], identity=read_identity(scan.path))
    for bundle in bundles(report).values():
        assert _one(bundle, "ImagingStudy")["identifier"][0]["value"].endswith(
            scan.study_instance_uid
        )


def test_what_fhir_has_no_room_for_is_refused_without_its_words(report, bundles):
    with pytest.raises(ReportError, match=r"resource\.modality.*correct the header") as caught:
        bundles(_bare(report, modality="ZYXWVUT  DX"))
    assert caught.value.code == "not-fhir"
    assert "ZYXWVUT" not in str(caught.value)
    assert caught.value.__suppress_context__


def test_control_characters_are_left_out_because_fhir_has_none(report, bundles):
    who = replace(PLANTED, institution_name="Ward\x0b\x00 7\x1b", study_description="\x0b \x0c")
    for bundle in bundles(replace(report, identity=who)).values():
        assert _one(bundle, "ImagingStudy")["location"] == {"display": "Ward 7"}
        assert "description" not in _one(bundle, "ImagingStudy")


def test_a_missing_library_is_named_with_the_remedy(report, bundles, monkeypatch):
    monkeypatch.setitem(sys.modules, "fhir.resources.R4B.bundle", None)
    with pytest.raises(ReportError, match=r"pip install 'medllm\[clinic\]'") as caught:
        bundles(report)
    assert caught.value.code == "missing-library"


def test_the_report_writes_a_file_a_release(report, bundles, tmp_path):
    bundles(report)
    written = report.write(tmp_path, ["fhir"])
    assert [path.name for path in written["fhir"]] == [R4B, R5]
    assert json.loads(Path(tmp_path / R4B).read_bytes()) == bundles(report)[R4B]
