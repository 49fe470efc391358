from __future__ import annotations

import pytest
from PIL import Image

from medllm.datasets import (
    ImageRecord,
    find_dataset,
    read_dataset,
    read_montgomery,
    read_shenzhen,
    select,
)
from medllm.errors import LabelError
from medllm.phantom import make_phantom

_READERS = {
    "montgomery": ("MontgomerySet", "MCUCXR", read_montgomery),
    "shenzhen": ("ChinaSet_AllFiles", "CHNCXR", read_shenzhen),
}


def _write(root, folder, readings):
    """Make a copy of one set: a file an image, and its reading where there is one."""
    for part in ("CXR_png", "ClinicalReadings"):
        (root / folder / part).mkdir(parents=True, exist_ok=True)
    for stem, reading in readings.items():
        (root / folder / "CXR_png" / f"{stem}.png").touch()
        if reading is not None:
            path = root / folder / "ClinicalReadings" / f"{stem}.txt"
            path.write_bytes(reading.encode("latin-1"))


def _montgomery(sex, age, text):
    return f"Patient's Sex: {sex} \nPatient's Age: {age}\n{text}\n"


def test_montgomery_gives_an_image_a_record(tmp_path):
    _write(
        tmp_path,
        "MontgomerySet",
        {
            "MCUCXR_0001_0": _montgomery("F", "027Y", "normal"),
            "MCUCXR_0104_1": _montgomery("M", "043Y", "infiltrate in RUL"),
        },
    )
    # Outlines of the lungs, which have the image's name.
    for side in ("leftMask", "rightMask"):
        folder = tmp_path / "MontgomerySet" / "ManualMask" / side
        folder.mkdir(parents=True)
        (folder / "MCUCXR_0001_0.png").touch()
    images = tmp_path / "MontgomerySet" / "CXR_png"
    (images / "Thumbs.db").touch()
    (images / "._MCUCXR_0001_0.png").touch()
    assert read_montgomery(tmp_path) == [
        ImageRecord(
            dataset="montgomery",
            path=images / "MCUCXR_0001_0.png",
            patient_id="MCUCXR_0001",
            labels={"tuberculosis": 0},
            attributes={"age_years": "27", "sex": "F"},
        ),
        ImageRecord(
            dataset="montgomery",
            path=images / "MCUCXR_0104_1.png",
            patient_id="MCUCXR_0104",
            labels={"tuberculosis": 1},
            attributes={"age_years": "43", "sex": "M"},
        ),
    ]


def test_shenzhen_gives_an_image_a_record(tmp_path):
    _write(
        tmp_path,
        "ChinaSet_AllFiles",
        {"CHNCXR_0001_0": "male 45yrs\nnormal\n", "CHNCXR_0327_1": "female 30yrs\nright PTB"},
    )
    images = tmp_path / "ChinaSet_AllFiles" / "CXR_png"
    assert read_shenzhen(tmp_path) == [
        ImageRecord(
            dataset="shenzhen",
            path=images / "CHNCXR_0001_0.png",
            patient_id="CHNCXR_0001",
            labels={"tuberculosis": 0},
            attributes={"age_years": "45", "sex": "M"},
        ),
        ImageRecord(
            dataset="shenzhen",
            path=images / "CHNCXR_0327_1.png",
            patient_id="CHNCXR_0327",
            labels={"tuberculosis": 1},
            attributes={"age_years": "30", "sex": "F"},
        ),
    ]


@pytest.mark.parametrize(
    ("reading", "age", "sex"),
    [
        (_montgomery("F", "027Y", "normal"), "27", "F"),
        (_montgomery("O", "005Y", "normal"), "5", ""),
        (_montgomery("m", "006M", "normal"), "0.5", "M"),
        (_montgomery("M", "002W", "normal"), "0.0383", "M"),
        (_montgomery("M", "414Y", "normal"), "", "M"),
        (_montgomery("M", "", "normal"), "", "M"),
        (_montgomery("M", "040", "normal"), "", "M"),
        (_montgomery("Female", "040Y", "normal"), "40", ""),
        ("normal", "", ""),
        ("", "", ""),
        (None, "", ""),
    ],
)
def test_montgomerys_readings_are_read_leniently(tmp_path, reading, age, sex):
    _write(tmp_path, "MontgomerySet", {"MCUCXR_0001_0": reading})
    assert read_montgomery(tmp_path)[0].attributes == {"age_years": age, "sex": sex}


