"""A researcher's own images: `labels.csv` and, where there are boxes, `boxes.csv`."""

from __future__ import annotations

import difflib
import itertools
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path, PurePosixPath, PureWindowsPath

from medllm.datasets.age import read_age
from medllm.datasets.boxes import read_box
from medllm.datasets.dataset import DataSet, patients_in_parts, without_policy
from medllm.datasets.faults import Faults
from medllm.datasets.record import Box, ImageRecord, iterate_rows, read_label, read_rows
from medllm.datasets.view_position import read_view
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
    `view_position` (both in capitals, `female` and `male` as `F` and `M`, and a view that is
    plainly one of them as `PA`, `AP` or `LATERAL`); `split` becomes the part too, and
    `indication`, what the request said of the patient, none.
    `boxes.csv` beside it is optional: `path, finding, x, y, width, height`; a box of a finding
    that its image is labelled 0 for is an error.

    Args:
        root: Folder that holds the tables; paths in them are relative to it.

    Returns:
        A record an image, in the table's order.

    Raises:
        LabelError: A table is missing or not as described above; the message names the file,
            the line, what was found and what is wanted, once a kind of fault.
    """
    root = Path(root)
    faults = Faults(root)
    table = root / "labels.csv"
    rows = read_rows(table, ("path",))
    if not rows:
        raise LabelError(f"{table} has no rows; give an image a line below the header.")
    columns = list(rows[0][1])
    findings = _finding_columns(faults, table, columns)
    is_list = not findings and _LIST in columns
    others = {"path", "patient_id", "indication", *findings}
    attributes = [name for name in columns if name not in others]
    labels = _listed(faults, table, rows) if is_list else _labels(faults, table, rows, findings)
    paths = _paths(faults, table, rows)
    boxes = _read_boxes(faults, root / "boxes.csv", dict(zip(paths, labels, strict=True)))
    records = [
        ImageRecord(
            dataset="csv",
            path=root / path,
            patient_id=_patient_id(faults, table, line, row, path),
            labels=known,
            attributes={
                name: _attribute(faults, table, line, name, row[name]) for name in attributes
            },
            boxes=boxes.get(path, {}),
            split=row.get("split", "").strip(),
            indication=row.get("indication", "").strip(),
        )
        for path, known, (line, row) in zip(paths, labels, rows, strict=True)
    ]
    faults.refuse()
    return records


def _finding_columns(faults: Faults, table: Path, columns: Sequence[str]) -> list[str]:
    findings = [name for name in columns if name in FINDINGS]
    misspelt = {
        name: nearest
        for name in columns
        if name not in FINDINGS and (nearest := _nearest(name, _MISSPELT))
    }
    for name, nearest in misspelt.items():
        faults.add(
            f"column {name}",
            f"{table} has the column '{name}', which is no finding's key; did you mean "
            f"'{nearest}'? Rename it, so that it is not passed over.",
            line=1,
        )
    if not findings and not misspelt and _LIST not in columns:
        hint = _hint(columns)
        faults.add(
            "no column of a finding",
            f"{table} has no column named by a finding's key; it has {', '.join(columns)}.{hint} "
            f"Keys are: {', '.join(sorted(FINDINGS))}.",
            line=1,
        )
    # Their labels are looked at too: all that is wrong is told at once.
    return [*findings, *misspelt]


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


def _paths(faults: Faults, table: Path, rows: Sequence[tuple[int, Mapping[str, str]]]) -> list[str]:
    lines: dict[str, int] = {}
    paths = []
    for line, row in rows:
        path = _relative_path(faults, table, line, row["path"])
        if path and lines.setdefault(path, line) != line:
            faults.add(
                "path twice",
                f"{table}, line {line}: path '{path}' is on line {lines[path]} already; give each "
                "image one line, with all of its labels.",
                line,
            )
        paths.append(path)
    return paths


def _relative_path(faults: Faults, table: Path, line: int, text: str) -> str:
    """Read a path; one that is at fault as it was perhaps meant, to go on with."""
    where, text = f"{table}, line {line}", text.strip()
    path, windows = PurePosixPath(text), PureWindowsPath(text)
    if not path.parts:
        faults.add(
            f"{table} blank path",
            f"{where}: path is blank; give the image's file, relative to the table.",
            line,
        )
        return ""
    if windows.drive or windows.root or ".." in windows.parts:
        faults.add(
            f"{table} path outside",
            f"{where}: path '{text}' leads out of the data set's folder; give it relative to the "
            "table, without '..'.",
            line,
        )
    elif "\\" in text and not (table.parent / text).is_file():
        faults.add(
            f"{table} backslash",
            f"{where}: path '{text}' has a backslash, and no file is named so; write "
            f"{windows.as_posix()}.",
            line,
        )
        return windows.as_posix()
    return str(path)


def _patient_id(faults: Faults, table: Path, line: int, row: Mapping[str, str], path: str) -> str:
    if "patient_id" not in row:
        return path
    patient = row["patient_id"].strip()
    if not patient:
        faults.add(
            "patient_id",
            f"{table}, line {line}: patient_id is blank; give a pseudonym, so that the patient's "
            "images stay together, or leave the whole column out.",
            line,
        )
    return patient


def _attribute(faults: Faults, table: Path, line: int, name: str, text: str) -> str:
    if name == "age_years":
        try:
            return read_age(f"{table}, line {line}", name, text)
        except LabelError as error:
            faults.add("age_years", error, line)
            return ""
    if name == "view_position":
        return read_view(text)
    if name == "sex":
        word = text.strip().upper()
        return _SEXES.get(word, word)
    return text


def _labels(
    faults: Faults,
    table: Path,
    rows: Sequence[tuple[int, Mapping[str, str]]],
    findings: Sequence[str],
) -> list[dict[str, int]]:
    read = []
    for line, row in rows:
        labels = {}
        for key in findings:
            try:
                label = read_label(f"{table}, line {line}", key, row[key])
            except LabelError as error:
                faults.add("label", error, line, row[key].strip())
            else:
                if label is not None:
                    labels[key] = label
        read.append(labels)
    return read


def _listed(
    faults: Faults, table: Path, rows: Sequence[tuple[int, Mapping[str, str]]]
) -> list[dict[str, int]]:
    """Read the column that lists findings; a blank cell says nothing of any."""
    named: list[set[str] | None] = []
    for line, row in rows:
        words = [word for word in row[_LIST].split("|") if word.strip()]
        keys = {_key_of(word) for word in words}
        for word in words:
            if _key_of(word) not in {*FINDINGS, _NONE}:
                faults.add(
                    "listed word",
                    f"{table}, line {line}: {_LIST} names '{word}', which is no finding."
                    f"{_hint([word])} Keys are: {', '.join(sorted(FINDINGS))}.",
                    line,
                    word.strip(),
                )
        if _NONE in keys and len(keys) > 1:
            faults.add(
                "findings and none",
                f"{table}, line {line}: {_LIST} names findings and 'No Finding'.",
                line,
            )
        named.append(keys - {_NONE} if words else None)
    every = sorted(set().union(*(keys for keys in named if keys)))
    return [{} if keys is None else {key: int(key in keys) for key in every} for keys in named]


def _read_boxes(
    faults: Faults, table: Path, labels: Mapping[str, Mapping[str, int]]
) -> dict[str, dict[str, tuple[Box, ...]]]:
    """Read the boxes of each image, whose labels are given by its path."""
    if not table.is_file():
        return {}
    try:
        rows = read_rows(table, ("path", "finding", "x", "y", "width", "height"))
    except LabelError as error:
        faults.add("no table of boxes", error, line=1)
        return {}
    boxes: defaultdict[str, dict[str, tuple[Box, ...]]] = defaultdict(dict)
    for line, row in rows:
        path, finding = _relative_path(faults, table, line, row["path"]), _key_of(row["finding"])
        _check_boxed(faults, f"{table}, line {line}", line, path, row["finding"], labels)
        try:
            box = read_box(f"{table}, line {line}", row["x"], row["y"], row["width"], row["height"])
        except LabelError as error:
            faults.add("box", error, line)
        else:
            boxes[path][finding] = (*boxes[path].get(finding, ()), box)
    return boxes


def _check_boxed(
    faults: Faults,
    where: str,
    line: int,
    path: str,
    finding: str,
    labels: Mapping[str, Mapping[str, int]],
) -> None:
    """Check that a box is of a finding, on an image that may have it."""
    if path and path not in labels:
        faults.add(
            "boxed path",
            f"{where}: path '{path}' is not in labels.csv; add the image there, or take the box "
            "out.",
            line,
        )
    if _key_of(finding) not in FINDINGS:
        faults.add(
            "boxed finding",
            f"{where}: finding is '{finding}', which is no finding's key."
            f"{_hint([_key_of(finding)])} Keys are: {', '.join(sorted(FINDINGS))}.",
            line,
            finding.strip(),
        )
    if labels.get(path, {}).get(_key_of(finding)) == 0:
        faults.add(
            "boxed 0",
            f"{where}: the box is of {_key_of(finding)}, which labels.csv says is 0 on this "
            "image; write 1 there, or take the box out.",
            line,
        )


def _caveats(root: Path) -> Mapping[str, str]:
    table = root / "labels.csv"
    rows = iterate_rows(table, ()) if table.is_file() else iter(())
    first = next(rows, None)
    if first is None:
        return {}
    if "patient_id" not in first[1]:
        return {
            "patients-unknown": "Without a column patient_id in labels.csv each image counts as a "
            "patient of its own: parts may share patients, and intervals are too narrow, if one "
            "has several images."
        }
    return patients_in_parts(
        (row["patient_id"].strip(), row.get("split", "").strip())
        for _, row in itertools.chain([first], rows)
    )


CSV = DataSet(
    name="csv",
    title="A table of one's own",
    terms="those of its images",
    citation="",
    reader=without_policy(read_csv),
    caveats=_caveats,
)
