"""The structured report, read back by highdicom, dciodvfy and dcmtk."""

import shutil
import subprocess
from collections.abc import Iterator
from dataclasses import replace
from io import BytesIO

import numpy as np
import pytest
from highdicom.sr import srread
from pydicom import Dataset
from pydicom.sr.codedict import codes

from medllm.explanation import METHODS
from medllm.explanation.record import AttributionMap, Check, OtherMethod
from medllm.findings import FINDINGS
from medllm.models.card import Question
from medllm.models.prediction import FindingPrediction
from medllm.report.dicom import seg as dicom_seg
from medllm.report.dicom import sr as dicom_sr
from medllm.report.dicom.codes import (
    ATTRIBUTION,
    PRIVATE_SCHEME,
    check_code,
    finding_code,
    method_code,
)
from medllm.report.dicom.source import read_source
from medllm.report.document import BANNER
from medllm.report.json import as_dict

PRESENCE = {"positive": "Present", "indeterminate": "Indeterminate", "negative": "Absent"}


def read_back(report):
    source = read_source(report)
    dataset = source.finish(dicom_sr.encode(report, source)["sr"])
    stream = BytesIO()
    dataset.save_as(stream, enforce_file_format=True)
    stream.seek(0)
    return srread(stream)


@pytest.fixture(scope="module")
def plain(report_of, dicom_phantoms):
    """The hand-made report of a phantom."""
    return report_of(dicom_phantoms["dx"])


@pytest.fixture(scope="module")
def sr(plain):
    """Its structured report, read back."""
    return read_back(plain)


@pytest.fixture(scope="module")
def each_sr(dicom_report):
    """The structured report of each kind of source."""
    return read_back(dicom_report)


def groups(sr):
    """The findings' groups by their keys, as highdicom reads them."""
    return {group.tracking_identifier: group for group in sr.content.get_image_measurement_groups()}


def areas(sr):
    return sr.content.get_planar_roi_measurement_groups()


def numbers(group):
    return {one.name.value: one.value for one in group.get_measurements()}


def evaluations(group):
    return {one.name.value: one.value.meaning for one in group.get_qualitative_evaluations()}


def items(item: Dataset) -> Iterator[Dataset]:
    for child in item.get("ContentSequence", ()):
        yield child
        yield from items(child)


def texts(item: Dataset) -> list[tuple[str, str]]:
    return [
        (child.ConceptNameCodeSequence[0].CodeMeaning, child.TextValue)
        for child in item.ContentSequence
        if child.ValueType == "TEXT"
    ]


def test_dciodvfy_and_dcmtk_accept_it_for_each_kind_of_source(each_sr, errors_of, tmp_path):
    assert errors_of(each_sr) == []
    if shutil.which("dsrdump") is None:
        pytest.skip("dsrdump is not installed; it is in Debian's dcmtk")
    each_sr.save_as(tmp_path / "sr.dcm")
    done = subprocess.run(  # noqa: S603 - a program found on this machine, a file made here
        ["dsrdump", "+Pl", tmp_path / "sr.dcm"],  # noqa: S607
        capture_output=True,
        text=True,
        check=True,
        timeout=60,
    )
    assert BANNER in done.stdout
    assert "UNVERIFIED" in done.stdout
    assert not [line for line in done.stderr.splitlines() if line.startswith("E:")]


def test_its_numbers_are_those_of_the_json(each_sr, dicom_report):
    read, told = groups(each_sr), as_dict(dicom_report)["findings"]
    assert list(read) == [entry["finding"] for entry in told]
    for entry in told:
        found, explained = numbers(read[entry["finding"]]), entry.get("explanation", {})
        assert found.pop("122157") == entry["probability"]
        assert found.pop("log-odds") == entry["log_odds"]
        assert found.pop("lower-threshold") == entry["calibration"]["low"]
        assert found.pop("upper-threshold") == entry["calibration"]["high"]
        assert found.pop("prevalence", None) == entry["calibration"]["prevalence"]
        assert found == {one["name"]: one["value"] for one in explained.get("checks", ())}


def test_the_prevalence_that_a_probability_supposes_is_a_number(
    report_of, dicom_phantoms, prediction
):
    first, *rest = prediction.card.questions
    moved = replace(first, calibration=replace(first.calibration, prevalence=0.083))
    said = replace(prediction, card=replace(prediction.card, questions=(moved, *rest)))
    read = groups(read_back(report_of(dicom_phantoms["dx"], said=said, why=[])))
    assert numbers(read[first.finding])["prevalence"] == 0.083
    assert all("prevalence" not in numbers(read[one.finding]) for one in rest)


