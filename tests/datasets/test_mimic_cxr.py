from __future__ import annotations

import gzip

import numpy as np
import pytest
from PIL import Image

from medllm.datasets import DATASETS, LabelPolicy, read_dataset, read_mimic_cxr, select
from medllm.errors import LabelError
from medllm.phantom import make_phantom

# Both labellers' tables have the findings in the order of the alphabet.
_LABELS = (
    "subject_id,study_id,Atelectasis,Cardiomegaly,Consolidation,Edema,Enlarged Cardiomediastinum,"
    "Fracture,Lung Lesion,Lung Opacity,No Finding,Pleural Effusion,Pleural Other,Pneumonia,"
    "Pneumothorax,Support Devices\n"
)
_METADATA = (
    "dicom_id,subject_id,study_id,PerformedProcedureStepDescription,ViewPosition,Rows,Columns,"
    "StudyDate,StudyTime,ProcedureCodeSequence_CodeMeaning,ViewCodeSequence_CodeMeaning,"
    "PatientOrientationCodeSequence_CodeMeaning\n"
)
_IMAGES = (  # image, patient, study, view, the view's code
    ("d1", "10000032", "50414267", "PA", "postero-anterior"),
    ("d2", "10000032", "50414267", "LATERAL", "lateral"),
    ("d3", "10000032", "53189527", "AP", "antero-posterior"),
    ("d4", "11000011", "51000000", "LL", "left lateral"),
    ("d5", "11000011", "51000000", "", "antero-posterior"),
    ("d6", "11000011", "51000001", "", ""),
    ("d7", "11000011", "51000001", "lao", ""),
)
_TABLES = {
    "metadata": _METADATA
    + "".join(
        f'{image},{patient},{study},"CHEST (PA, LAT)",{view},3056,2544,21800506,213014.531,'
        f"CHEST,{code},Erect\n"
        for image, patient, study, view, code in _IMAGES
    ),
    "split": "dicom_id,study_id,subject_id,split\n"
    "d1,50414267,10000032,train\nd2,50414267,10000032,train\nd3,53189527,10000032,validate\n"
    "d4,51000000,11000011,test\nd5,51000000,11000011,test\nd6,51000001,11000011,test\n",
    "chexpert": _LABELS
    + "10000032,50414267,,,,,,,,,1.0,,,,,\n"
    + "10000032,53189527,1.0,0.0,,-1.0,,,,1.0,,,,-1.0,,1.0\n",
    "negbio": _LABELS + "10000032,53189527,1.0,,,,,,,,,,,0.0,,\n",
}
_BOXES = (
    "dicom_id,label_text,category_name,path,x,y,w,h,image_width,image_height\n"
    'd3,"opacity, left base",Pneumonia,files/p10/p10000032/s53189527/d3.jpg,10,20,30,40,2544,3056\n'
    "d3,pneumonia,Pneumonia,files/p10/p10000032/s53189527/d3.jpg,10,20,30,40,2544,3056\n"
    "d3,right base,Pneumonia,files/p10/p10000032/s53189527/d3.jpg,50,20,30,40,2544,3056\n"
    "d3,fluid,Pleural Effusion,files/p10/p10000032/s53189527/d3.jpg,1,2,3,4,2544,3056\n"
)


@pytest.fixture(params=["csv", "csv.gz"])
def root(tmp_path, request):
    for name, text in _TABLES.items():
        path = tmp_path / f"mimic-cxr-2.0.0-{name}.{request.param}"
        data = text.encode()
        path.write_bytes(gzip.compress(data) if request.param == "csv.gz" else data)
    return tmp_path


def _rewrite(root, name, old, new):
    path = root / f"mimic-cxr-2.0.0-{name}.csv"
    path.write_text(_TABLES[name].replace(old, new, 1))


