from __future__ import annotations

import json

import numpy as np
import pytest
from PIL import Image

from medllm.datasets import DATASETS, read_chexlocalize, read_dataset
from medllm.errors import LabelError
from medllm.phantom import make_phantom

_FINDINGS = (
    "No Finding,Enlarged Cardiomediastinum,Cardiomegaly,Lung Opacity,Lung Lesion,Edema,"
    "Consolidation,Pneumonia,Atelectasis,Pneumothorax,Pleural Effusion,Pleural Other,Fracture,"
    "Support Devices"
)
_OUTLINED = (
    *("Enlarged Cardiomediastinum", "Cardiomegaly", "Lung Lesion", "Airspace Opacity", "Edema"),
    *("Consolidation", "Atelectasis", "Pneumothorax", "Pleural Effusion", "Support Devices"),
)
# Empty outlines are written too: 4096 pixels outside, packed and as a list.
_NONE = {"size": [64, 64], "counts": "PP4"}
_NONE_LISTED = {"size": [64, 64], "counts": [4096]}
# Two columns from the third on, packed by hand: 128, 128, 3840.
_BAND = {"size": [64, 64], "counts": "P4P4Ph3"}
# The upper left pixel alone: 0, 1, 4095.
_CORNER = {"size": [64, 64], "counts": [0, 1, 4095]}


def _outlines(**drawn):
    named = {name.replace("_", " "): outline for name, outline in drawn.items()}
    return dict.fromkeys(_OUTLINED, _NONE) | named


@pytest.fixture
def root(tmp_path):
    (tmp_path / "CheXlocalize").mkdir()
    (tmp_path / "CheXpert").mkdir()
    sick = "0.0,0.0,1.0,1.0,0.0,0.0,0.0,1.0,0.0,0.0,0.0,0.0,0.0,0.0"
    clear = "1.0" + ",0.0" * 13
    (tmp_path / "CheXpert/val_labels.csv").write_text(
        f"Path,Sex,Age,Frontal/Lateral,AP/PA,{_FINDINGS}\n"
        f"CheXpert-v1.0/valid/patient64541/study1/view1_frontal.jpg,Male,73,Frontal,AP,{sick}\n"
        f"CheXpert-v1.0/valid/patient64541/study1/view2_lateral.jpg,Male,73,Lateral,,{sick}\n"
        f"CheXpert-v1.0/valid/patient64542/study1/view1_frontal.jpg,Female,70,Frontal,PA,{clear}\n"
    )
    (tmp_path / "CheXpert/test_labels.csv").write_text(
        f"Path,{_FINDINGS}\ntest/patient64741/study1/view1_frontal.jpg,{sick}\n"
    )
    validation = {
        "patient64541_study1_view1_frontal": _outlines(
            Airspace_Opacity=_BAND, Cardiomegaly=_CORNER, Edema=_NONE_LISTED
        ),
        "patient64541_study1_view2_lateral": _outlines(),
    }
    test = {"patient64741_study1_view1_frontal": {"Lung Opacity": _BAND}}
    for part, outlines in {"val": validation, "test": test}.items():
        (tmp_path / f"CheXlocalize/gt_segmentations_{part}.json").write_text(json.dumps(outlines))
    return tmp_path


def test_every_field_is_as_the_tables_have_it(root):
    records = read_chexlocalize(root)
    assert [
        (record.patient_id, record.study_id, record.split, *record.attributes.values())
        for record in records
    ] == [
        ("patient64541", "patient64541/study1", "validation", "73", "M", "AP"),
        ("patient64541", "patient64541/study1", "validation", "73", "M", "LATERAL"),
        ("patient64542", "patient64542/study1", "validation", "70", "F", "PA"),
        ("patient64741", "patient64741/study1", "test", "", "", ""),
    ]
    # The tables say `valid`, the folder is `val`.
    assert [record.path.relative_to(root / "CheXpert").as_posix() for record in records] == [
        "val/patient64541/study1/view1_frontal.jpg",
        "val/patient64541/study1/view2_lateral.jpg",
        "val/patient64542/study1/view1_frontal.jpg",
        "test/patient64741/study1/view1_frontal.jpg",
    ]
    assert {record.dataset for record in records} == {"chexlocalize"}