def test_its_codes_are_those_of_the_json(sr, plain):
    read = groups(sr)
    for entry in as_dict(plain)["findings"]:
        group = read[entry["finding"]]
        assert group.finding_type.value == entry["code"]["value"]
        assert group.finding_type.scheme_designator == entry["code"]["scheme"]
        coded = evaluations(group)
        assert coded["121052"] == PRESENCE[entry["call"]]
        verdict = entry["explanation"]["verdict"].capitalize() if "explanation" in entry else None
        assert coded.get("verdict") == verdict
        assert coded.get("method") == ("Saliency" if verdict else None)


def test_units_are_ucum_and_each_check_has_its_bound_and_result(sr, plain):
    for group in groups(sr).values():
        assert {one.unit.scheme_designator for one in group.get_measurements()} == {"UCUM"}
        assert {one.unit.value for one in group.get_measurements()} == {"1"}
    found = [
        (
            item.ConceptNameCodeSequence[0].CodeValue,
            item.ContentSequence[0].TextValue,
            item.ContentSequence[1].ConceptCodeSequence[0].CodeMeaning,
        )
        for item in items(sr)
        if item.ValueType == "NUM"
        and "ContentSequence" in item
        and item.ConceptNameCodeSequence[0].CodingSchemeDesignator == PRIVATE_SCHEME
    ]
    assert found == [
        (check.name, check.reference, "Passed" if check.passed else "Not passed")
        for entry in plain.explained
        for check in entry.explanation.checks
    ]


def test_a_check_without_a_value_is_told_in_words_only(report_of, dicom_phantoms, explanations):
    odd = Check("contrast", float("nan"), "at most 0.95", False, "It has no value.")
    why = [replace(explanations[0], checks=(*explanations[0].checks, odd))]
    report = report_of(dicom_phantoms["dx"], why=why)
    assert "contrast" not in numbers(groups(read_back(report))["pneumonia"])


def test_it_says_first_that_no_radiologist_has_read_it(sr, plain):
    said = [
        child.get("TextValue") or child.ConceptNameCodeSequence[0].CodeMeaning
        for child in sr.ContentSequence
        if child.RelationshipType == "CONTAINS"
    ]
    wanted = [BANNER, *as_dict(plain)["impression"]]
    assert said[: len(wanted)] == wanted
    assert [gate.message for gate in plain.failed_gates] == said[
        len(wanted) : said.index("Image Library")
    ]
    assert said[said.index("Imaging Measurements") + 1 :] == [*plain.limitations, plain.report_id]


def test_it_is_complete_unverified_preliminary_and_for_research(sr):
    flags = (sr.CompletionFlag, sr.VerificationFlag, sr.PreliminaryFlag, sr.ContentQualification)
    assert flags == ("COMPLETE", "UNVERIFIED", "PRELIMINARY", "RESEARCH")
    assert "VerifyingObserverSequence" not in sr
    assert sr.SeriesDescription.startswith("AI")


def test_it_names_the_model_as_the_observer_and_as_the_algorithm(sr, plain):
    prediction = plain.prediction
    (observer,) = sr.content.get_observer_contexts()
    device = observer.observer_identifying_attributes
    assert device.name == f"medllm {plain.software['medllm']}"
    assert device.model_name == prediction.model_name
    assert device.serial_number == prediction.model_sha256
    said = texts(groups(sr)["pneumonia"][0])
    assert ("Algorithm Name", prediction.model_name) in said
    assert ("Algorithm Version", prediction.card.version) in said
    parameters = " ".join(value for name, value in said if name == "Algorithm Parameters")
    for word in (prediction.model_sha256, "integrated-gradients", "the blurred image", "1.4"):
        assert word in parameters


def test_the_device_is_the_same_for_each_image_and_another_for_another_model(
    report_of, dicom_phantoms, prediction
):
    def device(report):
        (observer,) = read_back(report).content.get_observer_contexts()
        return observer.observer_identifying_attributes.uid

    first = device(report_of(dicom_phantoms["dx"]))
    assert first == device(report_of(dicom_phantoms["cr-monochrome1"]))
    other = replace(prediction, model_sha256="d1" * 32)
    assert first != device(report_of(dicom_phantoms["dx"], said=other))


