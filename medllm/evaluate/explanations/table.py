"""`explanations.parquet`: one row an image, finding and method, controls among the methods."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from medllm.evaluate.explanations.controls import (
    BEST_POINT,
    MEAN_MAP,
    Outlines,
    mean_map,
    unpack,
)
from medllm.evaluate.explanations.localised import Truth, localise
from medllm.evaluate.explanations.outlined import OutlinedImage
from medllm.evaluate.explanations.raster import SIDE
from medllm.evaluate.resumable import changed_at
from medllm.metrics import pointing_game

Row = dict[str, Any]

_FIGURES = [
    (name, pa.float64())
    for name in (
        *("hit", "overlap", "pixel_auroc", "pixel_auroc_lungs", "side_hit", "relevance_mass"),
        *("energy_ratio", "region_hit", "area"),
    )
]
# How alike the maps of a model and of the same one scrambled are, a value a step of the cascade.
ALIKENESS = ("rank_correlation", "rank_correlation_absolute", "ssim")
SCHEMA = pa.schema(
    [
        ("path", pa.string()),
        ("patient_id", pa.string()),
        ("finding", pa.string()),
        ("outlined_as", pa.string()),
        ("method", pa.string()),
        ("label", pa.float64()),
        ("log_odds", pa.float64()),
        ("probability", pa.float64()),
        ("call", pa.string()),
        ("verdict", pa.string()),
        ("checks", pa.map_(pa.string(), pa.float64())),
        ("passed", pa.map_(pa.string(), pa.bool_())),
        *_FIGURES,
        ("overlaps", pa.list_(pa.float64())),
        ("half", pa.string()),
        ("region", pa.string()),
        *((name, pa.list_(pa.float64())) for name in ALIKENESS),
        ("infidelity", pa.float64()),
        ("max_sensitivity", pa.float64()),
        ("sanity_error", pa.string()),
        ("seconds", pa.float64()),
        ("memory_mib", pa.float64()),
        ("peak_memory_mib", pa.float64()),
        ("error", pa.string()),
        ("rows", pa.int32()),
        ("columns", pa.int32()),
        ("map", pa.list_(pa.float64())),
        ("map_rows", pa.int32()),
        ("map_columns", pa.int32()),
        ("box", pa.list_(pa.float64())),
    ]
)
# What the controls that look at other patients need, and a reader of the table does not.
PART_SCHEMA = pa.schema([*SCHEMA, ("outline", pa.binary()), ("regions", pa.binary())])


def mended_rows(
    part: Path,
    images: Sequence[OutlinedImage],
    work: Callable[[Sequence[OutlinedImage]], Iterable[Sequence[Row]]],
) -> list[Row] | None:
    """Do those images of a part anew that were not read, or whose file is newer than the part.

    Args:
        part: A file of `PART_SCHEMA`.
        images: Its images, in the order of its rows.
        work: Gives the rows of each image, in their order.

    Returns:
        All rows of the part, or None where nothing has changed.
    """
    written = part.stat().st_mtime_ns
    rows = pq.read_table(part, schema=PART_SCHEMA).to_pylist()
    n_methods = len(rows) // sum(len(image.outlined_as) for image in images)
    each = iter(rows)
    before = [list(islice(each, len(image.outlined_as) * n_methods)) for image in images]
    newer = {
        at
        for at, image in enumerate(images)
        if image.file is not None and changed_at(image.file) > written
    }
    stale = [at for at, own in enumerate(before) if at in newer or own[0]["rows"] is None]
    if not stale:
        return None
    for at, own in zip(stale, work([images[at] for at in stale]), strict=True):
        before[at] = list(own)
        # Unread as it was, it is tried at each start, for which nothing need be written.
        if own[0].get("rows") is not None:
            newer.add(at)
    return [row for own in before for row in own] if newer else None


def finish(parts: Sequence[Path], path: Path) -> None:
    """Join the parts, and add the controls that look at other patients.

    Args:
        parts: Files of `PART_SCHEMA`; the rows of an image and finding follow each other.
        path: The table.

    Raises:
        OSError: It cannot be written.
    """
    outlines = _outlines(parts)
    draft = path.with_name(f".{path.name}")
    try:
        with pq.ParquetWriter(draft, SCHEMA) as writer:
            for part in parts:
                rows = pq.read_table(part, schema=PART_SCHEMA).to_pylist()
                added = _with_controls(rows, outlines)
                writer.write_table(pa.Table.from_pylist(added, schema=SCHEMA))
        draft.replace(path)
    finally:
        draft.unlink(missing_ok=True)


def _outlines(parts: Sequence[Path]) -> dict[str, Outlines]:
    """Collect the outlines of each finding, one an image."""
    found: dict[str, Outlines] = {}
    columns = ["path", "patient_id", "finding", "outline"]
    last = None
    for part in parts:
        for row in pq.read_table(part, columns=columns).to_pylist():
            case = (row["path"], row["finding"])
            if case != last and row["outline"] is not None:
                found.setdefault(row["finding"], Outlines()).add(row["patient_id"], row["outline"])
            last = case
    return found


def _with_controls(rows: Sequence[Row], outlines: dict[str, Outlines]) -> list[Row]:
    """Put the controls after the rows of each image and finding."""
    added: list[Row] = []
    for at, row in enumerate(rows):
        added.append(row)
        following = rows[at + 1] if at + 1 < len(rows) else None
        if following is None or _case(following) != _case(row):
            added += _controls(row, outlines.get(row["finding"], Outlines()))
    return added


def _case(row: Row) -> tuple[str, str]:
    return row["path"], row["finding"]


def _controls(row: Row, outlines: Outlines) -> list[Row]:
    shared = ("path", "patient_id", "finding", "outlined_as", "label", "log_odds", "probability")
    facts = ("call", "half", "area", "rows", "columns", "peak_memory_mib")
    first = {key: row[key] for key in (*shared, *facts)}
    if row["outline"] is None:
        return [first | {"method": name, "error": row["error"]} for name in (MEAN_MAP, BEST_POINT)]
    others = outlines.of_others(row["patient_id"])
    if others is None:
        return [first | {"method": name} for name in (MEAN_MAP, BEST_POINT)]
    truth = truth_of(row)
    attribution = mean_map(others, truth.rows, truth.columns)
    return [
        {**first, "method": MEAN_MAP, **localise(attribution, truth)},
        {**first, "method": BEST_POINT, "hit": pointing_game(others, truth.outline)},
    ]


def truth_of(row: Row) -> Truth:
    """Take what is known of an image and finding from a row of a part.

    Args:
        row: With an outline.

    Returns:
        The truth.
    """
    regions = np.frombuffer(row["regions"], dtype=np.uint8).reshape(SIDE, SIDE)
    return Truth(unpack(row["outline"]), regions, row["rows"], row["columns"])
