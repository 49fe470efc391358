from __future__ import annotations

import csv

import pytest
from PIL import Image

from medllm.datasets import (
    ImageRecord,
    find_dataset,
    read_covid_chestxray,
    read_dataset,
    select,
)
from medllm.errors import LabelError
from medllm.phantom import make_phantom

# The published header, whose last column has no name.
_COLUMNS = (
    *("patientid", "offset", "sex", "age", "finding", "RT_PCR_positive", "survival"),
    *("intubated", "intubation_present", "went_icu", "in_icu", "needed_supplemental_O2"),
    *("extubated", "temperature", "pO2_saturation", "leukocyte_count", "neutrophil_count"),
    *("lymphocyte_count", "view", "modality", "date", "location", "folder", "filename", "doi"),
    *("url", "license", "clinical_notes", "other_notes", ""),
)
_ROW = {
    "patientid": "2",
    "offset": "0",
    "sex": "M",
    "age": "65",
    "finding": "Pneumonia/Viral/COVID-19",
    "RT_PCR_positive": "Y",
    "survival": "Y",
    "view": "PA",
    "modality": "X-ray",
    "date": "January 22, 2020",
    "location": "Hospital, City, Country",
    "folder": "images",
    "filename": "a.jpeg",
    "license": "CC BY-NC-SA",
    "clinical_notes": "On January 22, 2020, a “wet market”,\nand more",
}
_OTHER = {"pneumonia": 1, "covid_19": 0, "tuberculosis": 0}


def _write(root, *rows, columns=_COLUMNS):
    with (root / "metadata.csv").open("w", newline="", encoding="utf-8") as stream:
        writer = csv.DictWriter(stream, columns, extrasaction="ignore", restval="")
        writer.writeheader()
        writer.writerows({**_ROW, **row} for row in rows)


def _read_one(root, **row):
    _write(root, row)
    (record,) = read_covid_chestxray(root)
    return record


def test_a_row_becomes_a_record(tmp_path):
    assert _read_one(tmp_path) == ImageRecord(
        dataset="covid-chestxray",
        path=tmp_path / "images" / "a.jpeg",
        patient_id="2",
        labels={"pneumonia": 1, "covid_19": 1, "tuberculosis": 0},
        attributes={
            "age_years": "65",
            "sex": "M",
            "view_position": "PA",
            "view": "PA",
            "modality": "X-ray",
            "finding": "Pneumonia/Viral/COVID-19",
            "rt_pcr_positive": "Y",
            "license": "CC BY-NC-SA",
        },
    )


@pytest.mark.parametrize(
    ("finding", "labels"),
    [
        ("Pneumonia/Viral/COVID-19", {"pneumonia": 1, "covid_19": 1, "tuberculosis": 0}),
        ("Pneumonia/Viral/SARS", _OTHER),
        ("Pneumonia/Viral/Influenza/H1N1", _OTHER),
        ("Pneumonia/Viral/Herpes ", _OTHER),  # with a space at its end, as published
        ("Pneumonia/Bacterial/Streptococcus", _OTHER),
        ("Pneumonia/Bacterial/Staphylococcus/MRSA", _OTHER),
        ("Pneumonia/Fungal/Pneumocystis", _OTHER),
        ("Pneumonia/Aspiration", _OTHER),
        ("Pneumonia/Lipoid", _OTHER),
        # Nothing is said of the germ: it may be any, or any of the kind.
        ("Pneumonia", {"pneumonia": 1}),
        ("Pneumonia/Viral", {"pneumonia": 1, "tuberculosis": 0}),
        ("Pneumonia/Bacterial", {"pneumonia": 1, "covid_19": 0}),
        ("Tuberculosis", {"tuberculosis": 1, "covid_19": 0}),
        ("No Finding", {"pneumonia": 0, "covid_19": 0, "tuberculosis": 0}),
        ("No finding", {"pneumonia": 0, "covid_19": 0, "tuberculosis": 0}),
        ("todo", {}),
        ("Unknown", {}),
        ("", {}),
    ],
)
def test_whole_paths_are_labels(tmp_path, finding, labels):
    assert _read_one(tmp_path, finding=finding).labels == labels


