"""The table of explanations as arrays: one row of figures an image, for a finding and method."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
from jaxtyping import Bool, Float

from medllm.evaluate.explanations.table import SCHEMA, Row

_NUMBERS = (
    *("hit", "overlap", "pixel_auroc", "pixel_auroc_lungs", "side_hit", "relevance_mass"),
    *("energy_ratio", "region_hit", "seconds", "memory_mib"),
)


@dataclass(frozen=True, eq=False)
class Measured:
    """What was measured of one method and finding, an element an image that was read.

    Attributes:
        rows: Rows of the table.
        patients: Their patients.
        numbers: Figures by column; NaN where not defined.
        overlaps: Overlap at each threshold tried; NaN where there is no map.
        in_left_half: Whether the outline lies in the image's left half.
    """

    rows: Sequence[Row]
    patients: Sequence[str]
    numbers: Mapping[str, Float[np.ndarray, " images"]]
    overlaps: Float[np.ndarray, "images thresholds"]
    in_left_half: Bool[np.ndarray, " images"]

    @property
    def known(self) -> Bool[np.ndarray, " images"]:
        """Whether there is a figure of the map."""
        return np.asarray(~np.isnan(self.numbers["hit"]), dtype=bool)


@dataclass(frozen=True, eq=False)
class Table:
    """All that was measured.

    Attributes:
        measured: By finding and by method; all methods of a finding have the same images in the
            same order.
        unread: Code of the cause, by the path of an image that was not read.
        peak_memory_mib: Most memory the process held; None where it is not known.
    """

    measured: Mapping[str, Mapping[str, Measured]]
    unread: Mapping[str, str]
    peak_memory_mib: float | None


def read_table(path: Path) -> Table:
    """Read `explanations.parquet` as arrays.

    Args:
        path: The file.

    Returns:
        What it holds.
    """
    rows = pq.read_table(path, schema=SCHEMA).to_pylist()
    unread: dict[str, str] = {}
    parted: dict[str, dict[str, list[Row]]] = {}
    for row in rows:
        methods = parted.setdefault(row["finding"], {}).setdefault(row["method"], [])
        if row["rows"] is None:
            unread[row["path"]] = row["error"]
        else:
            methods.append(row)
    memory = [row["peak_memory_mib"] for row in rows if row["peak_memory_mib"] is not None]
    measured = {
        finding: {method: _measured(found) for method, found in methods.items()}
        for finding, methods in parted.items()
    }
    return Table(measured, unread, max(memory, default=None))


def _measured(rows: Sequence[Row]) -> Measured:
    width = max((len(row["overlaps"] or ()) for row in rows), default=0)
    empty = [np.nan] * width
    return Measured(
        rows=rows,
        patients=[row["patient_id"] for row in rows],
        numbers={
            name: np.array([row[name] for row in rows], dtype=float).reshape(len(rows))
            for name in _NUMBERS
        },
        overlaps=np.array([row["overlaps"] or empty for row in rows], dtype=float).reshape(
            len(rows), width
        ),
        in_left_half=np.array([row["half"] == "left" for row in rows], dtype=bool),
    )


def correlations(maps: Sequence[Sequence[float] | None]) -> Float[np.ndarray, "maps maps"]:
    """Give Pearson's correlation of the maps of one image, in pairs.

    Args:
        maps: A value a patch; None where there is no map.

    Returns:
        Correlations, 1 on the diagonal; NaN where a map is missing, flat, or of another grid.
    """
    found = np.full((len(maps), len(maps)), np.nan)
    kept = [
        (at, np.asarray(one)) for at, one in enumerate(maps) if one is not None and np.ptp(one) > 0
    ]
    for first, values in kept:
        for second, others in kept:
            if len(values) == len(others):
                found[first, second] = np.corrcoef(values, others)[0, 1]
    return found
