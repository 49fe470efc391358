from __future__ import annotations

import numpy as np
import pytest

from medllm.datasets import DATASETS, LabelPolicy, read_dataset, read_vindr
from medllm.errors import LabelError
from medllm.findings import FINDINGS
from medllm.phantom import make_phantom, write_dicom

MAJORITY = LabelPolicy(readers="majority")
_KAGGLE = "image_id,class_name,class_id,rad_id,x_min,y_min,x_max,y_max\n"
_KEYS = {
    "Aortic enlargement": "aortic_enlargement",
    "Atelectasis": "atelectasis",
    "Calcification": "calcification",
    "Cardiomegaly": "cardiomegaly",
    "Clavicle fracture": "clavicle_fracture",
    "Consolidation": "consolidation",
    "Edema": "edema",
    "Emphysema": "emphysema",
    "Enlarged PA": "enlarged_pulmonary_artery",
    "ILD": "interstitial_lung_disease",
    "Infiltration": "infiltration",
    "Lung Opacity": "lung_opacity",
    "Lung cavity": "lung_cavity",
    "Lung cyst": "lung_cyst",
    "Mediastinal shift": "mediastinal_shift",
    "Nodule/Mass": "nodule_or_mass",
    "Pleural effusion": "effusion",
    "Pleural thickening": "pleural_thickening",
    "Pneumothorax": "pneumothorax",
    "Pulmonary fibrosis": "fibrosis",
    "Rib fracture": "rib_fracture",
    "COPD": "copd",
    "Pneumonia": "pneumonia",
    "Tuberculosis": "tuberculosis",
}
_KAGGLE_KEYS = {
    *("aortic_enlargement", "atelectasis", "calcification", "cardiomegaly", "consolidation"),
    *("interstitial_lung_disease", "infiltration", "lung_opacity", "nodule_or_mass", "effusion"),
    *("pleural_thickening", "pneumothorax", "fibrosis"),
}
_TRAIN_NAMES = [*_KEYS, "Other lesion", "Lung tumor", "Other diseases", "No finding"]
_TEST_NAMES = [*_KEYS, "Other lesion", "Lung tumor", "Other disease", "No finding"]
_CORNERS = "x_min,y_min,x_max,y_max"


def _kaggle(root, *rows):
    (root / "train.csv").write_text(_KAGGLE + "\n".join(rows) + "\n")
    return root


_KAGGLE_ROWS = (
    # All three saw cardiomegaly, two an opacity, one a nodule and something else.
    "i1,Cardiomegaly,3,R9,100,200,400,350",
    "i1,Cardiomegaly,3,R10,110,210,410,360",
    "i2,No finding,14,R1,,,,",
    "i1,Lung Opacity,7,R10,1,2,11,22",
    "i1,Lung Opacity,7,R9,2,3,12,23",
    "i1,Lung Opacity,7,R9,50,60,70,90",
    "i1,Cardiomegaly,3,R8,120,220,420,370",
    "i1,Nodule/Mass,8,R8,5,6,8,10",
    "i1,Other lesion,9,R8,5,6,8,10",
    "i2,No finding,14,R2,,,,",
    "i2,No finding,14,R3,,,,",
)
_HEARTS = ((100.0, 200, 300, 150), (110.0, 210, 300, 150), (120.0, 220, 300, 150))
_OPACITIES = ((1.0, 2, 10, 20), (2.0, 3, 10, 20), (50.0, 60, 20, 30))
_NODULES = ((5.0, 6, 3, 4),)


@pytest.mark.parametrize(
    ("readers", "opacity", "nodule"),
    [("any", 1, 1), ("majority", 1, 0), ("consensus", None, None)],
)
def test_the_policy_turns_three_readers_into_labels_and_boxes(tmp_path, readers, opacity, nodule):
    first, second = read_vindr(_kaggle(tmp_path, *_KAGGLE_ROWS), LabelPolicy(readers=readers))
    assert first.labels.get("cardiomegaly") == 1
    assert first.labels.get("lung_opacity") == opacity
    assert first.labels.get("nodule_or_mass") == nodule
    expected = {"cardiomegaly": _HEARTS}
    if opacity == 1:
        expected["lung_opacity"] = _OPACITIES
    if nodule == 1:
        expected["nodule_or_mass"] = _NODULES
    assert first.boxes == expected
    unknown = {"lung_opacity", "nodule_or_mass"} if readers == "consensus" else set()
    assert set(first.labels) == _KAGGLE_KEYS - unknown
    assert second.labels == dict.fromkeys(_KAGGLE_KEYS, 0)
    assert second.boxes == {}


