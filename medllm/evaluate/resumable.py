"""Rows of a data set, written a part at a time, so that a killed run goes on."""

from __future__ import annotations

import hashlib
import json
import shutil
from collections.abc import Callable, Iterable, Mapping, Sequence
from itertools import islice
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from medllm.datasets import ImageRecord
from medllm.errors import MedllmError
from medllm.evaluate.predictions import ScoredRecord
from medllm.evaluate.table import SCHEMA, rows_of, write_rows
from medllm.files import replace_file
from medllm.models import Model, refuse_context

# Images that are lost at most when a run is killed, and held at most while they are written.
PART = 256

Row = dict[str, Any]
Image = TypeVar("Image")
Score = Callable[[Sequence[ImageRecord]], Iterable[ScoredRecord]]
Work = Callable[[Sequence[ImageRecord]], Iterable[Sequence[Row]]]
# In what a run is known by: the file whose predictions were given.
PREDICTIONS = "predictions"
# What else it is known by, in a user's words: as it was, and as it is.
_TOLD = {
    "n_images": "the number of images ({} then, {} now)",
    "records": "the images or what is known of them (the table, --partial, --view, --limit, the "
    "label policy)",
    "root": "--root",
    "model_sha256": "the model",
    "findings": "the findings",
    "methods": "the methods",
    "accept": "--accept",
    "polarity": "--polarity",
}


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

    An image that was not scored before is tried again, and so is one whose file has changed since.

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

    def work(missing: Sequence[ImageRecord]) -> Iterable[Sequence[Row]]:
        return (rows_of([one], model, findings, root) for one in score(missing))

    write_in_parts(
        path,
        records,
        work,
        {**told, **of_model(model, findings), **of_records(records, root)},
        schema=SCHEMA,
        part_size=PART,
        finish=lambda parts: _write(path, (pq.read_table(part, schema=SCHEMA) for part in parts)),
        mend=lambda table, images: _mend(table, images, work),
    )
    return path


def of_records(records: Iterable[ImageRecord], root: Path) -> dict[str, Any]:
    """Say of which images of a data set a run is.

    Args:
        records: The chosen images.
        root: Folder of the data set.

    Returns:
        A part of what `claim` is told.
    """
    return {"root": _place(root), **of_images(_known(record, root) for record in records)}


def _known(record: ImageRecord, root: Path) -> list[Any]:
    """Say all of a record that decides its rows, but for the file's content."""
    others = {source: dict(labels) for source, labels in record.other_labels.items()}
    return [
        *(record.dataset, record.place(root), record.patient_id, record.study_id, record.split),
        *(record.polarity, dict(record.labels), dict(record.attributes), others),
        *([record.indication] if record.indication else []),
    ]


def write_in_parts(
    path: Path,
    images: Sequence[Image],
    work: Callable[[Sequence[Image]], Iterable[Sequence[Row]]],
    told: Mapping[str, Any],
    *,
    schema: pa.Schema,
    part_size: int,
    finish: Callable[[Sequence[Path]], None],
    mend: Callable[[Path, Sequence[Image]], None],
    keep_parts: bool = False,
) -> None:
    """Write a table of images a part at a time, going on from what its folder holds already.

    Args:
        path: The table.
        images: All images.
        work: Gives the rows of each image, in their order; it is given those that are not
            written yet.
        told: All that decides the rows; the folder is refused where it holds a run of another.
        schema: Columns of the parts.
        part_size: Images a part.
        finish: Makes the table, given the parts in order; it is called again where it was killed.
        mend: Does anew what is not to be kept of a part that an earlier run wrote, or of the whole
            table where there are no parts any more; it is given the images of it.
        keep_parts: Whether the folder `parts` stays when the table is written. Then parts alone
            are mended, and `mend` takes the table away whose part it changes.

    Raises:
        MedllmError: The folder holds another run, or cannot be written.
    """
    out, parts = path.parent, path.parent / "parts"
    try:
        claim(path, told)
        chunks = {
            parts / f"{start // part_size:06}.parquet": images[start : start + part_size]
            for start in range(0, len(images), part_size)
        }
        joined = path.exists() and not keep_parts
        for table, own in ({path: images} if joined else chunks).items():
            if table.exists():
                mend(table, own)
        if not joined:
            parts.mkdir(exist_ok=True)
            missing = {part: chunk for part, chunk in chunks.items() if not part.exists()}
            if missing:  # the table is of other parts, and would be taken for these after a kill
                path.unlink(missing_ok=True)
            _write_parts(missing, work, schema)
            if not path.exists():
                finish(list(chunks))
        if not keep_parts:
            shutil.rmtree(parts, ignore_errors=True)
    except OSError as error:
        raise MedllmError(
            f"{out} cannot be written ({error.strerror}); free some space or name another --out. "
            "What was written is whole, and the same command goes on from it.",
            code="not-written",
        ) from error


def _write_parts(
    parts: Mapping[Path, Sequence[Image]],
    work: Callable[[Sequence[Image]], Iterable[Sequence[Row]]],
    schema: pa.Schema,
) -> None:
    done = iter(work([image for chunk in parts.values() for image in chunk]))
    for part, chunk in parts.items():
        rows = [row for of_image in islice(done, len(chunk)) for row in of_image]
        write_rows(rows, part, schema)


