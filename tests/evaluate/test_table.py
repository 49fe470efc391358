from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from medllm.datasets import ImageRecord
from medllm.errors import LabelError
from medllm.evaluate import ScoredRecord, read_predictions
from medllm.evaluate.table import SCHEMA, rows_of, write_rows
from medllm.models.calibration import call_of, probability_of

FINDINGS = ("pneumonia", "effusion")


@pytest.fixture
def scored():
    root = Path("/data")
    return [
        ScoredRecord(
            ImageRecord(
                "csv",
                root / "a" / "1.png",
                "p1",
                {"pneumonia": 1},
                attributes={"sex": "F"},
                other_labels={"text": {"effusion": 0}},
                study_id="s1",
                split="test",
            ),
            {"pneumonia": 1.5, "effusion": -2.0},
            probes={"blurred": {"pneumonia": 0.5, "effusion": -1.0}},
            rows=10,
            columns=20,
        ),
        ScoredRecord(
            ImageRecord("csv", root / "2.png", "p2", {"pneumonia": 0, "effusion": 1}),
            error="truncated",
            message="",
        ),
        ScoredRecord(
            ImageRecord(
                "csv", root / "3.npz", "p3", {"effusion": 1}, member="x/5", attributes={"sex": "M"}
            ),
            {"pneumonia": 0.0, "effusion": 3.0},
        ),
    ]


def test_what_is_written_is_read_back_as_arrays(tmp_path, tiny_model, scored):
    write_rows(rows_of(scored, tiny_model, FINDINGS, Path("/data")), tmp_path / "p.parquet")
    read = read_predictions(tmp_path / "p.parquet")
    nan = np.nan
    assert read.findings == FINDINGS
    assert read.paths == ["a/1.png", "2.png", "3.npz/x/5"]
    assert read.patients == ["p1", "p2", "p3"]
    assert read.attributes == [{"sex": "F"}, {}, {"sex": "M"}]
    assert read.errors.tolist() == [["", ""], ["truncated"] * 2, ["", ""]]
    assert read.shapes.tolist() == [[10, 20], [0, 0], [0, 0]]
    assert np.array_equal(read.labels, [[1, nan], [0, 1], [nan, 1]], equal_nan=True)
    assert np.array_equal(read.log_odds, [[1.5, -2], [nan, nan], [0, 3]], equal_nan=True)
    (calibration, _, _) = (question.calibration for question in tiny_model.card.questions)
    assert read.probabilities[0, 0] == probability_of(1.5, calibration)
    assert read.called.tolist() == [[True, False], [False, False], [True, True]]
    assert np.array_equal(
        read.other_labels["text"], [[nan, 0], [nan, nan], [nan, nan]], equal_nan=True
    )
    assert np.array_equal(
        read.probes["blurred"], [[0.5, -1], [nan, nan], [nan, nan]], equal_nan=True
    )


def test_the_columns_are_those_of_the_contract(tmp_path, tiny_model, scored):
    import pyarrow.parquet as pq

    write_rows(rows_of(scored, tiny_model, FINDINGS, Path("/data")), tmp_path / "p.parquet")
    table = pq.read_table(tmp_path / "p.parquet").to_pylist()
    assert len(table) == len(scored) * len(FINDINGS)
    wanted = ["path", "patient_id", "finding", "label", "log_odds", "probability", "call", "error"]
    assert set(wanted) <= set(table[0])
    first = table[1]
    calibration = tiny_model.questions(["effusion"])[0].calibration
    assert (first["finding"], first["label"], first["log_odds"]) == ("effusion", None, -2.0)
    assert first["call"] == call_of(first["probability"], calibration)
    assert (table[2]["error"], table[2]["log_odds"], table[2]["call"]) == ("truncated", None, None)


def test_one_finding_and_one_image_are_read_too(tmp_path, tiny_model, scored):
    for findings in (("pneumonia",), FINDINGS):
        write_rows(rows_of(scored[:1], tiny_model, findings, Path("/")), tmp_path / "p.parquet")
        assert read_predictions(tmp_path / "p.parquet").labels.shape == (1, len(findings))
    write_rows(rows_of(scored, tiny_model, ("effusion",), Path("/")), tmp_path / "p.parquet")
    assert read_predictions(tmp_path / "p.parquet").labels.shape == (3, 1)


def test_rows_that_were_sorted_or_left_out_are_refused(tmp_path, tiny_model, scored):
    rows = rows_of(scored, tiny_model, FINDINGS, Path("/data"))
    file = tmp_path / "p.parquet"
    for changed in (sorted(rows, key=lambda row: row["finding"]), rows[:-1], rows[:1] + rows[2:]):
        write_rows(changed, file)
        with pytest.raises(LabelError, match="same findings of each image in consecutive rows"):
            read_predictions(file)


def test_a_path_outside_of_the_folder_tells_its_name_alone():
    def place(path):
        return ImageRecord("csv", Path(path), "p1", {}).place(Path("/data"))

    assert place("/elsewhere/secret/a.png") == "a.png"
    assert place("/data/x/a.png") == "x/a.png"


@pytest.mark.parametrize(
    ("table", "message"),
    [
        (
            {"path": ["1.png"], "finding": ["mass"]},
            r"lacks the column\(s\) patient_id, stu",
        ),
        ({name: [] for name in SCHEMA.names}, "has no rows; delete that folder"),
    ],
)
def test_a_table_of_other_columns_or_of_no_rows_is_refused(tmp_path, table, message):
    import pyarrow as pa
    import pyarrow.parquet as pq

    schema = SCHEMA if len(table) == len(SCHEMA) else None
    pq.write_table(pa.table(table, schema=schema), tmp_path / "p.parquet")
    with pytest.raises(LabelError, match=message):
        read_predictions(tmp_path / "p.parquet")
