"""CheXpert in both sizes (Irvin et al., AAAI 2019)."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import NamedTuple

from medllm.datasets.age import read_age
from medllm.datasets.chexpert_labels import CHEXPERT_COLUMNS, CHEXPERT_POLICY, mentioned_labels
from medllm.datasets.dataset import DataSet, Published
from medllm.datasets.policy import LabelPolicy
from medllm.datasets.record import ImageRecord, iterate_rows, read_word
from medllm.errors import LabelError

_FOLDERS = ("", "CheXpert-v1.0", "CheXpert-v1.0-small")
# The test table goes by two names; a copy has one of them.
_TABLES = (("train.csv",), ("valid.csv",), ("test.csv", "test_labels.csv"))
# CheXpert-v1.0-small/train/patient00001/study1/view1_frontal.jpg, with or without its beginning.
_PATH = re.compile(
    r"(?:.*/)?(train|valid|val|test)/((patient\d+)/(study\d+)/view\d+_(frontal|lateral)\.\w+)"
)
_PARTS = {"train": "train", "valid": "validation", "val": "validation", "test": "test"}
_SEXES = {"Female": "F", "Male": "M", "Unknown": "", "": ""}
_SIDES = {"Frontal": "frontal", "Lateral": "lateral"}


class ChexpertPath(NamedTuple):
    """What CheXpert tells of an image by its path.

    Attributes:
        folder: `train`, `valid`, `val` or `test`, as it stands there.
        file: The path within that folder.
        patient_id: `patient` and a number.
        study_id: The patient's and the study's, since each patient has a `study1`.
        side: `frontal` or `lateral`.
    """

    folder: str
    file: str
    patient_id: str
    study_id: str
    side: str

    @property
    def split(self) -> str:
        """The part by medllm's word."""
        return _PARTS[self.folder]


def read_path(where: str, text: str) -> ChexpertPath:
    """Take a path of CheXpert apart, whatever it begins with.

    Args:
        where: File and line, for the message.
        text: The path.

    Returns:
        Its parts.

    Raises:
        LabelError: It is not built as CheXpert's are; it is not repeated, since it names a patient.

    Example:
        >>> read_path("", "CheXpert-v1.0/valid/patient7/study1/view1_frontal.jpg").study_id
        'patient7/study1'
    """
    match = _PATH.fullmatch(text.strip())
    if match is None:
        raise LabelError(
            f"{where}: the path is not built as train/patient0/study0/view0_frontal.jpg, with "
            "train, valid or test, and frontal or lateral, so that the patient is unknown; get "
            "the table again."
        )
    folder, file, patient, study, side = match.groups()
    return ChexpertPath(folder, file, patient, f"{patient}/{study}", side)


def read_attributes(
    where: str, *, sex: str, age: str, side: str, projection: str
) -> dict[str, str]:
    """Read what divides CheXpert's images into groups.

    Args:
        where: File and line, for the message.
        sex: `Female`, `Male`, `Unknown` or blank.
        age: Years; 0 stands for unknown in this set of adults.
        side: `Frontal` or `Lateral`, small or capital.
        projection: `AP`, `PA` or another word; blank for laterals.

    Returns:
        `age_years`, `sex` and `view_position`.

    Raises:
        LabelError: One is none of the wanted.
    """
    is_lateral = read_word(where, "Frontal/Lateral", side.capitalize(), _SIDES) == "lateral"
    years = read_age(where, "Age", age)
    return {
        "age_years": "" if years == "0" else years,
        "sex": read_word(where, "Sex", sex, _SEXES),
        "view_position": "LATERAL" if is_lateral else projection.strip().upper(),
    }


def read_table_records(
    dataset: str, table: Path, place: Callable[[ChexpertPath], Path], policy: LabelPolicy
) -> Iterator[ImageRecord]:
    """Read a table in CheXpert's form; the test set's has no columns beside path and labels.

    Args:
        dataset: Name of the data set.
        table: The table.
        place: Gives the image's file.
        policy: What uncertain and blank stand for.

    Yields:
        A record an image, in the table's order.

    Raises:
        LabelError: The table or a column is missing, or a value is none of the wanted.
    """
    for line, row in iterate_rows(table, ("Path", *CHEXPERT_COLUMNS)):
        where = f"{table}, line {line}"
        path = read_path(where, row["Path"])
        yield ImageRecord(
            dataset=dataset,
            path=place(path),
            patient_id=path.patient_id,
            labels=mentioned_labels(where, row, policy),
            attributes=_attributes(where, row, path),
            study_id=path.study_id,
            split=path.split,
        )


def _attributes(where: str, row: Mapping[str, str], path: ChexpertPath) -> dict[str, str]:
    return read_attributes(
        where,
        sex=row.get("Sex", ""),
        age=row.get("Age", ""),
        side=row.get("Frontal/Lateral", path.side),
        projection=row.get("AP/PA", ""),
    )


def read_chexpert(root: str | Path, policy: LabelPolicy = CHEXPERT_POLICY) -> list[ImageRecord]:
    """Read a copy: `train.csv`, `valid.csv`, and the test set's table, as many as there are.

    Args:
        root: Folder that holds the tables, or `CheXpert-v1.0` or `CheXpert-v1.0-small` with them.
        policy: What uncertain and blank stand for.

    Returns:
        A record an image: training, validation, test, in the tables' order.

    Raises:
        LabelError: No table is there, or one is not as described.
    """
    root = Path(root)
    folder, tables = _find_tables(root)
    return [
        record
        for table in tables
        for record in read_table_records(
            "chexpert", table, lambda path: folder / path.folder / path.file, policy
        )
    ]


def _find_tables(root: Path) -> tuple[Path, list[Path]]:
    for folder in (root / name for name in _FOLDERS):
        there = [
            [folder / name for name in names if (folder / name).is_file()] for names in _TABLES
        ]
        if tables := [names[0] for names in there if names]:
            return folder, tables
    wanted = ", ".join(name for names in _TABLES for name in names)
    raise LabelError(
        f"none of {wanted} is in {root} or its {' or '.join(_FOLDERS[1:])}; point --root at the "
        "data set's folder."
    )


def _counts(root: Path) -> Published:
    """Give the counts with those of the test set where its table is there."""
    _, tables = _find_tables(root)
    return _WITH_TEST if any(table.name in _TABLES[-1] for table in tables) else _PUBLISHED


_PUBLISHED = Published(images=223_414 + 234, patients=64_540 + 200)
_WITH_TEST = Published(images=223_414 + 234 + 668, patients=64_540 + 200 + 500)
CHEXPERT = DataSet(
    name="chexpert",
    title="CheXpert",
    terms="Stanford University's research use agreement",
    citation="Irvin et al., CheXpert, AAAI 2019",
    reader=read_chexpert,
    policy=CHEXPERT_POLICY,
    published=_PUBLISHED,
    counts=_counts,
)
