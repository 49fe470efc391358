"""A researcher's own images: `labels.csv` and, where there are boxes, `boxes.csv`."""

from __future__ import annotations

import difflib
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path, PurePosixPath, PureWindowsPath

from medllm.datasets.age import read_age
from medllm.datasets.boxes import read_box
from medllm.datasets.dataset import DataSet, without_policy
from medllm.datasets.record import Box, ImageRecord, iterate_rows, read_label, read_rows
from medllm.errors import LabelError
from medllm.findings import FINDINGS

# Likeness from which on a name is held to be a misspelt finding: 'pnuemonia' is .89 like
# 'pneumonia', while names for something else about a finding, such as 'pneumonia_type' (.78) or
# 'mass_kg' (.73), stay attributes.
_MISSPELT = 0.85
# Column of findings that are listed, and what stands there for none.
_LIST, _NONE = "findings", "no_finding"
_SEXES = {"FEMALE": "F", "MALE": "M"}


def read_csv(root: str | Path) -> list[ImageRecord]:
    """Read a folder with a table of images and their labels.

    `labels.csv` has a column `path` and at least one column a finding, named by its key in
    `medllm.findings`: 1 with the finding, 0 without, blank where it is unknown. In their place
    it may have one column `findings`: names divided by `|`, or `No Finding`; a finding that
    another image has and this one does not name is 0. `patient_id` keeps a patient's images
    together; without that column each image is a patient of its own. Any other column becomes
    an attribute as it stands, but for `age_years` (blank where nobody is of that age), `sex` and
    `view_position` (both in capitals, and `female` and `male` as `F` and `M`); `split` becomes
    the part too, and `indication`, what the request said of the patient, none.
    `boxes.csv` beside it is optional: `path, finding, x, y, width, height`; a box of a finding
    that its image is labelled 0 for is an error.

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
    is_list = not findings
    others = {"path", "patient_id", "indication", *findings}
    attributes = [name for name in columns if name not in others]
    labels = _listed(table, rows) if is_list else _labels(table, rows, findings)
    paths = _paths(table, rows)
    boxes = _read_boxes(root / "boxes.csv", dict(zip(paths, labels, strict=True)))
    return [
        ImageRecord(
            dataset="csv",
            path=root / path,
            patient_id=_patient_id(f"{table}, line {line}", row, path),
            labels=known,
            attributes={
                name: _attribute(f"{table}, line {line}", name, row[name]) for name in attributes
            },
            boxes=boxes.get(path, {}),
            split=row.get("split", "").strip(),
            indication=row.get("indication", "").strip(),
        )
        for path, known, (line, row) in zip(paths, labels, rows, strict=True)
    ]


def _finding_columns(table: Path, columns: Sequence[str]) -> list[str]:
    findings = [name for name in columns if name in FINDINGS]
    for name in columns:
        if name not in FINDINGS and (nearest := _nearest(name, _MISSPELT)):
            raise LabelError(
                f"{table} has the column '{name}', which is no finding's key; did you mean "
                f"'{nearest}'? Rename it, so that it is not passed over."
            )
    if not findings and _LIST not in columns:
        hint = _hint(columns)
        raise LabelError(
            f"{table} has no column named by a finding's key; it has {', '.join(columns)}.{hint} "
            f"Keys are: {', '.join(sorted(FINDINGS))}."
        )
    return findings


def _key_of(name: str) -> str:
    """Write a name as keys are written."""
    return name.strip().casefold().replace(" ", "_").replace("-", "_")


def _nearest(name: str, likeness: float) -> str | None:
    """Find the finding's key that a name is most like, spaces and capitals aside."""
    near = difflib.get_close_matches(_key_of(name), FINDINGS, n=1, cutoff=likeness)
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


def _attribute(where: str, name: str, text: str) -> str:
    if name == "age_years":
        return read_age(where, name, text)
    # Views and sexes are chosen by their word in capitals.
    if name not in ("sex", "view_position"):
        return text
    word = text.strip().upper()
    return _SEXES.get(word, word) if name == "sex" else word


def _labels(
    table: Path, rows: Sequence[tuple[int, Mapping[str, str]]], findings: Sequence[str]
) -> list[dict[str, int]]:
    read = [
        {key: read_label(f"{table}, line {line}", key, row[key]) for key in findings}
        for line, row in rows
    ]
    return [{key: label for key, label in row.items() if label is not None} for row in read]


def _listed(table: Path, rows: Sequence[tuple[int, Mapping[str, str]]]) -> list[dict[str, int]]:
    """Read the column that lists findings; a blank cell says nothing of any."""
    named: list[set[str] | None] = []
    for line, row in rows:
        words = [word for word in row[_LIST].split("|") if word.strip()]
        keys = {_key_of(word) for word in words}
        for word in words:
            if _key_of(word) not in {*FINDINGS, _NONE}:
                raise LabelError(
                    f"{table}, line {line}: {_LIST} names '{word}', which is no finding."
                    f"{_hint([word])} Keys are: {', '.join(sorted(FINDINGS))}."
                )
        if _NONE in keys and len(keys) > 1:
            raise LabelError(f"{table}, line {line}: {_LIST} names findings and 'No Finding'.")
        named.append(keys - {_NONE} if words else None)
    every = sorted(set().union(*(keys for keys in named if keys)))
    return [{} if keys is None else {key: int(key in keys) for key in every} for keys in named]


def _read_boxes(
    table: Path, labels: Mapping[str, Mapping[str, int]]
) -> dict[str, dict[str, tuple[Box, ...]]]:
    """Read the boxes of each image, whose labels are given by its path."""
    if not table.is_file():
        return {}
    boxes: defaultdict[str, dict[str, tuple[Box, ...]]] = defaultdict(dict)
    for line, row in read_rows(table, ("path", "finding", "x", "y", "width", "height")):
        where = f"{table}, line {line}"
        path, finding = str(PurePosixPath(row["path"].strip())), _key_of(row["finding"])
        if path not in labels:
            raise LabelError(
                f"{where}: path '{row['path']}' is not in labels.csv; add the image there, or "
                "take the box out."
            )
        if finding not in FINDINGS:
            raise LabelError(
                f"{where}: finding is '{row['finding']}', which is no finding's key."
                f"{_hint([finding])} "
                f"Keys are: {', '.join(sorted(FINDINGS))}."
            )
        if labels[path].get(finding) == 0:
            raise LabelError(
                f"{where}: the box is of {finding}, which labels.csv says is 0 on this image; "
                "write 1 there, or take the box out."
            )
        boxes[path][finding] = (
            *boxes[path].get(finding, ()),
            read_box(where, row["x"], row["y"], row["width"], row["height"]),
        )
    return boxes


def _caveats(root: Path) -> Mapping[str, str]:
    table = root / "labels.csv"
    first = next(iterate_rows(table, ()), None) if table.is_file() else None
    if first is None or "patient_id" in first[1]:
        return {}
    return {
        "patients-unknown": "Without a column patient_id in labels.csv each image counts as a "
        "patient of its own: parts may share patients, and intervals are too narrow, if one "
        "has several images."
    }


CSV = DataSet(
    name="csv",
    title="A table of one's own",
    terms="those of its images",
    citation="",
    reader=without_policy(read_csv),
    caveats=_caveats,
)
