"""Predictions of a data set, written a part at a time, so that a killed run goes on."""

from __future__ import annotations

import hashlib
import json
import shutil
from collections.abc import Callable, Iterable, Mapping, Sequence
from itertools import islice
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq

from medllm.datasets import ImageRecord
from medllm.errors import MedllmError
from medllm.evaluate.predictions import ScoredRecord
from medllm.evaluate.table import SCHEMA, rows_of, write_rows
from medllm.files import replace_file
from medllm.models import Model

# Images that are lost at most when a run is killed, and held at most while they are written.
PART = 256

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
    path, parts = out / "predictions.parquet", out / "parts"
    try:
        _claim(out, {**told, **_identity(model, records, findings)})
        if path.exists():
            return path
        parts.mkdir(exist_ok=True)
        chunks = {
            parts / f"{start // PART:06}.parquet": records[start : start + PART]
            for start in range(0, len(records), PART)
        }
        missing = {part: chunk for part, chunk in chunks.items() if not part.exists()}
        scored = iter(score([record for chunk in missing.values() for record in chunk]))
        for part, chunk in missing.items():
            write_rows(rows_of(islice(scored, len(chunk)), model, findings, root), part)
        _join(list(chunks), path)
        shutil.rmtree(parts)
    except OSError as error:
        raise MedllmError(
            f"{out} cannot be written ({error.strerror}); free some space or name another --out. "
            "What was written is whole, and the same command goes on from it.",
            code="not-written",
        ) from error
    return path


def _identity(
    model: Model, records: Sequence[ImageRecord], findings: Sequence[str]
) -> dict[str, Any]:
    digest = hashlib.sha256()
    for record in records:
        known = [record.dataset, record.name, record.patient_id, dict(record.labels)]
        digest.update(json.dumps(known, sort_keys=True).encode())
    return {
        "model_sha256": model.sha256,
        "findings": list(findings),
        "records": digest.hexdigest(),
        "n_images": len(records),
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