def test_without_a_choice_the_majority_decides(tmp_path):
    (first, _) = read_dataset("vindr", _kaggle(tmp_path, *_KAGGLE_ROWS))
    assert (first.labels["lung_opacity"], first.labels["nodule_or_mass"]) == (1, 0)
    assert DATASETS["vindr"].policy == MAJORITY
    (again, _) = read_vindr(tmp_path, LabelPolicy())
    assert again.labels == first.labels


def test_images_are_dicom_files_of_either_polarity_and_their_own_patients(tmp_path):
    (tmp_path / "train").mkdir()
    phantom = make_phantom(3, size=64)
    for name, polarity in (("i1", "MONOCHROME1"), ("i2", "MONOCHROME2")):
        write_dicom(
            phantom, tmp_path / "train" / f"{name}.dicom", photometric_interpretation=polarity
        )
    first, second = read_vindr(_kaggle(tmp_path, *_KAGGLE_ROWS), MAJORITY)
    assert [record.path.name for record in (first, second)] == ["i1.dicom", "i2.dicom"]
    assert np.allclose(first.radiograph().pixels, second.radiograph().pixels)
    assert [record.patient_id for record in (first, second)] == ["i1", "i2"]
    assert {(r.dataset, r.split, r.study_id) for r in (first, second)} == {("vindr", "train", "")}
    assert first.attributes == {}
    assert set(DATASETS["vindr"].caveats(tmp_path)) == {"patients-unknown"}


def _line(names, found, *head):
    return ",".join([*head, *(str(int(name in found)) for name in names)])


def _physionet(root, **changes):
    folder = root / "annotations"
    folder.mkdir()
    tables = {
        "image_labels_train.csv": [
            ",".join(["image_id", "rad_id", *_TRAIN_NAMES]),
            _line(_TRAIN_NAMES, {"Pneumonia", "Edema"}, "i1", "R1"),
            _line(_TRAIN_NAMES, {"Pneumonia", "Other diseases"}, "i1", "R2"),
            _line(_TRAIN_NAMES, {"No finding"}, "i1", "R3"),
            *(_line(_TRAIN_NAMES, {name}, name, "R1") for name in _KEYS),
            *(_line(_TRAIN_NAMES, {name}, name, "R2") for name in _KEYS),
            *(_line(_TRAIN_NAMES, {name}, name, "R3") for name in _KEYS),
        ],
        "annotations_train.csv": [
            f"image_id,rad_id,class_name,{_CORNERS}",
            "i1,R1,Edema,1,2,4,6",
            "Enlarged PA,R1,Enlarged PA,10,20,40,60",
            "Enlarged PA,R2,Eventration,10,20,40,60",
            "i1,R3,No finding,,,,",
        ],
        "image_labels_test.csv": [
            ",".join(["image_id", *_TEST_NAMES]),
            _line(_TEST_NAMES, {"Tuberculosis", "Other disease"}, "t1"),
        ],
        "annotations_test.csv": [
            f"image_id,class_name,{_CORNERS}",
            "t1,Other lesion,1,2,3,4",
            "t1,Lung cavity,1,2,3,4",
        ],
    }
    for name, rows in {**tables, **changes}.items():
        (folder / name).write_text("\n".join(rows) + "\n")
    return root


def test_physionets_tables_give_every_finding_of_both_parts(tmp_path):
    first, *middle, last = read_vindr(_physionet(tmp_path), MAJORITY)
    expected = dict.fromkeys(_KEYS.values(), 0)
    assert first.labels == expected | {"pneumonia": 1}
    # Each of the 24 spellings by itself, in an image of its name.
    assert [record.labels for record in middle] == [expected | {key: 1} for key in _KEYS.values()]
    assert last.labels == expected | {"tuberculosis": 1}
    assert (first.split, last.split) == ("train", "test")
    assert first.path == tmp_path / "train" / "i1.dicom"
    assert last.path == tmp_path / "test" / "t1.dicom"
    assert set(_KEYS.values()) <= set(FINDINGS)


def test_physionets_boxes_follow_the_labels(tmp_path):
    root = _physionet(tmp_path)
    records = {record.patient_id: record for record in read_vindr(root, MAJORITY)}
    assert records["i1"].boxes == {}
    assert records["Enlarged PA"].boxes == {"enlarged_pulmonary_artery": ((10.0, 20, 30, 40),)}
    assert records["t1"].boxes == {}  # boxed, but not among the image's labels
    anyone = {r.patient_id: r for r in read_vindr(root, LabelPolicy(readers="any"))}
    assert anyone["i1"].boxes == {"edema": ((1.0, 2, 3, 4),)}
    assert anyone["i1"].labels["edema"] == 1


