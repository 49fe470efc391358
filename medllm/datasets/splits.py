"""Splits by patient, the same on every machine."""

from __future__ import annotations

import contextlib
import csv
import dataclasses
import hashlib
import io
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path

from medllm.datasets.record import ImageRecord, read_rows
from medllm.datasets.registry import DATASETS
from medllm.errors import DicomError, LabelError
from medllm.files import replace_file

# Of the patients of a data set without an official split, where nothing else is asked for.
DEFAULT_SHARES: Mapping[str, float] = {"train": 0.8, "validation": 0.1, "test": 0.1}
_COLUMNS = ("dataset", "file", "patient_id", "split")


def split_by_patient(
    records: Sequence[ImageRecord],
    shares: Mapping[str, float],
    seed: int,
    *,
    known: Mapping[str, str] | None = None,
) -> dict[str, list[ImageRecord]]:
    """Divide records so that no patient, and no image under two names, is in two parts.

    Patients who share a byte-identical file are kept together; a file that is not there shares
    nothing. Data sets that have their patients in common by name, such as RSNA's and NIH's, have
    them in the same part. A group's part follows from a hash of its first patient's name and the
    seed, so that adding images moves nobody.

    Args:
        records: Records of any number of data sets.
        shares: Share of the patients a part, in order; they add up to 1.
        seed: Another seed gives another split.
        known: Part of patients who have one already, as in another data set's official split, by
            `patient_name`; whoever shares a file with one of them goes with them.

    Returns:
        Records a part, in their given order.

    Raises:
        ValueError: The shares do not add up to 1.
    """
    if abs(sum(shares.values()) - 1) > 1e-9:
        raise ValueError(f"shares add up to {sum(shares.values())}; they must add up to 1.")
    leaders = _group_leaders(records)
    fixed = {
        leaders[patient]: part for patient, part in (known or {}).items() if patient in leaders
    }
    parts: dict[str, list[ImageRecord]] = {name: [] for name in shares}
    for record in records:
        leader = leaders[patient_name(record.dataset, record.patient_id)]
        drawn = _part(place_of(f"{seed}:{leader}"), shares)
        parts[fixed.get(leader, drawn)].append(record)
    return parts


def place_of(name: str) -> float:
    """Give a name its place by a hash, the same on every machine and among whatever others.

    Args:
        name: Of what is drawn; another beginning gives another draw.

    Returns:
        0 to 1, even over names.

    Example:
        >>> round(place_of("0:patient 7"), 3)
        0.714
    """
    return int.from_bytes(hashlib.sha256(name.encode()).digest()[:8]) / 2**64


def write_split(path: str | Path, parts: Iterable[tuple[str, Sequence[ImageRecord]]]) -> None:
    """Write a split as a table that can be shared: `dataset, file, patient_id, split`.

    Args:
        path: The file, CSV.
        parts: Name of a part with records of it; a part may come again, as of another data set.

    Raises:
        OSError: It cannot be written.
    """
    path = Path(path)
    table = io.StringIO()
    writer = csv.writer(table)
    writer.writerow(_COLUMNS)
    for part, records in parts:
        writer.writerows((r.dataset, r.name, r.patient_id, part) for r in records)
    replace_file(path, table.getvalue())


def with_split(records: Sequence[ImageRecord], path: str | Path) -> list[ImageRecord]:
    """Take the split of a table in place of the records' own; patients decide, not files.

    Args:
        records: Of any data set in the table.
        path: A table that `write_split` wrote, of these records or of a larger set that they are
            a part of; spaces around a cell do not count.

    Returns:
        The records; those of patients that the table does not name have a blank split.

    Raises:
        LabelError: The table is missing or not as described, a patient is in two parts, or it
            names none of the records' patients.
    """
    path = Path(path)
    parts: dict[str, str] = {}
    columns = ("dataset", "patient_id", "split")
    for line, row in read_rows(path, columns):
        dataset, patient_id, part = (row[column].strip() for column in columns)
        patient = patient_name(dataset, patient_id)
        if parts.setdefault(patient, part) != part:
            raise LabelError(
                f"{path}, line {line}: the patient is in '{parts[patient]}' and in "
                f"'{part}'; keep each patient in one part."
            )
    found = [
        (record, parts.get(patient_name(record.dataset, record.patient_id), ""))
        for record in records
    ]
    if not any(part for _, part in found):
        raise LabelError(f"{path} names no patient of these records; is it of another data set?")
    return [dataclasses.replace(record, split=part) for record, part in found]


def patient_name(dataset: str, patient_id: str) -> str:
    """Name a patient in all data sets that have the same pseudonyms.

    Args:
        dataset: Name of the data set.
        patient_id: Its pseudonym.

    Returns:
        The same name for RSNA's patient 17 as for NIH's, and another for any other's.
    """
    known = DATASETS.get(dataset)
    return f"{known.patients_of if known else dataset}/{patient_id}"


def _part(position: float, shares: Mapping[str, float]) -> str:
    edge = 0.0
    for name, share in shares.items():
        edge += share
        if position < edge:
            return name
    return name


def _group_leaders(records: Sequence[ImageRecord]) -> dict[str, str]:
    """Map each patient to the smallest name among those it shares a file with."""
    by_hash: defaultdict[str, set[str]] = defaultdict(set)
    for record in records:
        # Of a partial copy, or damaged: told as an error when the image is asked for.
        with contextlib.suppress(OSError, DicomError):
            by_hash[hashlib.sha256(record.content()).hexdigest()].add(
                patient_name(record.dataset, record.patient_id)
            )
    parent = {
        patient_name(record.dataset, record.patient_id): patient_name(
            record.dataset, record.patient_id
        )
        for record in records
    }

    def root(patient: str) -> str:
        while parent[patient] != patient:
            patient = parent[patient]
        return patient

    for patients in by_hash.values():
        first, *others = sorted(root(patient) for patient in patients)
        for other in others:
            low, high = sorted((root(first), root(other)))
            parent[high] = low
    return {patient: root(patient) for patient in parent}
