"""The labels of NIH ChestX-ray14's images: mined from text, and read again by radiologists."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path

from medllm.datasets.record import read_label, read_rows, read_word
from medllm.errors import LabelError

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
NO_FINDING = "No Finding"
# Name of the labels that a program took from the reports, among a record's other labels.
MINED = "mined from text"

RSNA_CLASSES = {"Lung Opacity": 1, "Normal": 0, "No Lung Opacity / Not Normal": 0}

_GOOGLE_FINDINGS = {
    "Fracture": "fracture",
    "Pneumothorax": "pneumothorax",
    "Airspace opacity": "lung_opacity",
    "Nodule or mass": "nodule_or_mass",
}
# A blank is an image that was not in the set of this finding.
_GOOGLE_WORDS = {"YES": "1", "NO": "0", "": ""}
# As Google gives them out, the same in one folder, and as torchxrayvision joins them.
_GOOGLE_TABLES = {
    "four_findings_expert_labels/validation_labels.csv": "validation",
    "four_findings_expert_labels/test_labels.csv": "test",
    "four_findings_expert_labels_validation_labels.csv": "validation",
    "four_findings_expert_labels_test_labels.csv": "test",
    "google2019_nih-chest-xray-labels.csv": "",
    "google2019_nih-chest-xray-labels.csv.gz": "",
}
_GOOGLE_SETS = {"val": "validation", "validation": "validation", "test": "test"}


def mined_labels(where: str, findings: str) -> dict[str, int]:
    """Read the labels that were mined from an image's report.

    Args:
        where: File and line, for the message.
        findings: Spellings divided by `|`, or `No Finding`.

    Returns:
        1 or 0 for each of the 14 findings.

    Raises:
        LabelError: A spelling is none of the 14, or stands beside `No Finding`.

    Example:
        >>> mined_labels("labels.csv, line 2", "Mass|Nodule")["nodule"]
        1
    """
    named = {word.strip() for word in findings.split("|")}
    if unknown := sorted(named - {*NIH_FINDINGS, NO_FINDING}):
        raise LabelError(
            f"{where}: the findings name '{unknown[0]}'; wanted are {', '.join(NIH_FINDINGS)}, "
            f"divided by '|', or {NO_FINDING}."
        )
    if NO_FINDING in named and len(named) > 1:
        raise LabelError(f"{where}: the findings name some and '{NO_FINDING}'; leave one of both.")
    return {key: int(spelling in named) for spelling, key in NIH_FINDINGS.items()}


def rsna_opacity(where: str, rsna_class: str) -> int | None:
    """Read what RSNA's radiologists saw.

    Args:
        where: File and line, for the message.
        rsna_class: A class of RSNA's; blank where they did not read the image.

    Returns:
        1 for an opacity, 0 for none, None where it was not read.

    Raises:
        LabelError: It is none of the classes.
    """
    if not rsna_class.strip():
        return None
    try:
        return RSNA_CLASSES[rsna_class.strip()]
    except KeyError:
        raise LabelError(
            f"{where}: RSNA's class is '{rsna_class}'; wanted is one of {', '.join(RSNA_CLASSES)}, "
            "or blank where RSNA did not read the image."
        ) from None


@dataclass
class GoogleReading:
    """What Google's radiologists agreed on for one image.

    Attributes:
        part: `validation` or `test` of their study.
        labels: 1 or 0 a finding's key.
        differing: Findings on which two of their rows differ: nobody knows which one holds, so
            that these are unknown, and no other label stands in for them.
    """

    part: str
    labels: dict[str, int] = field(default_factory=dict)
    differing: set[str] = field(default_factory=set)

    def over(self, labels: Mapping[str, int]) -> dict[str, int]:
        """Put the reading in place of the mined labels.

        Args:
            labels: All mined labels of the image.

        Returns:
            1 or 0 a finding's key, without those on which the rows differ.
        """
        both = {**labels, **self.labels}
        return {key: label for key, label in both.items() if key not in self.differing}

    def mined(self, labels: Mapping[str, int]) -> dict[str, int]:
        """Give the mined labels of what was read, to be compared with the reading.

        Args:
            labels: All mined labels of the image.

        Returns:
            1 or 0 a finding's key; fracture and opacity were not mined.
        """
        wide = {**labels, "nodule_or_mass": max(labels["nodule"], labels["mass"])}
        return {key: wide[key] for key in self.labels if key in wide}


def read_google(root: Path) -> dict[str, GoogleReading]:
    """Read Google's tables, where they lie beside the data set's own.

    Args:
        root: The data set's folder.

    Returns:
        A reading an image's file name; none without the tables.

    Raises:
        LabelError: A column is missing, or a value is neither YES, NO nor blank.
    """
    readings: dict[str, GoogleReading] = {}
    for name, part in _GOOGLE_TABLES.items():
        if (root / name).is_file():
            for image, reading in _google_rows(root / name, part):
                known = readings.setdefault(image, GoogleReading(reading.part))
                for key, label in reading.labels.items():
                    if known.labels.setdefault(key, label) != label:
                        known.differing.add(key)  # a few images are listed twice
    for reading in readings.values():
        for key in reading.differing:
            del reading.labels[key]
    return readings


def _google_rows(table: Path, part: str) -> Iterable[tuple[str, GoogleReading]]:
    columns = ("Image Index", *_GOOGLE_FINDINGS, *(() if part else ("Set Id",)))
    for line, row in read_rows(table, columns):
        where = f"{table}, line {line}"
        labels = {}
        for column, key in _GOOGLE_FINDINGS.items():
            word = read_word(where, column, row[column], _GOOGLE_WORDS)
            label = read_label(where, column, word)
            if label is not None:
                labels[key] = label
        place = part or read_word(where, "Set Id", row["Set Id"], _GOOGLE_SETS)
        yield row["Image Index"].strip(), GoogleReading(place, labels)
