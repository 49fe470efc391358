"""NIH ChestX-ray14 (Wang et al., CVPR 2017), with radiologists' readings where there are any."""

from __future__ import annotations

from collections import defaultdict
from pathlib import Path

from medllm.datasets.age import read_age
from medllm.datasets.boxes import boxes_of_positives, read_box
from medllm.datasets.dataset import DataSet, Published, without_policy
from medllm.datasets.nih_labels import (
    MINED,
    NIH_FINDINGS,
    GoogleReading,
    mined_labels,
    read_google,
    rsna_opacity,
)
from medllm.datasets.record import Box, ImageRecord, read_given, read_rows, read_word
from medllm.errors import LabelError

_ATTRIBUTES = ("sex", "view_position", "rsna_class")
_EXTRACT_BOX_FINDINGS = {"Lung Opacity": "lung_opacity", "Pneumonia": "pneumonia"}
_TABLES = ("Data_Entry_2017_v2020.csv", "Data_Entry_2017.csv")
_COLUMNS = ("Image Index", "Finding Labels", "Patient ID", "Patient Age", "View Position")
_SEX_COLUMNS = ("Patient Gender", "Patient Sex")
_SEXES = {"F": "F", "M": "M", "": ""}
# The header has commas without quotes, so it falls apart into these.
_BOX_COLUMNS = ("Bbox [x", "y", "w", "h]")
_BOX_FINDINGS = {
    "Infiltrate": "infiltration",  # the table of labels says Infiltration
    **{
        spelling: NIH_FINDINGS[spelling]
        for spelling in (
            *("Atelectasis", "Cardiomegaly", "Effusion", "Mass"),
            *("Nodule", "Pneumonia", "Pneumothorax"),
        )
    },
}
_LISTS = {"train_val_list.txt": "train", "test_list.txt": "test"}


def read_nih(root: str | Path) -> list[ImageRecord]:
    """Read a copy: the published layout, or an extract with `labels.csv` and `boxes.csv`.

    The 14 labels were mined from text; as published they are the labels. Where radiologists
    read an image again, their reading is the label, and the mined one is kept in
    `other_labels`: Google's of pneumothorax, fracture, opacity, and nodule or mass, whose tables
    may lie beside the published ones; and RSNA's of opacity in the extract, where pneumonia and
    opacity are else 0 for `No Finding` and unknown for all others. A finding's boxes are kept
    where its label is 1, and none otherwise.

    Args:
        root: Folder that holds `Data_Entry_2017_v2020.csv` or `Data_Entry_2017.csv`, or
            `labels.csv`.

    Returns:
        A record an image, in the table's order.

    Raises:
        LabelError: A table or a column is missing, or a value is none of those wanted.
    """
    root = Path(root)
    if (root / "labels.csv").is_file():
        return _read_extract(root)
    for name in _TABLES:
        if (root / name).is_file():
            return _read_published(root, root / name)
    raise LabelError(
        f"labels.csv is not in {root}, nor is {' or '.join(_TABLES)}; point --root at the data "
        "set's folder."
    )


def _read_extract(root: Path) -> list[ImageRecord]:
    table = root / "labels.csv"
    boxes = _read_extract_boxes(root / "boxes.csv")
    records = []
    for line, row in read_rows(
        table, ("path", "patient_id", "findings", "age_years", *_ATTRIBUTES)
    ):
        where = f"{table}, line {line}"
        path = read_given(where, "path", row["path"])
        labels = mined_labels(where, row["findings"])
        pneumonia = labels.pop("pneumonia")
        opacity = rsna_opacity(where, row["rsna_class"])
        if opacity is None and not pneumonia and not any(labels.values()):
            opacity = 0
        if opacity is not None:
            labels |= {"pneumonia": opacity, "lung_opacity": opacity}
        records.append(
            ImageRecord(
                dataset="nih",
                path=root / path,
                patient_id=read_given(where, "patient_id", row["patient_id"]),
                labels=labels,
                attributes={
                    "age_years": read_age(where, "age_years", row["age_years"]),
                    **{name: row[name] for name in _ATTRIBUTES},
                },
                boxes=boxes_of_positives(boxes[path], labels),
                other_labels={MINED: {"pneumonia": pneumonia}},
            )
        )
    return records


