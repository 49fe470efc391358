"""SIIM-ACR Pneumothorax Segmentation Challenge 2019: outlines on images of NIH ChestX-ray14."""

from __future__ import annotations

from collections.abc import Iterable
from itertools import pairwise
from pathlib import Path

from medllm.datasets.dataset import DataSet, Published, patients_unknown, without_policy
from medllm.datasets.masks import RunLengthMask
from medllm.datasets.record import ImageRecord, read_given, read_rows
from medllm.errors import LabelError

_ROWS = _COLUMNS = 1024
_EMPTY = "-1"
# The labelled images of stage 2 are those of both parts of stage 1.
_FOLDERS = ("dicom-images-train", "dicom-images-test")


def read_siim(root: str | Path) -> list[ImageRecord]:
    """Read a copy: a row an outline, of which an image may have several; they are joined.

    Args:
        root: Folder that holds `train-rle.csv` and `dicom-images-train`.

    Returns:
        A record an image, in the table's order.

    Raises:
        LabelError: The table or a column is missing, or an outline cannot be one.
    """
    root = Path(root)
    table = root / "train-rle.csv"
    outlines: dict[str, list[tuple[int, int]]] = {}
    for line, row in read_rows(table, ("ImageId", "EncodedPixels")):
        where = f"{table}, line {line}"
        image = read_given(where, "ImageId", row["ImageId"])
        outlines.setdefault(image, []).extend(_spans(where, row["EncodedPixels"]))
    paths = {path.stem: path for folder in _FOLDERS for path in (root / folder).glob("*/*/*.dcm")}
    records = []
    for image, spans in outlines.items():
        path = paths.get(image)
        mask = RunLengthMask(_runs(spans), _ROWS, _COLUMNS)
        records.append(
            ImageRecord(
                dataset="siim",
                path=path or root / _FOLDERS[0] / f"{image}.dcm",
                patient_id=image,
                labels={"pneumothorax": int(bool(spans))},
                masks={"pneumothorax": mask} if spans else {},
                study_id=path.parent.parent.name if path else "",
            )
        )
    return records


def _spans(where: str, text: str) -> Iterable[tuple[int, int]]:
    """Turn pairs of a gap since the last run and a run's length into first and end of each run."""
    if text.strip() == _EMPTY:
        return []
    try:
        numbers = [int(word) for word in text.split()]
    except ValueError:
        numbers = []
    if not numbers or len(numbers) % 2 or min(numbers) < 0 or sum(numbers) > _ROWS * _COLUMNS:
        raise LabelError(
            f"{where}: EncodedPixels is no outline; wanted is {_EMPTY}, or pairs of a gap and a "
            f"length, 0 or more, over at most {_ROWS} x {_COLUMNS} pixels. Get the table again."
        )
    ends = [0]
    for number in numbers:
        ends.append(ends[-1] + number)
    return [(first, end) for first, end in list(pairwise(ends))[1::2] if end > first]


def _runs(spans: Iterable[tuple[int, int]]) -> tuple[int, ...]:
    """Join runs that may overlap, and give lengths outside and inside in turn."""
    runs: list[int] = []
    reached = 0
    for first, end in sorted(spans):
        if runs and first <= reached:
            runs[-1] += max(end - reached, 0)
        else:
            runs += [first - reached, end - first]
        reached = max(reached, end)
    return tuple(runs)


SIIM = DataSet(
    name="siim",
    title="SIIM-ACR Pneumothorax Segmentation Challenge 2019",
    terms="those of NIH ChestX-ray14 for the images, and of the challenge for its outlines",
    citation="SIIM-ACR Pneumothorax Segmentation, Kaggle 2019; Wang et al., CVPR 2017",
    reader=without_policy(read_siim),
    published=Published(images=12_047, positive={"pneumothorax": 2669}),
    descends={"nih": "all images are NIH's; which, no table tells"},
    caveats=patients_unknown,
)
