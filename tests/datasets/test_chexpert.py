from __future__ import annotations

import numpy as np
import pytest
from PIL import Image

from medllm.datasets import DATASETS, LabelPolicy, read_chexpert, read_dataset, select
from medllm.errors import LabelError
from medllm.phantom import make_phantom

FINDINGS = (
    "No Finding,Enlarged Cardiomediastinum,Cardiomegaly,Lung Opacity,Lung Lesion,Edema,"
    "Consolidation,Pneumonia,Atelectasis,Pneumothorax,Pleural Effusion,Pleural Other,Fracture,"
    "Support Devices"
)
KEYS = (
    *("enlarged_cardiomediastinum", "cardiomegaly", "lung_opacity", "lung_lesion", "edema"),
    *("consolidation", "pneumonia", "atelectasis", "pneumothorax", "effusion", "pleural_other"),
    *("fracture", "support_devices"),
)
HEADER = f"Path,Sex,Age,Frontal/Lateral,AP/PA,{FINDINGS}\n"
# Of the first row: 1 for enlarged cardiomediastinum, 0 for edema, in doubt of pneumonia.
_MIXED = ",1.0,,,,0.0,,-1.0,,,,,,1.0"
_CLEAR = "1.0,,,,,,,,,,,,,"
_ALL_READ = "0.0,0.0,0.0,1.0,0.0,0.0,0.0,1.0,0.0,0.0,1.0,0.0,0.0,0.0"
_TRAIN = (
    f"train/patient00001/study1/view1_frontal.jpg,Female,68,Frontal,AP,{_MIXED}",
    f"train/patient00002/study2/view1_frontal.jpg,Male,87,Frontal,PA,{_CLEAR}",
    f"train/patient00002/study2/view2_lateral.jpg,Male,87,Lateral,,{_CLEAR}",
    f"train/patient00003/study1/view1_frontal.jpg,Unknown,0,Frontal,AP,{_CLEAR}",
    f"train/patient00003/study2/view1_frontal.jpg,Female,41,Frontal,AP,{',' * 13}",
)
_VALID = f"valid/patient64541/study1/view1_frontal.jpg,Male,73,Frontal,AP,{_ALL_READ}"


def write_chexpert(root, prefix):
    root.mkdir(parents=True, exist_ok=True)
    (root / "train.csv").write_text(HEADER + "".join(f"{prefix}{row}\n" for row in _TRAIN))
    (root / "valid.csv").write_text(f"{HEADER}{prefix}{_VALID}\n")
    return root


def _save(path, seed):
    path.parent.mkdir(parents=True)
    pixels = np.uint8(255 * make_phantom(seed, size=64).pixels)
    Image.fromarray(pixels).save(path, quality=95)
    return pixels


@pytest.mark.parametrize("name", ["CheXpert-v1.0", "CheXpert-v1.0-small"])
@pytest.mark.parametrize("inside", [True, False])
def test_both_sizes_are_read_from_their_folder_and_from_above_it(tmp_path, name, inside):
    folder = write_chexpert(tmp_path / name, f"{name}/")
    records = read_chexpert(folder if inside else tmp_path)
    assert [record.path.relative_to(folder).as_posix() for record in records] == [
        *(row.split(",")[0] for row in _TRAIN),
        _VALID.split(",")[0],
    ]


def test_every_field_is_as_the_tables_have_it(tmp_path):
    records = read_chexpert(write_chexpert(tmp_path, "CheXpert-v1.0-small/"))
    assert [
        (record.patient_id, record.study_id, record.split, *record.attributes.values())
        for record in records
    ] == [
        ("patient00001", "patient00001/study1", "train", "68", "F", "AP"),
        ("patient00002", "patient00002/study2", "train", "87", "M", "PA"),
        ("patient00002", "patient00002/study2", "train", "87", "M", "LATERAL"),
        ("patient00003", "patient00003/study1", "train", "", "", "AP"),
        ("patient00003", "patient00003/study2", "train", "41", "F", "AP"),
        ("patient64541", "patient64541/study1", "validation", "73", "M", "AP"),
    ]
    assert set(records[0].attributes) == {"age_years", "sex", "view_position"}
    clear = dict.fromkeys(KEYS, 0)
    mixed = clear | {"enlarged_cardiomediastinum": 1, "support_devices": 1}
    del mixed["pneumonia"]
    read = clear | {"lung_opacity": 1, "pneumonia": 1, "effusion": 1}
    assert [record.labels for record in records] == [mixed, clear, clear, clear, {}, read]
    assert {record.dataset for record in records} == {"chexpert"}


# 0 stands for an unknown age, and the others are nobody's.
@pytest.mark.parametrize(
    ("age", "years"), [("45.5", "45.5"), ("0", ""), ("0.0", ""), ("414", ""), ("-4", "")]
)
def test_an_age_that_no_patient_can_have_is_unknown(tmp_path, age, years):
    table = write_chexpert(tmp_path, "") / "train.csv"
    table.write_text(table.read_text().replace(",68,", f",{age},"))
    assert read_chexpert(tmp_path)[0].attributes["age_years"] == years


