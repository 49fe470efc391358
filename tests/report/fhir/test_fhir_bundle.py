"""The Bundle as a whole: readable by another library, coded, linked, the same at a second POST."""

import json
import re
import sys
from copy import deepcopy
from dataclasses import replace
from importlib import import_module
from uuid import UUID, uuid5

import pytest
from pydantic import BaseModel
from pydicom.sr.codedict import codes

from medllm.dicom.header import Identity
from medllm.dicom.radiograph import PixelStep
from medllm.errors import ReportError
from medllm.findings import FINDINGS
from medllm.report import fhir, pdf

R4B, R5 = "report.fhir-r4b.json", "report.fhir-r5.json"
HL7 = "http://terminology.hl7.org/CodeSystem/"
SCT, DCM = "http://snomed.info/sct", "http://dicom.nema.org/resources/ontology/DCM"

LIBRARY = {R4B: "fhir.resources.R4B", R5: "fhir.resources"}


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


@pytest.mark.parametrize("name", [R4B, R5])
def test_fhir_resources_reads_the_file_and_writes_the_same(encoded, name):
    content = deepcopy(encoded[name])
    written = json.loads(_model(name, content).model_dump_json())
    for form in content.one("DiagnosticReport")["presentedForm"]:
        form["size"] = int(form["size"])
    assert written == json.loads(json.dumps(content).replace("+00:00", "Z"))


@pytest.mark.parametrize("name", [R4B, R5])
def test_every_code_is_one_of_its_value_set(report, encoded, bundles, somebody, name):
    named = replace(report, identity=somebody)
    seen = set()
    for content in (encoded[name], bundles(named)[name]):
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
def test_every_coding_is_known_by_its_code_system(report, encoded, bundles, somebody, name):
    for content in (encoded[name], bundles(replace(report, identity=somebody))[name]):
        for coding in _codings(content):
            assert _is_known(coding), coding


@pytest.mark.parametrize("name", [R4B, R5])
def test_every_reference_leads_to_a_resource_of_the_bundle_of_an_allowed_type(encoded, name):
    content = encoded[name]
    kinds = {one["fullUrl"]: one["resource"]["resourceType"] for one in content["entry"]}
    referred = set()
    for path, field, value in _elements(_model(name, content), "Bundle"):
        if to := getattr(value, "reference", None):
            referred.add(to)
            assert kinds[to] in field.json_schema_extra["enum_reference_types"], path
    unreferred = {kinds[name] for name in set(kinds) - referred}
    assert unreferred == {"DiagnosticReport"}
    assert [kinds[one["reference"]] for one in content.one("DiagnosticReport")["result"]] == [
        "Observation"
    ] * 4


@pytest.mark.parametrize("name", [R4B, R5])
def test_it_is_a_transaction_whose_resources_are_labelled_timed_and_of_the_patient(
    report, encoded, name
):
    content = encoded[name]
    assert (content["type"], content["timestamp"]) == ("transaction", report.made_at.isoformat())
    for entry in content["entry"]:
        resource = entry["resource"]
        kind = resource["resourceType"]
        by_ai = kind in ("DiagnosticReport", "Observation", "ImagingSelection")
        labels = {label["code"] for label in resource["meta"]["security"]}
        assert labels == ({"HRESCH", "AIAST"} if by_ai else {"HRESCH"})
        assert resource.get("issued") == (report.made_at.isoformat() if by_ai else None)
        if kind not in ("Device", "Patient"):
            assert content.names[resource["subject"]["reference"]] == "Patient"


def test_a_name_is_the_same_on_every_machine_and_in_every_version(encoded):
    # RFC 9562 Appendix A: the name space of URLs. What a server has is found again by this.
    urls = UUID("6ba7b811-9dad-11d1-80b4-00c04fd430c8")
    name = f"urn:uuid:{uuid5(urls, chr(10).join(('medllm', 'study', '1.2.3')))}"
    assert encoded[R5].names[name] == "ImagingStudy"


