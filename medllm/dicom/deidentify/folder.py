"""Many files into one folder, with a record of what was done that names nobody."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Collection, Iterable, Iterator, Sequence
from dataclasses import dataclass
from hashlib import sha256
from pathlib import Path
from typing import Any

from pydicom.datadict import keyword_for_tag
from pydicom.tag import BaseTag

from medllm.dicom.deidentify.file import Deidentified, deidentify_file
from medllm.dicom.deidentify.key import Key
from medllm.dicom.deidentify.profile import EDITION, METHOD_CODES, Action
from medllm.errors import DicomError
from medllm.files import replace_file

RECORD_NAME = "deidentification.json"


@dataclass(frozen=True)
class Outcome:
    """What became of one input.

    Attributes:
        source: The input; its name can name the patient, so it goes into no file.
        file: The new file below the folder; None where the input was refused.
        patient: The patient's pseudonym.
        sop_instance_uid: The new SOP Instance UID (0008,0018).
        actions: What was done with which attributes.
        warnings: Codes of the checks that were not passed.
        error: Why it was refused.
    """

    source: Path
    file: Path | None = None
    patient: str | None = None
    sop_instance_uid: str | None = None
    actions: frozenset[tuple[BaseTag, Action]] = frozenset()
    warnings: tuple[str, ...] = ()
    error: DicomError | None = None


def deidentify_files(
    sources: Iterable[Path],
    out: Path,
    key: Key,
    *,
    accept: Collection[str] = (),
    remove: Collection[BaseTag] = (),
) -> Iterator[Outcome]:
    """De-identify files one by one into `out/PSEUDONYM/SOP-INSTANCE-UID.dcm`.

    A file stands whole or not at all, and a second run writes the same bytes, so a run that was
    stopped is started again.

    Args:
        sources: DICOM files; a bad one is told of in its outcome, and the others are done.
        out: The folder; made where it is not there.
        key: What makes pseudonyms, UIDs and the shift of dates.
        accept: As for `deidentify_file`.
        remove: As for `deidentify_file`.

    Yields:
        Outcome: One a source, in their order.

    Raises:
        DicomError: `out` cannot be written (`not-written`).
    """
    written: dict[Path, str] = {}
    for source in sources:
        try:
            made = deidentify_file(source, key, accept=accept, remove=remove)
            file = Path(made.patient, f"{made.sop_instance_uid}.dcm")
            digest = sha256(made.data).hexdigest()
            if written.setdefault(file, digest) != digest:
                raise DicomError(
                    f"{source}: another file of this run has the same SOP Instance UID "
                    "(0008,0018) and other content; find out which of them is the image.",
                    code="duplicate-uid",
                )
        except DicomError as error:
            yield Outcome(source, error=error)
            continue
        _write(out / file, made.data)
        yield _outcome(source, file, made)


def write_record(outcomes: Sequence[Outcome], out: Path, key: Key) -> Path:
    """Write down what was done, in numbers and new names only, behind the earlier runs of `out`.

    Files and patients are counted over all runs, and all else stays apart: an input that was
    refused has no name here, so nobody could tell whether a later run counts it again. A run that
    does the same once more stands there once.

    Args:
        outcomes: Those of one run.
        out: The folder of its files.
        key: The key of the run, named by its fingerprint; earlier runs can be of another.

    Returns:
        The record, `deidentification.json`.

    Raises:
        DicomError: It cannot be written, or what lies there is none (`not-written`).
    """
    path = out / RECORD_NAME
    run = _run(outcomes, key)
    runs = [*(one for one in _earlier_runs(path) if one != run), run]
    files = {file["file"] for one in runs for file in one["files"]}
    record = {
        "n_files": len(files),
        "n_patients": len({file.partition("/")[0] for file in files}),
        "runs": runs,
    }
    _write(path, (json.dumps(record, indent=1) + "\n").encode())
    return path


def _earlier_runs(path: Path) -> list[dict[str, Any]]:
    if not path.exists():
        return []
    try:
        record = json.loads(path.read_text(encoding="utf-8"))
        # A record of before, of one run alone.
        runs: list[dict[str, Any]] = record.get("runs", [record])
        if all("files" in run for run in runs):
            return runs
    except (AttributeError, OSError, TypeError, ValueError):
        pass
    raise DicomError(
        f"{path}: is no record of medllm's, or cannot be read, and is not written over; move it "
        "elsewhere and start again: the new files are whole.",
        code="not-written",
    )


def _outcome(source: Path, file: Path, made: Deidentified) -> Outcome:
    return Outcome(
        source=source,
        file=file,
        patient=made.patient,
        sop_instance_uid=made.sop_instance_uid,
        actions=made.actions,
        warnings=tuple(gate.code for gate in made.warnings),
    )


def _write(path: Path, data: bytes) -> None:
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        replace_file(path, data)
    except OSError as error:
        raise DicomError(
            f"{path}: cannot be written ({error.strerror}); free some space or name another "
            "--out, and start again: what was written is whole.",
            code="not-written",
        ) from None


def _run(outcomes: Sequence[Outcome], key: Key) -> dict[str, Any]:
    done = {one.file: one for one in outcomes if one.file is not None}
    return {
        "profile": f"DICOM PS3.15 Table E.1-1, edition {EDITION}",
        "methods": [{"code": code, "meaning": meaning} for code, meaning in METHOD_CODES],
        "key": key.fingerprint,
        "n_inputs": len(outcomes),
        "n_files": len(done),
        "n_patients": len({one.patient for one in done.values()}),
        "refused": dict(Counter(one.error.code for one in outcomes if one.error is not None)),
        "attributes": _attributes(done.values()),
        "files": [
            {
                "file": file.as_posix(),
                "sop_instance_uid": one.sop_instance_uid,
                "warnings": list(one.warnings),
            }
            for file, one in sorted(done.items())
        ],
    }


def _attributes(done: Iterable[Outcome]) -> list[dict[str, Any]]:
    """Count files by attribute and action; private ones, of many numbers, as one."""
    counts = Counter(
        action for one in done for action in {(_name(tag), what) for tag, what in one.actions}
    )
    return [
        {"tag": tag, "keyword": keyword, "action": action, "n_files": n_files}
        for ((tag, keyword), action), n_files in sorted(counts.items())
    ]


def _name(tag: BaseTag) -> tuple[str, str]:
    if tag.is_private:
        return "(gggg,eeee), odd group", "private attributes"
    return str(tag), keyword_for_tag(tag)
