from __future__ import annotations

import json

import pytest

from medllm.datasets import DATASETS, read_rsna
from medllm.errors import LabelError
from medllm.phantom import make_phantom, write_dicom

_HEADER = "patientId,x,y,width,height,Target\n"
# Image b has two boxes, and so two rows; blanks where there is none.
_TABLE = _HEADER + "a,,,,,0\nb,264.0,152.0,213.0,379.0,1\nb,562.0,152.0,256.0,453.0,1\nc,,,,,0\n"
_CLASSES = (
    "patientId,class\na,No Lung Opacity / Not Normal\nb,Lung Opacity\nb,Lung Opacity\nc,Normal\n"
)
_MAPPING = "pneumonia-challenge-dataset-mappings_2018.json"
_ENTRIES = [
    {"subset_img_id": "a", "img_id": "00000007_003.png", "orig_labels": ["Pneumonia", "Edema"]},
    {"subset_img_id": "b", "img_id": "00012345_000.png", "orig_labels": ["No Finding"]},
    {"subset_img_id": "c", "img_id": "00000007_011.png"},
    {"subset_img_id": "of the test part", "img_id": "00000009_000.png", "orig_labels": []},
]
_FIRST, _SECOND = (264.0, 152.0, 213.0, 379.0), (562.0, 152.0, 256.0, 453.0)


@pytest.fixture
def rsna(tmp_path):
    (tmp_path / "stage_2_train_labels.csv").write_text(_TABLE)
    (tmp_path / "stage_2_detailed_class_info.csv").write_text(_CLASSES)
    return tmp_path


def test_each_image_has_one_record_with_all_its_boxes(rsna):
    (rsna / "stage_2_train_images").mkdir()
    phantom = make_phantom(1, size=64)
    write_dicom(phantom, rsna / "stage_2_train_images" / "b.dcm")
    records = read_rsna(rsna)
    assert [record.path.name for record in records] == ["a.dcm", "b.dcm", "c.dcm"]
    assert [record.labels for record in records] == [
        {"pneumonia": 0, "lung_opacity": 0},
        {"pneumonia": 1, "lung_opacity": 1},
        {"pneumonia": 0, "lung_opacity": 0},
    ]
    assert [record.boxes for record in records] == [
        {},
        {"pneumonia": (_FIRST, _SECOND), "lung_opacity": (_FIRST, _SECOND)},
        {},
    ]
    assert [record.attributes for record in records] == [
        {"rsna_class": "No Lung Opacity / Not Normal"},
        {"rsna_class": "Lung Opacity"},
        {"rsna_class": "Normal"},
    ]
    assert {(r.dataset, r.split, r.study_id) for r in records} == {("rsna", "", "")}
    assert records[1].radiograph().view_position == phantom.view
    assert not records[0].path.exists()


def test_without_the_mapping_each_image_is_a_patient_and_that_is_said(rsna):
    records = read_rsna(rsna)
    assert [record.patient_id for record in records] == ["a", "b", "c"]
    assert all(record.other_labels == {} for record in records)
    caveats = DATASETS["rsna"].caveats(rsna)
    assert set(caveats) == {"patients-unknown"}
    assert _MAPPING in caveats["patients-unknown"]


def test_the_mapping_gives_nihs_patients_and_the_mined_labels(rsna):
    (rsna / _MAPPING).write_text(json.dumps(_ENTRIES))
    records = read_rsna(rsna)
    # As NIH's own table writes its patients, so that the two sets can be compared.
    assert [record.patient_id for record in records] == ["7", "12345", "7"]
    assert [record.other_labels for record in records] == [
        {"mined from text": {"pneumonia": 1}},
        {"mined from text": {"pneumonia": 0}},
        {},
    ]
    assert DATASETS["rsna"].caveats(rsna) == {}


def test_mined_labels_may_be_one_text(rsna):
    entries = [dict(entry, orig_labels="Mass|pneumonia") for entry in _ENTRIES]
    (rsna / _MAPPING).write_text(json.dumps(entries))
    assert read_rsna(rsna)[2].other_labels == {"mined from text": {"pneumonia": 1}}


def test_the_classes_may_be_missing(rsna):
    (rsna / "stage_2_detailed_class_info.csv").unlink()
    assert [record.attributes for record in read_rsna(rsna)] == [{"rsna_class": ""}] * 3


@pytest.mark.parametrize(
    ("name", "text", "message"),
    [
        ("stage_2_train_labels.csv", "patientId,Target\n", "lacks the column(s) x, y, width, hei"),
        ("stage_2_train_labels.csv", _HEADER + "a,,,,,2\n", "line 2: Target is '2'; wanted is 1"),
        ("stage_2_train_labels.csv", _HEADER + "a,,,,,1\n", "line 2: x is ''; wanted is a number"),
        ("stage_2_train_labels.csv", _HEADER + "a,1,2,3,4,0\n", "Target is 0, but there is a box"),
        (
            "stage_2_train_labels.csv",
            _HEADER + "a,1,2,3,4,1\na,,,,,0\n",
            "line 3: Target is 0, but line 2 says not",
        ),
        (
            "stage_2_train_labels.csv",
            _HEADER + "a,1,2,3,4,1\n",
            "line 2: Target is 1, but stage_2_detailed_class_info.csv has 'No Lung Opacity",
        ),
        (
            "stage_2_detailed_class_info.csv",
            "patientId,class\na,Opacity\n",
            "line 2: RSNA's class is 'Opacity'",
        ),
        (
            "stage_2_detailed_class_info.csv",
            "patientId,class\na,Normal\na,Lung Opacity\n",
            "line 3: the image has another class above",
        ),
        (_MAPPING, "{", "is not JSON (JSONDecodeError)"),
        (_MAPPING, "[]", "names no image"),
        ("stage_2_train_labels.csv", _HEADER + ",,,,,0\n", "line 2: patientId is blank"),
        (_MAPPING, '{"a": 1}', "is no list of images with 'subset_img_id' and 'img_id'"),
        (_MAPPING, '[{"subset_img_id": "a"}]', "(KeyError)"),
        (_MAPPING, '[{"subset_img_id": "a", "img_id": "x.png"}]', "(ValueError)"),
        (_MAPPING, json.dumps(_ENTRIES[:2]), "line 5: the image is not in pneumonia-challenge"),
    ],
)
def test_what_is_not_as_published_is_refused(rsna, name, text, message):
    (rsna / name).write_text(text)
    with pytest.raises(LabelError) as caught:
        read_rsna(rsna)
    assert message in str(caught.value)
    assert "\n" not in str(caught.value)


def test_a_folder_without_the_table_is_told_its_name(tmp_path):
    with pytest.raises(LabelError, match="stage_2_train_labels.csv is not in"):
        read_rsna(tmp_path)


def test_what_is_known_of_the_set_is_as_published():
    dataset = DATASETS["rsna"]
    assert dataset.published.images == 26_684
    assert dataset.published.positive == {"pneumonia": 6012, "lung_opacity": 6012}
    assert set(dataset.descends) == {"nih"}