def test_every_field_is_as_the_tables_have_it(root):
    records = read_mimic_cxr(root)
    assert [
        (record.patient_id, record.study_id, record.split, record.attributes["view_position"])
        for record in records
    ] == [
        ("10000032", "50414267", "train", "PA"),
        ("10000032", "50414267", "train", "LATERAL"),
        ("10000032", "53189527", "validation", "AP"),
        ("11000011", "51000000", "test", "LL"),
        ("11000011", "51000000", "test", "AP"),
        ("11000011", "51000001", "test", "UNKNOWN"),
        ("11000011", "51000001", "", "LAO"),
    ]
    assert [record.path.relative_to(root).as_posix() for record in records[:4]] == [
        "files/p10/p10000032/s50414267/d1.jpg",
        "files/p10/p10000032/s50414267/d2.jpg",
        "files/p10/p10000032/s53189527/d3.jpg",
        "files/p11/p11000011/s51000000/d4.jpg",
    ]
    assert {record.dataset for record in records} == {"mimic-cxr"}
    assert [record.name for record in select(records).records] == ["d1.jpg", "d3.jpg", "d5.jpg"]


def test_labels_are_the_studys_and_hold_for_each_of_its_images(root):
    first, lateral, third, other, *_ = read_mimic_cxr(root)
    assert first.labels == lateral.labels
    assert len(first.labels) == 13
    assert set(first.labels.values()) == {0}
    assert third.labels == {
        "atelectasis": 1,
        "cardiomegaly": 0,
        "consolidation": 0,
        "enlarged_cardiomediastinum": 0,
        "fracture": 0,
        "lung_lesion": 0,
        "lung_opacity": 1,
        "effusion": 0,
        "pleural_other": 0,
        "pneumothorax": 0,
        "support_devices": 1,
    }
    # A study that the labeller's table does not have.
    assert other.labels == {}


def test_the_other_labeller_lies_beside_and_can_be_chosen(root):
    third = read_mimic_cxr(root)[2]
    assert third.other_labels["negbio"]["pneumonia"] == 0
    assert read_mimic_cxr(root)[0].other_labels == {"negbio": {}}
    swapped = read_mimic_cxr(root, labeller="negbio")[2]
    assert swapped.labels == third.other_labels["negbio"]
    assert swapped.other_labels == {"chexpert": third.labels}


def test_without_the_chosen_labeller_the_other_is_not_taken_in_silence(root):
    for path in root.glob("*negbio*"):
        path.unlink()
    assert read_mimic_cxr(root)[2].other_labels == {}
    with pytest.raises(LabelError, match="negbio.csv is not in .*read with labeller='chexpert'"):
        read_mimic_cxr(root, labeller="negbio")


def test_the_policy_is_the_callers(root):
    policy = DATASETS["mimic-cxr"].policy.changed("", uncertain="soft", blank="unknown")
    assert read_dataset("mimic-cxr", root, policy)[2].labels == {
        "atelectasis": 1,
        "cardiomegaly": 0,
        "edema": 0.5,
        "lung_opacity": 1,
        "pneumonia": 0.5,
        "support_devices": 1,
    }
    zeros = read_mimic_cxr(root, LabelPolicy("negative", None, "negative"))
    assert zeros[2].labels["pneumonia"] == 0


@pytest.mark.parametrize("version", ["1.0.0", "1.1.0"])
def test_boxes_of_ms_cxr_are_read_where_its_table_lies_beside(root, version):
    assert read_mimic_cxr(root)[2].boxes == {}
    (root / f"MS_CXR_Local_Alignment_v{version}.csv").write_text(_BOXES)
    records = read_mimic_cxr(root)
    # The first two phrases share one box.
    assert records[2].boxes == {
        "pneumonia": ((10.0, 20.0, 30.0, 40.0), (50.0, 20.0, 30.0, 40.0)),
        "effusion": ((1.0, 2.0, 3.0, 4.0),),
    }
    assert records[0].boxes == {}


