"""The record of one labelled image in a data set."""

from __future__ import annotations

import csv
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path

from medllm.errors import LabelError


@dataclass(frozen=True)
class ImageRecord:
    """One labelled image.

    Attributes:
        dataset: Name of the data set's reader.
        path: The image file.
        patient_id: The data set's own pseudonym, unique within the data set.
        labels: 1 or 0 a finding's key; a finding that is not in it is unknown.
        attributes: Columns that divide images into groups, such as `view_position`; as they
            stand in the data set's table.
        boxes: Boxes a finding's key, each x, y, width, height in pixels of the file.
    """

    dataset: str
    path: Path
    patient_id: str
    labels: Mapping[str, int]
    attributes: Mapping[str, str] = field(default_factory=dict)
    boxes: Mapping[str, tuple[tuple[float, float, float, float], ...]] = field(default_factory=dict)


def read_table(path: Path, columns: Iterable[str]) -> list[dict[str, str]]:
    """Read a CSV file whose columns are known.

    Args:
        path: The file.
        columns: Columns that must be there.

    Returns:
        A dictionary a row.

    Raises:
        LabelError: The file or a column is missing.
    """
    if not path.is_file():
        raise LabelError(
            f"{path.name} is not in {path.parent}; point --root at the data set's folder."
        )
    with path.open(newline="", encoding="utf-8-sig") as stream:
        reader = csv.DictReader(stream)
        missing = [column for column in columns if column not in (reader.fieldnames or [])]
        if missing:
            raise LabelError(
                f"{path} lacks the column(s) {', '.join(missing)}; "
                f"it has {', '.join(reader.fieldnames or [])}."
            )
        return list(reader)
