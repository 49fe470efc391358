"""MedMNIST's two sets of chest radiographs: PneumoniaMNIST and ChestMNIST (Yang et al., 2023)."""

from __future__ import annotations

import zipfile
import zlib
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np

from medllm.datasets.archive import count_archived
from medllm.datasets.dataset import DataSet, Published, patients_unknown, without_policy
from medllm.datasets.record import ImageRecord
from medllm.errors import DicomError, LabelError

_PARTS = {"train": "train", "val": "validation", "test": "test"}
# Largest first; 28 pixels have no number in the file's name.
_SUFFIXES = ("_224", "_128", "_64", "")
# Findings a column of labels. As in Kermany's set a pneumonia is a visible opacity.
_PNEUMONIA = (("pneumonia", "lung_opacity"),)
_CHEST = (
    ("atelectasis",),
    ("cardiomegaly",),
    ("effusion",),
    ("infiltration",),
    ("mass",),
    ("nodule",),
    ("pneumonia",),
    ("pneumothorax",),
    ("consolidation",),
    ("edema",),
    ("emphysema",),
    ("fibrosis",),
    ("pleural_thickening",),
    ("hernia",),
)


# TypeError: a single array, which NumPy opens whatever the file's name.
_DAMAGE = (OSError, KeyError, ValueError, TypeError, EOFError, zipfile.BadZipFile, zlib.error)


def read_pneumoniamnist(root: str | Path) -> list[ImageRecord]:
    """Read PneumoniaMNIST; of several sizes the largest.

    Args:
        root: Folder that holds `pneumoniamnist.npz`, or `_64`, `_128` or `_224` of it.

    Returns:
        A record an image, in the order of the arrays: train, val, test.

    Raises:
        LabelError: There is no archive, it is damaged, or its labels are not as published.
    """
    root = Path(root)
    return _read(root, "pneumoniamnist", _PNEUMONIA)


def read_chestmnist(root: str | Path) -> list[ImageRecord]:
    """Read ChestMNIST; of several sizes the largest.

    Args:
        root: Folder that holds `chestmnist.npz`, or `_64`, `_128` or `_224` of it.

    Returns:
        A record an image, in the order of the arrays: train, val, test.

    Raises:
        LabelError: There is no archive, it is damaged, or its labels are not as published.
    """
    root = Path(root)
    return _read(root, "chestmnist", _CHEST)


def _read(root: Path, flag: str, columns: Sequence[Sequence[str]]) -> list[ImageRecord]:
    path = _largest(root, flag)
    records = []
    for part, split in _PARTS.items():
        for index, row in enumerate(_read_labels(path, part, len(columns))):
            labels = zip(columns, row, strict=True)
            records.append(
                ImageRecord(
                    dataset=flag,
                    path=path,
                    patient_id=f"{part}-{index}",
                    labels={key: label for keys, label in labels for key in keys},
                    split=split,
                    member=f"{part}_images/{index}",
                )
            )
    return records


def _largest(root: Path, flag: str) -> Path:
    for suffix in _SUFFIXES:
        path = root / f"{flag}{suffix}.npz"
        if path.is_file():
            return path
    raise LabelError(
        f"{flag}.npz is not in {root}, nor _64, _128 or _224 of it; point --root at the folder of "
        "the archives."
    )


def _read_labels(path: Path, part: str, width: int) -> list[list[int]]:
    try:
        with np.load(path) as archive:
            labels = archive[f"{part}_labels"]
        count = count_archived(path, f"{part}_images")
    except _DAMAGE as error:
        raise LabelError(
            f"{path}: {part}_labels cannot be read ({type(error).__name__}); get the file again."
        ) from None
    except DicomError as error:
        raise LabelError(str(error)) from None
    if labels.shape != (count, width):
        raise LabelError(
            f"{path}: {part}_labels are {' x '.join(map(str, labels.shape))}; wanted are "
            f"{count} images x {width} findings. Get the file again."
        )
    if not np.isin(labels, (0, 1)).all():
        raise LabelError(f"{path}: {part}_labels has values beside 0 and 1; get the file again.")
    rows: list[list[int]] = labels.astype(int).tolist()
    return rows


def _pneumonia_caveats(root: Path) -> Mapping[str, str]:
    del root  # no copy tells the patients
    return {
        "patients-unknown": "The archive does not tell the patients, so each image counts as a "
        "patient of its own: training and validation share patients, and intervals are too narrow."
    }


PNEUMONIAMNIST = DataSet(
    name="pneumoniamnist",
    title="PneumoniaMNIST",
    terms="CC BY 4.0",
    citation="Yang et al., MedMNIST v2, Scientific Data 2023; Kermany et al., Cell 2018",
    reader=without_policy(read_pneumoniamnist),
    published=Published(images=4708 + 524 + 624),
    descends={"kermany": "all images are Kermany's; by the counts the test parts are the same"},
    caveats=_pneumonia_caveats,
)
CHESTMNIST = DataSet(
    name="chestmnist",
    title="ChestMNIST",
    terms="CC BY 4.0",
    citation="Yang et al., MedMNIST v2, Scientific Data 2023; Wang et al., CVPR 2017",
    reader=without_policy(read_chestmnist),
    published=Published(images=78_468 + 11_219 + 22_433),
    descends={"nih": "all images are NIH's, in a split that is not NIH's own"},
    caveats=patients_unknown,
)