def _read_extract_boxes(table: Path) -> defaultdict[str, list[tuple[str, Box]]]:
    found: defaultdict[str, list[tuple[str, Box]]] = defaultdict(list)
    for line, row in read_rows(table, ("path", "finding", "x", "y", "width", "height")):
        where = f"{table}, line {line}"
        key = _box_finding(where, row["finding"], _EXTRACT_BOX_FINDINGS)
        box = read_box(where, row["x"], row["y"], row["width"], row["height"])
        found[row["path"].strip()].append((key, box))
    return found


def _read_published(root: Path, table: Path) -> list[ImageRecord]:
    rows = read_rows(table, _COLUMNS)
    sex = _sex_column(table, rows[0][1] if rows else {})
    paths, boxes = _image_paths(root), _read_boxes(root / "BBox_List_2017.csv")
    parts, google = _official_split(root), read_google(root)
    records = []
    for line, row in rows:
        where = f"{table}, line {line}"
        image = read_given(where, "Image Index", row["Image Index"])
        mined = mined_labels(where, row["Finding Labels"])
        reading = google.get(image, GoogleReading(""))
        labels, other = reading.over(mined), reading.mined(mined)
        attributes = {
            "age_years": read_age(where, "Patient Age", row["Patient Age"]),
            "sex": read_word(where, sex, row[sex], _SEXES),
            "view_position": row["View Position"].strip().upper(),
        }
        records.append(
            ImageRecord(
                dataset="nih",
                path=paths.get(image, root / "images" / image),
                patient_id=read_given(where, "Patient ID", row["Patient ID"]),
                labels=labels,
                attributes=attributes | ({"google_set": reading.part} if google else {}),
                boxes=boxes_of_positives(boxes[image], labels),
                split=parts.get(image, ""),
                other_labels={MINED: other} if other else {},
            )
        )
    return records


def _sex_column(table: Path, row: dict[str, str]) -> str:
    for column in _SEX_COLUMNS:
        if column in row:
            return column
    raise LabelError(
        f"{table} has no rows, or lacks the column {' or '.join(_SEX_COLUMNS)}; get it again."
    )


def _image_paths(root: Path) -> dict[str, Path]:
    """Find the images that lie in the twelve folders; all others are in one, or missing."""
    return {path.name: path for path in root.glob("images_*/images/*.png")}


def _read_boxes(table: Path) -> defaultdict[str, list[tuple[str, Box]]]:
    found: defaultdict[str, list[tuple[str, Box]]] = defaultdict(list)
    if table.is_file():
        for line, row in read_rows(table, ("Image Index", "Finding Label", *_BOX_COLUMNS)):
            where = f"{table}, line {line}"
            key = _box_finding(where, row["Finding Label"], _BOX_FINDINGS)
            box = read_box(where, *(row[column] for column in _BOX_COLUMNS))
            found[row["Image Index"].strip()].append((key, box))
    return found


def _box_finding(where: str, spelling: str, known: dict[str, str]) -> str:
    try:
        return known[spelling.strip()]
    except KeyError:
        raise LabelError(
            f"{where}: the box is of '{spelling}'; wanted is one of {', '.join(known)}."
        ) from None


def _official_split(root: Path) -> dict[str, str]:
    """Read the published lists, as many as there are; no image is in two."""
    parts: dict[str, str] = {}
    for name, part in _LISTS.items():
        if not (root / name).is_file():
            continue
        for line, text in enumerate(_read_list(root / name), 1):
            if text.strip() and parts.setdefault(text.strip(), part) != part:
                raise LabelError(
                    f"{root / name}, line {line}: the image is in {' and in '.join(_LISTS)}; get "
                    "the lists again."
                )
    return parts


def _read_list(path: Path) -> list[str]:
    try:
        return path.read_text("utf-8-sig").splitlines()
    except UnicodeDecodeError as error:
        raise LabelError(f"{path} is not UTF-8 ({error.reason}); get it again.") from None


NIH = DataSet(
    name="nih",
    title="NIH ChestX-ray14",
    terms="unrestricted, with acknowledgement of the NIH Clinical Center and the citation",
    citation="Wang et al., ChestX-ray8, CVPR 2017",
    reader=without_policy(read_nih),
    published=Published(images=112_120, patients=30_805, positive={"pneumonia": 1431}),
)
