"""VinDr-CXR (Nguyen et al., Scientific Data 2022): findings and boxes by three readers an image."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping
from pathlib import Path

from medllm.datasets.boxes import boxes_of_positives, read_corners
from medllm.datasets.dataset import DataSet, Published, patients_unknown
from medllm.datasets.policy import LabelPolicy
from medllm.datasets.record import Box, ImageRecord, read_label, read_rows
from medllm.errors import LabelError

# The findings of the Kaggle challenge that medllm has a key for.
_BOXED = {
    "Aortic enlargement": "aortic_enlargement",
    "Atelectasis": "atelectasis",
    "Calcification": "calcification",
    "Cardiomegaly": "cardiomegaly",
    "Consolidation": "consolidation",
    "ILD": "interstitial_lung_disease",
    "Infiltration": "infiltration",
    "Lung Opacity": "lung_opacity",
    "Nodule/Mass": "nodule_or_mass",
    "Pleural effusion": "effusion",
    "Pleural thickening": "pleural_thickening",
    "Pneumothorax": "pneumothorax",
    "Pulmonary fibrosis": "fibrosis",
}
VINDR_FINDINGS = {
    **_BOXED,
    "Clavicle fracture": "clavicle_fracture",
    "COPD": "copd",
    "Edema": "edema",
    "Emphysema": "emphysema",
    "Enlarged PA": "enlarged_pulmonary_artery",
    "Lung cavity": "lung_cavity",
    "Lung cyst": "lung_cyst",
    "Mediastinal shift": "mediastinal_shift",
    "Pneumonia": "pneumonia",
    "Rib fracture": "rib_fracture",
    "Tuberculosis": "tuberculosis",
}
# Classes of boxes without a key. The labels without one, such as Other diseases, which the test
# part calls Other disease, are columns that are not looked at.
_PASSED_OVER = {"No finding", "Other lesion", "Eventration"}
_CORNERS = ("x_min", "y_min", "x_max", "y_max")
_READERS = 3
_POLICY = LabelPolicy(readers="majority")

_Boxes = defaultdict[str, list[tuple[str, Box]]]
# Labels a reader, an image.
_Readings = dict[str, dict[str, Mapping[str, int]]]


def read_vindr(root: str | Path, policy: LabelPolicy = _POLICY) -> list[ImageRecord]:
    """Read a copy in PhysioNet's layout or in that of the Kaggle challenge.

    The training part has three readers an image, whose votes the policy turns into a label; the
    test part has the consensus of its readers. A finding's boxes are those of all readers who
    drew one, where its label is 1, and none otherwise.

    Args:
        root: Folder that holds `annotations`, `train` and `test` (PhysioNet), or `train.csv`
            and `train` (Kaggle).
        policy: Its `readers` decides.

    Returns:
        A record an image, in the tables' order.

    Raises:
        LabelError: A table or a column is missing, a spelling is unknown, or an image has not
            three readers.
    """
    root = Path(root)
    if (root / "train.csv").is_file():
        return _read_kaggle(root, policy)
    parts = {"train": _train_labels, "test": _test_labels}
    records = []
    for part, labels_of in parts.items():
        table = root / "annotations" / f"image_labels_{part}.csv"
        if table.is_file():
            boxes = _read_boxes(root / "annotations" / f"annotations_{part}.csv")
            for image, labels in labels_of(table, policy).items():
                records.append(_record(root, part, image, labels, boxes))
    if not records:
        raise LabelError(
            f"neither train.csv nor annotations/image_labels_train.csv with a row is in {root}; "
            "point --root at the data set's folder."
        )
    return records


def _record(
    root: Path, part: str, image: str, labels: Mapping[str, float], boxes: _Boxes
) -> ImageRecord:
    return ImageRecord(
        dataset="vindr",
        path=root / part / f"{image}.dicom",
        patient_id=image,
        labels=labels,
        boxes=boxes_of_positives(boxes[image], labels),
        split=part,
    )


def _train_labels(table: Path, policy: LabelPolicy) -> dict[str, dict[str, float]]:
    readings: _Readings = {}
    lines: dict[str, int] = {}
    for line, row in read_rows(table, ("image_id", "rad_id", *VINDR_FINDINGS)):
        where = f"{table}, line {line}"
        image, reader = row["image_id"].strip(), row["rad_id"].strip()
        lines.setdefault(image, line)
        if reader in readings.setdefault(image, {}):
            raise LabelError(
                f"{where}: the reader has a line of this image above; the training part has one "
                "each. Get the table again."
            )
        readings[image][reader] = _row_labels(where, row)
    return _vote(table, readings, lines, policy)


def _test_labels(table: Path, policy: LabelPolicy) -> dict[str, dict[str, float]]:
    del policy  # the readers have agreed
    found: dict[str, dict[str, float]] = {}
    for line, row in read_rows(table, ("image_id", *VINDR_FINDINGS)):
        where, image = f"{table}, line {line}", row["image_id"].strip()
        if image in found:
            raise LabelError(f"{where}: the image has a line above; the test part has one each.")
        found[image] = dict(_row_labels(where, row))
    return found


def _row_labels(where: str, row: Mapping[str, str]) -> dict[str, int]:
    labels = {key: read_label(where, name, row[name]) for name, key in VINDR_FINDINGS.items()}
    return {key: label for key, label in labels.items() if label is not None}


def _read_kaggle(root: Path, policy: LabelPolicy) -> list[ImageRecord]:
    """Read the challenge's table: a row a box, and one for each reader who found nothing."""
    table = root / "train.csv"
    readings: dict[str, dict[str, dict[str, int]]] = {}
    lines: dict[str, int] = {}
    boxes: _Boxes = defaultdict(list)
    for line, row in read_rows(table, ("image_id", "class_name", "rad_id", *_CORNERS)):
        where, image = f"{table}, line {line}", row["image_id"].strip()
        lines.setdefault(image, line)
        reader = readings.setdefault(image, {}).setdefault(
            row["rad_id"].strip(), dict.fromkeys(_BOXED.values(), 0)
        )
        if key := _key(where, row["class_name"]):
            reader[key] = 1
            boxes[image].append((key, read_corners(where, *(row[name] for name in _CORNERS))))
    voted = _vote(table, readings, lines, policy)
    return [_record(root, "train", image, labels, boxes) for image, labels in voted.items()]


