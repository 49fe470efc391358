"""NIH ChestX-ray14 (Wang et al., CVPR 2017), with RSNA's readings of 2018 where there are any."""

from __future__ import annotations

from collections import defaultdict
from pathlib import Path

from medllm.datasets.dataset import DataSet
from medllm.datasets.policy import LabelPolicy
from medllm.datasets.record import ImageRecord, read_table

# The spellings of Data_Entry_2017; whole words only.
NIH_FINDINGS = {
    "Atelectasis": "atelectasis",
    "Cardiomegaly": "cardiomegaly",
    "Consolidation": "consolidation",
    "Edema": "edema",
    "Effusion": "effusion",
    "Emphysema": "emphysema",
    "Fibrosis": "fibrosis",
    "Hernia": "hernia",
    "Infiltration": "infiltration",
    "Mass": "mass",
    "Nodule": "nodule",
    "Pleural_Thickening": "pleural_thickening",
    "Pneumonia": "pneumonia",
    "Pneumothorax": "pneumothorax",
}
_RSNA_OPACITY = {"Lung Opacity": 1, "Normal": 0, "No Lung Opacity / Not Normal": 0}
_ATTRIBUTES = ("age_years", "sex", "view_position", "rsna_class")
_BOX_FINDINGS = {"Lung Opacity": "lung_opacity", "Pneumonia": "pneumonia"}


def read_nih(root: Path) -> list[ImageRecord]:
    """Read a copy with `labels.csv` and `boxes.csv`.

    The 14 labels were mined from text. Pneumonia is the worst of them: RSNA's radiologists saw
    an opacity in fewer than half of those they read again. So pneumonia and lung opacity are
    taken from RSNA's reading where there is one, and are else 0 for `No Finding` and unknown
    for all others.

    Args:
        root: Folder that holds the two tables.

    Returns:
        A record an image, in the table's order.

    Raises:
        LabelError: A table or a column is missing.
    """
    rows = read_table(root / "labels.csv", ("path", "patient_id", "findings", *_ATTRIBUTES))
    boxes = _read_boxes(root / "boxes.csv")
    return [
        ImageRecord(
            dataset="nih",
            path=root / row["path"],
            patient_id=row["patient_id"],
            labels=_labels(row["findings"], row["rsna_class"]),
            attributes={name: row[name] for name in _ATTRIBUTES},
            boxes=boxes.get(row["path"], {}),
        )
        for row in rows
    ]


def _labels(findings: str, rsna_class: str) -> dict[str, int]:
    named = set(findings.split("|"))
    labels = {key: int(spelling in named) for spelling, key in NIH_FINDINGS.items()}
    labels.pop("pneumonia")
    opacity = _RSNA_OPACITY.get(rsna_class, 0 if named == {"No Finding"} else None)
    if opacity is not None:
        labels |= {"pneumonia": opacity, "lung_opacity": opacity}
    return labels


def _read_boxes(path: Path) -> dict[str, dict[str, tuple[tuple[float, float, float, float], ...]]]:
    found: dict[str, dict[str, list[tuple[float, float, float, float]]]] = defaultdict(
        lambda: defaultdict(list)
    )
    for row in read_table(path, ("path", "finding", "x", "y", "width", "height")):
        box = (float(row["x"]), float(row["y"]), float(row["width"]), float(row["height"]))
        found[row["path"]][_BOX_FINDINGS[row["finding"]]].append(box)
    return {
        image: {key: tuple(boxes) for key, boxes in by_finding.items()}
        for image, by_finding in found.items()
    }


def _read(root: Path, policy: LabelPolicy) -> list[ImageRecord]:
    del policy  # it leaves no choice
    return read_nih(root)


NIH = DataSet(
    name="nih",
    title="NIH ChestX-ray14",
    terms="unrestricted, with acknowledgement of the NIH Clinical Center and the citation",
    citation="Wang et al., ChestX-ray8, CVPR 2017",
    read=_read,
)
