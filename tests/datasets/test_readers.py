from __future__ import annotations

import pytest

from medllm.datasets import read_kermany, read_nih
from medllm.errors import LabelError

_NIH_HEADER = "path,patient_id,age_years,sex,view_position,findings,rsna_class\n"
_BOXES = "path,source,finding,x,y,width,height\n"


@pytest.fixture
def nih(tmp_path):
    (tmp_path / "labels.csv").write_text(
        _NIH_HEADER
        + "a.jpg,1,30,F,PA,Pneumonia|Effusion,Lung Opacity\n"
        + "b.jpg,2,40,M,AP,Pneumonia,No Lung Opacity / Not Normal\n"
        + "c.jpg,2,40,M,AP,Pneumonia,\n"
        + "d.jpg,3,50,F,PA,No Finding,\n"
        + "e.jpg,3,50,F,PA,No Finding,Lung Opacity\n"
        + "f.jpg,4,60,F,PA,Pleural_Thickening,\n"
    )
    (tmp_path / "boxes.csv").write_text(
        _BOXES + "a.jpg,RSNA-2018,Lung Opacity,1,2,3,4\na.jpg,NIH-BBox-2017,Pneumonia,5,6,7,8\n"
    )
    return tmp_path


def test_a_radiologists_reading_outweighs_the_label_mined_from_text(nih):
    labels = [record.labels.get("pneumonia") for record in read_nih(nih)]
    # Read as opacity; read as none; mined alone; mined "No Finding"; read against mined; unknown.
    assert labels == [1, 0, None, 0, 1, None]


def test_findings_are_compared_whole(nih):
    record = read_nih(nih)[5]
    assert record.labels["pleural_thickening"] == 1
    assert record.labels["effusion"] == 0


def test_boxes_and_groups_go_with_their_image(nih):
    first, second, *_ = read_nih(nih)
    assert first.boxes == {
        "lung_opacity": ((1.0, 2.0, 3.0, 4.0),),
        "pneumonia": ((5.0, 6.0, 7.0, 8.0),),
    }
    assert second.boxes == {}
    assert second.attributes["view_position"] == "AP"


def test_boxes_of_what_the_label_does_not_say_are_left_out(nih):
    # Read as none, unknown, and mined "No Finding"; e was read as an opacity.
    table = nih / "boxes.csv"
    rows = [f"{name}.jpg,NIH-BBox-2017,Pneumonia,5,6,7,8\n" for name in "bcde"]
    table.write_text(table.read_text() + "".join(rows))
    assert [set(record.boxes) for record in read_nih(nih)] == [
        {"lung_opacity", "pneumonia"},
        *(set(), set(), set()),
        {"pneumonia"},
        set(),
    ]


def test_kermany_pneumonia_is_an_opacity_too(tmp_path):
    (tmp_path / "labels.csv").write_text(
        "path,patient_id,pneumonia,etiology\nn/a.jpg,IM-1,0,\np/b.jpg,person1_virus,1,virus\n"
    )
    normal, ill = read_kermany(tmp_path)
    assert (normal.labels, ill.labels) == (
        {"pneumonia": 0, "lung_opacity": 0},
        {"pneumonia": 1, "lung_opacity": 1},
    )
    assert ill.path == tmp_path / "p" / "b.jpg"


def test_a_missing_table_and_a_missing_column_are_named(tmp_path):
    with pytest.raises(LabelError, match="labels.csv is not in"):
        read_kermany(tmp_path)
    (tmp_path / "labels.csv").write_text("path,patient\n")
    with pytest.raises(LabelError, match="lacks the column.s. patient_id, pneumonia"):
        read_kermany(tmp_path)


def test_the_real_copies_have_the_stated_counts(data_root):
    kermany, nih = read_kermany(data_root / "kermany"), read_nih(data_root / "nih")
    # Counts of the copies' own description.
    assert (len(kermany), sum(record.labels["pneumonia"] for record in kermany)) == (5216, 3875)
    assert (len(nih), len({record.patient_id for record in nih})) == (511, 340)
    assert all(record.path.is_file() for record in [*kermany, *nih])