def test_labels_are_the_radiologists_and_leave_no_choice(root):
    first, _, third, fourth = read_chexlocalize(root)
    positive = {key for key, label in first.labels.items() if label == 1}
    assert positive == {"cardiomegaly", "lung_opacity", "pneumonia"}
    assert fourth.labels == first.labels
    assert len(first.labels) == 13
    assert set(third.labels.values()) == {0}
    with pytest.raises(LabelError, match="chexlocalize leaves no choice of 'blank'"):
        DATASETS["chexlocalize"].policy.changed("chexlocalize", blank="negative")


def test_outlines_are_of_their_findings_and_empty_ones_are_left_out(root):
    first, lateral, undrawn, fourth = read_dataset("chexlocalize", root)
    assert set(first.masks) == {"lung_opacity", "cardiomegaly"}
    band, corner = first.masks["lung_opacity"].decode(), first.masks["cardiomegaly"].decode()
    assert np.unique(np.nonzero(band)[1]).tolist() == [2, 3]
    assert band.sum() == 128
    assert np.argwhere(corner).tolist() == [[0, 0]]
    assert lateral.masks == undrawn.masks == {}
    # The test part spells it as the tables do.
    assert fourth.masks == {"lung_opacity": first.masks["lung_opacity"]}


def test_an_outline_lies_on_its_image(root):
    record = read_chexlocalize(root)[0]
    record.path.parent.mkdir(parents=True)
    pixels = np.uint8(255 * make_phantom(7, size=64).pixels)
    Image.fromarray(pixels).save(record.path, quality=95)
    got = record.radiograph().pixels
    assert record.masks["lung_opacity"].decode().shape == got.shape
    # JPEG at quality 95 moves a value by a few of 255.
    assert np.abs(got - pixels / 255).mean() < 0.02


@pytest.mark.parametrize(("part", "left"), [("val", 1), ("test", 3)])
def test_a_part_may_be_missing(root, part, left):
    (root / f"CheXlocalize/gt_segmentations_{part}.json").unlink()
    (root / f"CheXpert/{part}_labels.csv").unlink()
    assert len(read_chexlocalize(root)) == left


def test_without_outlines_or_labels_the_missing_file_is_named(root):
    (root / "CheXpert/val_labels.csv").unlink()
    with pytest.raises(LabelError, match="val_labels.csv is not in .*CheXpert"):
        read_chexlocalize(root)
    for path in (root / "CheXlocalize").iterdir():
        path.unlink()
    with pytest.raises(LabelError, match="gt_segmentations_val.json is not in .*CheXlocalize"):
        read_chexlocalize(root)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("{", "is no JSON"),
        ("[]", ": wanted is an object"),
        ({"patient1_study1_view1": {}}, ", image 1: wanted is an image as patient0"),
        ({"patient64541_study1_view1_frontal": []}, ", image 1: wanted is an image as patient0"),
        (
            {"patient64541_study1_view1_frontal": {"Opacity": _NONE}},
            ", image 1: the outline is of 'Opacity'; wanted is one of Airspace Opacity",
        ),
        (
            {"patient64541_study1_view1_frontal": {"Edema": {"size": [64, 64], "counts": "4"}}},
            ", image 1, Edema: the outline's runs do not fill its image of 64 x 64",
        ),
        ({"patient64599_study1_view1_frontal": {}}, "outlines 1 images that .*val_labels.csv does"),
    ],
)
def test_odd_outlines_are_told_with_their_place(root, content, message):
    text = content if isinstance(content, str) else json.dumps(content)
    (root / "CheXlocalize/gt_segmentations_val.json").write_text(text)
    with pytest.raises(LabelError, match=f"gt_segmentations_val.json ?{message}") as caught:
        read_chexlocalize(root)
    assert "patient645" not in str(caught.value)
