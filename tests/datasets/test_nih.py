from __future__ import annotations

import gzip

import numpy as np
import pytest
from PIL import Image

from medllm.datasets import DATASETS, read_nih
from medllm.errors import LabelError
from medllm.phantom import make_phantom

# As published: commas without quotes in the last two names, which so become four.
_HEADER = (
    "Image Index,Finding Labels,Follow-up #,Patient ID,Patient Age,Patient Gender,View Position,"
    "OriginalImage[Width,Height],OriginalImagePixelSpacing[x,y]"
)
_ROWS = (
    "00000001_000.png,Cardiomegaly|Emphysema,0,1,58,M,PA,2682,2749,0.143,0.143",
    "00000001_001.png,No Finding,1,1,59,M,PA,2894,2729,0.143,0.143",
    "00000002_000.png,Pneumonia|Infiltration,0,2,411,F,AP,2500,2048,0.168,0.168",
    "00000003_000.png,Pleural_Thickening,0,3,8,F,PA,2500,2048,0.171,0.171",
    "00000004_000.png,Mass|Pneumothorax,0,4,70,M,AP,2500,2048,0.168,0.168",
)
_FINDINGS = {
    *("atelectasis", "cardiomegaly", "consolidation", "edema", "effusion", "emphysema"),
    *("fibrosis", "hernia", "infiltration", "mass", "nodule", "pleural_thickening"),
    *("pneumonia", "pneumothorax"),
}
# The header's brackets fall apart, and three columns have no name.
_BOX_HEADER = "Image Index,Finding Label,Bbox [x,y,w,h],,,"
_GOOGLE_HEADER = f"{_HEADER},Fracture,Pneumothorax,Airspace opacity,Nodule or mass".replace(
    "Gender", "Sex"
)


def _write(root, *, name="Data_Entry_2017_v2020.csv", header=_HEADER, rows=_ROWS, **files):
    root.mkdir(exist_ok=True)
    tables = {name: "\n".join([header, *rows]), **files}
    for table, text in tables.items():
        path = root / table
        path.parent.mkdir(exist_ok=True)
        path.write_text(text + "\n")
    return root


def _boxes(*rows):
    return {"BBox_List_2017.csv": "\n".join([_BOX_HEADER, *rows])}


def _positive(record):
    return {key for key, label in record.labels.items() if label == 1}


def test_the_published_table_gives_every_label_and_group(tmp_path):
    records = read_nih(_write(tmp_path))
    assert [_positive(record) for record in records] == [
        {"cardiomegaly", "emphysema"},
        set(),
        {"pneumonia", "infiltration"},
        {"pleural_thickening"},
        {"mass", "pneumothorax"},
    ]
    assert all(set(record.labels) == _FINDINGS for record in records)
    assert [record.patient_id for record in records] == ["1", "1", "2", "3", "4"]
    # Nobody is 411 years old.
    assert [record.attributes for record in records] == [
        {"age_years": "58", "sex": "M", "view_position": "PA"},
        {"age_years": "59", "sex": "M", "view_position": "PA"},
        {"age_years": "", "sex": "F", "view_position": "AP"},
        {"age_years": "8", "sex": "F", "view_position": "PA"},
        {"age_years": "70", "sex": "M", "view_position": "AP"},
    ]
    assert {(r.dataset, r.split, r.study_id, r.member) for r in records} == {("nih", "", "", "")}
    assert all(not (r.boxes or r.masks or r.other_labels) for r in records)


def test_the_older_table_has_a_nameless_column_and_ages_with_units(tmp_path):
    ages = ["058Y", "006M", "010D", "155Y", "003W"]
    rows = [row.split(",") for row in _ROWS]
    for row, age in zip(rows, ages, strict=True):
        row[4] = age
    root = _write(
        tmp_path,
        name="Data_Entry_2017.csv",
        header=_HEADER.replace("Gender", "Sex") + ",",
        rows=[",".join(row) + "," for row in rows],
    )
    records = read_nih(root)
    assert [r.attributes["age_years"] for r in records] == ["58", "0.5", "0.0274", "", "0.0575"]
    assert [r.attributes["sex"] for r in records] == ["M", "M", "F", "F", "M"]


def test_the_newer_table_is_read_where_both_lie(tmp_path):
    _write(tmp_path, name="Data_Entry_2017.csv", rows=_ROWS[:1])
    assert len(read_nih(_write(tmp_path))) == 5


