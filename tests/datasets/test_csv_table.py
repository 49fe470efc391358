from __future__ import annotations

import pytest

from medllm.datasets import DATASETS, read_csv, select
from medllm.errors import LabelError

_BOXES = "path,finding,x,y,width,height\n"


def _write(folder, labels, boxes=None):
    (folder / "labels.csv").write_text(labels, encoding="utf-8")
    if boxes is not None:
        (folder / "boxes.csv").write_text(boxes, encoding="utf-8")
    return folder


def test_labels_patients_attributes_and_boxes_are_read_as_they_stand(tmp_path):
    root = _write(
        tmp_path,
        "path,patient_id,pneumonia,effusion,age_years,sex,scanner\n"
        "a/1.dcm,p1,1,0,61,F,\n"
        "a/2.dcm,p1,,1,61,F,DX 3\n"
        "b/3.png,p2,0,,8,M,\n",
        _BOXES + "a/1.dcm,pneumonia,1,2.5,30,40\na/1.dcm,pneumonia,5,6,7,8\n",
    )
    first, second, third = read_csv(root)
    assert [record.labels for record in (first, second, third)] == [
        {"pneumonia": 1, "effusion": 0},
        {"effusion": 1},
        {"pneumonia": 0},
    ]
    assert (first.path, first.dataset) == (root / "a" / "1.dcm", "csv")
    assert [record.patient_id for record in (first, second, third)] == ["p1", "p1", "p2"]
    assert second.attributes == {"age_years": "61", "sex": "F", "scanner": "DX 3"}
    assert first.boxes == {"pneumonia": ((1.0, 2.5, 30.0, 40.0), (5.0, 6.0, 7.0, 8.0))}
    assert second.boxes == {}


def test_an_indication_is_what_the_request_said_and_no_attribute(tmp_path):
    root = _write(
        tmp_path, 'path,pneumonia,indication,sex\na.png,1,"Cough, fever. ",F\nb.png,0,,M\n'
    )
    first, second = read_csv(root)
    assert (first.indication, second.indication) == ("Cough, fever.", "")
    assert first.attributes == {"sex": "F"}


def test_listed_findings_are_one_and_those_that_others_have_zero(tmp_path):
    records = read_csv(
        _write(
            tmp_path,
            "path,findings\na.png,Mass|Pleural_Thickening\nb.png,No Finding\nc.png,\n",
            _BOXES + "a.png,Lung Opacity,1,2,3,4\n",
        )
    )
    assert [record.labels for record in records] == [
        {"mass": 1, "pleural_thickening": 1},
        {"mass": 0, "pleural_thickening": 0},
        {},
    ]
    assert records[0].boxes == {"lung_opacity": ((1.0, 2.0, 3.0, 4.0),)}


def test_without_patient_ids_each_image_is_its_own_patient(tmp_path):
    records = read_csv(_write(tmp_path, "path,nodule\na.png,1\nb.png,0\n"))
    assert len({record.patient_id for record in records}) == 2


def test_what_spreadsheets_and_pandas_write_is_read(tmp_path):
    # A byte order mark, CRLF, an unnamed index column, floats where a column has blanks.
    (tmp_path / "labels.csv").write_bytes(
        b"\xef\xbb\xbf,path, mass\r\n0,./a.png,1.0\r\n1,b.png,\r\n2,c.png,0.0\r\n"
    )
    records = read_csv(tmp_path)
    assert [record.labels for record in records] == [{"mass": 1}, {}, {"mass": 0}]
    assert records[0].path == tmp_path / "a.png"
    assert records[0].attributes == {}


_ONE = "path,pneumonia\n"


