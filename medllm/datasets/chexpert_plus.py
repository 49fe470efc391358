"""CheXpert Plus: CheXpert's images with their reports (Chambon et al., 2024)."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from medllm.datasets.chexpert import read_attributes, read_path
from medllm.datasets.chexpert_labels import CHEXPERT_COLUMNS, CHEXPERT_POLICY, mentioned_labels
from medllm.datasets.dataset import DataSet
from medllm.datasets.policy import LabelPolicy
from medllm.datasets.record import ImageRecord, iterate_rows, read_given, read_word
from medllm.errors import LabelError

_TABLE = "df_chexpert_plus_240401.csv"
_COLUMNS = ("path_to_image", "frontal_lateral", "ap_pa", "deid_patient_id", "age", "sex")
_GROUPS = ("race", "ethnicity")
# Most reports have one of the two.
_INDICATIONS = ("section_clinical_history", "section_history")
_SPLITS = {"train": "train", "valid": "validation"}
_LABELS = "chexbert_labels"
# CheXpert's own labels were read off the impression, and most reports have one.
_SECTION = "impression"
_OTHER_SECTIONS = ("findings", "report")
# Folders of the two forms that the images are published in; the first that is there is read.
_FORMS = {"PNG/PNG": ".png", "PNG": ".png", "DICOM": ".dcm"}

_Labels = dict[str, dict[str, float]]


def read_chexpert_plus(
    root: str | Path, policy: LabelPolicy = CHEXPERT_POLICY
) -> list[ImageRecord]:
    """Read a copy: the table, and CheXbert's labels as JSON lines.

    The labels are those of the reports' impressions; those of the findings and of the whole
    report, where their files are there, are `chexbert-findings` and `chexbert-report` of
    `other_labels`.

    Args:
        root: Folder that holds `df_chexpert_plus_240401.csv`, `chexbert_labels`, and the images
            in `PNG`, `DICOM`, or beside the table.
        policy: What uncertain and blank stand for.

    Returns:
        A record an image, in the table's order.

    Raises:
        LabelError: A table, a file of labels or a column is missing, or a value is none of the
            wanted.
    """
    root = Path(root)
    labels = _read_labels(root, _SECTION, policy)
    others = {
        f"chexbert-{section}": _read_labels(root, section, policy)
        for section in _OTHER_SECTIONS
        if _label_file(root, section).is_file()
    }
    folder, ending = _picture_place(root)
    extra = ("path_to_dcm",) if ending == ".dcm" else ()
    records = []
    for line, row in iterate_rows(root / _TABLE, (*_COLUMNS, *_GROUPS, "split", *extra)):
        where = f"{root / _TABLE}, line {line}"
        image = row["path_to_image"].strip()
        path = read_path(where, image)
        file = row["path_to_dcm"].strip() if extra else str(Path(image).with_suffix(ending))
        attributes = read_attributes(
            where,
            sex=row["sex"],
            age=row["age"],
            side=row["frontal_lateral"],
            projection=row["ap_pa"],
        )
        records.append(
            ImageRecord(
                dataset="chexpert-plus",
                path=folder / file,
                patient_id=read_given(where, "deid_patient_id", row["deid_patient_id"]),
                labels=labels.get(image, {}),
                attributes=attributes | {name: row[name].strip() for name in _GROUPS},
                study_id=path.study_id,
                split=read_word(where, "split", row["split"], _SPLITS),
                other_labels={name: found.get(image, {}) for name, found in others.items()},
                indication=" ".join(
                    filter(None, (row.get(key, "").strip() for key in _INDICATIONS))
                ),
            )
        )
    return records


def _picture_place(root: Path) -> tuple[Path, str]:
    """Find the folder that images are in, and how their names end."""
    for folder, ending in _FORMS.items():
        if (root / folder).is_dir():
            return root / folder, ending
    return root, ".jpg"


def _label_file(root: Path, section: str) -> Path:
    return root / _LABELS / f"{section}_fixed.json"


def _read_labels(root: Path, section: str, policy: LabelPolicy) -> _Labels:
    file = _label_file(root, section)
    labels: _Labels = {}
    try:
        with file.open(encoding="utf-8-sig") as stream:
            for line, text in enumerate(stream, 1):
                if not text.strip():
                    continue
                where = f"{file}, line {line}"
                row = _json_row(where, text)
                if row["path_to_image"] in labels:
                    raise LabelError(f"{where}: the image has a line already; leave one.")
                labels[row["path_to_image"]] = mentioned_labels(where, row, policy)
    except FileNotFoundError:
        raise LabelError(
            f"{file.name} is not in {file.parent}; unpack chexbert_labels.zip of the data set "
            "there."
        ) from None
    except UnicodeDecodeError as error:
        raise LabelError(f"{file} is not UTF-8 ({error.reason}); get it again.") from None
    return labels


def _json_row(where: str, text: str) -> Mapping[str, str]:
    """Read a line as a table's row: null is blank."""
    try:
        row: Any = json.loads(text)
    except json.JSONDecodeError as error:
        raise LabelError(f"{where}: it is no JSON ({error.msg}); get the file again.") from None
    if not isinstance(row, dict):
        raise LabelError(f"{where}: wanted is an object, with a label a finding.")
    if missing := [name for name in ("path_to_image", *CHEXPERT_COLUMNS) if name not in row]:
        raise LabelError(f"{where}: it lacks {', '.join(missing)}; get the file again.")
    return {name: "" if value is None else str(value) for name, value in row.items()}


CHEXPERT_PLUS = DataSet(
    name="chexpert-plus",
    title="CheXpert Plus",
    terms="Stanford University's research use agreement",
    citation="Chambon et al., CheXpert Plus, arXiv 2405.19538, 2024; Smit et al., CheXbert, "
    "EMNLP 2020",
    reader=read_chexpert_plus,
    policy=CHEXPERT_POLICY,
    descends={"chexpert": "the same images, of training and validation, with their reports"},
    pseudonyms="chexpert",
)
