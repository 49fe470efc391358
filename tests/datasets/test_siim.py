from __future__ import annotations

import numpy as np
import pytest

from medllm.datasets import DATASETS, read_siim
from medllm.errors import LabelError
from medllm.phantom import make_phantom, write_dicom

# The second column's name begins with a space, as published.
_HEADER = "ImageId, EncodedPixels\n"


def _write(root, *rows):
    (root / "train-rle.csv").write_text(_HEADER + "\n".join(rows) + "\n")
    return root


def _expected(*runs):
    """Paint runs down the columns: column, first row, length."""
    mask = np.zeros((1024, 1024), bool)
    for column, row, length in runs:
        mask[row : row + length, column] = True
    return mask


def test_outlines_are_gaps_and_lengths_down_the_columns(tmp_path):
    # 2 columns and 5 pixels in, 3 long; then on to the same row of the next column.
    root = _write(tmp_path, f"a, {2 * 1024 + 5} 3 1021 4", "b, -1", "c,0 1")
    first, second, third = read_siim(root)
    assert [record.labels for record in (first, second, third)] == [
        {"pneumothorax": 1},
        {"pneumothorax": 0},
        {"pneumothorax": 1},
    ]
    mask = first.masks["pneumothorax"].decode()
    assert (mask == _expected((2, 5, 3), (3, 5, 4))).all()
    assert (third.masks["pneumothorax"].decode() == _expected((0, 0, 1))).all()
    assert second.masks == {}
    assert {(r.dataset, r.split) for r in (first, second, third)} == {("siim", "")}
    assert all(r.boxes == {} and r.attributes == {} for r in (first, second, third))


def test_outlines_of_one_image_are_joined_where_they_overlap_and_where_they_do_not(tmp_path):
    root = _write(
        tmp_path,
        "a,10 5 5 5",  # 10 to 15, 20 to 25
        "b,-1",
        "a,12 2",  # within the first
        "a,13 4",  # over its end, to 17
        "a,25 1",  # right behind the second
        "a,1030 2",
    )
    first, second = read_siim(root)
    expected = _expected((0, 10, 7), (0, 20, 6), (1, 6, 2))
    assert (first.masks["pneumothorax"].decode() == expected).all()
    assert second.labels == {"pneumothorax": 0}


def test_random_outlines_are_joined_as_their_pixels_are(tmp_path):
    rng = np.random.default_rng(0)
    flat = np.zeros(1024 * 1024, bool)
    rows = []
    for _ in range(20):
        numbers = rng.integers(0, 3000, 20)
        rows.append("a," + " ".join(map(str, numbers)))
        place = 0
        for gap, length in numbers.reshape(-1, 2):
            place += gap
            flat[place : place + length] = True
            place += length
    (record,) = read_siim(_write(tmp_path, *rows))
    assert (record.masks["pneumothorax"].decode() == flat.reshape(1024, 1024).T).all()


def test_files_are_found_by_their_name_in_both_parts_of_the_first_stage(tmp_path):
    root = _write(tmp_path, "1.2.3,-1", "1.2.4,-1", "1.2.5,-1")
    train = tmp_path / "dicom-images-train" / "study1" / "series" / "1.2.3.dcm"
    test = tmp_path / "dicom-images-test" / "study2" / "series" / "1.2.4.dcm"
    for path in (train, test):
        path.parent.mkdir(parents=True)
        write_dicom(make_phantom(2, size=64), path)
    first, second, third = read_siim(root)
    assert (first.path, second.path) == (train, test)
    assert [r.study_id for r in (first, second, third)] == ["study1", "study2", ""]
    assert not third.path.exists()
    assert first.radiograph().file_format == "dicom"


def test_each_image_counts_as_a_patient_and_that_is_said(tmp_path):
    records = read_siim(_write(tmp_path, "a,-1", "b,-1"))
    assert [record.patient_id for record in records] == ["a", "b"]
    assert set(DATASETS["siim"].caveats(tmp_path)) == {"patients-unknown"}


@pytest.mark.parametrize("text", ["", "1", "1 2 3", "5 -2", "1 x", f"1 {1024 * 1024}"])
def test_what_is_no_outline_is_refused_with_its_line(tmp_path, text):
    with pytest.raises(LabelError, match="train-rle.csv, line 3: EncodedPixels is no outline"):
        read_siim(_write(tmp_path, "a,-1", f"b,{text}"))


def test_a_missing_table_and_a_missing_column_are_named(tmp_path):
    with pytest.raises(LabelError, match="train-rle.csv is not in"):
        read_siim(tmp_path)
    (tmp_path / "train-rle.csv").write_text("ImageId,Pixels\n")
    with pytest.raises(LabelError, match=r"lacks the column\(s\) EncodedPixels"):
        read_siim(tmp_path)


def test_what_is_known_of_the_set_is_as_published():
    dataset = DATASETS["siim"]
    assert (dataset.published.images, dict(dataset.published.positive)) == (
        12_047,
        {"pneumothorax": 2669},
    )
    assert set(dataset.descends) == {"nih"}


def test_an_outline_of_no_image_is_refused(tmp_path):
    with pytest.raises(LabelError, match="train-rle.csv, line 3: ImageId is blank"):
        read_siim(_write(tmp_path, "a,-1", ",-1"))
