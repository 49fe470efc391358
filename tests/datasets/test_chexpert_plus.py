from __future__ import annotations

import json

import numpy as np
import pytest
from PIL import Image

from medllm.datasets import DATASETS, LabelPolicy, read_chexpert_plus, read_dataset
from medllm.datasets.chexpert_labels import CHEXPERT_COLUMNS
from medllm.errors import LabelError
from medllm.phantom import make_phantom, write_dicom

_HEADER = (
    "path_to_image,path_to_dcm,frontal_lateral,ap_pa,deid_patient_id,patient_report_date_order,"
    "age,sex,race,ethnicity,split,report,section_findings,section_impression\n"
)
_A, _B = "train/patient42142/study5/view1_frontal", "valid/patient64541/study1/view2_lateral"
_ROWS = (
    f'{_A}.jpg,{_A}.dcm,Frontal,AP,patient42142,5,61.0,Female,White,Non-Hispanic/Non-Latino,train,"'
    'NARRATIVE:\nChest, 1 view","Lungs, clear.",No pneumonia.\n',
    f"{_B}.jpg,{_B}.dcm,Lateral,,patient64541,1,45.0,Male,Unknown,,valid,,,\n",
)


def _line(image, **mentions):
    named = {name.replace("_", " "): value for name, value in mentions.items()}
    return json.dumps({"path_to_image": f"{image}.jpg"} | dict.fromkeys(CHEXPERT_COLUMNS) | named)


@pytest.fixture
def root(tmp_path):
    (tmp_path / "df_chexpert_plus_240401.csv").write_text(_HEADER + "".join(_ROWS))
    (tmp_path / "chexbert_labels").mkdir()
    for section, lines in {
        "impression": (_line(_B, No_Finding=1.0), _line(_A, Pneumonia=0.0, Edema=-1.0)),
        "findings": (_line(_A, No_Finding=1.0), _line(_B)),
        "report": (_line(_A, Pneumonia=1.0),),
    }.items():
        text = "\n".join(lines) + "\n"
        (tmp_path / "chexbert_labels" / f"{section}_fixed.json").write_text(text)
    return tmp_path


def test_every_field_is_as_the_table_has_it(root):
    first, second = read_chexpert_plus(root)
    assert (first.dataset, first.patient_id, first.study_id, first.split) == (
        *("chexpert-plus", "patient42142", "patient42142/study5", "train"),
    )
    assert (second.patient_id, second.study_id, second.split) == (
        *("patient64541", "patient64541/study1", "validation"),
    )
    assert first.attributes == {
        "age_years": "61",
        "sex": "F",
        "view_position": "AP",
        "race": "White",
        "ethnicity": "Non-Hispanic/Non-Latino",
    }
    assert second.attributes == {
        "age_years": "45",
        "sex": "M",
        "view_position": "LATERAL",
        "race": "Unknown",
        "ethnicity": "",
    }


def test_labels_are_the_impressions_and_those_of_other_sections_lie_beside(root):
    first, second = read_chexpert_plus(root)
    assert "edema" not in first.labels
    assert len(first.labels) == 12
    assert set(first.labels.values()) == {0}
    assert len(second.labels) == 13
    assert set(first.other_labels) == {"chexbert-findings", "chexbert-report"}
    assert first.other_labels["chexbert-report"]["pneumonia"] == 1
    assert len(first.other_labels["chexbert-findings"]) == 13
    # A report without findings: null throughout says nothing. An image without a line: nothing.
    assert second.other_labels == {"chexbert-findings": {}, "chexbert-report": {}}


def test_the_indication_is_the_history_before_the_report(root):
    table = root / "df_chexpert_plus_240401.csv"
    header, *rows = table.read_text().replace('"NARRATIVE:\n', '"NARRATIVE: ').splitlines()
    assert {one.indication for one in read_chexpert_plus(root)} == {""}
    names = ",section_clinical_history,section_history"
    told = [f'{rows[0]},"Cough, fever.",', f"{rows[1]}, ,Fall.", ""]
    table.write_text("\n".join([header + names, *told]))
    assert [one.indication for one in read_chexpert_plus(root)] == ["Cough, fever.", "Fall."]