@pytest.mark.parametrize(
    ("reading", "age", "sex"),
    [
        ("male 49yrs\nnormal", "49", "M"),
        ("female 49yrs\nnormal", "49", "F"),
        ("Female, 28yrs\nbilateral PTB", "28", "F"),
        ("male , 29yrs  \t\nbilateral secondary PTB", "29", "M"),
        ("femal 32yrs\nnormal", "32", "F"),
        ("female24yrs\nnormal", "24", "F"),
        ("\nmale 45 yrs\nnormal", "45", "M"),
        ("male 16month\nnormal", "1.3333", "M"),
        ("female 64days\nnormal", "0.1752", "F"),
        ("female 414yrs\nnormal", "", "F"),
        # Years, months or days: a number without a unit does not say.
        ("male 42\nnormal", "", "M"),
        ("male\n3 cavities", "", "M"),
        ("tamale 49yrs", "", ""),
        ("PTB in the right upper field", "", ""),
        ("male\xa049yrs\nnormal", "", "M"),
        (None, "", ""),
    ],
)
def test_shenzhens_readings_are_read_leniently(tmp_path, reading, age, sex):
    _write(tmp_path, "ChinaSet_AllFiles", {"CHNCXR_0001_0": reading})
    assert read_shenzhen(tmp_path)[0].attributes == {"age_years": age, "sex": sex}


def test_images_that_a_reading_calls_the_same_patients_share_the_patient(tmp_path):
    _write(
        tmp_path,
        "MontgomerySet",
        {
            "MCUCXR_0113_1": _montgomery("F", "084Y", "scars"),
            "MCUCXR_0117_1": _montgomery("F", "085Y", "stable (same pt as MCUCXR_0113_1)"),
            "MCUCXR_0162_1": _montgomery("M", "049Y", "NO REPORT (same pt as MCUCXR_0166_1)"),
            "MCUCXR_0166_1": _montgomery("M", "049Y", "(same pt as MCUCXR_0170_1)"),
            "MCUCXR_0170_1": _montgomery("M", "049Y", "(same pt as MCUCXR_0999_1)"),
        },
    )
    patients = [record.patient_id for record in read_montgomery(tmp_path)]
    assert patients == ["MCUCXR_0113"] * 2 + ["MCUCXR_0162"] * 3


@pytest.mark.parametrize("name", _READERS)
def test_the_folder_itself_is_a_root_too_and_a_record_opens_its_image(tmp_path, name):
    folder, prefix, read = _READERS[name]
    _write(tmp_path, folder, {f"{prefix}_0001_1": None})
    assert read(tmp_path / folder) == read(tmp_path) == read_dataset(name, tmp_path)
    (record,) = select(read(tmp_path)).records
    Image.fromarray((make_phantom(4, size=64).pixels * 255).astype("uint8")).save(record.path)
    assert record.radiograph().pixels.shape == (64, 64)
    assert not record.masks


@pytest.mark.parametrize("name", _READERS)
def test_a_copy_without_images_is_an_error(tmp_path, name):
    folder, _, read = _READERS[name]
    with pytest.raises(LabelError, match=f"holds no image in {folder}/CXR_png"):
        read(tmp_path)


@pytest.mark.parametrize("name", _READERS)
@pytest.mark.parametrize("end", ["0001_2", "0001", "0001_0 (1)", "0001_01"])
def test_a_name_without_its_label_is_an_error(tmp_path, name, end):
    folder, prefix, read = _READERS[name]
    _write(tmp_path, folder, {f"{prefix}_{end}": None})
    with pytest.raises(LabelError, match="is not named as the data set names its files"):
        read(tmp_path)


def test_one_set_is_not_taken_for_the_other(tmp_path):
    _write(tmp_path, "MontgomerySet", {"MCUCXR_0001_0": None})
    with pytest.raises(LabelError, match="ChinaSet_AllFiles"):
        read_shenzhen(tmp_path)
    with pytest.raises(LabelError, match="is not named"):
        read_shenzhen(tmp_path / "MontgomerySet")


def test_the_published_counts_are_stated(tmp_path):
    montgomery, shenzhen = find_dataset("montgomery"), find_dataset("shenzhen")
    assert montgomery.published.images == 138
    assert (shenzhen.published.images, shenzhen.published.positive) == (662, {"tuberculosis": 336})
    assert "patients-unknown" in shenzhen.caveats(tmp_path)