def test_images_lie_in_twelve_folders_or_in_one_and_may_be_missing(tmp_path):
    _write(tmp_path)
    places = {
        "00000001_000.png": tmp_path / "images_001" / "images",
        "00000002_000.png": tmp_path / "images_012" / "images",
        "00000003_000.png": tmp_path / "images",
    }
    values = np.uint8(255 * make_phantom(0, size=64).pixels)
    for name, folder in places.items():
        folder.mkdir(parents=True)
        # A few images of the set are RGBA.
        mode = "RGBA" if name.startswith("00000002") else "L"
        Image.fromarray(values).convert(mode).save(folder / name)
    records = read_nih(tmp_path)
    for record in (records[0], records[2], records[3]):
        assert record.path == places[record.path.name] / record.path.name
        # One step of 8 bits is .004; the files are lossless.
        assert np.abs(record.radiograph().pixels - values / 255).max() < 1e-6
    assert records[1].path == tmp_path / "images" / "00000001_001.png"
    assert not records[1].path.exists()


def test_the_official_lists_give_the_split(tmp_path):
    root = _write(
        tmp_path,
        **{
            "train_val_list.txt": "00000001_000.png\n00000001_001.png\n00000004_000.png",
            "test_list.txt": "00000002_000.png",
        },
    )
    assert [r.split for r in read_nih(root)] == ["train", "train", "test", "", "train"]
    (root / "train_val_list.txt").unlink()
    assert [r.split for r in read_nih(root)] == ["", "", "test", "", ""]


def test_the_older_table_with_a_comma_at_the_end_of_its_header_is_read(tmp_path):
    root = _write(
        tmp_path,
        name="Data_Entry_2017.csv",
        header=_HEADER + ",",
        **_boxes("00000004_000.png,Mass,9,10,11,12"),
    )
    records = read_nih(root)
    assert [record.patient_id for record in records] == ["1", "1", "2", "3", "4"]
    assert records[4].boxes == {"mass": ((9.0, 10.0, 11.0, 12.0),)}


def test_a_box_that_a_later_reading_refutes_is_left_out(tmp_path):
    root = _write(
        tmp_path,
        **_boxes("00000004_000.png,Mass,9,10,11,12,,,", "00000004_000.png,Pneumothorax,1,2,3,4,,,"),
        **{"four_findings_expert_labels_test_labels.csv": _google(_ROWS[4] + ",NO,NO,NO,NO")},
    )
    assert read_nih(root)[4].boxes == {"mass": ((9.0, 10.0, 11.0, 12.0),)}


def test_boxes_are_spelt_otherwise_than_labels(tmp_path):
    root = _write(
        tmp_path,
        **_boxes(
            "00000002_000.png,Infiltrate,225.08,547.02,86.78,79.19,,,",
            "00000002_000.png,Pneumonia,1,2,3,4,,,",
            "00000002_000.png,Infiltrate,5,6,7,8,,,",
            "00000004_000.png,Mass,9,10,11,12,,,",
        ),
    )
    records = read_nih(root)
    assert [record.boxes for record in records] == [
        {},
        {},
        {
            "infiltration": ((225.08, 547.02, 86.78, 79.19), (5.0, 6.0, 7.0, 8.0)),
            "pneumonia": ((1.0, 2.0, 3.0, 4.0),),
        },
        {},
        {"mass": ((9.0, 10.0, 11.0, 12.0),)},
    ]


def _google(*rows):
    return "\n".join([_GOOGLE_HEADER, *rows])


def test_googles_readings_outweigh_the_mined_labels_and_both_are_kept(tmp_path):
    folder = "four_findings_expert_labels"
    root = _write(
        tmp_path,
        **{
            f"{folder}/validation_labels.csv": _google(
                _ROWS[4] + ",YES,NO,YES,NO", _ROWS[0] + ",NO,,NO,YES"
            ),
            f"{folder}/test_labels.csv": _google(_ROWS[2] + ",NO,YES,YES,NO"),
        },
    )
    first, second, third, fourth, fifth = read_nih(root)
    assert [r.attributes["google_set"] for r in (first, second, third, fourth, fifth)] == [
        *("validation", "", "test", "", "validation"),
    ]
    # Read: fracture and opacity, no pneumothorax, no nodule or mass; the mined mass stays.
    assert _positive(fifth) == {"mass", "fracture", "lung_opacity"}
    assert fifth.labels["pneumothorax"] == fifth.labels["nodule_or_mass"] == 0
    assert fifth.other_labels == {"mined from text": {"pneumothorax": 1, "nodule_or_mass": 1}}
    # Pneumothorax was not read here, so the mined label stands, and there is none to compare.
    assert first.labels["pneumothorax"] == 0
    assert _positive(first) == {"cardiomegaly", "emphysema", "nodule_or_mass"}
    assert first.other_labels == {"mined from text": {"nodule_or_mass": 0}}
    assert third.labels["pneumothorax"] == third.labels["pneumonia"] == 1
    assert third.other_labels == {"mined from text": {"pneumothorax": 0, "nodule_or_mass": 0}}
    assert set(second.labels) == set(fourth.labels) == _FINDINGS
    assert second.other_labels == fourth.other_labels == {}