@pytest.mark.parametrize(
    ("policy", "pneumonia", "edema", "fracture"),
    [
        (LabelPolicy("unknown", None, "unknown"), None, 0, None),
        (LabelPolicy("negative", None, "negative"), 0, 0, 0),
        (LabelPolicy("positive", None, "negative"), 1, 0, 0),
        (LabelPolicy("soft", None, "unknown"), 0.5, 0, None),
    ],
)
def test_the_policy_is_the_callers(tmp_path, policy, pneumonia, edema, fracture):
    labels = read_dataset("chexpert", write_chexpert(tmp_path, ""), policy)[0].labels
    got = tuple(labels.get(key) for key in ("pneumonia", "edema", "fracture"))
    assert got == (pneumonia, edema, fracture)


def test_the_set_leaves_doubt_and_silence_to_choose_and_no_readers():
    policy = DATASETS["chexpert"].policy
    assert (policy.uncertain, policy.readers, policy.blank) == ("unknown", None, "negative")
    assert policy.changed("chexpert", uncertain="soft", blank="unknown").blank == "unknown"


@pytest.mark.parametrize("name", ["test.csv", "test_labels.csv"])
def test_the_test_table_has_paths_and_labels_alone(tmp_path, name):
    rows = (
        f"test/patient64741/study1/view1_frontal.jpg,{_ALL_READ}",
        f"test/patient64741/study1/view2_lateral.jpg,{_ALL_READ}",
    )
    (tmp_path / name).write_text(f"Path,{FINDINGS}\n" + "\n".join(rows) + "\n")
    frontal, lateral = read_chexpert(tmp_path)
    assert frontal.attributes == {"age_years": "", "sex": "", "view_position": ""}
    assert lateral.attributes["view_position"] == "LATERAL"
    assert frontal.split == lateral.split == "test"
    assert frontal.path == tmp_path / "test/patient64741/study1/view1_frontal.jpg"
    assert frontal.labels["effusion"] == 1
    assert frontal.labels["fracture"] == 0
    assert [record.path for record in select([frontal, lateral]).records] == [frontal.path]


def test_an_image_is_read_where_the_record_says(tmp_path):
    folder = write_chexpert(tmp_path / "CheXpert-v1.0-small", "CheXpert-v1.0-small/")
    pixels = _save(folder / "train/patient00001/study1/view1_frontal.jpg", 3)
    record = read_chexpert(tmp_path)[0]
    got = record.radiograph().pixels
    # JPEG at quality 95 moves a value by a few of 255.
    assert np.abs(got - pixels / 255).mean() < 0.02
    left = select(read_chexpert(tmp_path), partial=True).left_out
    assert left == {"file not in this copy": 4, "view LATERAL": 1}


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        ("Female,68", "Woman,68", "line 2: Sex is 'Woman'; wanted is 'Female' or 'Male' or"),
        (",68,", ",old,", "line 2: Age is 'old'; wanted is a number of years"),
        ("68,Frontal", "68,Oblique", "line 2: Frontal/Lateral is 'Oblique'"),
        ("-1.0", "-2", "line 2: Pneumonia is '-2'; wanted is 1"),
        ("Pleural Other", "Pleural other", "lacks the column.s. Pleural Other; it has Path, Sex"),
        ("train/patient00001/", "train/", "line 2: the path is not built as train/patient0"),
        ("train/patient00001/", "extra/patient00001/", "line 2: the path is not built"),
        ("view1_frontal", "view1_oblique", "line 2: the path is not built"),
    ],
)
def test_what_is_odd_is_told_with_its_place(tmp_path, old, new, message):
    table = write_chexpert(tmp_path, "CheXpert-v1.0/") / "train.csv"
    table.write_text(table.read_text().replace(old, new, 1))
    with pytest.raises(LabelError, match=f"train.csv.*{message}") as caught:
        read_chexpert(tmp_path)
    assert "patient00001" not in str(caught.value)


def test_a_folder_without_any_table_is_told_what_is_wanted(tmp_path):
    with pytest.raises(LabelError, match="none of train.csv, valid.csv, test.csv, test_labels.csv"):
        read_chexpert(tmp_path)


def test_a_copy_with_the_test_set_is_compared_with_its_counts_too(tmp_path):
    dataset = DATASETS["chexpert"]
    counts = dataset.published_in(write_chexpert(tmp_path, ""))
    assert (counts.images, counts.patients) == (223_648, 64_740)
    (tmp_path / "test.csv").write_text(f"Path,{FINDINGS}\n")
    counts = dataset.published_in(tmp_path)
    assert (counts.images, counts.patients) == (224_316, 65_240)
