"""Kermany's radiographs of children: pneumonia against normal (Kermany et al., Cell 2018)."""

from __future__ import annotations

import re
from pathlib import Path

from medllm.datasets.dataset import DataSet, Published, without_policy
from medllm.datasets.record import ImageRecord, read_given, read_label, read_rows
from medllm.errors import LabelError

_PARTS = {"train": "train", "val": "validation", "test": "test"}
_CLASSES = {"NORMAL": 0, "PNEUMONIA": 1}
# person12_bacteria_46.jpeg; numbers recur with the other kind, so the kind is part of the patient.
# One name has a number more, as person12_virus_46_1.jpeg would.
_ILL = re.compile(r"(person\d+_(?:bacteria|virus))(?:_\d+)+")
_KIND = re.compile(r"person\d+_(bacteria|virus)")
# IM-0115-0001.jpeg and NORMAL2-IM-0304-0001.jpeg; the last number counts a patient's images.
_NORMAL = re.compile(r"((?:NORMAL2-)?IM-\d+)(?:-\d+)+")


def read_kermany(root: str | Path) -> list[ImageRecord]:
    """Read a copy: the published folders, or a table `labels.csv` (`path, patient_id, pneumonia`).

    Pneumonia on these radiographs is a visible opacity, so that a positive is also labelled
    `lung_opacity`; the normals were read as clear.

    Args:
        root: Folder that holds `chest_xray`, or its `train`, `val` and `test`, or `labels.csv`.

    Returns:
        A record an image, in the table's order or that of the files' names.

    Raises:
        LabelError: There is neither, a column is missing, or a label is not 1, 0 or blank.
    """
    root = Path(root)
    table = root / "labels.csv"
    if table.exists():
        return _from_table(root, table)
    inside = root / "chest_xray" if (root / "chest_xray").is_dir() else root
    records = [record for part in _PARTS for record in _from_folder(inside, part)]
    if not records:
        raise LabelError(
            f"labels.csv is not in {root}, nor are chest_xray's folders train, val and test with "
            "NORMAL and PNEUMONIA; point --root at the data set's folder."
        )
    return records


def _from_table(root: Path, table: Path) -> list[ImageRecord]:
    records = []
    for line, row in read_rows(table, ("path", "patient_id", "pneumonia")):
        where = f"{table}, line {line}"
        label = read_label(where, "pneumonia", row["pneumonia"])
        path = root / read_given(where, "path", row["path"])
        records.append(_record(path, read_given(where, "patient_id", row["patient_id"]), label, ""))
    return records


def _from_folder(root: Path, part: str) -> list[ImageRecord]:
    records = []
    for name, label in _CLASSES.items():
        # Copies that went through macOS have `._` files beside the images.
        for path in sorted((root / part / name).glob("[!.]*.jp*g")):
            stem = (_ILL if label else _NORMAL).fullmatch(path.stem)
            if stem is None:
                raise LabelError(
                    f"{part}/{name}/{path.name} is not named as the data set names its files, so "
                    "that its patient is unknown; take it out, or write a labels.csv."
                )
            records.append(_record(path, stem[1], label, _PARTS[part]))
    return records


def _record(path: Path, patient: str, label: int | None, split: str) -> ImageRecord:
    kind = _KIND.fullmatch(patient)
    return ImageRecord(
        dataset="kermany",
        path=path,
        patient_id=patient,
        labels={} if label is None else {"pneumonia": label, "lung_opacity": label},
        attributes={"etiology": kind[1] if kind else ""},
        split=split,
    )


_SURROUNDINGS = (
    "What surrounds the lungs tells the label: with lungs and heart hidden a linear classifier of "
    "thumbnails ranks other patients with an AUROC of .94. So an AUROC near 1 says little of "
    "reading lungs (datasets/kermany.md)."
)

KERMANY = DataSet(
    name="kermany",
    title="Kermany, radiographs of children",
    terms="CC BY 4.0",
    citation="Kermany et al., Cell 2018; Mendeley Data 10.17632/rscbjbr9sj",
    reader=without_policy(read_kermany),
    published=Published(images=5856, positive={"pneumonia": 3875 + 8 + 390}),
    caveats=lambda root: {"surroundings-tell": _SURROUNDINGS},
)
