"""`explanations.parquet` of many reports, as a file.

It is apart from the rows because pyarrow takes a while to import, which one report does without.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq

from medllm.report.overview.rows import Row

# By this the table is told from `medllm evaluate-explanations`'s, which has the same name.
_MARK = {b"medllm": b"overview of reports, schema 1"}

# What the table of `medllm evaluate-explanations` has as well has its names and types, so that
# the same code reads both; a test holds them to each other.
SCHEMA = pa.schema(
    [
        ("report", pa.string()),
        ("report_id", pa.string()),
        ("made_at", pa.string()),
        ("made_from", pa.string()),
        ("image_sha256", pa.string()),
        ("sop_instance_uid", pa.string()),
        ("study_instance_uid", pa.string()),
        ("view_position", pa.string()),
        ("age_years", pa.float64()),
        ("sex", pa.string()),
        ("finding", pa.string()),
        ("against", pa.string()),
        ("method", pa.string()),
        ("log_odds", pa.float64()),
        ("probability", pa.float64()),
        ("call", pa.string()),
        ("verdict", pa.string()),
        ("refusal", pa.string()),
        ("region", pa.string()),
        ("region_share", pa.float64()),
        ("region_by_hiding", pa.string()),
        ("checks", pa.map_(pa.string(), pa.float64())),
        ("passed", pa.map_(pa.string(), pa.bool_())),
        ("completeness_error", pa.float64()),
        ("seconds", pa.float64()),
        ("model_name", pa.string()),
        ("model_version", pa.string()),
        ("model_sha256", pa.string()),
        ("medllm_version", pa.string()),
    ],
    metadata=_MARK,
)


def encode(rows: Sequence[Row]) -> bytes:
    """Encode the table.

    Args:
        rows: By the names of `SCHEMA`; what a row lacks is null.

    Returns:
        Parquet.
    """
    stream = pa.BufferOutputStream()
    pq.write_table(pa.Table.from_pylist(list(rows), schema=SCHEMA), stream)
    return bytes(stream.getvalue())


def is_ours(path: Path) -> bool:
    """Say whether a file is such a table.

    Args:
        path: The file, of which only the end is read.

    Returns:
        Whether it is Parquet and bears the mark.

    Raises:
        OSError: It cannot be read.
    """
    try:
        metadata = pq.read_schema(path).metadata or {}
    except pa.ArrowInvalid:
        return False
    return all(metadata.get(key) == value for key, value in _MARK.items())
