"""Another classifier's predictions, read from a file and put beside the labels."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from medllm.datasets import ImageRecord
from medllm.datasets.record import iterate_rows
from medllm.errors import LabelError
from medllm.evaluate.thresholds import OwnThresholds
from medllm.findings import FINDINGS

COLUMNS = ("path", "finding", "probability")
# At most one of them may stand beside the others: the same threshold in all rows of a finding, or
# the call of each row, as in our own predictions.parquet.
CALLED_BY = ("threshold", "call")
_CALLS = ("negative", "indeterminate", "positive")
# A peer that comes without either is called at even odds.
_EVEN = OwnThresholds(0.5, "0.5, since the predictions came without a threshold")
_CALLS_GIVEN = OwnThresholds(None, "the calls that were given with the predictions")
# The logit of a probability of 0 or 1 is not finite.
_CERTAIN = 1e-12


def given_rows(
    file: Path, records: Sequence[ImageRecord], root: Path, wanted: Sequence[str] | None = None
) -> tuple[list[dict[str, Any]], dict[str, OwnThresholds]]:
    """Read probabilities and join them to a data set's records.

    Args:
        file: CSV or Parquet with `path, finding, probability`; the path is relative to `root`,
            or the name of the file where no other image has it. It may have `threshold`, from
            which on a call is positive, or `call`; without either a call is made at 0.5.
        records: The chosen images.
        root: Folder of the data set.
        wanted: Findings to take; all that the file has when None.

    Returns:
        A row an image and finding, as of `table.rows_of`, and what each finding was called by. An
        image without a probability of a finding has the error `no-prediction`.

    Raises:
        LabelError: The file is missing or not as described, a probability, threshold or call is
            none, a finding is not known or has two thresholds, an image has two rows of one
            finding, no path is of the data set, or a finding that is wanted is not in the file.
    """
    given, thresholds = _given(file)
    if missing := [finding for finding in wanted or () if finding not in thresholds]:
        raise LabelError(
            f"{file} has no prediction of {', '.join(missing)}; it has {', '.join(thresholds)}."
        )
    thresholds = {finding: thresholds[finding] for finding in wanted or thresholds}
    names = Counter(record.name for record in records)
    rows, n_found = [], 0
    for record in records:
        path = record.place(root)
        for finding in thresholds:
            answer = given.get((path, finding))
            if answer is None and names[record.name] == 1:
                answer = given.get((record.name, finding))
            n_found += answer is not None
            rows.append(_row(record, path, finding, answer))
    if not n_found:
        raise LabelError(
            f"{file} has no path of the data set's; its first is '{next(iter(given))[0]}', wanted "
            f"is '{rows[0]['path']}'."
        )
    return rows, thresholds


def _row(
    record: ImageRecord, path: str, finding: str, answer: tuple[float, str] | None
) -> dict[str, Any]:
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
    if answer is None:
        return row | {"error": "no-prediction"}
    probability, call = answer
    kept = float(np.clip(probability, _CERTAIN, 1 - _CERTAIN))
    return row | {
        "log_odds": math.log(kept / (1 - kept)),
        "probability": probability,
        "call": call,
    }


def _given(
    file: Path,
) -> tuple[dict[tuple[str, str], tuple[float, str]], dict[str, OwnThresholds]]:
    """Read probability and call of each path and finding, and what each finding is called by."""
    given: dict[tuple[str, str], tuple[float, str]] = {}
    thresholds: dict[str, OwnThresholds] = {}
    for where, row in _read(file):
        path, finding = row["path"], row["finding"]
        if finding not in FINDINGS:
            known = ", ".join(sorted(FINDINGS))
            raise LabelError(f"{where}: '{finding}' is no finding's key; keys are: {known}.")
        if (path, finding) in given:
            raise LabelError(f"{where}: {finding} of this path stands above already; leave one.")
        probability = _share(where, "probability", row["probability"])
        own = _thresholds(where, row)
        if (before := thresholds.setdefault(finding, own)) != own:
            raise LabelError(
                f"{where}: the threshold of {finding} is {own.upper}, and {before.upper} above; "
                "give all rows of a finding one."
            )
        given[path, finding] = probability, _call(where, row, probability, own.upper)
    if not given:
        raise LabelError(f"{file} has no rows; give an image and finding a row.")
    return given, thresholds


def _thresholds(where: str, row: Mapping[str, Any]) -> OwnThresholds:
    if "call" in row:
        return _CALLS_GIVEN
    if "threshold" in row:
        value = _share(where, "threshold", row["threshold"])
        return OwnThresholds(value, "given with the predictions")
    return _EVEN


def _call(where: str, row: Mapping[str, Any], probability: float, upper: float | None) -> str:
    if upper is not None:
        return "positive" if probability >= upper else "negative"
    if (call := row["call"]) not in _CALLS:
        raise LabelError(
            f"{where}: call is '{call}'; wanted is negative, indeterminate or positive, or a file "
            "without the column."
        )
    return str(call)


def _share(where: str, column: str, value: Any) -> float:
    try:
        share = float(value)
    except (TypeError, ValueError):
        share = math.nan
    if not 0 <= share <= 1:
        raise LabelError(f"{where}: {column} is '{value}'; wanted is a number from 0 to 1.")
    return share


def _read(file: Path) -> Iterator[tuple[str, Mapping[str, Any]]]:
    """Read place and columns of each row."""
    if not file.is_file():
        raise LabelError(f"{file} is not there; check --predictions.")
    if file.suffix != ".parquet":
        for line, row in iterate_rows(file, COLUMNS):
            _require(file, list(row))
            yield f"{file}, line {line}", row
        return
    try:
        table = pq.read_table(file)
    except pa.ArrowInvalid as error:
        raise LabelError(f"{file} is no Parquet file; write it again.") from error
    _require(file, table.column_names)
    names = [name for name in (*COLUMNS, *CALLED_BY) if name in table.column_names]
    columns = [table.column(name).to_pylist() for name in names]
    for number, values in enumerate(zip(*columns, strict=True)):
        row = dict(zip(names, values, strict=True))
        # A row of our own file that was not scored.
        if row["probability"] is not None:
            yield f"{file}, row {number}", row


def _require(file: Path, names: Sequence[str]) -> None:
    if missing := [name for name in COLUMNS if name not in names]:
        raise LabelError(
            f"{file} lacks the column(s) {', '.join(missing)}; it has {', '.join(names) or 'none'}."
        )
    if set(CALLED_BY) <= set(names):
        raise LabelError(f"{file} has both call and threshold; leave out one of the columns.")
