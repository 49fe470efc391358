from __future__ import annotations

import csv

import pytest
from PIL import Image

from medllm.datasets import ImageRecord, LabelPolicy, find_dataset, read_dataset, read_openi, select
from medllm.errors import LabelError
from medllm.findings import FINDINGS
from medllm.phantom import make_phantom

_REPORT = """<?xml version="1.0" encoding="utf-8"?>
<eCitation>
  <meta type="rr"/>
  <uId id="CXR{uid}"/>
  <MedlineCitation><Article><Abstract>
    <AbstractText Label="COMPARISON">None.</AbstractText>
    <AbstractText Label="INDICATION">XXXX-year-old with cough &amp; fever</AbstractText>
    <AbstractText Label="FINDINGS">No pneumothorax. XXXX.</AbstractText>
    <AbstractText Label="IMPRESSION">As above.</AbstractText>
  </Abstract></Article></MedlineCitation>
  <MeSH>{major}<automatic>pneumonia</automatic></MeSH>
  {images}
</eCitation>
"""
_IMAGE = (
    '<parentImage id="{name}"><figureId>F1</figureId><caption>Xray Chest PA and Lateral'
    '</caption><panel type="single"><url>/hadoop/{name}.jpg</url></panel></parentImage>'
)
_FINDINGS = {
    *("atelectasis", "cardiomegaly", "consolidation", "copd", "edema", "effusion", "emphysema"),
    *("fibrosis", "fracture", "hernia", "infiltration", "interstitial_lung_disease"),
    *("lung_cavity", "lung_opacity", "mass", "nodule", "pleural_thickening", "pneumonia"),
    *("pneumothorax", "scoliosis", "support_devices", "tuberculosis"),
}


def _write_report(root, uid, terms, images):
    folder = root / "ecgen-radiology"
    folder.mkdir(exist_ok=True)
    (folder / f"{uid}.xml").write_text(
        _REPORT.format(
            uid=uid,
            major="".join(f"<major>{term}</major>" for term in terms),
            images="".join(_IMAGE.format(name=name) for name in images),
        ),
        encoding="utf-8",
    )


def _write_tables(root, reports, projections):
    with (root / "indiana_reports.csv").open("w", newline="") as stream:
        writer = csv.writer(stream)
        writer.writerow(
            [
                *("uid", "MeSH", "Problems", "image", "indication"),
                *("comparison", "findings", "impression"),
            ]
        )
        for uid, mesh in reports:
            problems = ";".join(term.split("/")[0] for term in mesh.split(";"))
            writer.writerow([uid, mesh, problems, "Xray Chest", "x, y", "", "a\nb", ""])
    _write_projections(root, projections)


def _write_projections(root, projections):
    lines = "".join(f"{','.join(row)}\n" for row in projections)
    (root / "indiana_projections.csv").write_text("uid,filename,projection\n" + lines)


def _xml_labels(root, *terms, blank="negative"):
    _write_report(root, "1", terms, ["CXR1_1_IM-0001-3001"])
    (record,) = read_openi(root, blank)
    return record.labels, record.attributes["quality"]


def test_the_form_in_xml_gives_an_image_a_record(tmp_path):
    _write_report(tmp_path, "10", ["normal"], ["CXR10_IM-0002-1001"])
    _write_report(
        tmp_path,
        "2",
        ["Cardiomegaly/borderline", "Pulmonary Artery/enlarged"],
        ["CXR2_IM-0652-1001", "CXR2_IM-0652-2001"],
    )
    (tmp_path / "ecgen-radiology" / "._2.xml").write_bytes(b"\0")
    _write_projections(
        tmp_path,
        [
            ("2", "2_IM-0652-1001.dcm.png", "Frontal"),
            ("2", "2_IM-0652-2001.dcm.png", "Lateral"),
        ],
    )
    front, side, other = read_openi(tmp_path)
    assert front == ImageRecord(
        dataset="openi",
        path=tmp_path / "NLMCXR_png" / "CXR2_IM-0652-1001.png",
        patient_id="2",
        labels=dict.fromkeys(_FINDINGS - {"cardiomegaly"}, 0),
        attributes={"view_position": "", "projection": "Frontal", "quality": ""},
        study_id="2",
        indication="XXXX-year-old with cough & fever",
    )
    assert set(FINDINGS) >= _FINDINGS
    assert side.path.name == "CXR2_IM-0652-2001.png"
    assert side.attributes == {"view_position": "LATERAL", "projection": "Lateral", "quality": ""}
    assert (side.patient_id, side.labels) == ("2", front.labels)
    assert (other.patient_id, other.path.name) == ("10", "CXR10_IM-0002-1001.png")
    assert other.labels == dict.fromkeys(_FINDINGS, 0)
    # The table of projections does not have it.
    assert other.attributes["view_position"] == "UNKNOWN"


