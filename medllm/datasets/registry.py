"""The data sets that medllm reads, by name."""

from __future__ import annotations

import difflib
from collections.abc import Callable, Mapping
from pathlib import Path

from medllm.datasets.csv_table import read_csv
from medllm.datasets.kermany import read_kermany
from medllm.datasets.nih import read_nih
from medllm.datasets.record import ImageRecord
from medllm.errors import LabelError

# A new data set is one module with its reader, and one row here.
READERS: Mapping[str, Callable[[Path], list[ImageRecord]]] = {
    "csv": read_csv,
    "kermany": read_kermany,
    "nih": read_nih,
}


def read_dataset(name: str, root: Path | str) -> list[ImageRecord]:
    """Read a data set by the name of its reader.

    Args:
        name: A key of `READERS`; `csv` for a table of one's own.
        root: Folder of the copy on this machine.

    Returns:
        A record an image, in the table's order.

    Raises:
        LabelError: No reader has this name, or the copy is not as the reader wants it.
    """
    if name not in READERS:
        near = difflib.get_close_matches(name.casefold(), READERS, n=1)
        hint = f" Did you mean '{near[0]}'?" if near else " A table of your own is read as 'csv'."
        raise LabelError(
            f"'{name}' is not a known data set; use one of: {', '.join(READERS)}.{hint}",
            code="unknown-dataset",
        )
    return READERS[name](Path(root))
