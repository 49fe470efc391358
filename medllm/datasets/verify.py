"""Verification: what a copy of a data set on this machine holds, against what is known of it."""

from __future__ import annotations

import functools
from collections import Counter, defaultdict
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from medllm.datasets.dataset import Published, patients_in_parts
from medllm.datasets.each_image import Progress, each_image
from medllm.datasets.record import Box, ImageRecord
from medllm.datasets.registry import find_dataset
from medllm.datasets.selection import FRONTAL
from medllm.errors import DicomError

# How many names a page can hold before it is no page.
_EXAMPLES = 3
_SIZES = 5
_VIEWS = 5
# Corners of boxes are rounded in many tables.
_BOX_TOLERANCE = 1


@dataclass(frozen=True)
class LabelCount:
    """Images by their label of one finding.

    Attributes:
        positive: Labelled 1.
        negative: Labelled 0.
        soft: Between the two.
        unknown: Without this label.
    """

    positive: int
    negative: int
    soft: int
    unknown: int


@dataclass(frozen=True)
class Named:
    """Images that a verification names, in one way of naming them.

    Attributes:
        missing: The first images without a file.
        unreadable: The first of those that cannot be read or scored, by the gate's code.
        inverted: The first of those that look inverted.
        duplicates: Those that are equal to the byte, a tuple a group.
    """

    missing: tuple[str, ...]
    unreadable: Mapping[str, tuple[str, ...]]
    inverted: tuple[str, ...]
    duplicates: tuple[tuple[str, ...], ...]


@dataclass(frozen=True)
class Verification:
    """What a copy holds. Names are those of files without their folders, which may name patients.

    Attributes:
        dataset: Name of the data set.
        title: What it calls itself.
        published: Counts that its layout was published with; None where none can be compared.
        images: Images that the tables name.
        patients: Patients that the tables tell apart.
        present: Images whose file is there.
        missing: Names of the first images without a file.
        labels: Counts a finding, by the default policy.
        views: Images a view position; `unknown` where it is blank.
        splits: Images a part of the official split; empty where there is none.
        caveats: What the copy's figures must be read with, by its code; `names-recur` says that
            a name does not tell which image is meant, `other-views` that images are not scored
            unless their view is asked for.
        faults: What no study should be made with, by its code: `no-files`, none of the files is
            there; `patients-in-parts`, patients are in several parts of the official split.
        unreadable: Images that cannot be read or scored, by the gate's code.
        unreadable_names: Names of the first of them, a code.
        warnings: Readable images that a gate warns of, by its code; polarity stands apart.
        sizes: Readable images of the commonest sizes, `ROWS x COLUMNS`.
        stored: Readable images by how they are stored: format, and mode or bits.
        duplicates: Names of the images that are equal to the byte, a tuple a group.
        frontal: Readable images in which polarity can be judged.
        inverted: Those of them that look inverted: a guess, which the eye must confirm.
        inverted_names: Names of the first of them.
        boxes: Boxes on readable images.
        boxes_outside: Those that leave their image, as on a copy that was scaled.
        paths: The images that are named above, by their paths in the copy.
    """

    dataset: str
    title: str
    published: Published | None
    images: int
    patients: int
    present: int
    missing: tuple[str, ...]
    labels: Mapping[str, LabelCount]
    views: Mapping[str, int]
    splits: Mapping[str, int]
    caveats: Mapping[str, str]
    faults: Mapping[str, str]
    unreadable: Mapping[str, int]
    unreadable_names: Mapping[str, tuple[str, ...]]
    warnings: Mapping[str, int]
    sizes: Mapping[str, int]
    stored: Mapping[str, int]
    duplicates: tuple[tuple[str, ...], ...]
    frontal: int
    inverted: int
    inverted_names: tuple[str, ...]
    boxes: int
    boxes_outside: int
    paths: Named


@dataclass(frozen=True)
class _Seen:
    """What reading one image told; `error` is the gate's code, and then the rest is blank."""

    error: str = ""
    sha256: str = ""
    rows: int = 0
    columns: int = 0
    stored: str = ""
    warnings: tuple[str, ...] = ()


def verify(
    name: str,
    root: Path | str,
    *,
    accept: Collection[str] = (),
    workers: int = 1,
    progress: Progress | None = None,
) -> Verification:
    """Look at each file of a copy and count.

    A copy may be partial: a missing file is counted and is no fault, unless all are missing.

    Args:
        name: A key of `DATASETS`.
        root: Folder of the copy.
        accept: Codes of gates that shall not refuse an image.
        workers: Processes that read at the same time.
        progress: Told after each image.

    Returns:
        What was found.

    Raises:
        LabelError: No data set has this name, or its labels cannot be read.
        ValueError: `accept` holds a code that cannot be accepted.
    """
    dataset, root = find_dataset(name), Path(root)
    records = dataset.read(root)
    present = [record for record in records if record.path.is_file()]
    there = set(map(id, present))
    look = functools.partial(_look, accept=tuple(accept))
    seen = list(each_image(look, present, workers=workers, progress=progress))
    refused = [pair for pair in zip(present, seen, strict=True) if pair[1].error]
    read = [pair for pair in zip(present, seen, strict=True) if not pair[1].error]
    frontal = [pair for pair in read if pair[0].attributes.get("view_position", "") in FRONTAL]
    inverted = [record for record, one in frontal if "polarity-doubtful" in one.warnings]
    sizes = Counter(f"{one.rows} x {one.columns}" for _, one in read)
    missing = [record for record in records if id(record) not in there]
    torn = patients_in_parts((record.patient_id, record.split) for record in records)
    faults = {**_no_files(root, records, present), **torn}
    caveats = {**dataset.caveats(root), **_names_recur(records), **_other_views(records)}
    names, paths = (
        _named(way, missing, refused, inverted, read)
        for way in (lambda record: record.name, lambda record: record.place(root))
    )
    return Verification(
        dataset=name,
        title=dataset.title,
        published=dataset.published_in(root),
        images=len(records),
        patients=len({record.patient_id for record in records}),
        present=len(present),
        missing=names.missing,
        labels=_count_labels(records),
        views=_counted(r.attributes.get("view_position", "") or "unknown" for r in records),
        splits=_counted(record.split for record in records if record.split),
        caveats={code: words for code, words in caveats.items() if code not in faults},
        faults=faults,
        unreadable=_counted(one.error for _, one in refused),
        unreadable_names=names.unreadable,
        warnings=_counted(
            code for _, one in read for code in one.warnings if code != "polarity-doubtful"
        ),
        sizes=dict(sizes.most_common(_SIZES)),
        stored=_counted(one.stored for _, one in read),
        duplicates=names.duplicates,
        frontal=len(frontal),
        inverted=len(inverted),
        inverted_names=names.inverted,
        boxes=sum(len(_places(record)) for record, _ in read),
        boxes_outside=sum(_boxes_outside(record, one) for record, one in read),
        paths=paths,
    )