def test_without_the_table_of_projections_no_view_is_known_and_none_is_scored(tmp_path):
    _write_report(tmp_path, "1", ["normal"], ["CXR1_1_IM-0001-3001", "CXR1_1_IM-0001-4001"])
    records = read_openi(tmp_path)
    assert [record.attributes["view_position"] for record in records] == ["UNKNOWN"] * 2
    with pytest.raises(LabelError, match="view UNKNOWN: 2"):
        select(records)


def test_an_image_is_found_in_the_projections_though_the_forms_name_it_otherwise(tmp_path):
    _write_report(tmp_path, "1", ["normal"], ["CXR1_1_IM-0001-3001", "CXR1_1_IM-0001-4001"])
    # The number of another study is no match.
    _write_projections(
        tmp_path,
        [
            ("1", "1_IM-0001-3001.dcm.png", "Lateral"),
            ("1", "1_IM-0001-4001.dcm.png", "Frontal"),
            ("11", "11_IM-0001-4001.dcm.png", "Lateral"),
        ],
    )
    assert [record.attributes["view_position"] for record in read_openi(tmp_path)] == [
        "LATERAL",
        "",
    ]


def test_the_form_in_tables_gives_an_image_a_record(tmp_path):
    _write_tables(
        tmp_path,
        [("1", "normal"), ("2", "Opacity/lung/base/left;Pleural Effusion/left/small")],
        [
            ("1", "1_IM-0001-4001.dcm.png", "Frontal"),
            ("1", "1_IM-0001-3001.dcm.png", "Lateral"),
            ("2", "2_IM-0652-1001.dcm.png", "Frontal"),
        ],
    )
    front, side, ill = read_openi(tmp_path)
    assert front == ImageRecord(
        dataset="openi",
        path=tmp_path / "images" / "images_normalized" / "1_IM-0001-4001.dcm.png",
        patient_id="1",
        labels=dict.fromkeys(_FINDINGS, 0),
        attributes={"view_position": "", "projection": "Frontal", "quality": ""},
        study_id="1",
        indication="x, y",
    )
    assert side.attributes["view_position"] == "LATERAL"
    assert {key for key, label in ill.labels.items() if label} == {"lung_opacity", "effusion"}
    assert [record.path.name for record in select([front, side, ill]).records] == [
        "1_IM-0001-4001.dcm.png",
        "2_IM-0652-1001.dcm.png",
    ]


@pytest.mark.parametrize(
    ("term", "positive"),
    [
        ("Cardiomegaly/mild", {"cardiomegaly"}),
        ("Calcified Granuloma/lung/upper lobe", set()),
        ("Subcutaneous  Emphysema", set()),
        ("Pulmonary Emphysema", {"emphysema"}),
        ("Emphysema", {"emphysema"}),
        ("Pericardial Effusion", set()),
        ("Pleural Effusion/bilateral/small", {"effusion"}),
        ("Hydropneumothorax/right", {"effusion", "pneumothorax"}),
        ("Cystic Fibrosis", set()),
        ("Pulmonary Fibrosis", {"fibrosis"}),
        ("Pulmonary Disease, Chronic Obstructive", {"copd"}),
        ("Hernia, Hiatal/large", {"hernia"}),
        ("Fractures, Bone/ribs/healed", {"fracture"}),
        ("Consolidation/lung/base", {"consolidation", "lung_opacity"}),
        ("Infiltrate", {"infiltration", "lung_opacity"}),
        ("Airspace Disease/focal", {"lung_opacity"}),
        ("Catheters, Indwelling/left", {"support_devices"}),
        ("Thickening/pleura/apex/bilateral", {"pleural_thickening"}),
        ("Thickening/bronchi", set()),
        # A finding after the slash is no finding.
        ("Lung/hyperdistention/nodule", set()),
        # As raw files have them: blanks and a line break at the end.
        ("Cardiomegaly   \t\n", {"cardiomegaly"}),
    ],
)
def test_the_whole_term_before_the_slash_counts(tmp_path, term, positive):
    labels, quality = _xml_labels(tmp_path, term)
    assert {key for key, label in labels.items() if label} == positive
    assert (set(labels), quality) == (_FINDINGS, "")


@pytest.mark.parametrize(
    ("terms", "label"),
    [
        (["Cardiomegaly/borderline"], None),
        (["Cardiomegaly/mild/borderline"], None),
        (["Cardiomegaly/borderline", "Cardiomegaly/mild"], 1),
        (["Nodule/borderline"], 0),
    ],
)
def test_a_borderline_finding_is_unknown_whatever_is_not_named(tmp_path, terms, label):
    labels, quality = _xml_labels(tmp_path, *terms)
    assert (labels.get("cardiomegaly"), labels["mass"], quality) == (label, 0, "")
    assert "pleural_thickening" not in _xml_labels(tmp_path, "Thickening/pleura/borderline")[0]