def test_of_two_versions_of_the_boxes_the_newer_is_read(root):
    (root / "MS_CXR_Local_Alignment_v1.0.0.csv").write_text(_BOXES)
    newer = _BOXES.splitlines(keepends=True)
    (root / "MS_CXR_Local_Alignment_v1.1.0.csv").write_text(newer[0] + newer[-1])
    assert set(read_mimic_cxr(root)[2].boxes) == {"effusion"}


def test_an_image_is_read_where_the_record_says(root):
    record = read_mimic_cxr(root)[0]
    record.path.parent.mkdir(parents=True)
    pixels = np.uint8(255 * make_phantom(5, size=64).pixels)
    Image.fromarray(pixels).save(record.path, quality=95)
    # JPEG at quality 95 moves a value by a few of 255.
    assert np.abs(record.radiograph().pixels - pixels / 255).mean() < 0.02


@pytest.mark.parametrize(
    ("name", "old", "new", "message"),
    [
        ("split", "validate", "valid", "split.csv, line 4: split is 'valid'; wanted is 'train' or"),
        (
            *("split", "d2,50414267,10000032,train", "d1,50414267,10000032,test"),
            "split.csv, line 3: the image is in another part above",
        ),
        ("metadata", "d2,10000032,", "d2,,", "metadata.csv, line 3: subject_id is blank"),
        ("metadata", "d2,10000032,50414267", "d2,10000032,", "line 3: study_id is blank"),
        ("chexpert", "-1.0", "?", "chexpert.csv, line 3: Edema is '\\?'"),
        ("chexpert", "53189527", "50414267", "chexpert.csv, line 3: the study has a line already"),
        ("negbio", "Fracture", "Fractures", "negbio.csv lacks the column.s. Fracture"),
        ("metadata", "ViewPosition", "View", "metadata.csv lacks the column.s. ViewPosition"),
    ],
)
def test_what_is_odd_is_told_with_its_place(root, name, old, new, message):
    _rewrite(root, name, old, new)
    with pytest.raises(LabelError, match=message) as caught:
        read_mimic_cxr(root)
    assert "10000032" not in str(caught.value)
    assert "53189527" not in str(caught.value)


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        ("Pleural Effusion", "Effusion", "line 5: category_name is 'Effusion'"),
        ("10,20,30,40", "10,20,0,40", "line 2: the box is 0 wide"),
        ("10,20,30,40", "10,,30,40", "line 2: y is ''"),
    ],
)
def test_odd_boxes_are_told_with_their_place(root, old, new, message):
    table = root / "MS_CXR_Local_Alignment_v1.0.0.csv"
    table.write_text(_BOXES.replace(old, new, 1))
    with pytest.raises(LabelError, match=f"v1.0.0.csv, {message}"):
        read_mimic_cxr(root)


@pytest.mark.parametrize("name", ["metadata", "split", "chexpert"])
def test_a_missing_table_is_named(root, name):
    for path in root.glob(f"*-{name}.*"):
        path.unlink()
    with pytest.raises(LabelError, match=f"mimic-cxr-2.0.0-{name}.csv is not in"):
        read_mimic_cxr(root)


@pytest.mark.parametrize(
    "data",
    [b"no gzip", gzip.compress(b"x" * 99, mtime=0)[:-9], b"\x1f\x8b\x08" * 9],
    ids=["other bytes", "cut off", "damaged"],
)
def test_a_damaged_packed_table_is_told(tmp_path, data):
    for name, text in _TABLES.items():
        (tmp_path / f"mimic-cxr-2.0.0-{name}.csv").write_text(text)
    (tmp_path / "mimic-cxr-2.0.0-split.csv").unlink()
    (tmp_path / "mimic-cxr-2.0.0-split.csv.gz").write_bytes(data)
    with pytest.raises(LabelError, match="split.csv.gz cannot be unpacked .*; get the file again"):
        read_mimic_cxr(tmp_path)