def test_an_image_without_a_line_of_labels_is_unknown(root):
    (root / "chexbert_labels/impression_fixed.json").write_text(_line(_A, Edema=1.0))
    first, second = read_chexpert_plus(root)
    assert first.labels["edema"] == 1
    assert second.labels == {}


def test_the_policy_is_the_callers(root):
    policy = DATASETS["chexpert-plus"].policy.changed("", uncertain="soft", blank="unknown")
    assert read_dataset("chexpert-plus", root, policy)[0].labels == {"pneumonia": 0, "edema": 0.5}
    ones = LabelPolicy("positive", None, "negative")
    assert read_chexpert_plus(root, ones)[0].labels["edema"] == 1


@pytest.mark.parametrize(
    ("folder", "path"),
    [
        ("", f"{_A}.jpg"),
        ("PNG", f"PNG/{_A}.png"),
        ("PNG/PNG", f"PNG/PNG/{_A}.png"),
        ("DICOM", f"DICOM/{_A}.dcm"),
    ],
)
def test_images_are_looked_for_in_the_form_that_there_is(root, folder, path):
    (root / folder).mkdir(parents=True, exist_ok=True)
    assert read_chexpert_plus(root)[0].path == root / path


def test_images_are_read_in_either_form(root):
    phantom = make_phantom(4, size=64)
    path = root / "DICOM" / f"{_A}.dcm"
    path.parent.mkdir(parents=True)
    write_dicom(phantom, path)
    # What is left of a broken download is no image of the set.
    (path.parent / ".azDownload-1-view1_frontal.dcm").write_bytes(b"")
    assert len(read_chexpert_plus(root)) == 2
    assert read_chexpert_plus(root)[0].radiograph().pixels.shape == (64, 64)
    path = root / "PNG" / f"{_A}.png"
    path.parent.mkdir(parents=True)
    pixels = np.uint8(255 * phantom.pixels)
    Image.fromarray(pixels).save(path)
    record = read_chexpert_plus(root)[0]
    np.testing.assert_allclose(record.radiograph().pixels, pixels / 255, atol=1e-6)


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        ("Female", "female", "line 3: Sex is 'female'"),
        (",train,", ",test,", "line 3: split is 'test'; wanted is 'train' or 'valid'"),
        (",patient42142,", ",,", "line 3: deid_patient_id is blank"),
        ("Frontal,AP", "AP,AP", "line 3: Frontal/Lateral is"),
        ("ethnicity", "ethnic", "lacks the column.s. ethnicity"),
    ],
)
def test_an_odd_table_is_told_with_its_place(root, old, new, message):
    table = root / "df_chexpert_plus_240401.csv"
    table.write_text(table.read_text().replace(old, new, 1))
    with pytest.raises(LabelError, match=f"240401.csv.*{message}") as caught:
        read_chexpert_plus(root)
    assert "42142" not in str(caught.value)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("{", "line 1: it is no JSON"),
        ("[]", "line 1: wanted is an object"),
        ("{}", "line 1: it lacks path_to_image, No Finding, Enlarged Cardiomediastinum"),
        (_line(_A, Fracture=0.5), "line 1: Fracture is '0.5'; wanted is 1"),
        (f"{_line(_A)}\n\n{_line(_A)}", "line 3: the image has a line already"),
    ],
)
def test_odd_labels_are_told_with_their_place(root, text, message):
    (root / "chexbert_labels/impression_fixed.json").write_text(text)
    with pytest.raises(LabelError, match=f"impression_fixed.json, {message}") as caught:
        read_chexpert_plus(root)
    assert "42142" not in str(caught.value)


def test_a_missing_file_is_named_and_no_other_section_stands_in_for_it(root):
    (root / "chexbert_labels/impression_fixed.json").write_bytes(b"\xff\xfe")
    with pytest.raises(LabelError, match="impression_fixed.json is not UTF-8"):
        read_chexpert_plus(root)
    (root / "chexbert_labels/impression_fixed.json").unlink()
    with pytest.raises(LabelError, match="impression_fixed.json is not in .*chexbert_labels"):
        read_chexpert_plus(root)