def test_an_area_is_told_as_where_the_answer_came_from_and_never_as_the_disease(sr):
    told = {area.tracking_identifier: area for area in areas(sr)}
    # Cardiomegaly's map failed, and pneumothorax is not explained.
    assert list(told) == ["Attribution of pneumonia", "Attribution of pleural effusion"]
    for area in told.values():
        assert (area.finding_type.value, area.finding_type.scheme_designator) == (
            ATTRIBUTION.value,
            PRIVATE_SCHEME,
        )
        assert area.method == codes.DCM.Saliency
        assert area.roi.graphic_type.value == "POLYLINE"
        # Half of the positive attribution, by the definition; a contour's grid misses a little.
        assert numbers(area)["share"] == pytest.approx(0.5, abs=0.01)
    assert evaluations(told["Attribution of pneumonia"])["explained"] == "Pneumonia"
    assert evaluations(told["Attribution of pleural effusion"])["verdict"] == "Weak"


def test_an_area_lies_around_the_hot_patch_of_the_source_image(each_sr, dicom_report):
    scan = dicom_report.scan
    for area, (row, column) in zip(areas(each_sr), [(8, 3), (10, 2)], strict=True):
        outline = area.roi.value
        assert np.array_equal(outline[0], outline[-1])
        centre = (column + 0.5) / 12 * scan.columns, (row + 0.5) / 12 * scan.rows
        assert (outline.min(axis=0) < centre).all()
        assert (outline.max(axis=0) > centre).all()
        # The bump of `explain` has a standard deviation of 1.2 patches.
        size = np.ptp(outline, axis=0) * 12 / (scan.columns, scan.rows)
        assert ((size > 1.5) & (size < 4)).all()
        (image,) = (child for child in area.roi.ContentSequence)
        assert image.ReferencedSOPSequence[0].ReferencedSOPInstanceUID == scan.sop_instance_uid


def test_each_part_of_a_map_is_an_area_of_one_tracked_attribution(
    report_of, dicom_phantoms, explanations
):
    values = np.zeros((12, 12))
    values[2, 2], values[9, 9] = 1.0, 0.8
    two = replace(explanations[0], map=AttributionMap(values, (0.0, 0.0, 200.0, 200.0)))
    told = areas(read_back(report_of(dicom_phantoms["dx"], why=[two])))
    assert len(told) == 2
    assert len({area.tracking_uid for area in told}) == 1
    assert [numbers(area)["share"] for area in told] == sorted(
        (numbers(area)["share"] for area in told), reverse=True
    )


def test_a_map_that_must_not_be_used_has_its_reason_and_nothing_to_draw(sr, plain):
    group = groups(sr)["cardiomegaly"]
    (entry,) = (one for one in plain.findings if one.finding.key == "cardiomegaly")
    assert ("Comment", f"{entry.answer} {entry.reason}") in texts(group[0])
    assert "do not use" in entry.reason
    assert not [item for item in items(group[0]) if item.ValueType == "SCOORD"]
    assert "Referenced Segment" not in {
        item.ConceptNameCodeSequence[0].CodeMeaning for item in items(group[0])
    }


def test_it_points_to_the_segment_of_the_same_name(sr, plain):
    source = read_source(plain)
    segments = dicom_seg.encode(plain, source)["seg"]
    pointed = {
        key: item.ReferencedSOPSequence[0]
        for key, group in groups(sr).items()
        for item in group[0].ContentSequence
        if item.ConceptNameCodeSequence[0].CodeMeaning == "Referenced Segment"
    }
    assert list(pointed) == ["pneumonia", "effusion"]
    tracked = {area.tracking_uid: area.tracking_identifier for area in areas(sr)}
    for key, reference in pointed.items():
        assert reference.ReferencedSOPInstanceUID == segments.SOPInstanceUID
        description = segments.get_segment_description(int(reference.ReferencedSegmentNumber))
        assert tracked[description.tracking_uid] == description.tracking_id
        assert FINDINGS[key].name in description.tracking_id
    evidence = {instance: series for _, series, instance, _ in sr.get_evidence()}
    assert evidence == {
        segments.SOPInstanceUID: segments.SeriesInstanceUID,
        plain.scan.sop_instance_uid: plain.scan.series_instance_uid,
    }


