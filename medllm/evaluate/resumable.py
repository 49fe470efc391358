"""Rows of a data set, written a part at a time, so that a killed run goes on."""

from __future__ import annotations

import hashlib
import json
import shutil
from collections.abc import Callable, Iterable, Mapping, Sequence
from itertools import islice
from pathlib import Path
from typing import Any, TypeVar

import pyarrow as pa
import pyarrow.parquet as pq

from medllm.datasets import ImageRecord
from medllm.errors import MedllmError
from medllm.evaluate.predictions import ScoredRecord
from medllm.evaluate.table import SCHEMA, rows_of, write_rows
from medllm.files import replace_file
from medllm.models import Model

# Images that are lost at most when a run is killed, and held at most while they are written.
PART = 256

Row = dict[str, Any]
Image = TypeVar("Image")
Score = Callable[[Sequence[ImageRecord]], Iterable[ScoredRecord]]


def predict(
    model: Model,
    records: Sequence[ImageRecord],
    findings: Sequence[str],
    root: Path,
    out: Path,
    score: Score,
    told: Mapping[str, Any],
) -> Path:
    """Write the predictions of records, going on from what `out` holds already.

    Args:
        model: For the calibration; its hash is part of what the run is known by.
        records: The chosen images.
        findings: Keys.
        root: Folder of the data set.
        out: Folder of the run; `parts` in it goes away when all are written.
        score: Scores records, in their order; it is given those that are not written yet.
        told: What else decides the predictions, such as the label policy.

    Returns:
        `predictions.parquet` in `out`, one row an image and finding.

    Raises:
        MedllmError: `out` holds another run, or cannot be written.
    """
    path = out / "predictions.parquet"
    known = [
        [record.dataset, record.name, record.patient_id, dict(record.labels)] for record in records
    ]
    write_in_parts(
        path,
        records,
        lambda missing: (rows_of([one], model, findings, root) for one in score(missing)),
        {**told, **identity(model, known, findings)},
        schema=SCHEMA,
        part_size=PART,
        finish=lambda parts: _join(parts, path),
    )
    return path


def write_in_parts(
    path: Path,
    images: Sequence[Image],
    work: Callable[[Sequence[Image]], Iterable[Sequence[Row]]],
    told: Mapping[str, Any],
    *,
    schema: pa.Schema,
    part_size: int,
    finish: Callable[[Sequence[Path]], None],
) -> None:
    """Write a table of images a part at a time, going on from what its folder holds already.

    Args:
        path: The table; `parts` beside it goes away when it is written.
        images: All images.
        work: Gives the rows of each image, in their order; it is given those that are not
            written yet.
        told: All that decides the rows; the folder is refused where it holds a run of another.
        schema: Columns of the parts.
        part_size: Images a part.
        finish: Makes the table, given the parts in order; it is called again where it was killed.

    Raises:
        MedllmError: The folder holds another run, or cannot be written.
    """
    out, parts = path.parent, path.parent / "parts"
    try:
        _claim(out, told)
        if not path.exists():
            parts.mkdir(exist_ok=True)
            chunks = {
                parts / f"{start // part_size:06}.parquet": images[start : start + part_size]
                for start in range(0, len(images), part_size)
            }
            missing = {part: chunk for part, chunk in chunks.items() if not part.exists()}
            done = iter(work([image for chunk in missing.values() for image in chunk]))
            for part, chunk in missing.items():
                rows = [row for of_image in islice(done, len(chunk)) for row in of_image]
                write_rows(rows, part, schema)
            finish(list(chunks))
        shutil.rmtree(parts, ignore_errors=True)
    except OSError as error:
        raise MedllmError(
            f"{out} cannot be written ({error.strerror}); free some space or name another --out. "
            "What was written is whole, and the same command goes on from it.",
            code="not-written",
        ) from error


def identity(model: Model, known: Iterable[Any], findings: Sequence[str]) -> dict[str, Any]:
    """Say what a run is known by.

    Args:
        model: Its hash is told.
        known: What is known of each image, as JSON can hold it.
        findings: Keys.

    Returns:
        A part of what `write_in_parts` is told.
    """
    digest, n_images = hashlib.sha256(), 0
    for one in known:
        digest.update(json.dumps(one, sort_keys=True).encode())
        n_images += 1
    return {
        "model_sha256": model.sha256,
        "prevalence": [question.calibration.prevalence for question in model.questions(findings)],
        "findings": list(findings),
        "records": digest.hexdigest(),
        "n_images": n_images,
    }


def _claim(out: Path, told: Mapping[str, Any]) -> None:
    """Write down what is evaluated here, or check that it is the same as before."""
    path = out / "run.json"
    if path.exists():
        before = json.loads(path.read_text(encoding="utf-8"))
        if before != told:
            changed = sorted(key for key in told if before.get(key) != told[key])
            raise MedllmError(
                f"{out} holds another evaluation, which differs in {', '.join(changed)}; name "
                "another --out, or delete that folder.",
                code="other-run",
            )
        return
    out.mkdir(parents=True, exist_ok=True)
    replace_file(path, json.dumps(told, indent=1) + "\n")


def _join(parts: Sequence[Path], path: Path) -> None:
    draft = path.with_name(f".{path.name}")
    try:
        with pq.ParquetWriter(draft, SCHEMA) as writer:
            for part in parts:
                writer.write_table(pq.read_table(part, schema=SCHEMA))
        draft.replace(path)
    finally:
        draft.unlink(missing_ok=True)
