from __future__ import annotations

import csv
import gzip

import numpy as np
import pytest
from PIL import Image

from medllm.datasets import ImageRecord, LabelPolicy, read_dataset, read_padchest, select
from medllm.errors import LabelError
from medllm.findings import FINDINGS
from medllm.phantom import make_phantom

_TABLE = "PADCHEST_chest_x_ray_images_labels_160K_01.02.19.csv"
# The published header, but for columns of the acquisition; the first column is an unnamed index.
_COLUMNS = (
    *("", "ImageID", "ImageDir", "StudyDate_DICOM", "StudyID", "PatientID", "PatientBirth"),
    *("PatientSex_DICOM", "ViewPosition_DICOM", "Projection", "MethodProjection", "Pediatric"),
    *("PhotometricInterpretation_DICOM", "ReportID", "Report", "MethodLabel", "Labels"),
    *("Localizations", "LabelsLocalizationsBySentence", "labelCUIS", "LocalizationsCUIS"),
)
_FINDINGS = {
    *("atelectasis", "cardiomegaly", "clavicle_fracture", "consolidation", "copd", "edema"),
    *("effusion", "emphysema", "enlarged_pulmonary_artery", "fibrosis", "fracture", "hernia"),
    *("infiltration", "lung_cavity", "mass", "mediastinal_shift", "nodule"),
    *("pleural_thickening", "pneumonia", "pneumothorax", "rib_fracture", "scoliosis"),
    *("support_devices", "tuberculosis"),
}
_ROW = {
    "ImageDir": "0",
    "StudyDate_DICOM": "20140915",
    "StudyID": "s1",
    "PatientID": "p1",
    "PatientBirth": "1930.0",
    "PatientSex_DICOM": "F",
    "ViewPosition_DICOM": "POSTEROANTERIOR",
    "Projection": "PA",
    "MethodProjection": "Manual review of DICOM fields",
    "Pediatric": "No",
    "PhotometricInterpretation_DICOM": "MONOCHROME2",
    "ReportID": "7",
    # Reports are of one line or several, and hold commas.
    "Report": "sin hallazgos , salvo\nnodulo .",
    "MethodLabel": "Physician",
    "Labels": "['normal']",
}


def _write(root, *rows, columns=_COLUMNS):
    with (root / _TABLE).open("w", newline="", encoding="utf-8") as stream:
        writer = csv.DictWriter(stream, columns, extrasaction="ignore", restval="")
        writer.writeheader()
        for index, row in enumerate(rows):
            writer.writerow({"": index, **_ROW, "ImageID": f"{index}.png", **row})


def _labels(root, text, **policy):
    _write(root, {"Labels": text})
    (record,) = read_padchest(root, **policy)
    return record.labels, record.attributes["quality"]


def _positive(root, text):
    return {key for key, label in _labels(root, text)[0].items() if label == 1}


def test_a_row_becomes_a_record(tmp_path):
    (tmp_path / "0").mkdir()
    _write(tmp_path, {"Labels": "['cardiomegaly ', ' copd signs']"})
    (record,) = read_padchest(tmp_path)
    positive = {"cardiomegaly", "copd"}
    assert record == ImageRecord(
        dataset="padchest",
        path=tmp_path / "0" / "0.png",
        patient_id="p1",
        labels={key: int(key in positive) for key in _FINDINGS},
        attributes={
            "age_years": "84",
            "sex": "F",
            "view_position": "PA",
            "projection": "PA",
            "method_label": "Physician",
            "quality": "",
        },
        study_id="s1",
    )
    assert set(FINDINGS) >= _FINDINGS


