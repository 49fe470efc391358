"""Kermany's radiographs of children: pneumonia against normal (Kermany et al., Cell 2018)."""

from __future__ import annotations

from pathlib import Path

from medllm.datasets.record import ImageRecord, read_label, read_rows


def read_kermany(root: Path) -> list[ImageRecord]:
    """Read a copy with a table `labels.csv` (`path, patient_id, pneumonia`).

    Pneumonia on these radiographs is a visible opacity, so that a positive is also labelled
    `lung_opacity`; the normals were read as clear.

    Args:
        root: Folder that holds `labels.csv`.

    Returns:
        A record an image, in the table's order.

    Raises:
        LabelError: The table or a column is missing, or a label is not 1, 0 or blank.
    """
    table = root / "labels.csv"
    return [
        ImageRecord(
            dataset="kermany",
            path=root / row["path"],
            patient_id=row["patient_id"],
            labels=_labels(f"{table}, line {line}", row["pneumonia"]),
        )
        for line, row in read_rows(table, ("path", "patient_id", "pneumonia"))
    ]


def _labels(where: str, text: str) -> dict[str, int]:
    label = read_label(where, "pneumonia", text)
    return {} if label is None else {"pneumonia": label, "lung_opacity": label}
