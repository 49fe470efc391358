from __future__ import annotations

import pytest

from medllm.datasets import LabelPolicy
from medllm.datasets.chexpert_labels import (
    CHEXPERT_COLUMNS,
    CHEXPERT_FINDINGS,
    CHEXPERT_POLICY,
    mentioned_labels,
)
from medllm.errors import LabelError
from medllm.findings import FINDINGS

SILENT = dict.fromkeys(CHEXPERT_COLUMNS, "")


def test_the_columns_and_their_keys_are_those_of_the_labeller():
    assert CHEXPERT_FINDINGS == {
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
    assert set(CHEXPERT_FINDINGS.values()) <= set(FINDINGS)


@pytest.mark.parametrize(
    ("policy", "pneumonia", "edema"),
    [  # Pneumonia is uncertain, edema not mentioned.
        (CHEXPERT_POLICY, None, 0),
        (LabelPolicy(uncertain="unknown", blank="unknown"), None, None),
        (LabelPolicy(uncertain="negative", blank="unknown"), 0, None),
        (LabelPolicy(uncertain="positive", blank="unknown"), 1, None),
        (LabelPolicy(uncertain="soft", blank="negative"), 0.5, 0),
    ],
)
def test_doubt_and_silence_are_what_the_policy_says(policy, pneumonia, edema):
    row = SILENT | {"Pneumonia": "-1.0", "Fracture": "1.0", "Pneumothorax": "0"}
    labels = mentioned_labels("", row, policy)
    assert (labels.get("pneumonia"), labels.get("edema")) == (pneumonia, edema)
    assert (labels["fracture"], labels["pneumothorax"]) == (1, 0)


def test_no_finding_is_a_negative_for_all_but_devices_and_what_is_mentioned():
    keep = LabelPolicy(uncertain="unknown", blank="unknown")
    labels = mentioned_labels("", SILENT | {"No Finding": "1.0", "Cardiomegaly": "0.0"}, keep)
    assert labels == {key: 0 for key in CHEXPERT_FINDINGS.values() if key != "support_devices"}
    labels = mentioned_labels("", SILENT | {"No Finding": "1", "Fracture": "1"}, keep)
    assert labels["fracture"] == 1
    doubt = mentioned_labels("", SILENT | {"No Finding": "1", "Edema": "-1"}, keep)
    assert "edema" not in doubt
    assert mentioned_labels("", SILENT | {"No Finding": "0", "Edema": "1"}, keep) == {"edema": 1}


def test_a_row_that_is_blank_throughout_is_unknown_by_any_policy():
    assert mentioned_labels("", SILENT, LabelPolicy(uncertain="soft", blank="negative")) == {}
    assert len(mentioned_labels("", SILENT | {"No Finding": "1.0"}, CHEXPERT_POLICY)) == 13


@pytest.mark.parametrize("column", ["No Finding", "Pleural Other"])
def test_another_value_is_told_with_its_place(column):
    row = SILENT | {column: "2.0"}
    with pytest.raises(LabelError, match=f"train.csv, line 9: {column} is '2.0'; wanted is 1"):
        mentioned_labels("train.csv, line 9", row, CHEXPERT_POLICY)