def _read_boxes(table: Path) -> _Boxes:
    boxes: _Boxes = defaultdict(list)
    if table.is_file():
        for line, row in read_rows(table, ("image_id", "class_name", *_CORNERS)):
            where = f"{table}, line {line}"
            if key := _key(where, row["class_name"]):
                box = read_corners(where, *(row[name] for name in _CORNERS))
                boxes[row["image_id"].strip()].append((key, box))
    return boxes


def _key(where: str, name: str) -> str | None:
    """Look a class up; None for one that is passed over."""
    if (spelling := name.strip()) in _PASSED_OVER:
        return None
    if spelling not in VINDR_FINDINGS:
        raise LabelError(
            f"{where}: class_name is '{name}'; wanted is one of {', '.join(VINDR_FINDINGS)}, "
            f"{', '.join(sorted(_PASSED_OVER))}."
        )
    return VINDR_FINDINGS[spelling]


def _vote(
    table: Path,
    readings: Mapping[str, Mapping[str, Mapping[str, int]]],
    lines: Mapping[str, int],
    policy: LabelPolicy,
) -> dict[str, dict[str, float]]:
    """Make the labels of each image from its readers'."""
    voted: dict[str, dict[str, float]] = {}
    for image, by_reader in readings.items():
        # A reader who found nothing has a row too; a table that lost those would turn votes over.
        if len(by_reader) != _READERS:
            raise LabelError(
                f"{table}, line {lines[image]}: the image has {len(by_reader)} readers in the "
                f"table; wanted are {_READERS}, also those who found nothing. Get the table again."
            )
        votes: defaultdict[str, list[int]] = defaultdict(list)
        for labels in by_reader.values():
            for key, label in labels.items():
                votes[key].append(label)
        made = {key: policy.of_votes(sum(given), len(given)) for key, given in votes.items()}
        voted[image] = {key: label for key, label in made.items() if label is not None}
    return voted


def _counts(root: Path) -> Published:
    """Give the counts of Kaggle's layout, which has the training part alone, or those of both."""
    return _KAGGLE if (root / "train.csv").is_file() else _PUBLISHED


_PUBLISHED = Published(images=15_000 + 3000)
# With at least two of three readers.
_KAGGLE = Published(
    images=15_000,
    positive={
        "atelectasis": 62,
        "consolidation": 121,
        "lung_opacity": 547,
        "cardiomegaly": 1817,
    },
)
VINDR = DataSet(
    name="vindr",
    title="VinDr-CXR",
    terms="PhysioNet credentialed access, or the rules of the Kaggle challenge",
    citation="Nguyen et al., VinDr-CXR, Scientific Data 2022; PhysioNet 10.13026/3akn-b287",
    reader=read_vindr,
    policy=_POLICY,
    published=_PUBLISHED,
    counts=_counts,
    caveats=patients_unknown,
)