def of_images(known: Iterable[Any]) -> dict[str, Any]:
    """Say of which images a run is.

    Args:
        known: What is known of each, as JSON can hold it.

    Returns:
        A part of what `claim` is told.
    """
    digest, n_images = hashlib.sha256(), 0
    for one in known:
        digest.update(json.dumps(one, sort_keys=True).encode())
        n_images += 1
    return {"records": digest.hexdigest(), "n_images": n_images}


def of_model(model: Model, findings: Sequence[str]) -> dict[str, Any]:
    """Say of which model and findings a run is.

    Args:
        model: Its hash is told, and the prevalence its probabilities suppose.
        findings: Keys.

    Returns:
        A part of what `claim` is told.

    Raises:
        CheckpointError: The model was told of one patient.
    """
    refuse_context(model)
    supposed = [question.calibration.prevalence for question in model.questions(findings)]
    return {"model_sha256": model.sha256, "prevalence": supposed, "findings": list(findings)}


def claim(path: Path, told: Mapping[str, Any]) -> None:
    """Write down what is evaluated in a folder, or check that it is the same as before.

    Args:
        path: The table that is written there; the folder is made.
        told: All that decides its rows.

    Raises:
        MedllmError: The folder holds another run, or one that does not say what it is.
        OSError: It cannot be written.
    """
    out = path.parent
    run = out / "run.json"
    if run.exists():
        before = _read_run(run)
        if before != told:
            raise MedllmError(
                f"{out} holds {_difference(before, told)}; name another --out, or delete that "
                "folder.",
                code="other-run",
            )
        return
    if path.exists():
        raise MedllmError(
            f"{out} holds {path.name} and no run.json, which says of what it is; name another "
            "--out, or delete that folder.",
            code="other-run",
        )
    out.mkdir(parents=True, exist_ok=True)
    replace_file(run, json.dumps(told, indent=1) + "\n")


def is_run_of(out: Path, root: Path) -> bool:
    """Say whether a folder is known to hold a run over a data set's folder.

    Args:
        out: Folder of a run.
        root: Folder of the data set.

    Returns:
        Whether it is.
    """
    try:
        return _read_run(out / "run.json").get("root") == _place(root)
    except (OSError, MedllmError):
        return False


def _place(root: Path) -> str:
    return hashlib.sha256(str(root.resolve()).encode()).hexdigest()


def _read_run(run: Path) -> dict[str, Any]:
    try:
        before = json.loads(run.read_text(encoding="utf-8"))
    except ValueError:
        before = None
    if not isinstance(before, dict):
        raise MedllmError(
            f"{run} is damaged, so that it is not known what its folder holds; name another --out, "
            "or delete that folder.",
            code="other-run",
        )
    return before


def _difference(before: Mapping[str, Any], told: Mapping[str, Any]) -> str:
    given = before.get(PREDICTIONS)
    if given and PREDICTIONS not in told:
        return f"the predictions that {given} gave, not a model's"
    if PREDICTIONS in told and not given:
        return "the evaluation of a model, not of predictions that were given"
    changed = sorted(key for key in {**before, **told} if before.get(key) != told.get(key))
    named = [_TOLD.get(key, key).format(before.get(key), told.get(key)) for key in changed]
    return f"another evaluation, which differs in {', '.join(named)}"


def _mend(table: Path, records: Sequence[ImageRecord], work: Work) -> None:
    """Score those images of a table again that have an error or a newer file."""
    before = pq.read_table(table, schema=SCHEMA)
    width = len(before) // len(records)
    failed = before.column("error").is_valid().to_numpy().reshape(-1, width).any(axis=1)
    written = table.stat().st_mtime_ns
    stale = [at for at, one in enumerate(records) if failed[at] or changed_at(one.path) > written]
    if not stale:
        return
    rows = [row for own in work([records[at] for at in stale]) for row in own]
    places = np.arange(len(before)).reshape(-1, width)
    places[stale] = len(before) + np.arange(len(rows)).reshape(-1, width)
    both = pa.concat_tables([before, pa.Table.from_pylist(rows, schema=SCHEMA)]).combine_chunks()
    mended = both.take(places.ravel())
    step = PART * width
    _write(table, (mended.slice(start, step) for start in range(0, len(mended), step)))


def changed_at(path: Path) -> int:
    """Say when a file was written or moved to its place.

    Args:
        path: The file.

    Returns:
        In nanoseconds, as `os.stat` counts; 0 where it is no longer there.
    """
    try:
        status = path.stat()
    except OSError:
        return 0
    return max(status.st_mtime_ns, status.st_ctime_ns)


def _write(path: Path, tables: Iterable[pa.Table]) -> None:
    draft = path.with_name(f".{path.name}")
    try:
        with pq.ParquetWriter(draft, SCHEMA) as writer:
            for table in tables:
                writer.write_table(table)
        draft.replace(path)
    finally:
        draft.unlink(missing_ok=True)
