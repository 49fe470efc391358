"""RSNA Pneumonia Detection Challenge 2018: opacities boxed on images of NIH ChestX-ray14."""

from __future__ import annotations

import json
from collections import defaultdict
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from medllm.datasets.boxes import group_boxes, read_box
from medllm.datasets.dataset import DataSet, Published, without_policy
from medllm.datasets.nih_labels import MINED, rsna_opacity
from medllm.datasets.record import Box, ImageRecord, read_given, read_rows
from medllm.errors import LabelError

_TABLE = "stage_2_train_labels.csv"
_CLASSES = "stage_2_detailed_class_info.csv"
_MAPPING = "pneumonia-challenge-dataset-mappings_2018.json"
_BOX_COLUMNS = ("x", "y", "width", "height")
_TARGETS = {"0": 0, "1": 1}
# What was boxed is an opacity that may be a pneumonia; the challenge asks for it by that name.
_FINDINGS = ("pneumonia", "lung_opacity")


@dataclass(frozen=True)
class _Original:
    """The image of NIH's that one of RSNA's was made from.

    Attributes:
        patient_id: As NIH's table writes it.
        mined: The label of pneumonia that was mined from text; None where it is not told.
    """

    patient_id: str
    mined: int | None


def read_rsna(root: str | Path) -> list[ImageRecord]:
    """Read a copy of the part with labels; the challenge's test part was never given any.

    `patientId` names an image. The patients are known only with RSNA's table of the NIH images
    (`pneumonia-challenge-dataset-mappings_2018.json`) beside; without it each image counts as
    a patient of its own, and `RSNA.caveats` says so.

    Args:
        root: Folder that holds `stage_2_train_labels.csv` and `stage_2_train_images`;
            `stage_2_detailed_class_info.csv` may lie beside.

    Returns:
        A record an image, in the table's order.

    Raises:
        LabelError: A table or a column is missing, a value is none of those wanted, or the
            tables contradict each other.
    """
    root = Path(root)
    table = root / _TABLE
    originals = _read_mapping(root / _MAPPING)
    lines, targets, boxes = _read_targets(table)
    classes = _read_classes(root / _CLASSES)
    records = []
    for image, target in targets.items():
        where = f"{table}, line {lines[image]}"
        rsna_class = classes.get(image, "")
        if rsna_opacity(where, rsna_class) not in (None, target):
            raise LabelError(
                f"{where}: Target is {target}, but {_CLASSES} has '{rsna_class}'; get both tables "
                "of stage 2 again."
            )
        original = _find_original(where, originals, image)
        mined = original.mined if original else None
        records.append(
            ImageRecord(
                dataset="rsna",
                path=root / "stage_2_train_images" / f"{image}.dcm",
                patient_id=original.patient_id if original else image,
                labels=dict.fromkeys(_FINDINGS, target),
                attributes={"rsna_class": rsna_class},
                boxes=group_boxes((key, box) for key in _FINDINGS for box in boxes[image]),
                other_labels={} if mined is None else {MINED: {"pneumonia": mined}},
            )
        )
    return records


def _read_targets(
    table: Path,
) -> tuple[dict[str, int], dict[str, int], defaultdict[str, list[Box]]]:
    """Read an image's first line, target and boxes; it has a row a box."""
    lines: dict[str, int] = {}
    targets: dict[str, int] = {}
    boxes: defaultdict[str, list[Box]] = defaultdict(list)
    for line, row in read_rows(table, ("patientId", *_BOX_COLUMNS, "Target")):
        where = f"{table}, line {line}"
        image = read_given(where, "patientId", row["patientId"])
        target = _TARGETS.get(row["Target"].strip())
        if target is None:
            raise LabelError(f"{where}: Target is '{row['Target']}'; wanted is 1 or 0.")
        if targets.setdefault(image, target) != target:
            raise LabelError(f"{where}: Target is {target}, but line {lines[image]} says not.")
        lines.setdefault(image, line)
        values = [row[column].strip() for column in _BOX_COLUMNS]
        if target:
            boxes[image].append(read_box(where, *values))
        elif any(values):
            raise LabelError(f"{where}: Target is 0, but there is a box; get the table again.")
    return lines, targets, boxes


def _read_classes(table: Path) -> dict[str, str]:
    classes: dict[str, str] = {}
    if table.is_file():
        for line, row in read_rows(table, ("patientId", "class")):
            where, image, name = f"{table}, line {line}", row["patientId"].strip(), row["class"]
            rsna_opacity(where, name)
            if classes.setdefault(image, name.strip()) != name.strip():
                raise LabelError(
                    f"{where}: the image has another class above; get the table again."
                )
    return classes


def _read_mapping(path: Path) -> dict[str, _Original]:
    if not path.is_file():
        return {}
    try:
        entries = json.loads(path.read_text("utf-8"))
    except ValueError as error:
        raise LabelError(f"{path} is not JSON ({type(error).__name__}); get it again.") from None
    if not entries:
        raise LabelError(f"{path} names no image; get it again.")
    try:
        return {str(entry["subset_img_id"]): _original(entry) for entry in entries}
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        raise LabelError(
            f"{path} is no list of images with 'subset_img_id' and 'img_id', such as "
            f"00000001_000.png ({type(error).__name__}); get it again."
        ) from None


def _original(entry: Mapping[str, object]) -> _Original:
    # 00000001_000.png is an image of NIH's patient 1.
    patient = str(int(str(entry["img_id"]).partition("_")[0]))
    names = entry.get("orig_labels")
    if isinstance(names, str):
        names = names.split("|")
    if not isinstance(names, list):
        return _Original(patient, None)
    return _Original(patient, int("pneumonia" in {str(name).strip().casefold() for name in names}))


def _find_original(where: str, originals: Mapping[str, _Original], image: str) -> _Original | None:
    if originals and image not in originals:
        raise LabelError(
            f"{where}: the image is not in {_MAPPING}, so that its patient is unknown; get that "
            "file again, or take it away to count each image as a patient of its own."
        )
    return originals.get(image)


def _caveats(root: Path) -> Mapping[str, str]:
    if (root / _MAPPING).is_file():
        return {}
    return {
        "patients-unknown": f"Without {_MAPPING} beside the tables each image counts as a patient "
        "of its own, though many are of one: parts may share patients, and intervals are too "
        "narrow."
    }


RSNA = DataSet(
    name="rsna",
    title="RSNA Pneumonia Detection Challenge 2018",
    terms="those of NIH ChestX-ray14 for the images, and of the challenge for its labels",
    citation="Shih et al., Radiology: Artificial Intelligence 2019; Wang et al., CVPR 2017",
    reader=without_policy(read_rsna),
    published=Published(images=26_684, positive=dict.fromkeys(_FINDINGS, 6012)),
    descends={"nih": f"all images are NIH's; {_MAPPING} tells which"},
    pseudonyms="nih",
    caveats=_caveats,
)