@pytest.mark.parametrize("name", [R4B, R5])
def test_a_second_post_finds_each_resource_by_its_identifier(encoded, name):
    content = encoded[name]
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
    everywhere = re.findall(r'"(\w+)": "urn:uuid:', json.dumps(content))
    assert set(everywhere) == {"fullUrl", "reference"}


def test_the_same_report_is_the_same_bytes_and_a_later_one_has_the_same_names(report, bundles):
    one, other = (fhir.encode(report, lambda _: b"%PDF") for _ in range(2))
    assert one == other
    first = bundles(report)
    later = bundles(replace(report, made_at=report.made_at.replace(year=2031), report_id="R-x"))
    assert later[R5] != first[R5]
    assert later[R5].names == first[R5].names
    assert set(first[R4B].names) < set(first[R5].names)
    kinds = [set(first[name].names.values()) for name in (R4B, R5)]
    assert kinds[1] - kinds[0] == {"ImagingSelection"}


@pytest.mark.parametrize(
    ("change", "kept"),
    [
        (lambda r: _with(r, "prediction", model_sha256="ab" * 32), {"ImagingStudy", "Patient"}),
        (lambda r: replace(r, software={**r.software, "medllm": "9"}), {"ImagingStudy", "Patient"}),
        (lambda r: _with(r, "scan", pipeline=(PixelStep("decode", "else"),)),
         {"ImagingStudy", "Device", "Patient"}),
        (lambda r: _with(r, "scan", sha256="ab" * 32), {"ImagingStudy", "Device", "Patient"}),
        (lambda r: replace(r, findings=r.findings[:2]), {"ImagingStudy", "Device", "Patient"}),
        (lambda r: replace(r, identity=Identity(patient_id="4711")), {"ImagingStudy", "Device"}),
    ],
    ids=["model", "medllm", "pixels", "image", "questions", "identity"],
)  # fmt: skip
def test_another_report_has_other_names_but_shares_what_it_refers_to(report, bundles, change, kept):
    assert _shared(bundles(report)[R5], bundles(change(report))[R5]) == kept


def test_another_prevalence_makes_another_report(report, bundles, supposing):
    shared = _shared(bundles(report)[R5], bundles(supposing(report, 0.2))[R5])
    assert shared == {"ImagingStudy", "Device", "Patient"}


def _shared(before, after):
    return {before.names[name] for name in set(before.names) & set(after.names)}


def _with(report, part, **changes):
    return replace(report, **{part: replace(getattr(report, part), **changes)})


def test_what_fhir_has_no_room_for_is_refused_without_its_words(report, bundles, bare):
    with pytest.raises(ReportError, match=r"resource\.modality.*correct the header") as caught:
        bundles(bare(report, modality="ZYXWVUT  DX"))
    assert caught.value.code == "not-fhir"
    assert "ZYXWVUT" not in str(caught.value)
    assert caught.value.__suppress_context__


def test_control_characters_are_left_out_because_fhir_has_none(report, bundles, somebody):
    who = replace(somebody, institution_name="Ward\x0b\x00 7\x1b", study_description="\x0b \x0c")
    for bundle in bundles(replace(report, identity=who)).values():
        assert bundle.one("ImagingStudy")["location"] == {"display": "Ward 7"}
        assert "description" not in bundle.one("ImagingStudy")


def test_a_missing_library_is_named_with_the_remedy(report, bundles, monkeypatch):
    monkeypatch.setitem(sys.modules, "fhir.resources.R4B.bundle", None)
    with pytest.raises(ReportError, match=r"pip install 'medllm\[clinic\]'") as caught:
        bundles(report)
    assert caught.value.code == "missing-library"


def test_the_report_writes_a_file_a_release(report, monkeypatch, tmp_path):
    monkeypatch.setattr(pdf, "encode", lambda *_: b"%PDF")
    written = report.write(tmp_path, ["fhir"])
    assert {path.name: path.read_bytes() for path in written["fhir"]} == fhir.encode(
        report, lambda _: b"%PDF"
    )
    assert [path.name for path in written["fhir"]] == [R4B, R5]