@pytest.mark.parametrize(
    ("text", "positive"),
    [
        ("['nodule']", {"nodule"}),
        ("['pseudonodule']", set()),
        ("['emphysema']", {"emphysema"}),
        ("['subcutaneous emphysema']", set()),
        ("['mass']", {"mass"}),
        ("['mediastinal mass', 'breast mass', 'soft tissue mass', 'pleural mass']", set()),
        ("['pneumothorax']", {"pneumothorax"}),
        ("['hydropneumothorax']", {"pneumothorax", "effusion"}),
        ("['pericardial effusion']", set()),
        ("['fissure thickening', 'minor fissure thickening']", set()),
        ("['vertebral compression', 'fibrotic band', 'pulmonary hypertension']", set()),
        # Kinds of a finding.
        ("['laminar atelectasis']", {"atelectasis"}),
        ("['apical pleural thickening']", {"pleural_thickening"}),
        ("['multiple nodules']", {"nodule"}),
        ("['callus rib fracture']", {"fracture", "rib_fracture"}),
        ("['air bronchogram']", {"consolidation", "infiltration"}),
        ("['ground glass pattern']", {"infiltration"}),
        ("['NSG tube', 'pacemaker']", {"support_devices"}),
        ("['COPD signs']", {"copd"}),
        # Stray spaces, and an empty label.
        ("['  pleural effusion ', '', ' loc left']", {"effusion"}),
        ("[ 'hiatal hernia' , 'scoliosis']", {"hernia", "scoliosis"}),
    ],
)
def test_labels_are_compared_whole(tmp_path, text, positive):
    assert _positive(tmp_path, text) == positive


def test_what_is_not_named_is_negative_unless_the_policy_says_unknown(tmp_path):
    labels, _ = _labels(tmp_path, "['nodule']")
    assert labels == {key: int(key == "nodule") for key in _FINDINGS}
    assert _labels(tmp_path, "['nodule']", blank="unknown") == ({"nodule": 1}, "")
    normal, _ = _labels(tmp_path, "['normal']", blank="unknown")
    assert normal == dict.fromkeys(_FINDINGS, 0)
    (record,) = read_dataset("padchest", tmp_path, LabelPolicy(blank="unknown"))
    assert record.labels == normal
    _write(tmp_path, {"Labels": "['nodule']"})
    assert read_dataset("padchest", tmp_path)[0].labels["pneumonia"] == 0


@pytest.mark.parametrize(
    ("text", "quality"),
    [
        ("", "no labels"),
        ("nan", "no labels"),
        ("[]", "no labels"),
        ("['']", "no labels"),
        ("['exclude']", "exclude"),
        ("['suboptimal study']", "suboptimal study"),
        ("['suboptimal study', 'pneumonia']", "suboptimal study"),
    ],
)
def test_an_image_without_fit_labels_stays_with_the_reason(tmp_path, text, quality):
    assert _labels(tmp_path, text) == ({}, quality)


def test_an_unchanged_image_is_positive_for_what_is_named_and_unknown_for_the_rest(tmp_path):
    assert _labels(tmp_path, "['unchanged', 'cardiomegaly']") == ({"cardiomegaly": 1}, "")


def test_remains_of_a_tuberculosis_leave_it_unknown(tmp_path):
    labels, _ = _labels(tmp_path, "['tuberculosis sequelae']")
    assert labels == dict.fromkeys(_FINDINGS - {"tuberculosis"}, 0)


def test_only_frontal_projections_are_selected(tmp_path):
    projections = ("PA", "AP", "AP_horizontal", "L", "COSTAL", "UNK", "EXCLUDE", "")
    _write(tmp_path, *({"Projection": projection} for projection in projections))
    records = read_padchest(tmp_path)
    views = [record.attributes["view_position"] for record in records]
    assert views == ["PA", "AP", "AP", "LATERAL", "COSTAL", "UNK", "EXCLUDE", "UNKNOWN"]
    assert [record.attributes["projection"] for record in records] == list(projections)
    chosen = select(records)
    assert [record.path.name for record in chosen.records] == ["0.png", "1.png", "2.png"]
    assert chosen.left_out == {
        **{"view LATERAL": 1, "view COSTAL": 1, "view UNK": 1},
        **{"view EXCLUDE": 1, "view UNKNOWN": 1},
    }


def test_the_labeller_is_an_attribute(tmp_path):
    _write(tmp_path, {}, {"MethodLabel": "RNN_model"}, {"MethodLabel": ""})
    methods = [record.attributes["method_label"] for record in read_padchest(tmp_path)]
    assert methods == ["Physician", "RNN_model", ""]


