"""The ImagingStudy, whatever the header lacks."""

import json

import pytest

from medllm.dicom import read_identity, read_radiograph
from medllm.report import build_report

R4B, R5 = "report.fhir-r4b.json", "report.fhir-r5.json"
DCM = "http://dicom.nema.org/resources/ontology/DCM"


def test_the_study_is_named_as_far_as_the_header_goes(report, bundles):
    written = bundles(report)
    for name, only in ((R4B, lambda m: m), (R5, lambda m: m["coding"][0])):
        study = written[name].one("ImagingStudy")
        assert study["identifier"] == [{"system": "urn:dicom:uid", "value": "urn:oid:1.2.3"}]
        assert only(study["modality"][0]) == {"system": DCM, "code": "DX"}
        (series,) = study["series"]
        assert (series["uid"], only(series["modality"])["code"]) == ("1.2.3.4", "DX")
        (instance,) = series["instance"]
        assert instance["uid"] == "1.2.3.4.5"
        assert instance["sopClass"]["code"] == "urn:oid:1.2.840.10008.5.1.4.1.1.1.1"
        assert "started" not in study
        # What else the study holds is not known.
        assert "numberOfInstances" not in study
        assert "the study can hold others" in study["note"][0]["text"]
    field = {R4B: "imagingStudy", R5: "study"}
    for name in (R4B, R5):
        (link,) = written[name].one("DiagnosticReport")[field[name]]
        assert written[name].names[link["reference"]] == "ImagingStudy"


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
def test_a_header_with_gaps_gives_a_study_with_gaps(
    report, bundles, bare, changes, series, instances
):
    for bundle in bundles(bare(report, **changes)).values():
        found = bundle.one("ImagingStudy").get("series", [])
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
def test_a_radiograph_of_no_study_says_so_and_refers_to_none(report, bundles, bare, changes, kind):
    for bundle in bundles(bare(report, **changes)).values():
        assert bundle.of("ImagingStudy") == bundle.of("ImagingSelection") == []
        for observation in bundle.of("Observation"):
            words = f"A {kind} file that names no study, SHA-256 {report.scan.sha256}"
            assert observation["derivedFrom"] == [{"display": words}]
        assert not {"study", "imagingStudy"} & set(bundle.one("DiagnosticReport"))


@pytest.mark.parametrize(
    "path", ["cr_no_file_meta_monochrome1.dcm", "nih_dx_implicit_monochrome2.dcm"]
)
def test_real_radiographs_are_encoded(data_root, tiny_model, bundles, path):
    scan = read_radiograph(data_root / "dicom" / path)
    report = build_report(scan, tiny_model.predict([scan])[0], identity=read_identity(scan.path))
    for bundle in bundles(report).values():
        assert bundle.one("ImagingStudy")["identifier"][0]["value"].endswith(
            scan.study_instance_uid
        )