def test_readers_who_differ_give_no_consensus_but_the_test_part_has_one(tmp_path):
    policy = LabelPolicy(readers="consensus")
    first, *_, last = read_vindr(_physionet(tmp_path), policy)
    assert not {"pneumonia", "edema"} & set(first.labels)
    assert last.labels["tuberculosis"] == 1
    assert len(last.labels) == 24


def test_a_part_or_the_boxes_may_be_missing(tmp_path):
    root = _physionet(tmp_path)
    (root / "annotations" / "image_labels_train.csv").unlink()
    (root / "annotations" / "annotations_test.csv").unlink()
    (record,) = read_vindr(root, MAJORITY)
    assert (record.split, record.boxes) == ("test", {})


@pytest.mark.parametrize(
    ("rows", "message"),
    [
        (_KAGGLE_ROWS[:-1], "line 4: the image has 2 readers in the table; wanted are 3, also th"),
        ((*_KAGGLE_ROWS, "i1,Opacity,7,R9,1,2,3,4"), "line 13: class_name is 'Opacity'; wanted"),
        ((*_KAGGLE_ROWS, "i1,ILD,5,R9,1,2,1,4"), "line 13: the box is 0 wide and 2 high"),
        ((*_KAGGLE_ROWS, "i1,ILD,5,R9,,,,"), "line 13: x_min is ''; wanted is a number"),
    ],
)
def test_a_table_of_kaggles_that_is_not_as_published_is_refused(tmp_path, rows, message):
    with pytest.raises(LabelError) as caught:
        read_vindr(_kaggle(tmp_path, *rows), MAJORITY)
    assert message in str(caught.value)
    assert "train.csv" in str(caught.value)


_TEST_HEADER = ",".join(["image_id", *_TEST_NAMES])
_NOTHING = _line(_TEST_NAMES, set(), "t1")


@pytest.mark.parametrize(
    ("name", "rows", "message"),
    [
        ("image_labels_test.csv", [_TEST_HEADER, _NOTHING, _NOTHING], "line 3: the image has a l"),
        (
            "image_labels_train.csv",
            [
                ",".join(["image_id", "rad_id", *_TRAIN_NAMES]),
                *(_line(_TRAIN_NAMES, {"Edema"}, "i1", f"R{n}") for n in (1, 2, 3)),
                _line(_TRAIN_NAMES, {"Pneumonia"}, "i1", "R2"),
            ],
            "line 5: the reader has a line of this image above",
        ),
        ("image_labels_test.csv", [_TEST_HEADER, _NOTHING.replace("0", "3")], "line 2: Aortic enl"),
        (
            "image_labels_test.csv",
            [_TEST_HEADER.replace("Pneumonia", "pneumonia"), _NOTHING],
            "lacks the column(s) Pneumonia",
        ),
        ("annotations_test.csv", ["image_id,class_name"], "lacks the column(s) x_min, y_min"),
    ],
)
def test_a_table_of_physionets_that_is_not_as_published_is_refused(tmp_path, name, rows, message):
    with pytest.raises(LabelError) as caught:
        read_vindr(_physionet(tmp_path, **{name: rows}), MAJORITY)
    assert message in str(caught.value)
    assert name in str(caught.value)


def test_a_folder_without_any_table_is_told_what_is_looked_for(tmp_path):
    with pytest.raises(LabelError, match="neither train.csv nor annotations/image_labels_train"):
        read_vindr(tmp_path, MAJORITY)


def test_a_copy_is_compared_with_the_counts_of_its_layout(tmp_path):
    dataset = DATASETS["vindr"]
    (tmp_path / "physionet").mkdir()
    (tmp_path / "kaggle").mkdir()
    whole = dataset.published_in(_physionet(tmp_path / "physionet"))
    assert whole == dataset.published
    assert (whole.images, whole.positive) == (18_000, {})
    kaggle = dataset.published_in(_kaggle(tmp_path / "kaggle", *_KAGGLE_ROWS))
    # Of two in three readers, which is the default policy.
    counts = {"atelectasis": 62, "consolidation": 121, "lung_opacity": 547, "cardiomegaly": 1817}
    assert (kaggle.images, kaggle.positive) == (15_000, counts)
