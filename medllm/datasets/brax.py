"""BRAX, radiographs of a Brazilian hospital (Reis et al., Scientific Data 2022)."""

from __future__ import annotations

from pathlib import Path

from medllm.datasets.age import read_age
from medllm.datasets.chexpert_labels import CHEXPERT_COLUMNS, CHEXPERT_POLICY, mentioned_labels
from medllm.datasets.dataset import DataSet, Published
from medllm.datasets.policy import LabelPolicy
from medllm.datasets.record import ImageRecord, iterate_rows, read_given, read_word

_TABLE = "master_spreadsheet_update.csv"
_COLUMNS = ("PatientID", "PatientSex", "PatientAge", "AccessionNumber", "ViewPosition")
_SEXES = {"F": "F", "M": "M", "O": "", "": ""}
# Five years a group: the first of them stands for it, and `85 or more` for the last group.
_LAST_GROUP = " or more"
# A blank may be a lateral, of which the set has many. Other words stand as they are.
_VIEWS = {"L": "LATERAL", "": "UNKNOWN"}


def read_brax(root: str | Path, policy: LabelPolicy = CHEXPERT_POLICY) -> list[ImageRecord]:
    """Read a copy: the table, and PNG files where there are any, else DICOM files.

    Args:
        root: Folder that holds `master_spreadsheet_update.csv`, and `images` or
            `Anonymized_DICOMs`.
        policy: What uncertain and blank stand for.

    Returns:
        A record an image, in the table's order.

    Raises:
        LabelError: The table or a column is missing, or a value is none of the wanted.
    """
    root = Path(root)
    has_dicom_only = (root / "Anonymized_DICOMs").is_dir() and not (root / "images").is_dir()
    path_column = "DicomPath" if has_dicom_only else "PngPath"
    table = root / _TABLE
    records = []
    for line, row in iterate_rows(table, (path_column, *_COLUMNS, *CHEXPERT_COLUMNS)):
        where = f"{table}, line {line}"
        patient = read_given(where, "PatientID", row["PatientID"])
        view = row["ViewPosition"].strip().upper()
        age = row["PatientAge"].strip().removesuffix(_LAST_GROUP)
        records.append(
            ImageRecord(
                dataset="brax",
                path=root / read_given(where, path_column, row[path_column]),
                patient_id=patient,
                labels=mentioned_labels(where, row, policy),
                attributes={
                    "age_years": read_age(where, "PatientAge", age),
                    "sex": read_word(where, "PatientSex", row["PatientSex"], _SEXES),
                    "view_position": _VIEWS.get(view, view),
                },
                # An accession number recurs with other patients.
                study_id=f"{patient}/{row['AccessionNumber'].strip()}",
            )
        )
    return records


BRAX = DataSet(
    name="brax",
    title="BRAX",
    terms="PhysioNet credentialed health data use agreement; not to be sent to third parties",
    citation="Reis et al., BRAX, Scientific Data 9, 487, 2022; PhysioNet 10.13026/grwk-yh18",
    reader=read_brax,
    policy=CHEXPERT_POLICY,
    published=Published(images=40_967),
)
