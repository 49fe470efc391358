"""MIMIC-CXR-JPG 2.0.0 and 2.1.0 (Johnson et al., 2019), with the boxes of MS-CXR."""

from __future__ import annotations

from collections import defaultdict
from pathlib import Path
from typing import Literal

from medllm.datasets.boxes import group_boxes, read_box
from medllm.datasets.chexpert_labels import (
    CHEXPERT_COLUMNS,
    CHEXPERT_FINDINGS,
    CHEXPERT_POLICY,
    mentioned_labels,
)
from medllm.datasets.dataset import DataSet
from medllm.datasets.policy import LabelPolicy
from medllm.datasets.record import Box, ImageRecord, iterate_rows, read_given, read_word
from medllm.errors import LabelError

Labeller = Literal["chexpert", "negbio"]

# Both versions name their tables so.
_TABLES = "mimic-cxr-2.0.0"
_METADATA = ("dicom_id", "subject_id", "study_id", "ViewPosition", "ViewCodeSequence_CodeMeaning")
_SPLITS = {"train": "train", "validate": "validation", "test": "test"}
# Where View Position (0018,5101) is blank, the view's code often tells it.
_VIEW_CODES = {
    "postero-anterior": "PA",
    "antero-posterior": "AP",
    "lateral": "LATERAL",
    "left lateral": "LL",
}
_BOXES = "MS_CXR_Local_Alignment_v*.csv"
_BOX_COLUMNS = ("dicom_id", "category_name", "x", "y", "w", "h")


def read_mimic_cxr(
    root: str | Path, policy: LabelPolicy = CHEXPERT_POLICY, *, labeller: Labeller = "chexpert"
) -> list[ImageRecord]:
    """Read a copy: the tables of metadata, split and labels, each as `.csv` or `.csv.gz`.

    Labels are a study's and hold for each of its images. Those of the other labeller are in
    `other_labels`, where its table is there; boxes are read where the table of MS-CXR lies beside.

    Args:
        root: Folder that holds the tables and `files`.
        policy: What uncertain and blank stand for.
        labeller: Whose labels to take; both read the same reports.

    Returns:
        A record an image, in the order of the metadata.

    Raises:
        LabelError: A table or a column is missing, or a value is none of the wanted.
    """
    root = Path(root)
    other: Labeller = "negbio" if labeller == "chexpert" else "chexpert"
    if not _table(root, labeller).is_file() and _table(root, other).is_file():
        raise LabelError(
            f"{_table(root, labeller).name} is not in {root}, which has the labels of {other}; get "
            f"the table, or read with labeller='{other}'."
        )
    labels = _read_labels(_table(root, labeller), policy)
    has_other = _table(root, other).is_file()
    others = _read_labels(_table(root, other), policy) if has_other else {}
    parts, boxes = _read_split(_table(root, "split")), _read_boxes(root)
    records = []
    table = _table(root, "metadata")
    for line, row in iterate_rows(table, _METADATA):
        image, patient, study = (
            read_given(f"{table}, line {line}", name, row[name]) for name in _METADATA[:3]
        )
        records.append(
            ImageRecord(
                dataset="mimic-cxr",
                path=root / f"files/p{patient[:2]}/p{patient}/s{study}/{image}.jpg",
                patient_id=patient,
                labels=labels.get(study, {}),
                attributes={"view_position": _view(row)},
                boxes=group_boxes(boxes[image]),
                study_id=study,
                split=parts.get(image, ""),
                other_labels={other: others.get(study, {})} if has_other else {},
            )
        )
    return records


def _table(root: Path, name: str) -> Path:
    plain = root / f"{_TABLES}-{name}.csv"
    packed = root / f"{_TABLES}-{name}.csv.gz"
    return packed if packed.is_file() and not plain.is_file() else plain


def _view(row: dict[str, str]) -> str:
    code = row["ViewCodeSequence_CodeMeaning"].strip()
    return row["ViewPosition"].strip().upper() or _VIEW_CODES.get(code, "UNKNOWN")


def _read_labels(table: Path, policy: LabelPolicy) -> dict[str, dict[str, float]]:
    labels: dict[str, dict[str, float]] = {}
    for line, row in iterate_rows(table, ("study_id", *CHEXPERT_COLUMNS)):
        where = f"{table}, line {line}"
        if (study := row["study_id"].strip()) in labels:
            raise LabelError(f"{where}: the study has a line already; leave one.")
        labels[study] = mentioned_labels(where, row, policy)
    return labels


def _read_split(table: Path) -> dict[str, str]:
    parts: dict[str, str] = {}
    for line, row in iterate_rows(table, ("dicom_id", "split")):
        where, image = f"{table}, line {line}", row["dicom_id"].strip()
        part = read_word(where, "split", row["split"], _SPLITS)
        if parts.setdefault(image, part) != part:
            raise LabelError(f"{where}: the image is in another part above; get the table again.")
    return parts


def _read_boxes(root: Path) -> defaultdict[str, list[tuple[str, Box]]]:
    """Read the newest table of MS-CXR that is there; two phrases may share one box."""
    found: defaultdict[str, list[tuple[str, Box]]] = defaultdict(list)
    for table in sorted(root.glob(_BOXES))[-1:]:
        for line, row in iterate_rows(table, _BOX_COLUMNS):
            where = f"{table}, line {line}"
            finding = read_word(where, "category_name", row["category_name"], CHEXPERT_FINDINGS)
            box = read_box(where, row["x"], row["y"], row["w"], row["h"])
            if (finding, box) not in found[row["dicom_id"].strip()]:
                found[row["dicom_id"].strip()].append((finding, box))
    return found


MIMIC_CXR = DataSet(
    name="mimic-cxr",
    title="MIMIC-CXR-JPG",
    terms="PhysioNet credentialed health data use agreement; not to be sent to third parties",
    citation="Johnson et al., MIMIC-CXR-JPG, PhysioNet 10.13026/jsn5-t979, arXiv 1901.07042; "
    "Boecking et al., MS-CXR, PhysioNet, for the boxes",
    reader=read_mimic_cxr,
    policy=CHEXPERT_POLICY,
)
