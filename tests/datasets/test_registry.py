from __future__ import annotations

import pytest

from medllm.datasets import DATASETS, read_dataset
from medllm.errors import LabelError


def test_each_reader_says_its_own_name(tmp_path):
    tables = {
        "csv": "path,pneumonia\na.png,1\n",
        "kermany": "path,patient_id,pneumonia\na.png,p,1\n",
        "nih": "path,patient_id,findings,age_years,sex,view_position,rsna_class\n"
        "a.png,1,Mass,30,F,PA,\n",
    }
    assert set(tables) == set(DATASETS)
    for name, table in tables.items():
        root = tmp_path / name
        root.mkdir()
        (root / "labels.csv").write_text(table)
        (root / "boxes.csv").write_text("path,finding,x,y,width,height\n")
        (record,) = read_dataset(name, str(root))
        assert record.dataset == name


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("kermanny", "use one of: csv, kermany, nih. Did you mean 'kermany'?"),
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


def test_a_label_of_kermany_outside_its_values_names_the_line(tmp_path):
    (tmp_path / "labels.csv").write_text("path,patient_id,pneumonia\na,p,1\nb,q,x\n")
    with pytest.raises(LabelError, match="labels.csv, line 3: pneumonia is 'x'"):
        read_dataset("kermany", tmp_path)