@pytest.mark.parametrize(
    ("labels", "message"),
    [
        ("path,patient_id\na.png,p1\n", "no column named by a finding's key; it has path, pat"),
        ("path,pneumo\na.png,1\n", "Is 'pneumo' meant to be 'pneumonia'? Keys are: aortic_enl"),
        ("path,Pleural Effusion\na.png,1\n", "Is 'Pleural Effusion' meant to be 'effusion'"),
        ("path,pnuemonia\na.png,1\n", "'pnuemonia', which is no finding's key; did you mean 'pne"),
        ("path,effusion,Pneumonia\na.png,1,0\n", "did you mean 'pneumonia'? Rename it"),
        ("path,effusion,PNEUMONIA\na.png,1,0\n", "did you mean 'pneumonia'? Rename it"),
        ("path,findings\na.png,Mass|Lump\n", "line 2: findings names 'Lump', which is no finding"),
        ("path,findings\na.png,Mass|No Finding\n", "findings names findings and 'No Finding'"),
        (
            "Image Index,Mass\na.png,1\n",
            "lacks the column(s) path; it has Image Index, Mass;",
        ),
        ("a.png,1\nb.png,0\n", "lacks the column(s) path; its first line names none"),
        ("path;mass\na.png;1\n", "lacks the column(s) path; its columns are divided by semicolons"),
        ("path\tmass\na.png\t1\n", "its columns are divided by tabs; save it with commas"),
        (_ONE, "has no rows"),
        ("", "lacks the column(s) path"),
        (_ONE + "a.png,1\nb.png,2\n", "line 3: pneumonia is '2'; wanted is 1 (with), 0 (without)"),
        (_ONE + "a.png,-1\n", "pneumonia is '-1'; wanted is 1 (with), 0 (without) or blank (unk"),
        (_ONE + "a.png,yes\n", "pneumonia is 'yes'"),
        (_ONE + "a.png,1\nb.png,0\n./a.png,0\n", "line 4: path 'a.png' is on line 2 already"),
        (_ONE + "/etc/passwd,1\n", "line 2: path '/etc/passwd' leads out of the data set's folder"),
        (_ONE + "a/../../b.png,1\n", "path 'a/../../b.png' leads out"),
        (_ONE + "..\\b.png,1\n", "path '..\\b.png' leads out"),
        (_ONE + "C:\\a.png,1\n", "path 'C:\\a.png' leads out"),
        (_ONE + "b.png,1\nx\\a.png,1\n", "line 3: path 'x\\a.png' has a backslash, and no fi"),
        (_ONE + "x\\y\\a.png,1\n", "no file is named so; write x/y/a.png."),
        (_ONE + " ,1\n", "line 2: path is blank"),
        (_ONE + "a.png,1,0\n", "line 2: the row has more fields than the 2 of the header"),
        (_ONE + "a.png\n", "line 2: the row has fewer fields than the 2 of the header"),
        ("path,mass,mass\na.png,1,0\n", "has the column 'mass' twice"),
        ("path,patient_id,mass\na.png,,1\n", "line 2: patient_id is blank"),
        ("path,mass,age_years\na.png,1,old\n", "line 2: age_years is 'old'; wanted is a number"),
    ],
)
def test_a_table_that_is_not_as_wanted_is_refused_in_one_line(tmp_path, labels, message):
    with pytest.raises(LabelError) as caught:
        read_csv(_write(tmp_path, labels))
    words = str(caught.value)
    assert message in words
    assert "labels.csv" in words
    assert "\n" not in words


@pytest.mark.parametrize(
    ("boxes", "message"),
    [
        ("a.png,pneumonia,1,2,wide,4\n", "line 2: width is 'wide'; wanted is a number of pixels"),
        ("a.png,pneumonia,1,2,3,4\na.png,pneumonia,nan,2,3,4\n", "line 3: x is 'nan'"),
        ("a.png,pneumonia,1,,3,4\n", "y is ''"),
        ("a.png,pneumonia,1,2,0,4\n", "the box is 0 wide and 4 high; both must be above 0"),
        ("b.png,pneumonia,1,2,3,4\n", "line 2: path 'b.png' is not in labels.csv"),
        (".\\a.png,pneumonia,1,2,3,4\n", "line 2: path '.\\a.png' has a backslash, and no file "),
        ("a.png,Lung Opacty,1,2,3,4\n", "Is 'lung_opacty' meant to be 'lung_opacity'?"),
    ],
)
def test_a_box_that_is_not_as_wanted_is_refused_in_one_line(tmp_path, boxes, message):
    with pytest.raises(LabelError) as caught:
        read_csv(_write(tmp_path, _ONE + "a.png,1\n", _BOXES + boxes))
    words = str(caught.value)
    assert message in words
    assert "boxes.csv" in words
    assert "\n" not in words


def test_a_backslash_that_is_in_a_files_name_stays(tmp_path):
    (tmp_path / "x\\a.png").touch()
    root = _write(tmp_path, _ONE + "x\\a.png,1\n", _BOXES + "x\\a.png,pneumonia,1,2,3,4\n")
    (record,) = read_csv(root)
    assert record.path == root / "x\\a.png"
    assert record.boxes


