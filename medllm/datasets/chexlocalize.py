"""CheXlocalize: radiologists' outlines on CheXpert (Saporta et al., 2022)."""

from __future__ import annotations

import dataclasses
import json
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from medllm.datasets.chexpert import ChexpertPath, read_table_records
from medllm.datasets.chexpert_labels import CHEXPERT_FINDINGS
from medllm.datasets.coco_mask import read_coco_mask
from medllm.datasets.dataset import DataSet, Published, without_policy
from medllm.datasets.masks import Mask
from medllm.datasets.policy import LabelPolicy
from medllm.datasets.record import ImageRecord
from medllm.errors import LabelError

_PARTS = ("val", "test")
# patient64622_study1_view1_frontal, for patient64622/study1/view1_frontal.jpg
_KEY = re.compile(r"(patient\d+)_(study\d+)_(view\d+_(?:frontal|lateral))")
OUTLINED = {
    # The outlines say Airspace Opacity where the tables of labels say Lung Opacity.
    "Airspace Opacity": "lung_opacity",
    **{
        spelling: CHEXPERT_FINDINGS[spelling]
        for spelling in (
            *("Enlarged Cardiomediastinum", "Cardiomegaly", "Lung Opacity", "Lung Lesion"),
            *("Edema", "Consolidation", "Atelectasis", "Pneumothorax", "Pleural Effusion"),
            "Support Devices",
        )
    },
}


def read_chexlocalize(root: str | Path) -> list[ImageRecord]:
    """Read a copy: outlines, labels and images of the validation and of the test part.

    Every image of a part is read, with outlines where there are any. An outline that covers
    nothing stands for a finding that was not drawn, and is left out.

    Args:
        root: Folder that holds `CheXlocalize/gt_segmentations_val.json`, `CheXpert/val_labels.csv`
            and `CheXpert/val`, or the same of `test`, or both.

    Returns:
        A record an image: validation, test, in the tables' order.

    Raises:
        LabelError: No part is there, a part has outlines and no labels, or a file is not as
            described.
    """
    root = Path(root)
    parts = [part for part in _PARTS if _outline_file(root, part) in outline_files(root)]
    if not parts:
        raise LabelError(
            f"gt_segmentations_val.json is not in {root / 'CheXlocalize'}, nor is that of the test "
            "part; point --root at the folder that holds CheXlocalize and CheXpert."
        )
    return [record for part in parts for record in _read_part(root, part)]


def outline_files(root: Path) -> list[Path]:
    """Find the files of outlines.

    Args:
        root: As for `read_chexlocalize`.

    Returns:
        Those of the parts that are there: validation, test.
    """
    return [file for part in _PARTS if (file := _outline_file(root, part)).is_file()]


def _outline_file(root: Path, part: str) -> Path:
    return root / "CheXlocalize" / f"gt_segmentations_{part}.json"


def _read_part(root: Path, part: str) -> list[ImageRecord]:
    def place(path: ChexpertPath) -> Path:
        # The folder is `val`, also where the table's paths say `valid`.
        return root / "CheXpert" / part / path.file

    table = root / "CheXpert" / f"{part}_labels.csv"
    file = _outline_file(root, part)
    outlines = _read_outlines(file)
    records = []
    for record in read_table_records("chexlocalize", table, place, LabelPolicy()):
        masks = outlines.pop(f"{record.study_id}/{record.path.stem}", {})
        records.append(dataclasses.replace(record, masks=masks))
    if outlines:
        raise LabelError(
            f"{file} outlines {len(outlines)} images that {table} does not name; get both of the "
            "same version."
        )
    return records


def _read_outlines(file: Path) -> dict[str, dict[str, Mask]]:
    """Read the outlines of each image, by `PATIENT/STUDY/VIEW`."""
    try:
        content: Any = json.loads(file.read_text("utf-8"))
    except ValueError as error:  # of JSON or of UTF-8
        raise LabelError(f"{file} is no JSON ({type(error).__name__}); get it again.") from None
    if not isinstance(content, dict):
        raise LabelError(f"{file}: wanted is an object, with an entry an image; get it again.")
    found = {}
    for number, (key, outlines) in enumerate(content.items(), 1):
        where = f"{file}, image {number}"
        match = _KEY.fullmatch(key)
        if match is None or not isinstance(outlines, dict):
            raise LabelError(
                f"{where}: wanted is an image as patient0_study0_view0_frontal, with an object of "
                "outlines; get the file again."
            )
        found["/".join(match.groups())] = _masks(where, outlines)
    return found


def _masks(where: str, outlines: Mapping[str, Any]) -> dict[str, Mask]:
    masks: dict[str, Mask] = {}
    for spelling, outline in outlines.items():
        if spelling not in OUTLINED:
            raise LabelError(
                f"{where}: the outline is of '{spelling}'; wanted is one of {', '.join(OUTLINED)}."
            )
        mask = read_coco_mask(f"{where}, {spelling}", outline)
        if any(mask.runs[1::2]):
            masks[OUTLINED[spelling]] = mask
    return masks


CHEXLOCALIZE = DataSet(
    name="chexlocalize",
    title="CheXlocalize",
    terms="Stanford University's research use agreement",
    citation="Saporta et al., Nature Machine Intelligence 4, 867-878, 2022; Irvin et al., "
    "CheXpert, AAAI 2019",
    reader=without_policy(read_chexlocalize),
    published=Published(images=234 + 668, patients=200 + 500),
    descends={
        "chexpert": "its validation and test images",
        "chexpert-plus": "its validation images",
    },
    pseudonyms="chexpert",
)
