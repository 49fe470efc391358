from __future__ import annotations

from pathlib import Path

import pytest

from medllm.datasets import DATASETS, read_dataset
from medllm.datasets.chexpert_labels import CHEXPERT_COLUMNS
from medllm.errors import LabelError

CARDS = Path(__file__).parents[2] / "datasets"


@pytest.mark.parametrize("name", DATASETS)
def test_each_data_set_is_whole(name):
    dataset = DATASETS[name]
    assert dataset.name == name
    assert dataset.title
    assert dataset.terms
    # Sets that it descends from are known ones, unless medllm does not read them.
    assert name not in dataset.descends
    assert dataset.patients_of in DATASETS
    # Pseudonyms are handed down with the images.
    assert dataset.patients_of in {name, *dataset.descends}
    card = (CARDS / f"{name}.md").read_text() if name != "csv" else "csv"
    assert card
    assert name == "csv" or f"({name}.md)" in (CARDS / "README.md").read_text()


@pytest.mark.parametrize("name", DATASETS)
def test_a_folder_without_the_data_set_is_refused_in_one_line(tmp_path, name):
    with pytest.raises(LabelError) as caught:
        read_dataset(name, tmp_path)
    assert "\n" not in str(caught.value)
    assert str(tmp_path) in str(caught.value)


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("kermanny", "Did you mean 'kermany'?"),
        ("NIH", "Did you mean 'nih'?"),
        ("hospital", "A table of your own is read as 'csv'."),
    ],
)
def test_an_unknown_name_is_told_the_known_ones_and_the_nearest(tmp_path, name, message):
    with pytest.raises(LabelError) as caught:
        read_dataset(name, tmp_path)
    assert message in str(caught.value)
    assert f"'{name}' is not a known data set" in str(caught.value)
    assert caught.value.code == "unknown-dataset"


_NIH = "Image Index,Finding Labels,Patient ID,Patient Age,Patient Gender,View Position\n"
_CHEXPERT = f"Path,Sex,Age,Frontal/Lateral,AP/PA,{','.join(CHEXPERT_COLUMNS)}\n"


@pytest.mark.parametrize(
    ("name", "table", "header", "rows"),
    [
        (
            *("nih", "Data_Entry_2017_v2020.csv", _NIH),
            ["a.png,Mass,1,58,M,PA", "b.png,Mass,1,58,M,PA", "a.png,No Finding,1,58,M,PA"],
        ),
        (
            *("kermany", "labels.csv", "path,patient_id,pneumonia\n"),
            ["a.jpg,p1,1", "b.jpg,p1,1", "a.jpg,p2,0"],
        ),
        (
            *("chexpert", "train.csv", _CHEXPERT),
            [
                f"train/patient{n}/study1/view1_frontal.jpg,Female,68,Frontal,AP,{label}" + "," * 13
                for n, label in ((1, "1.0"), (2, "1.0"), (1, "0.0"))
            ],
        ),
    ],
)
def test_an_image_with_two_rows_is_refused(tmp_path, name, table, header, rows):
    (tmp_path / table).write_text(header + "\n".join(rows))
    with pytest.raises(LabelError, match=f"{name}: images 1 and 3 in .* are one and the same"):
        read_dataset(name, tmp_path)
    (tmp_path / table).write_text(header + "\n".join(rows[:2]))
    assert len(read_dataset(name, tmp_path)) == 2


def test_a_label_of_kermany_outside_its_values_names_the_line(tmp_path):
    (tmp_path / "labels.csv").write_text("path,patient_id,pneumonia\na,p,1\nb,q,x\n")
    with pytest.raises(LabelError, match="labels.csv, line 3: pneumonia is 'x'"):
        read_dataset("kermany", tmp_path)
