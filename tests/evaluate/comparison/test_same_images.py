"""Results are paired by path; equal paths of different images are refused."""

from __future__ import annotations

import json
import re

import numpy as np
import pytest

from medllm.errors import LabelError
from medllm.evaluate import answers, compare
from medllm.evaluate.table import write_rows

LABELS = np.arange(40) % 2


@pytest.fixture(autouse=True)
def _few_resamples(monkeypatch):
    monkeypatch.setattr(answers, "N_RESAMPLES", 50)


@pytest.fixture
def write(tmp_path):
    """A result as `medllm evaluate` leaves it; images that fail a pairing can be made by each."""

    def write(name, *, labels=LABELS, patient="p{}", size=(100, 80), dataset="csv"):
        folder = tmp_path / name
        folder.mkdir()
        rng = np.random.default_rng(len(name))
        sizes = [size(at) if callable(size) else size for at in range(len(labels))]
        rows = [
            {
                "path": f"img/{at}.png",
                "patient_id": patient(at) if callable(patient) else patient.format(at),
                "finding": "mass",
                "label": float(label),
                "log_odds": float(score),
                "probability": float(1 / (1 + np.exp(-score))),
                "call": "positive" if score > 0 else "negative",
                "rows": sizes[at][0],
                "columns": sizes[at][1],
                "attributes": {},
                "other_labels": {},
                "probes": {},
            }
            for at, (label, score) in enumerate(
                zip(labels, rng.normal(2 * labels - 1, 2.0), strict=True)
            )
        ]
        write_rows(rows, folder / "predictions.parquet")
        if dataset is not None:
            (folder / "metrics.json").write_text(json.dumps({"dataset": dataset}))
        return folder

    return write


def test_images_of_other_patients_under_the_same_names_are_refused(write):
    first = write("basel")
    with pytest.raises(LabelError) as refused:
        compare([first, write("zurich", patient="ZH{}")])
    said = str(refused.value)
    assert "zurich has 40 paths in common with basel, 40 of them with another patient_id" in said
    assert "only the folder that it lies in may be another" in said
    # A path may hold a patient's name, too.
    assert not re.search(r"ZH\d|p\d|img/|\.png", said)


def test_one_patient_of_another_version_of_the_table_is_enough(write):
    def patient(at):
        return "merged" if at == 7 else f"p{at}"

    with pytest.raises(LabelError, match=r"40 paths .* 1 of them with another patient_id"):
        compare([write("old"), write("new", patient=patient)])


def test_images_of_other_sizes_are_refused(write):
    def other(at):
        return (100, 81) if at < 3 else (100, 80)

    def unread(at):
        return (0, 0) if at < 3 else (100, 80)

    first = write("a")
    with pytest.raises(LabelError, match="3 of them with other rows or columns"):
        compare([first, write("b", size=other)])
    assert compare([first, write("c", size=unread)]).others["c"][0].n == 40


def test_data_sets_of_two_names_are_refused(write):
    with pytest.raises(LabelError, match="b is of the data set 'nih' and a of 'csv'"):
        compare([write("a"), write("b", dataset="nih")])


def test_a_copy_of_a_data_set_a_peer_and_bare_predictions_are_compared(write):
    # Where a data set lies is not written into what is compared; a peer's images are not read.
    first = write("here")
    others = [
        write("copy"),
        write("peer", size=(0, 0)),
        write("bare", size=(0, 0), dataset=None),
        # Without a column patient_id the path stands for the patient.
        write("no-patients", patient="img/{}.png"),
    ]
    result = compare([first, *others])
    assert {name: rows[0].n for name, rows in result.others.items()} == dict.fromkeys(
        ("copy", "peer", "bare", "no-patients"), 40
    )


def test_others_are_held_against_each_other_where_the_first_tells_nothing(write):
    first = write("peer", patient="img/{}.png", size=(0, 0))
    with pytest.raises(LabelError, match="c has 40 paths in common with b, 40 of them with an"):
        compare([first, write("b"), write("c", patient="x{}")])


def test_labels_that_differ_may_be_of_other_images_or_of_another_policy(write):
    labels = LABELS.copy()
    labels[:4] = 1 - labels[:4]
    with pytest.raises(LabelError) as refused:
        compare([write("a"), write("b", labels=labels)])
    said = str(refused.value)
    assert "b: the labels of mass differ from the first's on 4 of 40 images" in said
    assert "Either they are of another data set" in said
    assert "same --uncertain, --readers and --blank" in said
