from __future__ import annotations

import numpy as np
import pytest
from PIL import Image

from medllm.datasets import DATASETS, read_kermany, split_by_patient
from medllm.errors import LabelError
from medllm.phantom import make_phantom

_FILES = {
    "train/NORMAL/IM-0115-0001.jpeg": ("IM-0115", ""),
    "train/NORMAL/IM-0429-0001-0002.jpeg": ("IM-0429", ""),
    "train/NORMAL/IM-0429-0001.jpeg": ("IM-0429", ""),
    "train/NORMAL/NORMAL2-IM-0429-0001.jpeg": ("NORMAL2-IM-0429", ""),
    "train/PNEUMONIA/person12_virus_46_1.jpeg": ("person12_virus", "virus"),
    "train/PNEUMONIA/person1_bacteria_1.jpeg": ("person1_bacteria", "bacteria"),
    "train/PNEUMONIA/person1_bacteria_2.jpeg": ("person1_bacteria", "bacteria"),
    "val/NORMAL/NORMAL2-IM-1427-0001.jpeg": ("NORMAL2-IM-1427", ""),
    "val/PNEUMONIA/person1946_bacteria_4874.jpeg": ("person1946_bacteria", "bacteria"),
    "test/NORMAL/IM-0001-0001.jpeg": ("IM-0001", ""),
    "test/PNEUMONIA/person1_virus_6.jpeg": ("person1_virus", "virus"),
}


def _write(root, names=_FILES):
    for name in names:
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_bytes(b"")
    return root


@pytest.mark.parametrize("folder", ["chest_xray", "."])
def test_the_published_folders_give_labels_patients_and_parts(tmp_path, folder):
    _write(tmp_path / folder)
    records = read_kermany(tmp_path)
    found = {r.path.relative_to(tmp_path / folder).as_posix(): r for r in records}
    assert list(found) == list(_FILES)
    for name, record in found.items():
        part, kind, _ = name.split("/")
        label = {"NORMAL": 0, "PNEUMONIA": 1}[kind]
        assert record.labels == {"pneumonia": label, "lung_opacity": label}
        assert (record.patient_id, record.attributes["etiology"]) == _FILES[name]
        assert record.split == {"train": "train", "val": "validation", "test": "test"}[part]
        assert record.dataset == "kermany"
        assert (record.boxes, record.masks, record.study_id, record.other_labels) == (
            {},
            {},
            "",
            {},
        )


def test_a_number_that_recurs_with_the_other_kind_is_another_patient(tmp_path):
    records = read_kermany(_write(tmp_path))
    owners = {r.patient_id: r.split for r in records if r.path.name.startswith("person1_")}
    assert owners == {"person1_bacteria": "train", "person1_virus": "test"}
    split = split_by_patient(records, {"train": 0.5, "test": 0.5}, 0)
    names = [{r.patient_id for r in part} for part in split.values()]
    assert not set.intersection(*names)


def test_a_file_is_opened_as_what_it_is(tmp_path):
    _write(tmp_path)
    values = np.uint8(255 * make_phantom(0, size=64).pixels)
    record = read_kermany(tmp_path)[0]
    Image.fromarray(values).save(record.path, "JPEG", quality=95)
    # JPEG of this quality is a few grey levels off.
    assert np.abs(record.radiograph().pixels - values / 255).mean() < 4 / 255


def test_a_copy_may_have_parts_and_files_too_few_and_files_of_macos(tmp_path):
    _write(tmp_path, ["test/NORMAL/IM-0001-0001.jpeg", "test/NORMAL/._IM-0001-0001.jpeg"])
    _write(tmp_path, ["test/NORMAL/.DS_Store", "__MACOSX/test/NORMAL/._IM-0001-0001.jpeg"])
    (record,) = read_kermany(tmp_path)
    assert (record.path.name, record.split) == ("IM-0001-0001.jpeg", "test")


@pytest.mark.parametrize(
    "name",
    [
        "train/PNEUMONIA/IM-0115-0001.jpeg",
        "train/NORMAL/person1_bacteria_1.jpeg",
        "train/PNEUMONIA/person1_fungus_1.jpeg",
        "train/PNEUMONIA/xperson1_virus_1.jpeg",
        "test/NORMAL/scan.jpg",
    ],
)
def test_a_name_that_tells_no_patient_is_refused(tmp_path, name):
    with pytest.raises(LabelError, match="is not named as the data set names its files"):
        read_kermany(_write(tmp_path, [name]))


def test_a_table_outweighs_the_folders(tmp_path):
    _write(tmp_path)
    (tmp_path / "labels.csv").write_text(
        "path,patient_id,pneumonia\na.jpg,my-person7_bacteria-b,1\nb.jpg,person2_virus,\n"
    )
    first, second = read_kermany(tmp_path)
    # A word within a name of one's own says nothing of the cause.
    assert (first.attributes, first.split) == ({"etiology": ""}, "")
    assert (second.labels, second.attributes) == ({}, {"etiology": "virus"})


@pytest.mark.parametrize(
    ("row", "column"), [("a.jpg,,1", "patient_id"), (" ,person1_virus,1", "path")]
)
def test_a_table_without_a_patient_or_a_path_is_refused(tmp_path, row, column):
    (tmp_path / "labels.csv").write_text(f"path,patient_id,pneumonia\n{row}\n")
    with pytest.raises(LabelError, match=f"labels.csv, line 2: {column} is blank"):
        read_kermany(tmp_path)


def test_a_folder_without_either_is_told_what_is_looked_for(tmp_path):
    with pytest.raises(LabelError, match="labels.csv is not in .*, nor are chest_xray's folders"):
        read_kermany(tmp_path)


def test_what_is_known_of_the_set_is_as_published():
    assert DATASETS["kermany"].published.images == 5216 + 16 + 624


def test_every_copy_is_read_with_what_its_surroundings_tell(tmp_path):
    said = DATASETS["kermany"].caveats(tmp_path)
    assert "AUROC of .94" in said["surroundings-tell"]