def test_faults_of_one_kind_are_counted_in_one_line(tmp_path):
    words = ("yes", "1", "no", "-1", "no", "no", "no")
    rows = "".join(f"{at}.png,{word}\n" for at, word in enumerate(words))
    with pytest.raises(LabelError) as caught:
        read_csv(_write(tmp_path, _ONE + rows))
    assert str(caught.value) == (
        f"{tmp_path}/labels.csv, line 2: pneumonia is 'yes'; wanted is 1 (with), 0 (without) or "
        "blank (unknown). Leave an uncertain label blank. So 6 times, on lines 2, 4, 5 and 3 "
        "more: 'yes', 'no', '-1'."
    )


def test_faults_of_all_kinds_are_told_at_once(tmp_path):
    labels = (
        "path,patient_id,Pneumonia,effusion,age_years\n"
        "i\\a.png,LM-1605,yes,-1,61\n"
        "i\\b.png,,no,0,old\n"
        "i/b.png,LM-1605,1,1,4\n"
        ",LM-1606,,uncertain,4\n"
        "../x.png,LM-1606,1,0,4\n"
    )
    # Neither is on an image that is not in labels.csv.
    boxes = "i\\a.png,effusion,1,2,3,4\ni/b.png,effusion,1,2,wide,4\n"
    with pytest.raises(LabelError) as caught:
        read_csv(_write(tmp_path, labels, _BOXES + boxes))
    head, *told = str(caught.value).split("\n  ")
    assert head == f"the tables in {tmp_path} have faults of 10 kinds; mend them all:"
    starts = [
        "labels.csv has the column 'Pneumonia', which is no finding's key",
        "labels.csv, line 2: effusion is '-1'",
        "labels.csv, line 2: path 'i\\a.png' has a backslash",
        "labels.csv, line 3: age_years is 'old'",
        "labels.csv, line 3: patient_id is blank",
        "labels.csv, line 4: path 'i/b.png' is on line 3 already",
        "labels.csv, line 5: path is blank",
        "labels.csv, line 6: path '../x.png' leads out",
        "boxes.csv, line 2: path 'i\\a.png' has a backslash",
        "boxes.csv, line 3: width is 'wide'",
    ]
    for start in starts:
        assert sum(text.startswith(start) for text in told) == 1, start
    assert len(told) == len(starts)
    (label,) = [text for text in told if "effusion is" in text]
    assert label.endswith("So 4 times, on lines 2, 3, 5: '-1', 'yes', 'no', 'uncertain'.")
    assert "LM-160" not in str(caught.value)


def test_a_table_of_boxes_that_is_none_is_told_beside_the_labels_faults(tmp_path):
    with pytest.raises(LabelError) as caught:
        read_csv(_write(tmp_path, _ONE + "a.png,yes\n", "path,x\n"))
    assert "pneumonia is 'yes'" in str(caught.value)
    assert "boxes.csv lacks the column(s) finding, y" in str(caught.value)


def test_many_kinds_of_faults_are_cut_short(tmp_path):
    names = [f"{name}s" for name in ("mass", "nodule", "edema", "hernia", "effusion", "fibrosis")]
    names += ["pneumonias", "fractures", "scoliosi", "emphysemas", "consolidations", "lung_cysts"]
    with pytest.raises(LabelError) as caught:
        read_csv(_write(tmp_path, f"path,{','.join(names)}\na.png{',1' * len(names)}\n"))
    head, *told = str(caught.value).splitlines()
    assert f"have faults of {len(names)} kinds" in head
    assert len(told) == 11
    assert told[-1] == f"  and {len(names) - 10} more."


@pytest.mark.parametrize("patients", [3, 9])
def test_of_a_column_that_is_no_labels_one_word_is_told(tmp_path, patients):
    # The columns are swapped: what stands in place of labels are patients.
    rows = "".join(f"{at}.png,1,LM-160{at % patients}\n" for at in range(patients + 2))
    with pytest.raises(LabelError) as caught:
        read_csv(_write(tmp_path, "path,patient_id,mass\n" + rows))
    assert str(caught.value).count("LM-160") == 1


def test_a_box_of_a_finding_that_is_labelled_0_is_refused(tmp_path):
    boxes = _BOXES + "a.png,pneumonia,1,2,3,4\n"
    assert read_csv(_write(tmp_path, _ONE + "a.png,\n", boxes))[0].boxes
    with pytest.raises(LabelError, match=r"boxes.csv, line 2: the box is of pneumonia, which"):
        read_csv(_write(tmp_path, _ONE + "a.png,0\n", boxes))