def test_automatic_terms_and_the_text_of_the_report_are_no_labels(tmp_path):
    # The report's automatic term is pneumonia, and its text names a pneumothorax.
    labels, _ = _xml_labels(tmp_path, "normal")
    assert (labels["pneumonia"], labels["pneumothorax"]) == (0, 0)


def test_what_is_not_named_is_negative_unless_the_policy_says_unknown(tmp_path):
    assert _xml_labels(tmp_path, "Nodule/lung", blank="unknown") == ({"nodule": 1}, "")
    assert read_dataset("openi", tmp_path)[0].labels["mass"] == 0
    assert read_dataset("openi", tmp_path, LabelPolicy(blank="unknown"))[0].labels == {"nodule": 1}
    normal, _ = _xml_labels(tmp_path, "normal", blank="unknown")
    assert normal == dict.fromkeys(_FINDINGS, 0)


@pytest.mark.parametrize(
    ("terms", "labels", "quality"),
    [
        (["No Indexing"], {}, "no indexing"),
        (
            ["Technical Quality of Image Unsatisfactory "],
            {},
            "technical quality of image unsatisfactory",
        ),
        (
            ["Technical Quality of Image Unsatisfactory ", "Cardiomegaly"],
            {"cardiomegaly": 1},
            "technical quality of image unsatisfactory",
        ),
        ([], {}, "no terms"),
        ([""], {}, "no terms"),
    ],
)
def test_a_study_without_fit_terms_stays_with_the_reason(tmp_path, terms, labels, quality):
    assert _xml_labels(tmp_path, *terms) == (labels, quality)


def test_a_record_opens_its_image(tmp_path):
    _write_report(tmp_path, "1", ["normal"], ["CXR1_1_IM-0001-3001"])
    (record,) = read_openi(tmp_path)
    record.path.parent.mkdir()
    pixels = (make_phantom(1, size=64).pixels * 255).astype("uint8")
    Image.fromarray(pixels).convert("RGB").save(record.path)  # the PNG files have three channels
    assert record.radiograph().pixels.shape == (64, 64)


def test_the_licence_is_told(tmp_path):
    dataset = find_dataset("openi")
    assert "NC-ND" in dataset.terms
    assert "weights" in dataset.caveats(tmp_path)["no-derivatives"]


def test_a_copy_of_neither_form_is_an_error(tmp_path):
    with pytest.raises(LabelError, match=r"ecgen-radiology is not in .*indiana_reports.csv"):
        read_openi(tmp_path)
    (tmp_path / "ecgen-radiology").mkdir()
    with pytest.raises(LabelError, match="holds no report"):
        read_openi(tmp_path)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("<eCitation>", "1.xml is not a report in XML"),
        ("<eCitation/>", "1.xml lacks the id of uId"),
        ('<a><uId id="CXR1"/><parentImage/></a>', "1.xml lacks the id of uId or of a parentImage"),
        ('<!DOCTYPE a [<!ENTITY b "c">]><a>&b;</a>', "1.xml declares entities"),
    ],
)
def test_a_report_that_is_none_is_named(tmp_path, text, message):
    (tmp_path / "ecgen-radiology").mkdir()
    (tmp_path / "ecgen-radiology" / "1.xml").write_text(text)
    with pytest.raises(LabelError, match=message):
        read_openi(tmp_path)


@pytest.mark.parametrize(
    ("row", "message"),
    [
        (("1", "a.png", "Oblique"), "line 2: projection is 'Oblique'; wanted is one of Frontal"),
        (("2", "a.png", "Frontal"), "line 2: its uid is not in indiana_reports.csv"),
    ],
)
def test_an_odd_row_of_the_projections_is_named(tmp_path, row, message):
    _write_tables(tmp_path, [("1", "normal")], [row])
    with pytest.raises(LabelError, match=message):
        read_openi(tmp_path)


def test_a_missing_column_is_named(tmp_path):
    _write_tables(tmp_path, [("1", "normal")], [])
    (tmp_path / "indiana_projections.csv").write_text("uid,filename\n")
    with pytest.raises(LabelError, match="lacks the column.s. projection"):
        read_openi(tmp_path)
    (tmp_path / "indiana_reports.csv").write_text("uid,Problems\n")
    with pytest.raises(LabelError, match="lacks the column.s. MeSH"):
        read_openi(tmp_path)
