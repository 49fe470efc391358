"""Another classifier's predictions, read from a file and put beside the labels."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from medllm.datasets import ImageRecord
from medllm.datasets.record import iterate_rows
from medllm.errors import LabelError
from medllm.findings import FINDINGS

COLUMNS = ("path", "finding", "probability")
# A peer that comes without a threshold is called at even odds.
THRESHOLD = 0.5
# The logit of a probability of 0 or 1 is not finite.
_CERTAIN = 1e-12


def given_rows(
    file: Path, records: Sequence[ImageRecord], root: Path, wanted: Sequence[str] | None = None
) -> list[dict[str, Any]]:
    """Read probabilities and join them to a data set's records.

    Args:
        file: CSV or Parquet with `path, finding, probability`; the path is relative to `root`,
            or the name of the file where no other image has it.
        records: The chosen images.
        root: Folder of the data set.
        wanted: Findings to take; all that the file has when None.

    Returns:
        A row an image and finding, as of `table.rows_of`. An image without a probability of a
        finding has the error `no-prediction`.

    Raises:
        LabelError: The file is missing or not as described, a probability is none, a finding is
            not known, an image has two of one finding, no path is of the data set, or a finding
            that is wanted is not in the file.
    """
    given, findings = _given(file)
    if missing := [finding for finding in wanted or () if finding not in findings]:
        raise LabelError(
            f"{file} has no prediction of {', '.join(missing)}; it has {', '.join(findings)}."
        )
    findings = tuple(dict.fromkeys(wanted or findings))
    names = Counter(record.name for record in records)
    rows, n_found = [], 0
    for record in records:
        path = record.place(root)
        for finding in findings:
            probability = given.get((path, finding))
            if probability is None and names[record.name] == 1:
                probability = given.get((record.name, finding))
            n_found += probability is not None
            rows.append(_row(record, path, finding, probability))
    if not n_found:
        raise LabelError(
            f"{file} has no path of the data set's; its first is '{next(iter(given))[0]}', wanted "
            f"is '{rows[0]['path']}'."
        )
    return rows


def _row(record: ImageRecord, path: str, finding: str, probability: float | None) -> dict[str, Any]:
    row: dict[str, Any] = {
        "path": path,
        "patient_id": record.patient_id,
        "study_id": record.study_id,
        "split": record.split,
        "finding": finding,
        "label": record.labels.get(finding),
        "rows": 0,
        "columns": 0,
        "attributes": dict(record.attributes),
        "other_labels": {
            source: labels[finding]
            for source, labels in record.other_labels.items()
            if finding in labels
        },
        "probes": {},
    }
    if probability is None:
        return row | {"error": "no-prediction"}
    kept = float(np.clip(probability, _CERTAIN, 1 - _CERTAIN))
    return row | {
        "log_odds": math.log(kept / (1 - kept)),
        "probability": probability,
        "call": "positive" if probability >= THRESHOLD else "negative",
    }


def _given(file: Path) -> tuple[dict[tuple[str, str], float], tuple[str, ...]]:
    given: dict[tuple[str, str], float] = {}
    findings: dict[str, None] = {}
    for where, path, finding, text in _read(file):
        if finding not in FINDINGS:
            known = ", ".join(sorted(FINDINGS))
            raise LabelError(f"{where}: '{finding}' is no finding's key; keys are: {known}.")
        if (path, finding) in given:
            raise LabelError(f"{where}: {finding} of this path stands above already; leave one.")
        given[path, finding] = _probability(where, text)
        findings[finding] = None
    if not given:
        raise LabelError(f"{file} has no rows; give an image and finding a row.")
    return given, tuple(findings)


def _probability(where: str, value: Any) -> float:
    try:
        probability = float(value)
    except (TypeError, ValueError):
        probability = math.nan
    if not 0 <= probability <= 1:
        raise LabelError(f"{where}: probability is '{value}'; wanted is a number from 0 to 1.")
    return probability


def _read(file: Path) -> Iterator[tuple[str, str, str, Any]]:
    """Read place, path, finding and probability of each row."""
    if not file.is_file():
        raise LabelError(f"{file} is not there; check --predictions.")
    if file.suffix == ".parquet":
        try:
            table = pq.read_table(file)
        except pa.ArrowInvalid as error:
            raise LabelError(f"{file} is no Parquet file; write it again.") from error
        _require(file, table.column_names)
        columns = [table.column(name).to_pylist() for name in COLUMNS]
        for number, row in enumerate(zip(*columns, strict=True)):
            # A row of our own file that was not scored.
            if row[2] is not None:
                yield (f"{file}, row {number}", *row)
        return
    for line, given in iterate_rows(file, COLUMNS):
        yield f"{file}, line {line}", given["path"], given["finding"], given["probability"]


def _require(file: Path, names: Sequence[str]) -> None:
    if missing := [name for name in COLUMNS if name not in names]:
        raise LabelError(
            f"{file} lacks the column(s) {', '.join(missing)}; it has {', '.join(names) or 'none'}."
        )