def test_a_missing_column_of_boxes_and_a_missing_table_are_named(tmp_path):
    with pytest.raises(LabelError, match="labels.csv is not in .*; point --root"):
        read_csv(tmp_path)
    with pytest.raises(LabelError, match=r"boxes.csv lacks the column\(s\) finding, height"):
        read_csv(_write(tmp_path, _ONE + "a.png,1\n", "path,x,y,width\n"))


def test_bytes_that_are_no_text_are_refused(tmp_path):
    (tmp_path / "labels.csv").write_bytes(b"path,mass\n\xe4.png,1\n")
    with pytest.raises(LabelError, match="labels.csv is not UTF-8"):
        read_csv(tmp_path)


def test_columns_about_a_finding_stay_attributes(tmp_path):
    (record,) = read_csv(
        _write(tmp_path, "path,pneumonia,pneumonia_type,mass_kg\na.png,1,viral,71\n")
    )
    assert record.attributes == {"pneumonia_type": "viral", "mass_kg": "71"}


def test_no_message_tells_a_patient(tmp_path):
    root = _write(tmp_path, "path,patient_id,mass\na.png,LM-1605,1\na.png,LM-1605,1\n")
    with pytest.raises(LabelError) as caught:
        read_csv(root)
    assert "LM-1605" not in str(caught.value)
    (root / "labels.csv").write_text("a.png,LM-1605,1\n")
    with pytest.raises(LabelError) as caught:
        read_csv(root)
    assert "LM-1605" not in str(caught.value)


def test_the_real_copies_are_read(data_root):
    records = read_csv(data_root / "kermany")
    assert (len(records), sum(record.labels["pneumonia"] for record in records)) == (5216, 3875)
    assert {record.attributes["etiology"] for record in records} == {"", "bacteria", "virus"}
    mined = read_csv(data_root / "nih")
    # Of the 14 findings the copy has none with a hernia.
    assert {len(record.labels) for record in mined} == {13}
    assert sum(bool(record.boxes) for record in mined) > 0


def test_without_patient_ids_the_figures_are_to_be_read_with_care(tmp_path):
    caveats = DATASETS["csv"].caveats
    assert caveats(tmp_path) == {}
    assert set(caveats(_write(tmp_path, "path,nodule\na.png,1\n"))) == {"patients-unknown"}
    assert caveats(_write(tmp_path, "path, patient_id,nodule\na.png,p,1\n")) == {}


def test_a_patient_in_two_parts_is_a_caveat_that_names_nobody(tmp_path):
    caveats = DATASETS["csv"].caveats
    table = "path,patient_id,nodule,split\na.png,LM-1,1,test\nb.png,LM-1,0, test\n"
    rest = "c.png,LM-2,0,train\nd.png,LM-3,0,\ne.png,LM-3,0,train\n"
    assert caveats(_write(tmp_path, table + rest)) == {}
    root = _write(tmp_path, table + rest + "f.png,LM-1,0,validation\ng.png,LM-2,1,test\n")
    (code, words), *others = caveats(root).items()
    assert (code, others) == ("patients-in-parts", [])
    assert words.startswith("2 patients are in more than one part of the split (")
    assert "test and validation: 1" in words
    assert "test and train: 1" in words
    assert "LM-" not in words


def test_views_are_in_capitals_so_that_they_are_chosen(tmp_path):
    table = "path,view_position,nodule\na.png,pa,1\nb.png, Lateral,1\nc.png,,1\n"
    records = read_csv(_write(tmp_path, table + "d.png,Antero-posterior,1\ne.png,frontal,1\n"))
    views = [r.attributes["view_position"] for r in records]
    assert views == ["PA", "LATERAL", "", "AP", "FRONTAL"]
    assert [r.path.name for r in select(records).records] == ["a.png", "c.png", "d.png"]


def test_a_sex_is_f_or_m_however_it_is_written(tmp_path):
    words = ("F", "f", " m", "Female", "MALE", "other", "")
    rows = "".join(f"{at}.png,{word},1\n" for at, word in enumerate(words))
    records = read_csv(_write(tmp_path, "path,sex,nodule\n" + rows))
    assert [r.attributes["sex"] for r in records] == ["F", "F", "M", "F", "M", "OTHER", ""]


def test_an_age_that_nobody_can_have_is_unknown(tmp_path):
    table = "path,age_years,nodule\na.png, 61.0,1\nb.png,414,1\nc.png,,1\n"
    records = read_csv(_write(tmp_path, table))
    assert [r.attributes["age_years"] for r in records] == ["61", "", ""]
