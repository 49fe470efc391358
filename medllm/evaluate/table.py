"""`predictions.parquet`: one row an image and finding; and the same as arrays."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from jaxtyping import Bool, Float, Shaped

from medllm.errors import LabelError
from medllm.evaluate.predictions import ScoredRecord
from medllm.models import Model
from medllm.models.calibration import call_of, probability_of

_WORDS = pa.map_(pa.string(), pa.string())
_NUMBERS = pa.map_(pa.string(), pa.float64())
SCHEMA = pa.schema(
    [
        ("path", pa.string()),
        ("patient_id", pa.string()),
        ("study_id", pa.string()),
        ("split", pa.string()),
        ("finding", pa.string()),
        ("label", pa.float64()),
        ("log_odds", pa.float64()),
        ("probability", pa.float64()),
        ("call", pa.string()),
        ("error", pa.string()),
        ("rows", pa.int32()),
        ("columns", pa.int32()),
        ("attributes", _WORDS),
        ("other_labels", _NUMBERS),
        ("probes", _NUMBERS),
    ]
)


@dataclass(frozen=True, eq=False)
class Predictions:
    """The predictions of a data set as arrays; NaN stands for what is unknown or was not scored.

    Attributes:
        findings: Keys, the columns.
        paths: Of the images, relative to the data set's folder.
        patients: Their patients.
        attributes: What divides them into groups.
        errors: Code of the cause where an image was not scored for a finding, else empty.
        shapes: Rows and columns of each file's image; 0 where it was not read.
        labels: 1 or 0.
        log_odds: Uncalibrated; of predictions that were given, the logit of the probability.
        probabilities: Calibrated.
        called: Whether the call is positive.
        ruled_out: Whether the call is negative; what is neither is indeterminate, or has no score.
        other_labels: Labels by other sources, by source.
        probes: Log-odds by probe.
    """

    findings: tuple[str, ...]
    paths: Sequence[str]
    patients: Sequence[str]
    attributes: Sequence[dict[str, str]]
    errors: Shaped[np.ndarray, "images findings"]
    shapes: Float[np.ndarray, "images 2"]
    labels: Float[np.ndarray, "images findings"]
    log_odds: Float[np.ndarray, "images findings"]
    probabilities: Float[np.ndarray, "images findings"]
    called: Bool[np.ndarray, "images findings"]
    ruled_out: Bool[np.ndarray, "images findings"]
    other_labels: dict[str, Float[np.ndarray, "images findings"]]
    probes: dict[str, Float[np.ndarray, "images findings"]]


def rows_of(
    scored: Iterable[ScoredRecord], model: Model, findings: Sequence[str], root: Path
) -> list[dict[str, Any]]:
    """Write scored records as rows.

    Args:
        scored: The records.
        model: For the calibration.
        findings: Keys, in the order of the rows of an image.
        root: Folder of the data set.

    Returns:
        A row an image and finding.
    """
    calibrations = {one.finding: one.calibration for one in model.questions(findings)}
    rows = []
    for one in scored:
        for finding in findings:
            row = _row(one, finding, root)
            if finding in one.log_odds:
                calibration = calibrations[finding]
                probability = probability_of(one.log_odds[finding], calibration)
                row |= {
                    "log_odds": one.log_odds[finding],
                    "probability": probability,
                    "call": call_of(probability, calibration),
                }
            rows.append(row)
    return rows


def _row(one: ScoredRecord, finding: str, root: Path) -> dict[str, Any]:
    record = one.record
    others = {name: labels.get(finding) for name, labels in record.other_labels.items()}
    probes = {name: answers[finding] for name, answers in one.probes.items()}
    return {
        "path": record.place(root),
        "patient_id": record.patient_id,
        "study_id": record.study_id,
        "split": record.split,
        "finding": finding,
        "label": record.labels.get(finding),
        "error": one.error,
        "rows": one.rows,
        "columns": one.columns,
        "attributes": dict(record.attributes),
        "other_labels": {name: label for name, label in others.items() if label is not None},
        "probes": probes,
    }


def write_rows(rows: Sequence[dict[str, Any]], path: Path, schema: pa.Schema = SCHEMA) -> None:
    """Write rows as a Parquet file, beside its place and then moved there.

    Args:
        rows: As of `rows_of`, or of another table.
        path: The file.
        schema: The columns.

    Raises:
        OSError: It cannot be written.
    """
    draft = path.with_name(f".{path.name}")
    try:
        pq.write_table(pa.Table.from_pylist(list(rows), schema=schema), draft)
        draft.replace(path)
    finally:
        draft.unlink(missing_ok=True)


def read_predictions(path: str | Path) -> Predictions:
    """Read `predictions.parquet` as arrays.

    Args:
        path: A file that `write_rows` wrote: an image's findings are consecutive rows.

    Returns:
        The predictions.

    Raises:
        LabelError: It is no such file, or its rows were sorted or left out since.
    """
    path = Path(path)
    table = _read(path)
    first = table.column("finding")[0].as_py()
    every = table.column("finding").to_pylist()
    # The findings of the first image; all have the same in the same order.
    width = next((at for at in range(1, len(every)) if every[at] == first), len(every))
    rows = table.column("path").to_pylist()
    paths = rows[::width]
    # Rows that were sorted or left out would else be taken for those of other findings.
    if every != every[:width] * len(paths) or rows != [one for one in paths for _ in range(width)]:
        raise LabelError(
            f"{path} has not the same findings of each image in consecutive rows; name a folder "
            "as medllm evaluate wrote it."
        )
    images = table.take(np.arange(0, len(every), width))

    def numbers(name: str) -> Float[np.ndarray, "images findings"]:
        values = table.column(name).to_numpy(zero_copy_only=False)
        array: np.ndarray = values.astype(float).reshape(-1, width)
        return array

    def words(name: str) -> Shaped[np.ndarray, "images findings"]:
        told = [value or "" for value in table.column(name).to_pylist()]
        return np.array(told, dtype=object).reshape(-1, width)

    return Predictions(
        findings=tuple(every[:width]),
        paths=paths,
        patients=images.column("patient_id").to_pylist(),
        attributes=[dict(pairs) for pairs in images.column("attributes").to_pylist()],
        errors=words("error"),
        shapes=np.stack([images.column(name).to_numpy() for name in ("rows", "columns")], 1).astype(
            float
        ),
        labels=numbers("label"),
        log_odds=numbers("log_odds"),
        probabilities=numbers("probability"),
        called=words("call") == "positive",
        ruled_out=words("call") == "negative",
        other_labels=_unfolded(table.column("other_labels"), width),
        probes=_unfolded(table.column("probes"), width),
    )


def _read(path: Path) -> pa.Table:
    try:
        has = pq.read_schema(path).names
        if missing := [name for name in SCHEMA.names if name not in has]:
            raise LabelError(
                f"{path} lacks the column(s) {', '.join(missing)} of a predictions.parquet; name a "
                "folder that medllm evaluate wrote."
            )
        table = pq.read_table(path, schema=SCHEMA)
    except (pa.ArrowInvalid, pa.ArrowTypeError) as error:
        raise LabelError(
            f"{path} is no predictions.parquet; name a folder that medllm evaluate wrote."
        ) from error
    if not len(table):
        raise LabelError(f"{path} has no rows; delete that folder and evaluate again.")
    return table


def _unfolded(
    column: pa.ChunkedArray, width: int
) -> dict[str, Float[np.ndarray, "images findings"]]:
    """Turn a column of maps into an array a key."""
    unfolded: dict[str, np.ndarray] = {}
    at = 0
    for chunk in column.chunks:
        lengths = np.diff(chunk.offsets.to_numpy())
        places = at + np.repeat(np.arange(len(chunk)), lengths)
        start, end = chunk.offsets[0].as_py(), chunk.offsets[-1].as_py()
        keys = np.array(chunk.keys.slice(start, end - start).to_pylist(), dtype=object)
        values = chunk.items.slice(start, end - start).to_numpy(zero_copy_only=False)
        for key in dict.fromkeys(keys.tolist()):
            array = unfolded.setdefault(key, np.full(len(column), np.nan))
            array[places[keys == key]] = values[keys == key]
        at += len(chunk)
    return {key: array.reshape(-1, width) for key, array in unfolded.items()}