def test_without_a_map_it_points_to_the_image_alone(report_of, dicom_phantoms):
    report = report_of(dicom_phantoms["dx"], why=[])
    sr = read_back(report)
    assert areas(sr) == []
    assert [instance for _, _, instance, _ in sr.get_evidence()] == [report.scan.sop_instance_uid]
    assert evaluations(groups(sr)["pneumonia"]) == {"121052": "Present"}


def test_a_contrast_says_what_it_is_the_difference_of(report_of, dicom_phantoms, explanations):
    against = replace(explanations[2], log_odds=0.1279 - 2.3402, against="cardiomegaly")
    report = report_of(dicom_phantoms["dx"], why=[against])
    sr = read_back(report)
    (entry,) = report.explained
    assert ("Comment", entry.contrast) in texts(groups(sr)["effusion"][0])
    assert areas(sr)[0].tracking_identifier == (
        "Attribution of pleural effusion rather than cardiomegaly"
    )


def test_methods_are_coded_by_what_they_are():
    coded = {method: method_code(method).meaning for method in METHODS}
    assert coded.pop("grad-cam") == "Gradient-weighted class activation"
    assert set(coded.values()) == {"Saliency"}


def test_a_method_beside_the_first_one_leaves_the_areas_alone(
    report_of, dicom_phantoms, explanations
):
    beside = OtherMethod("rise", replace(explanations[0], method="rise"), 0.5)
    report = report_of(dicom_phantoms["dx"], why=[replace(explanations[0], others=(beside,))])
    assert len(areas(read_back(report))) == 1


@pytest.mark.parametrize("key", ["pleural_thickening", "enlarged_cardiomediastinum"])
def test_a_finding_without_an_official_code_has_its_key_as_a_private_one(
    key, report_of, dicom_phantoms, prediction, card, errors_of
):
    question = Question(key, FINDINGS[key].question)
    answer = FindingPrediction(key, 0.1, 0.52, "positive", "p", question.yes, question.no)
    said = replace(prediction, card=replace(card, questions=(question,)), findings=(answer,))
    sr = read_back(report_of(dicom_phantoms["dx"], said=said, why=[]))
    code = groups(sr)[key].finding_type
    assert (code.value, code.scheme_designator) == (key, PRIVATE_SCHEME)
    assert sr.CodingSchemeIdentificationSequence[0].CodingSchemeDesignator == PRIVATE_SCHEME
    assert errors_of(sr) == []


def test_each_code_fits_its_attribute():
    check = Check("completeness", 0.0, "", True, "")
    for code in (*(finding_code(one) for one in FINDINGS.values()), check_code(check)):
        assert len(code.meaning) <= 64  # VR LO
        assert len(code.scheme_designator) <= 16  # VR SH


@pytest.mark.parametrize("missing", ["PatientOrientation", "ImagerPixelSpacing", "Modality"])
def test_no_library_where_the_header_does_not_say_how_the_image_lies(
    missing, changed_phantom, report_of, errors_of
):
    sr = read_back(report_of(changed_phantom(lambda dataset: dataset.__delattr__(missing))))
    names = [child.ConceptNameCodeSequence[0].CodeMeaning for child in sr.ContentSequence]
    assert "Image Library" not in names
    assert errors_of(sr) == []


def test_an_answer_without_thresholds_has_no_presence_and_no_thresholds(
    report_of, dicom_phantoms, uncalled, errors_of
):
    read_sr = read_back(report_of(dicom_phantoms["dx"], said=uncalled))
    assert errors_of(read_sr) == []
    read = groups(read_sr)
    for key, has_them in (("pneumonia", False), ("effusion", True)):
        found = {*evaluations(read[key]), *numbers(read[key])}
        wanted = {"121052", "lower-threshold", "upper-threshold"}
        assert found & wanted == (wanted if has_them else set())
        assert {"122157", "log-odds"} < found
    assert any(
        "Pneumonia: not called (uncalibrated probability 0.87" in text
        for _, text in texts(read["pneumonia"][0])
    )


def test_a_finding_that_is_neither_called_nor_explained_has_its_numbers(
    report_of, dicom_phantoms, uncalled, errors_of
):
    read_sr = read_back(report_of(dicom_phantoms["dx"], said=uncalled, why=[]))
    assert errors_of(read_sr) == []
    group = groups(read_sr)["pneumonia"]
    assert evaluations(group) == {}
    assert set(numbers(group)) == {"122157", "log-odds"}