@pytest.mark.parametrize("packed", [False, True])
def test_googles_readings_in_one_table_are_told_apart_by_their_set(tmp_path, packed):
    table = "\n".join(
        [
            f"{_GOOGLE_HEADER},Set Id",
            _ROWS[0] + ",NO,YES,NO,NO,val",
            _ROWS[1] + ",NO,NO,NO,NO,test",
            # Listed twice, and the rows differ on the fracture.
            _ROWS[3] + ",NO,NO,YES,NO,val",
            _ROWS[3] + ",YES,NO,YES,NO,val",
        ]
    )
    root = _write(tmp_path, **{"google2019_nih-chest-xray-labels.csv": table})
    if packed:
        table_file = root / "google2019_nih-chest-xray-labels.csv"
        with gzip.open(root / f"{table_file.name}.gz", "wb") as stream:
            stream.write(table_file.read_bytes())
        table_file.unlink()
    records = read_nih(root)
    assert [r.attributes["google_set"] for r in records] == [
        *("validation", "test", "", "validation", ""),
    ]
    assert records[0].labels["pneumothorax"] == 1
    assert "fracture" not in records[3].labels
    assert records[3].labels["lung_opacity"] == 1


def test_where_googles_rows_differ_the_mined_label_does_not_stand_in(tmp_path):
    table = _google(_ROWS[4] + ",NO,NO,NO,NO", _ROWS[4] + ",NO,YES,NO,NO")
    root = _write(tmp_path, **{"four_findings_expert_labels_test_labels.csv": table})
    record = read_nih(root)[4]  # mined: mass and pneumothorax
    assert "pneumothorax" not in record.labels
    assert record.labels["mass"] == 1
    assert record.other_labels == {"mined from text": {"nodule_or_mass": 1}}


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        ("Pleural_Thickening", "Pleural Thickening", "line 5: the findings name 'Pleural Thick"),
        ("No Finding", "No Finding|Mass", "line 3: the findings name some and 'No Finding'"),
        ("No Finding", "", "line 3: the findings name ''; wanted are Atelectasis"),
        (",411,F", ",unknown,F", "line 4: Patient Age is 'unknown'; wanted is a number of years"),
        (",411,F", ",41,X", "line 4: Patient Gender is 'X'; wanted is 'F' or 'M'"),
        (",0,2,411", ",0,,411", "line 4: Patient ID is blank"),
        ("00000002_000.png", "", "line 4: Image Index is blank"),
        ("Finding Labels", "Labels", "lacks the column(s) Finding Labels; it has Image Index, L"),
        ("Patient Gender", "Gender", "lacks the column Patient Gender or Patient Sex"),
    ],
)
def test_a_table_that_is_not_as_published_is_refused(tmp_path, old, new, message):
    text = "\n".join([_HEADER, *_ROWS]).replace(old, new)
    root = _write(tmp_path, header=text, rows=())
    with pytest.raises(LabelError) as caught:
        read_nih(root)
    assert message in str(caught.value)
    assert "Data_Entry_2017_v2020.csv" in str(caught.value)


@pytest.mark.parametrize(
    ("files", "message"),
    [
        (_boxes("a.png,Infiltration,1,2,3,4,,,"), "line 2: the box is of 'Infiltration'; wanted"),
        (_boxes("a.png,Mass,1,2,x,4,,,"), "line 2: width is 'x'; wanted is a number"),
        (_boxes("a.png,Mass,1,2,0,4,,,"), "line 2: the box is 0 wide and 4 high"),
        ({"BBox_List_2017.csv": "Image Index,Finding Label,x,y"}, "lacks the column(s) Bbox [x,"),
        (
            {"train_val_list.txt": "a.png\nb.png", "test_list.txt": "c.png\nb.png"},
            "test_list.txt, line 2: the image is in train_val_list.txt and in test_list.txt",
        ),
        (
            {"four_findings_expert_labels_test_labels.csv": _google(_ROWS[0] + ",HEDGE,NO,NO,NO")},
            "line 2: Fracture is 'HEDGE'; wanted is 'YES' or 'NO' or blank",
        ),
        (
            {"google2019_nih-chest-xray-labels.csv": _google(_ROWS[0] + ",NO,NO,NO,NO")},
            "lacks the column(s) Set Id",
        ),
    ],
)
def test_a_table_beside_that_is_not_as_published_is_refused(tmp_path, files, message):
    with pytest.raises(LabelError) as caught:
        read_nih(_write(tmp_path, **files))
    assert message in str(caught.value)