@pytest.mark.parametrize(
    ("born", "taken", "age"),
    [
        ("1930", "20140915", "84"),
        ("2013.0", "20140915.0", "1"),
        ("", "20140915", ""),
        ("None", "20140915", ""),
        ("1930", "", ""),
        ("2016", "20140915", ""),
        ("1850", "20140915", ""),
    ],
)
def test_the_age_is_that_of_the_year_of_the_study(tmp_path, born, taken, age):
    _write(tmp_path, {"PatientBirth": born, "StudyDate_DICOM": taken})
    assert read_padchest(tmp_path)[0].attributes["age_years"] == age


def test_the_sex_is_f_m_or_blank(tmp_path):
    _write(tmp_path, {}, {"PatientSex_DICOM": "M"}, {"PatientSex_DICOM": "O"})
    assert [record.attributes["sex"] for record in read_padchest(tmp_path)] == ["F", "M", ""]


def test_images_may_lie_in_one_folder_and_the_table_may_be_packed(tmp_path):
    _write(tmp_path, {"ImageDir": "54"})
    assert read_padchest(tmp_path)[0].path == tmp_path / "0.png"
    (tmp_path / "54").mkdir()
    assert read_padchest(tmp_path)[0].path == tmp_path / "54" / "0.png"
    (tmp_path / f"{_TABLE}.gz").write_bytes(gzip.compress((tmp_path / _TABLE).read_bytes()))
    (tmp_path / _TABLE).unlink()
    assert read_padchest(tmp_path)[0].path == tmp_path / "54" / "0.png"


def test_an_image_that_was_monochrome1_is_read_inverted(tmp_path):
    (tmp_path / "0").mkdir()
    _write(
        tmp_path,
        {},
        {"PhotometricInterpretation_DICOM": "MONOCHROME1"},
        {"PhotometricInterpretation_DICOM": ""},
    )
    records = read_padchest(tmp_path)
    assert [record.polarity for record in records] == ["auto", "inverted", "auto"]
    pixels = make_phantom(3, size=64, lesions=()).pixels
    stored = np.round(pixels * 4095).astype(np.uint16)
    for record, values in zip(records, (stored, 4095 - stored, stored), strict=True):
        Image.fromarray(values).save(record.path)
    plain, inverted, _ = (record.radiograph().pixels for record in records)
    # The percentile window of the inverted values is the mirror image but for rounding.
    np.testing.assert_allclose(inverted, plain, atol=1e-3)
    assert np.abs(inverted - (1 - plain)).max() > 0.5


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"Labels": "nodule"}, "line 2: Labels is 'nodule'; wanted is a list"),
        ({"Labels": "['nodule'"}, "line 2: Labels is"),
        ({"Labels": "{'nodule': 1}"}, "line 2: Labels is"),
        ({"Labels": "[1]"}, "line 2: Labels is"),
        ({"Labels": "{[]: 1}"}, "line 2: Labels is"),
        ({"MethodLabel": "RNN"}, "MethodLabel is 'RNN'; wanted is one of Physician, RNN_model"),
        ({"PhotometricInterpretation_DICOM": "RGB"}, "is 'RGB'; wanted is one of MONOCHROME1"),
        ({"PatientID": " "}, "PatientID is blank"),
        ({"ImageID": ""}, "ImageID is blank"),
        ({"PatientBirth": "19XX"}, "PatientBirth is no year"),
        ({"StudyDate_DICOM": "x"}, "PatientBirth is no year, or StudyDate_DICOM no date"),
    ],
)
def test_an_odd_value_is_an_error_that_names_the_line_and_no_patient(tmp_path, change, message):
    _write(tmp_path, {"Report": "una linea", **change})
    with pytest.raises(LabelError) as caught:
        read_padchest(tmp_path)
    assert f"{_TABLE}, line 2: " in str(caught.value)
    assert message in str(caught.value)
    assert not any(value in str(caught.value) for value in ("p1", "1930", "19XX"))


def test_a_missing_table_or_column_is_named(tmp_path):
    with pytest.raises(LabelError, match=f"{_TABLE} is not in"):
        read_padchest(tmp_path)
    _write(tmp_path, {}, columns=[name for name in _COLUMNS if name != "Labels"])
    with pytest.raises(LabelError, match="lacks the column.s. Labels"):
        read_padchest(tmp_path)
