"""The 14 columns of CheXpert's labeller, which other data sets share."""

from __future__ import annotations

from collections.abc import Mapping

from medllm.datasets.policy import LabelPolicy

NO_FINDING = "No Finding"
# The spellings of the columns; whole words only.
CHEXPERT_FINDINGS = {
    "Enlarged Cardiomediastinum": "enlarged_cardiomediastinum",
    "Cardiomegaly": "cardiomegaly",
    "Lung Opacity": "lung_opacity",
    "Lung Lesion": "lung_lesion",
    "Edema": "edema",
    "Consolidation": "consolidation",
    "Pneumonia": "pneumonia",
    "Atelectasis": "atelectasis",
    "Pneumothorax": "pneumothorax",
    "Pleural Effusion": "effusion",
    "Pleural Other": "pleural_other",
    "Fracture": "fracture",
    "Support Devices": "support_devices",
}
CHEXPERT_COLUMNS = (NO_FINDING, *CHEXPERT_FINDINGS)
# Reports deny a finding only where somebody asked: pneumonia is 6,039 times called present and
# 2,799 times absent in CheXpert, of 223,414 images. Only with the silent ones as negatives is the
# set like the patients who are examined. Doubt, though, is neither, and is not scored.
CHEXPERT_POLICY = LabelPolicy(uncertain="unknown", blank="negative")
# The labeller ticks No Finding beside these too, so it does not rule them out.
_BESIDE_NO_FINDING = "Support Devices"


def mentioned_labels(where: str, row: Mapping[str, str], policy: LabelPolicy) -> dict[str, float]:
    """Make the labels of a row.

    `No Finding` is 0 for each finding that the row does not mention, support devices apart. A row
    that is blank throughout has no report behind it, since the labeller ticks `No Finding` where a
    report mentions nothing: its findings are unknown by any policy.

    Args:
        where: File and line, for the message.
        row: The row, with `CHEXPERT_COLUMNS`.
        policy: What uncertain and blank stand for.

    Returns:
        1, 0 or .5 a finding's key; without those that are unknown.

    Raises:
        LabelError: A label is not 1, 0, -1 or blank.

    Source:
        Irvin et al., AAAI 2019, for `No Finding`.
    """
    if not any(row[column].strip() for column in CHEXPERT_COLUMNS):
        return {}
    is_clear = LabelPolicy().of_mention(where, NO_FINDING, row[NO_FINDING]) == 1
    labels: dict[str, float] = {}
    for column, key in CHEXPERT_FINDINGS.items():
        label = policy.of_mention(where, column, row[column])
        if is_clear and not row[column].strip() and column != _BESIDE_NO_FINDING:
            label = 0
        if label is not None:
            labels[key] = label
    return labels