def test_only_frontal_radiographs_are_selected(tmp_path):
    views = [
        ("PA", "X-ray", "PA"),
        ("AP", "X-ray", "AP"),
        ("AP Supine", "X-ray", "AP"),
        ("AP semi erect", "X-ray", "AP"),
        ("AP Erect", "X-ray", "AP"),
        ("L", "X-ray", "LATERAL"),
        ("", "X-ray", "UNKNOWN"),
        ("Coronal", "X-ray", "CORONAL"),
        ("Axial", "CT", "CT"),
        ("Coronal", "CT", "CT"),
        # A view that a radiograph may have makes no radiograph of it.
        ("PA", "CT", "CT"),
        ("", "CT", "CT"),
        ("PA", "", "UNKNOWN"),
        ("PA", "Ultrasound", "ULTRASOUND"),
    ]
    _write(tmp_path, *({"view": view, "modality": modality} for view, modality, _ in views))
    records = read_covid_chestxray(tmp_path)
    assert [record.attributes["view_position"] for record in records] == [row[2] for row in views]
    assert [record.attributes["view"] for record in records] == [row[0] for row in views]
    chosen = select(records)
    assert len(chosen.records) == 5
    assert chosen.left_out == {
        **{"view LATERAL": 1, "view UNKNOWN": 2, "view CORONAL": 1},
        **{"view CT": 4, "view ULTRASOUND": 1},
    }


def test_folders_and_licences_are_those_of_the_row(tmp_path):
    _write(tmp_path, {"folder": "volumes", "filename": "b.nii.gz", "modality": "CT"}, {})
    volume, image = read_covid_chestxray(tmp_path)
    assert volume.path == tmp_path / "volumes" / "b.nii.gz"
    assert image.path == tmp_path / "images" / "a.jpeg"
    assert _read_one(tmp_path, license="").attributes["license"] == ""


@pytest.mark.parametrize(
    ("age", "years"),
    [("65", "65"), ("35.0", "35"), ("0.5", "0.5"), ("", ""), ("414", ""), ("-1", "")],
)
def test_ages_are_years(tmp_path, age, years):
    assert _read_one(tmp_path, age=age).attributes["age_years"] == years


def test_unknown_sex_is_blank(tmp_path):
    assert _read_one(tmp_path, sex="").attributes["sex"] == ""
    assert _read_one(tmp_path, sex="F").attributes["sex"] == "F"


def test_a_record_opens_its_image(tmp_path):
    record = _read_one(tmp_path)
    record.path.parent.mkdir()
    Image.fromarray((make_phantom(2, size=64).pixels * 255).astype("uint8")).save(record.path)
    assert record.radiograph().pixels.shape == (64, 64)


def test_the_registry_reads_it_and_tells_whose_labels_they_are(tmp_path):
    _write(tmp_path, {})
    assert read_dataset("covid-chestxray", tmp_path) == read_covid_chestxray(tmp_path)
    assert "diagnosis" in find_dataset("covid-chestxray").caveats(tmp_path)["labels-of-patients"]


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"finding": "COVID-19"}, "finding is 'COVID-19', which medllm does not know"),
        ({"finding": "Pneumonia/Viral/COVID-19, ARDS"}, "which medllm does not know"),
        ({"sex": "male"}, "sex is 'male'; wanted is F, M or blank"),
        ({"age": "adult"}, "age is 'adult'; wanted is a number of years"),
        ({"age": "nan"}, "age is 'nan'; wanted is a number of years"),
        ({"patientid": ""}, "patientid is blank"),
        ({"folder": ""}, "folder is blank"),
        ({"filename": " "}, "filename is blank"),
    ],
)
def test_an_odd_value_is_an_error_that_names_the_line(tmp_path, change, message):
    _write(tmp_path, {"clinical_notes": "", **change})
    with pytest.raises(LabelError) as caught:
        read_covid_chestxray(tmp_path)
    assert "metadata.csv, line 2: " in str(caught.value)
    assert message in str(caught.value)


def test_a_missing_table_or_column_is_named(tmp_path):
    with pytest.raises(LabelError, match="metadata.csv is not in"):
        read_covid_chestxray(tmp_path)
    # The first versions of the table had no modality.
    _write(tmp_path, {}, columns=[name for name in _COLUMNS if name != "modality"])
    with pytest.raises(LabelError, match="lacks the column.s. modality"):
        read_covid_chestxray(tmp_path)