def test_a_list_that_is_no_text_is_refused(tmp_path):
    root = _write(tmp_path)
    (root / "test_list.txt").write_bytes(b"00000002_000.png\n\xff")
    with pytest.raises(LabelError, match="test_list.txt is not UTF-8"):
        read_nih(root)


def test_a_folder_without_any_table_is_told_what_is_looked_for(tmp_path):
    with pytest.raises(LabelError, match="labels.csv is not in .*, nor is Data_Entry_2017_v2020"):
        read_nih(tmp_path)


_EXTRACT = "path,patient_id,age_years,sex,view_position,findings,rsna_class\n"
_EXTRACT_BOXES = "path,source,finding,x,y,width,height\n"


def test_the_extract_keeps_the_mined_pneumonia_beside_rsnas_reading(tmp_path):
    (tmp_path / "labels.csv").write_text(
        _EXTRACT
        + "a.jpg,1,30,F,PA,Pneumonia|Effusion,Normal\n"
        + "b.jpg,2,40,M,AP,Effusion,Lung Opacity\n"
        + "c.jpg,3,40,M,AP,Pneumonia,\n"
    )
    (tmp_path / "boxes.csv").write_text(_EXTRACT_BOXES)
    first, second, third = read_nih(tmp_path)
    assert (first.labels["pneumonia"], first.labels["lung_opacity"]) == (0, 0)
    assert (second.labels["pneumonia"], second.labels["lung_opacity"]) == (1, 1)
    assert not {"pneumonia", "lung_opacity"} & set(third.labels)
    assert [r.other_labels for r in (first, second, third)] == [
        {"mined from text": {"pneumonia": 1}},
        {"mined from text": {"pneumonia": 0}},
        {"mined from text": {"pneumonia": 1}},
    ]


def test_an_age_of_the_extract_that_nobody_can_have_is_unknown(tmp_path):
    (tmp_path / "labels.csv").write_text(_EXTRACT + "a.jpg,1,414,F,PA,Mass,\n")
    (tmp_path / "boxes.csv").write_text(_EXTRACT_BOXES)
    assert read_nih(tmp_path)[0].attributes["age_years"] == ""


@pytest.mark.parametrize(
    ("row", "box", "message"),
    [
        ("a.jpg,1,old,F,PA,Mass,", "", "line 2: age_years is 'old'; wanted is a number of years"),
        ("a.jpg,1,30,F,PA,Mass,Opacity", "", "line 2: RSNA's class is 'Opacity'; wanted is one"),
        ("a.jpg,1,30,F,PA,Lump,", "", "line 2: the findings name 'Lump'"),
        ("a.jpg,,30,F,PA,Mass,", "", "line 2: patient_id is blank"),
        (",1,30,F,PA,Mass,", "", "line 2: path is blank"),
        ("a.jpg,1,30,F,PA,Mass,", "a.jpg,NIH,Mass,1,2,3,4", "line 2: the box is of 'Mass'"),
        ("a.jpg,1,30,F,PA,Mass,", "a.jpg,NIH,Pneumonia,1,2,-3,4", "the box is -3 wide"),
    ],
)
def test_an_odd_value_of_the_extract_is_refused(tmp_path, row, box, message):
    (tmp_path / "labels.csv").write_text(_EXTRACT + row + "\n")
    (tmp_path / "boxes.csv").write_text(_EXTRACT_BOXES + box + "\n")
    with pytest.raises(LabelError) as caught:
        read_nih(tmp_path)
    assert message in str(caught.value)


def test_what_is_known_of_the_set_is_as_published():
    dataset = DATASETS["nih"]
    assert (dataset.published.images, dataset.published.patients) == (112_120, 30_805)
    assert dataset.published.positive == {"pneumonia": 1431}
    assert not dataset.descends
    assert not dataset.caveats(None)