def _look(record: ImageRecord, accept: Collection[str]) -> _Seen:
    try:
        scan = record.radiograph(accept=accept)
    except DicomError as error:
        return _Seen(error=error.code)
    decoded = [step.detail for step in scan.pipeline if step.name == "decode"]
    return _Seen(
        sha256=scan.sha256,
        rows=scan.rows,
        columns=scan.columns,
        stored=decoded[0] if decoded else "array, 8 bits",
        warnings=tuple(gate.code for gate in scan.warnings),
    )


def _counted(words: Iterator[str]) -> dict[str, int]:
    return dict(Counter(words).most_common())


def _named(
    way: Callable[[ImageRecord], str],
    missing: Sequence[ImageRecord],
    refused: Sequence[tuple[ImageRecord, _Seen]],
    inverted: Sequence[ImageRecord],
    read: Sequence[tuple[ImageRecord, _Seen]],
) -> Named:
    refused_by_code = _grouped((one.error, way(record)) for record, one in refused)
    read_by_content = _grouped((one.sha256, way(record)) for record, one in read)
    return Named(
        missing=tuple(map(way, missing[:_EXAMPLES])),
        unreadable={code: found[:_EXAMPLES] for code, found in refused_by_code.items()},
        inverted=tuple(map(way, inverted[:_EXAMPLES])),
        duplicates=tuple(found for found in read_by_content.values() if len(found) > 1),
    )


def _grouped(keyed: Iterable[tuple[str, str]]) -> dict[str, tuple[str, ...]]:
    groups: defaultdict[str, list[str]] = defaultdict(list)
    for key, name in keyed:
        groups[key].append(name)
    return {key: tuple(names) for key, names in groups.items()}


def _names_recur(records: Sequence[ImageRecord]) -> dict[str, str]:
    """Say where a name does not tell an image, as in CheXpert's folders of `view1_frontal.jpg`."""
    if len({record.name for record in records}) == len(records):
        return {}
    return {
        "names-recur": "Files in several folders have one name; --json gives the paths of those "
        "that are named here, with the folders, which may hold a patient's pseudonym."
    }


def _other_views(records: Sequence[ImageRecord]) -> dict[str, str]:
    """Say which views no default keeps, since each may be a frontal one by another word."""
    known = (*FRONTAL, "LATERAL")
    views = Counter(record.attributes.get("view_position", "") for record in records)
    others = [(view, count) for view, count in views.most_common() if view not in known]
    if not others:
        return {}
    told = ", ".join(f"{view} ({count:,})" for view, count in others[:_VIEWS])
    more = f" and {len(others) - _VIEWS} more" if len(others) > _VIEWS else ""
    return {
        "other-views": f"Views that are not called PA, AP or LATERAL: {told}{more}. Evaluation and "
        "calibration leave them out, as they do LATERAL, unless each view to keep is named, as "
        f"by --view PA --view AP --view '{others[0][0]}'."
    }


def _no_files(
    root: Path, records: Sequence[ImageRecord], present: Sequence[ImageRecord]
) -> dict[str, str]:
    if present or not records:
        return {}
    return {
        "no-files": f"None of the {len(records):,} files that the tables name is in {root}. Give "
        "--root the folder that their paths begin in, or mend the paths."
    }


def _count_labels(records: Sequence[ImageRecord]) -> dict[str, LabelCount]:
    counts = {}
    for finding in sorted({key for record in records for key in record.labels}):
        values = [record.labels[finding] for record in records if finding in record.labels]
        positive, negative = values.count(1), values.count(0)
        soft = len(values) - positive - negative
        counts[finding] = LabelCount(positive, negative, soft, len(records) - len(values))
    return counts


def _boxes_outside(record: ImageRecord, one: _Seen) -> int:
    return sum(
        x < -_BOX_TOLERANCE
        or y < -_BOX_TOLERANCE
        or x + width > one.columns + _BOX_TOLERANCE
        or y + height > one.rows + _BOX_TOLERANCE
        for x, y, width, height in _places(record)
    )


def _places(record: ImageRecord) -> set[Box]:
    """Give each box once; that of an RSNA opacity stands for two findings."""
    return {box for boxes in record.boxes.values() for box in boxes}
