"""A researcher's own images: `labels.csv` and, where there are boxes, `boxes.csv`."""

from __future__ import annotations

import difflib
import math
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path, PurePosixPath, PureWindowsPath

from medllm.datasets.record import Box, ImageRecord, read_label, read_rows
from medllm.errors import LabelError
from medllm.findings import FINDINGS

# Likeness from which on a name is held to be a misspelt finding: 'pnuemonia' is .89 like
# 'pneumonia', while names for something else about a finding, such as 'pneumonia_type' (.78) or
# 'mass_kg' (.73), stay attributes.
_MISSPELT = 0.85


def read_csv(root: Path) -> list[ImageRecord]:
    """Read a folder with a table of images and their labels.

    `labels.csv` has a column `path` and at least one column a finding, named by its key in
    `medllm.findings`: 1 with the finding, 0 without, blank where it is unknown. `patient_id`
    keeps a patient's images together; without that column each image is a patient of its own.
    Any other column, such as `age_years`, `sex` or `view_position`, becomes an attribute.
    `boxes.csv` beside it is optional: `path, finding, x, y, width, height`.

    Args:
        root: Folder that holds the tables; paths in them are relative to it.

    Returns:
        A record an image, in the table's order.

    Raises:
        LabelError: A table is missing or not as described above; the message names the file,
            the line, what was found and what is wanted.
    """
    root = Path(root)
    table = root / "labels.csv"
    rows = read_rows(table, ("path",))
    if not rows:
        raise LabelError(f"{table} has no rows; give an image a line below the header.")
    columns = list(rows[0][1])
    findings = _finding_columns(table, columns)
    attributes = [name for name in columns if name not in {"", "path", "patient_id", *findings}]
    paths = _paths(table, rows)
    boxes = _read_boxes(root / "boxes.csv", paths)
    return [
        ImageRecord(
            dataset="csv",
            path=root / path,
            patient_id=_patient_id(f"{table}, line {line}", row, path),
            labels=_labels(f"{table}, line {line}", row, findings),
            attributes={name: row[name] for name in attributes},
            boxes=boxes.get(path, {}),
        )
        for path, (line, row) in zip(paths, rows, strict=True)
    ]


def _finding_columns(table: Path, columns: Sequence[str]) -> list[str]:
    findings = [name for name in columns if name in FINDINGS]
    for name in columns:
        if name not in FINDINGS and (nearest := _nearest(name, _MISSPELT)):
            raise LabelError(
                f"{table} has the column '{name}', which is no finding's key; did you mean "
                f"'{nearest}'? Rename it, so that it is not passed over."
            )
    if not findings and "findings" in columns:
        raise LabelError(
            f"{table} has its findings in one column 'findings', as NIH ChestX-ray14 has, and "
            "none a finding; read it as the data set 'nih'."
        )
    if not findings:
        hint = _hint(columns)
        raise LabelError(
            f"{table} has no column named by a finding's key; it has {', '.join(columns)}.{hint} "
            f"Keys are: {', '.join(sorted(FINDINGS))}."
        )
    return findings


def _nearest(name: str, likeness: float) -> str | None:
    """Find the finding's key that a name is most like, spaces and capitals aside."""
    key = name.casefold().replace(" ", "_").replace("-", "_")
    near = difflib.get_close_matches(key, FINDINGS, n=1, cutoff=likeness)
    return near[0] if near else None


def _hint(names: Iterable[str]) -> str:
    known = {"path", "patient_id", "age_years", "sex", "view_position"}
    near = {name: _nearest(name, 0.6) for name in names if name not in known}
    return "".join(f" Is '{name}' meant to be '{key}'?" for name, key in near.items() if key)


def _paths(table: Path, rows: Sequence[tuple[int, Mapping[str, str]]]) -> list[str]:
    lines: dict[str, int] = {}
    for line, row in rows:
        path = _relative_path(f"{table}, line {line}", row["path"])
        if path in lines:
            raise LabelError(
                f"{table}, line {line}: path '{path}' is on line {lines[path]} already; give each "
                "image one line, with all of its labels."
            )
        lines[path] = line
    return list(lines)


def _relative_path(where: str, text: str) -> str:
    path = PurePosixPath(text.strip())
    windows = PureWindowsPath(text.strip())
    if not path.parts:
        raise LabelError(f"{where}: path is blank; give the image's file, relative to the table.")
    if windows.drive or windows.root or ".." in windows.parts:
        raise LabelError(
            f"{where}: path '{text}' leads out of the data set's folder; give it relative to the "
            "table, without '..'."
        )
    return str(path)


def _patient_id(where: str, row: Mapping[str, str], path: str) -> str:
    if "patient_id" not in row:
        return path
    patient = row["patient_id"].strip()
    if not patient:
        raise LabelError(
            f"{where}: patient_id is blank; give a pseudonym, so that the patient's images stay "
            "together, or leave the whole column out."
        )
    return patient


def _labels(where: str, row: Mapping[str, str], findings: Sequence[str]) -> dict[str, int]:
    labels = {finding: read_label(where, finding, row[finding]) for finding in findings}
    return {finding: label for finding, label in labels.items() if label is not None}


def _read_boxes(table: Path, paths: Sequence[str]) -> dict[str, dict[str, tuple[Box, ...]]]:
    if not table.is_file():
        return {}
    known = set(paths)
    boxes: defaultdict[str, dict[str, tuple[Box, ...]]] = defaultdict(dict)
    for line, row in read_rows(table, ("path", "finding", "x", "y", "width", "height")):
        where = f"{table}, line {line}"
        path, finding = str(PurePosixPath(row["path"].strip())), row["finding"].strip()
        if path not in known:
            raise LabelError(
                f"{where}: path '{row['path']}' is not in labels.csv; add the image there, or "
                "take the box out."
            )
        if finding not in FINDINGS:
            raise LabelError(
                f"{where}: finding is '{finding}', which is no finding's key.{_hint([finding])} "
                f"Keys are: {', '.join(sorted(FINDINGS))}."
            )
        boxes[path][finding] = (*boxes[path].get(finding, ()), _box(where, row))
    return boxes


def _box(where: str, row: Mapping[str, str]) -> Box:
    x, y, width, height = (
        _number(where, name, row[name]) for name in ("x", "y", "width", "height")
    )
    if width <= 0 or height <= 0:
        raise LabelError(
            f"{where}: the box is {width:g} wide and {height:g} high; both must be above 0, in "
            "pixels of the file."
        )
    return (x, y, width, height)


def _number(where: str, name: str, text: str) -> float:
    try:
        value = float(text)
    except ValueError:
        value = math.nan
    if not math.isfinite(value):
        raise LabelError(f"{where}: {name} is '{text}'; wanted is a number of pixels of the file.")
    return value
