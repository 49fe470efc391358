from __future__ import annotations

import numpy as np
import pytest

from medllm.datasets import DATASETS, read_chestmnist, read_dataset, read_pneumoniamnist
from medllm.errors import DicomError, LabelError
from medllm.phantom import make_phantom

# The order of the columns, as published.
_CHEST = (
    *("atelectasis", "cardiomegaly", "effusion", "infiltration", "mass", "nodule", "pneumonia"),
    *("pneumothorax", "consolidation", "edema", "emphysema", "fibrosis", "pleural_thickening"),
    "hernia",
)
_COUNTS = {"train": 3, "val": 2, "test": 1}


def _images(count, size=64, first=0):
    return np.stack(
        [
            np.uint8(255 * make_phantom(first + index, size=max(size, 64)).pixels)[:size, :size]
            for index in range(count)
        ]
    )


def _arrays(labels, size=64):
    arrays = {}
    for place, (part, count) in enumerate(_COUNTS.items()):
        arrays[f"{part}_images"] = _images(count, size, 10 * place)
        arrays[f"{part}_labels"] = np.asarray(labels[part], np.uint8)
    return arrays


_PNEUMONIA = {"train": [[1], [0], [1]], "val": [[0], [1]], "test": [[1]]}


def test_each_array_row_is_a_record_with_its_label_split_and_pixels(tmp_path):
    arrays = _arrays(_PNEUMONIA)
    np.savez_compressed(tmp_path / "pneumoniamnist_64.npz", **arrays)
    records = read_pneumoniamnist(tmp_path)
    assert [record.labels["pneumonia"] for record in records] == [1, 0, 1, 0, 1, 1]
    assert all(
        r.labels == dict.fromkeys(("pneumonia", "lung_opacity"), r.labels["pneumonia"])
        for r in records
    )
    assert [record.member for record in records] == [
        *("train_images/0", "train_images/1", "train_images/2"),
        *("val_images/0", "val_images/1", "test_images/0"),
    ]
    assert [r.split for r in records] == ["train"] * 3 + ["validation"] * 2 + ["test"]
    assert len({record.patient_id for record in records}) == 6
    assert {(r.dataset, r.path.name) for r in records} == {
        ("pneumoniamnist", "pneumoniamnist_64.npz")
    }
    for record in records:
        array, index = record.member.split("/")
        stored = arrays[array][int(index)]
        # float32 of a byte over 255
        assert np.abs(record.radiograph().pixels - stored / 255).max() < 1e-7
        assert record.content() == stored.tobytes()


def test_chestmnist_has_fourteen_columns_in_their_published_order(tmp_path):
    rng = np.random.default_rng(0)
    labels = {part: rng.integers(0, 2, (count, 14)) for part, count in _COUNTS.items()}
    labels["test"] = [[0] * 12 + [1, 0]]
    np.savez_compressed(tmp_path / "chestmnist_64.npz", **_arrays(labels))
    records = read_chestmnist(tmp_path)
    assert [record.labels for record in records] == [
        dict(zip(_CHEST, map(int, row), strict=True))
        for part in ("train", "val", "test")
        for row in labels[part]
    ]
    assert records[-1].labels["pleural_thickening"] == 1
    assert {record.dataset for record in records} == {"chestmnist"}


def test_the_largest_size_is_taken(tmp_path):
    for suffix in ("", "_64", "_128", "_224"):
        np.savez_compressed(tmp_path / f"pneumoniamnist{suffix}.npz", **_arrays(_PNEUMONIA))
    for expected in ("_224", "_128", "_64", ""):
        (path,) = {record.path for record in read_dataset("pneumoniamnist", tmp_path)}
        assert path == tmp_path / f"pneumoniamnist{expected}.npz"
        path.unlink()
    with pytest.raises(LabelError, match="pneumoniamnist.npz is not in .*, nor _64, _128 or _224"):
        read_dataset("pneumoniamnist", tmp_path)
    with pytest.raises(LabelError, match="chestmnist.npz is not in"):
        read_dataset("chestmnist", tmp_path)


def test_images_of_28_pixels_are_read_only_when_that_is_accepted(tmp_path):
    np.savez_compressed(tmp_path / "pneumoniamnist.npz", **_arrays(_PNEUMONIA, size=28))
    record = read_pneumoniamnist(tmp_path)[0]
    with pytest.raises(DicomError, match="28 x 28") as caught:
        record.radiograph()
    assert caught.value.code == "too-small"
    assert record.radiograph(accept={"too-small"}).pixels.shape == (28, 28)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"train_labels": None}, "train_labels cannot be read (KeyError)"),
        ({"val_images": None}, "val_images cannot be read from the archive (KeyError)"),
        ({"test_labels": np.ones((1, 2), np.uint8)}, "test_labels are 1 x 2; wanted are 1 images"),
        ({"test_labels": np.ones((2, 1), np.uint8)}, "test_labels are 2 x 1; wanted are 1 images"),
        ({"test_labels": np.full((1, 1), 2)}, "test_labels has values beside 0 and 1"),
        ({"val_images": np.zeros((2, 64, 64, 3), np.uint8)}, "val_images cannot be read from"),
    ],
)
def test_arrays_that_are_not_as_published_are_refused(tmp_path, changes, message):
    arrays = {**_arrays(_PNEUMONIA), **changes}
    np.savez_compressed(
        tmp_path / "pneumoniamnist.npz",
        **{name: array for name, array in arrays.items() if array is not None},
    )
    with pytest.raises(LabelError) as caught:
        read_pneumoniamnist(tmp_path)
    assert message in str(caught.value)
    assert "pneumoniamnist.npz" in str(caught.value)


def test_a_file_that_is_no_archive_is_refused(tmp_path):
    (tmp_path / "chestmnist.npz").write_bytes(b"not found")
    with pytest.raises(LabelError, match="chestmnist.npz: train_labels cannot be read"):
        read_chestmnist(tmp_path)


def test_what_is_known_of_the_sets_is_as_published(tmp_path):
    pneumonia, chest = DATASETS["pneumoniamnist"], DATASETS["chestmnist"]
    assert (pneumonia.published.images, chest.published.images) == (5856, 112_120)
    assert (set(pneumonia.descends), set(chest.descends)) == ({"kermany"}, {"nih"})
    said = pneumonia.caveats(tmp_path)["patients-unknown"]
    assert "training and validation share patients" in said
    assert "parts may share patients" in chest.caveats(tmp_path)["patients-unknown"]


def test_a_single_array_under_the_archives_name_is_refused(tmp_path):
    with (tmp_path / "chestmnist.npz").open("wb") as stream:
        np.save(stream, np.zeros((3, 14), np.uint8))
    with pytest.raises(LabelError, match="chestmnist.npz: train_labels cannot be read"):
        read_chestmnist(tmp_path)
