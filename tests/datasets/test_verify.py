from __future__ import annotations

import dataclasses

import numpy as np
import pytest
from PIL import Image

from medllm.datasets import DATASETS, ImageRecord
from medllm.datasets.verify import LabelCount, Named, verify
from medllm.errors import LabelError
from medllm.phantom import make_phantom, write_dicom


@pytest.fixture(scope="module")
def pictures():
    """Six radiographs of six patients, 8 bits."""
    return [
        (make_phantom(seed, size=96, lesions=()).pixels * 255).astype(np.uint8) for seed in range(6)
    ]


@pytest.fixture
def copy(tmp_path, pictures):
    """A whole copy of six images, none at fault."""
    rows = ["path,patient_id,pneumonia,effusion,view_position,split"]
    for index, picture in enumerate(pictures):
        Image.fromarray(picture).save(tmp_path / f"{index}.png")
        view, split = ("PA", "AP", "LATERAL")[index // 2], ("train", "test")[index // 4]
        rows.append(f"{index}.png,p{index // 2},{index % 2},{'1' if index else ''},{view},{split}")
    (tmp_path / "labels.csv").write_text("\n".join(rows) + "\n")
    return tmp_path


def test_a_whole_copy_is_counted(copy):
    found = verify("csv", copy)
    assert (found.images, found.patients, found.present) == (6, 3, 6)
    assert found.labels == {
        "pneumonia": LabelCount(positive=3, negative=3, soft=0, unknown=0),
        "effusion": LabelCount(positive=5, negative=0, soft=0, unknown=1),
    }
    assert found.views == {"PA": 2, "AP": 2, "LATERAL": 2}
    assert found.splits == {"train": 4, "test": 2}
    assert found.sizes == {"96 x 96": 6}
    assert found.stored == {"PNG, mode L": 6}
    assert (found.missing, found.unreadable, found.duplicates) == ((), {}, ())
    assert (found.frontal, found.inverted) == (4, 0)
    assert found.warnings == {"no-header": 6}
    assert (found.caveats, found.faults) == ({}, {})


def test_soft_labels_are_neither_positive_nor_negative(copy, monkeypatch):
    def read(root, policy):
        return [
            ImageRecord("csv", root / f"{index}.png", "p", labels)
            for index, labels in enumerate([{"edema": 0.5}, {"edema": 1}, {"edema": 0}, {}])
        ]

    monkeypatch.setitem(DATASETS, "csv", dataclasses.replace(DATASETS["csv"], reader=read))
    assert verify("csv", copy).labels == {"edema": LabelCount(1, 1, 1, 1)}


def test_a_missing_file_makes_the_copy_partial_and_is_no_fault(copy):
    for index in (0, 1, 2, 4):
        (copy / f"{index}.png").unlink()
    found = verify("csv", copy)
    assert (found.images, found.present) == (6, 2)
    # The first three only.
    assert found.missing == ("0.png", "1.png", "2.png")
    assert (found.unreadable, found.faults) == ({}, {})


def test_a_copy_without_any_file_is_at_fault(copy):
    for index in range(6):
        (copy / f"{index}.png").unlink()
    assert set(verify("csv", copy).faults) == {"no-files"}


@pytest.mark.parametrize("name", ["csv", "of-others"])
def test_a_patient_in_two_parts_is_a_fault(copy, monkeypatch, name):
    # Whatever the data set: another than csv has no such caveat of its own.
    monkeypatch.setitem(
        DATASETS, "of-others", dataclasses.replace(DATASETS["csv"], caveats=lambda root: {})
    )
    table = (copy / "labels.csv").read_text()
    (copy / "labels.csv").write_text(table.replace("p1,", "p2,"))
    found = verify(name, copy)
    assert set(found.faults) == {"patients-in-parts"}
    words = found.faults["patients-in-parts"]
    assert words.startswith("1 patient is in more than one part of the split (test and train: 1)")
    assert found.caveats == {}


def test_views_that_no_default_keeps_are_pointed_out_and_are_no_fault(copy):
    table = (copy / "labels.csv").read_text()
    (copy / "labels.csv").write_text(table.replace("AP", "frontal"))
    found = verify("csv", copy)
    assert found.faults == {}
    assert set(found.caveats) == {"other-views"}
    assert "FRONTAL (2)." in found.caveats["other-views"]
    assert "--view PA --view AP --view 'FRONTAL'" in found.caveats["other-views"]


def test_damaged_coloured_and_blank_files_are_counted_by_their_gate(copy, pictures):
    whole = (copy / "0.png").read_bytes()
    (copy / "0.png").write_bytes(whole[: len(whole) // 2])
    Image.fromarray(np.full((96, 96, 3), (200, 10, 10), np.uint8)).save(copy / "1.png")
    Image.fromarray(np.full((96, 96, 3), (10, 10, 200), np.uint8)).save(copy / "2.png")
    Image.fromarray(np.full((96, 96), 7, np.uint8)).save(copy / "3.png")
    (copy / "4.png").write_bytes(b"")
    found = verify("csv", copy)
    assert found.unreadable == {"color": 2, "truncated": 1, "flat-image": 1, "empty-file": 1}
    assert found.unreadable_names["color"] == ("1.png", "2.png")
    # Only what was read is measured.
    assert found.sizes == {"96 x 96": 1}
    assert verify("csv", copy, accept=["flat-image"]).unreadable == {
        "color": 2,
        "truncated": 1,
        "empty-file": 1,
    }


def test_a_file_under_two_names_is_a_duplicate(copy):
    (copy / "5.png").write_bytes((copy / "1.png").read_bytes())
    assert verify("csv", copy).duplicates == (("1.png", "5.png"),)


def test_files_of_one_name_are_told_apart_by_their_paths(tmp_path, pictures):
    rows = ["path,patient_id,pneumonia"]
    for index, picture in enumerate([pictures[0], pictures[0], 255 - pictures[1], None, None]):
        rows.append(f"p{index}/front.png,p{index},1")
        if picture is not None:
            (tmp_path / f"p{index}").mkdir()
            Image.fromarray(picture).save(tmp_path / f"p{index}/front.png")
    (tmp_path / "p3").mkdir()
    (tmp_path / "p3/front.png").write_bytes(b"")
    (tmp_path / "labels.csv").write_text("\n".join(rows) + "\n")
    found = verify("csv", tmp_path)
    assert found.paths == Named(
        missing=("p4/front.png",),
        unreadable={"empty-file": ("p3/front.png",)},
        inverted=("p2/front.png",),
        duplicates=(("p0/front.png", "p1/front.png"),),
    )
    # What is printed names no folder, which may be a patient's, and says where the paths are.
    assert (found.missing, found.duplicates) == (("front.png",), (("front.png", "front.png"),))
    assert "--json" in found.caveats["names-recur"]


def test_a_swapped_polarity_is_seen_on_frontal_views_only(copy, pictures):
    # 1 is frontal; 5 is lateral, where the guess means nothing.
    for index in (1, 5):
        Image.fromarray(255 - pictures[index]).save(copy / f"{index}.png")
    found = verify("csv", copy)
    assert (found.frontal, found.inverted, found.inverted_names) == (4, 1, ("1.png",))
    assert "polarity-doubtful" not in found.warnings


def test_boxes_of_the_original_do_not_fit_a_scaled_copy(copy, pictures):
    (copy / "boxes.csv").write_text(
        "path,finding,x,y,width,height\n"
        "1.png,pneumonia,10,20,30,40\n"
        "1.png,lung_opacity,10,20,30,40\n"  # the same place for another finding
        "1.png,pneumonia,66,0,31,97\n"  # a pixel over: a rounded corner
        "3.png,pneumonia,500,400,100,100\n"
        "5.png,pneumonia,0,0,10,98\n"
        "2.png,effusion,100,40,28,24\n"  # the image is 128 wide and 64 high
        "2.png,effusion,0,0,64,128\n"
        "2.png,effusion,0,40,64,26\n"
    )
    Image.fromarray(np.tile(pictures[2][:64], 2)[:, :128]).save(copy / "2.png")
    found = verify("csv", copy)
    assert (found.boxes, found.boxes_outside) == (7, 4)


def test_bit_depth_and_sizes_are_told_the_commonest_first(copy, pictures):
    wide = np.linspace(0, 65535, 96 * 128).reshape(96, 128).astype(np.uint16)
    Image.fromarray(wide).save(copy / "5.png")
    phantom = make_phantom(7, size=96, lesions=(), view="PA")
    write_dicom(phantom, copy / "4.png")
    found = verify("csv", copy)
    assert list(found.sizes.items()) == [("96 x 96", 5), ("96 x 128", 1)]
    assert found.stored.pop("PNG, mode L") == 4
    assert sum("bits stored" in stored for stored in found.stored) == 1
    assert "PNG, mode I;16" in found.stored


def test_published_counts_stand_beside_the_copys(tmp_path, pictures):
    (tmp_path / "labels.csv").write_text("path,patient_id,pneumonia\na.png,p,1\n")
    found = verify("kermany", tmp_path)
    assert found.published == DATASETS["kermany"].published
    assert (found.images, found.labels["pneumonia"].positive) == (1, 1)


def test_a_layout_of_its_own_is_compared_with_its_own_counts(tmp_path):
    rows = "".join(f"a,No finding,14,R{reader},,,,\n" for reader in range(3))
    (tmp_path / "train.csv").write_text(
        "image_id,class_name,class_id,rad_id,x_min,y_min,x_max,y_max\n" + rows
    )
    assert verify("vindr", tmp_path).published.images == 15_000
    assert DATASETS["vindr"].published.images == 18_000


def test_an_archive_is_read_and_its_caveat_passed_on(tmp_path, pictures):
    arrays = {}
    for part, images in (("train", pictures[:3]), ("val", pictures[3:4]), ("test", pictures[4:])):
        arrays[f"{part}_images"] = np.stack([image[:64, :64] for image in images])
        arrays[f"{part}_labels"] = np.array([[index % 2] for index in range(len(images))])
    np.savez_compressed(tmp_path / "pneumoniamnist_64.npz", **arrays)
    found = verify("pneumoniamnist", tmp_path)
    assert (found.images, found.present, found.unreadable) == (6, 6, {})
    assert found.splits == {"train": 3, "test": 2, "validation": 1}
    assert found.stored == {"array, 8 bits": 6}
    assert "patients-unknown" in found.caveats


def test_labels_that_cannot_be_read_are_an_error(copy):
    (copy / "labels.csv").write_text("path,pneumonia\n0.png,maybe\n")
    with pytest.raises(LabelError, match=r"labels\.csv, line 2: pneumonia is 'maybe'"):
        verify("csv", copy)


def test_the_polarity_guess_is_right_on_real_radiographs(data_root):
    found = verify("nih", data_root / "nih")
    assert (found.images, found.unreadable, found.duplicates) == (511, {}, ())
    # One, overexposed, was looked at: it is not inverted.
    assert found.inverted <= 1
