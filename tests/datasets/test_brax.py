from __future__ import annotations

import numpy as np
import pytest
from PIL import Image

from medllm.datasets import DATASETS, read_brax, read_dataset, select
from medllm.errors import LabelError
from medllm.phantom import make_phantom, write_dicom

_HEADER = (
    ",DicomPath,PngPath,PatientID,PatientSex,PatientAge,AccessionNumber,StudyDate,No Finding,"
    "Enlarged Cardiomediastinum,Cardiomegaly,Lung Lesion,Lung Opacity,Edema,Consolidation,"
    "Pneumonia,Atelectasis,Pneumothorax,Pleural Effusion,Pleural Other,Fracture,Support Devices,"
    "ViewPosition,Rows,Columns,Manufacturer\n"
)
_CLEAR, _MIXED = "1.0,,,,,,,,,,,,,", ",,1.0,,,,-1.0,0.0,,,,,,1.0"


def _row(number, patient, who, labels, view):
    image = f"id_{patient}/Study_1.2.{patient}/Series_1.3/image-1.4.{number}"
    return (
        f"{number},Anonymized_DICOMs/{image}.dcm,images/{image}.png,{patient},{who},20120305,"
        f"{labels},{view},2544,3056,1\n"
    )


_ROWS = (
    _row(0, "aa", "F,60,A1", _CLEAR, "PA"),
    _row(1, "aa", "F,60,A1", _CLEAR, "L"),
    _row(2, "bb", "M,85 or more,A1", _MIXED, "AP"),
    _row(3, "cc", "O,,A2", ",,,,,,,,,,,,,", "AP LLD"),
    _row(4, "cc", ",5,A2", _CLEAR, ""),
)


@pytest.fixture
def root(tmp_path):
    (tmp_path / "master_spreadsheet_update.csv").write_text(_HEADER + "".join(_ROWS))
    return tmp_path


def test_every_field_is_as_the_table_has_it(root):
    records = read_brax(root)
    assert [
        (record.patient_id, record.study_id, record.split, *record.attributes.values())
        for record in records
    ] == [
        ("aa", "aa/A1", "", "60", "F", "PA"),
        ("aa", "aa/A1", "", "60", "F", "LATERAL"),
        # The same accession number, another patient: another study.
        ("bb", "bb/A1", "", "85", "M", "AP"),
        ("cc", "cc/A2", "", "", "", "AP LLD"),
        ("cc", "cc/A2", "", "5", "", "UNKNOWN"),
    ]
    assert set(records[0].attributes) == {"age_years", "sex", "view_position"}
    assert {record.dataset for record in records} == {"brax"}
    assert [record.patient_id for record in select(records).records] == ["aa", "bb"]


def test_an_age_that_nobody_can_have_is_unknown(root):
    table = root / "master_spreadsheet_update.csv"
    table.write_text(table.read_text().replace("F,60,", "F,414,"))
    assert [r.attributes["age_years"] for r in read_brax(root)] == ["", "", "85", "", "5"]


def test_labels_are_read_by_the_policy(root):
    first, _, third, silent, _ = read_brax(root)
    assert set(first.labels.values()) == {0}
    assert len(first.labels) == 13
    assert {key for key, label in third.labels.items() if label} == {
        "cardiomegaly",
        "support_devices",
    }
    assert "consolidation" not in third.labels
    assert third.labels["pneumonia"] == 0
    assert len(third.labels) == 12
    assert silent.labels == {}
    policy = DATASETS["brax"].policy.changed("", uncertain="positive", blank="unknown")
    assert read_dataset("brax", root, policy)[2].labels == {
        "cardiomegaly": 1,
        "consolidation": 1,
        "pneumonia": 0,
        "support_devices": 1,
    }
    assert "support_devices" not in read_brax(root, policy)[0].labels


def test_png_files_are_read_and_dicom_files_where_there_are_no_others(root):
    image = "id_aa/Study_1.2.aa/Series_1.3/image-1.4.0"
    phantom = make_phantom(6, size=64)
    dicom, png = root / f"Anonymized_DICOMs/{image}.dcm", root / f"images/{image}.png"
    assert read_brax(root)[0].path == png
    dicom.parent.mkdir(parents=True)
    write_dicom(phantom, dicom)
    record = read_brax(root)[0]
    assert record.path == dicom
    assert record.radiograph().pixels.shape == (64, 64)
    png.parent.mkdir(parents=True)
    pixels = np.uint8(255 * phantom.pixels)
    Image.fromarray(pixels).save(png)
    record = read_brax(root)[0]
    assert record.path == png
    np.testing.assert_allclose(record.radiograph().pixels, pixels / 255, atol=1e-6)


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        ("85 or more", "old", "line 4: PatientAge is 'old'; wanted is a number of years"),
        ("aa,F", "aa,female", "line 2: PatientSex is 'female'; wanted is 'F' or 'M'"),
        (",aa,F", ",,F", "line 2: PatientID is blank"),
        ("-1.0", "yes", "line 4: Consolidation is 'yes'"),
        ("AccessionNumber", "Accession", "lacks the column.s. AccessionNumber"),
        ("PngPath", "Png", "lacks the column.s. PngPath"),
    ],
)
def test_what_is_odd_is_told_with_its_place(root, old, new, message):
    table = root / "master_spreadsheet_update.csv"
    table.write_text(table.read_text().replace(old, new, 1))
    with pytest.raises(LabelError, match=f"master_spreadsheet_update.csv.*{message}"):
        read_brax(root)


def test_a_blank_path_and_a_missing_table_are_told(root):
    table = root / "master_spreadsheet_update.csv"
    path = _ROWS[0].split(",")[2]
    table.write_text(table.read_text().replace(path, "", 1))
    with pytest.raises(LabelError, match="line 2: PngPath is blank"):
        read_brax(root)
    table.unlink()
    with pytest.raises(LabelError, match="master_spreadsheet_update.csv is not in"):
        read_brax(root)
