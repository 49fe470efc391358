from __future__ import annotations

import math

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from medllm.datasets import ImageRecord
from medllm.errors import LabelError
from medllm.evaluate.given_predictions import given_rows

HEADER = "path,finding,probability\n"


@pytest.fixture
def records(tmp_path):
    return [
        ImageRecord("csv", tmp_path / "a" / "1.png", "p1", {"mass": 1}, {"sex": "F"}),
        ImageRecord("csv", tmp_path / "b" / "1.png", "p2", {"mass": 0}),
        ImageRecord("csv", tmp_path / "b" / "2.png", "p2", {"nodule": 0}),
    ]


def _rows(tmp_path, records, text):
    (tmp_path / "peer.csv").write_text(HEADER + text)
    return given_rows(tmp_path / "peer.csv", records, tmp_path)[0]


def test_probabilities_are_joined_by_path_or_by_a_name_that_is_the_only_one(tmp_path, records):
    rows = _rows(
        tmp_path, records, "a/1.png,mass,0.75\n1.png,mass,0.1\n2.png,mass,0.25\n2.png,nodule,1\n"
    )
    got = {(row["path"], row["finding"]): row for row in rows}
    first = got["a/1.png", "mass"]
    assert (first["probability"], first["call"], first["label"]) == (0.75, "positive", 1)
    assert first["log_odds"] == pytest.approx(math.log(3))
    # Two images are called 1.png, so that the name alone names neither.
    assert got["b/1.png", "mass"]["error"] == "no-prediction"
    assert got["b/2.png", "mass"]["call"] == "negative"
    certain = got["b/2.png", "nodule"]
    assert certain["probability"] == 1
    assert math.isfinite(certain["log_odds"])
    assert [row["finding"] for row in rows] == ["mass", "nodule"] * 3


def test_parquet_is_read_too_and_our_own_rows_without_a_score_are_passed_over(tmp_path, records):
    table = {
        "path": ["a/1.png", "b/1.png"],
        "finding": ["mass", "mass"],
        "probability": [0.5, None],
    }
    pq.write_table(pa.table(table), tmp_path / "peer.parquet")
    rows, _ = given_rows(tmp_path / "peer.parquet", records, tmp_path)
    assert [row.get("probability") for row in rows] == [0.5, None, None]


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("a/1.png,mass,1.2\n", "line 2: probability is '1.2'; wanted is a number from 0 to 1"),
        ("a/1.png,mass,nan\n", "probability is 'nan'"),
        ("a/1.png,mass,\n", "probability is ''"),
        ("a/1.png,Mass,.2\n", "line 2: 'Mass' is no finding's key"),
        ("a/1.png,mass,.2\na/1.png,mass,.3\n", "line 3: mass of this path stands above already"),
        ("c.png,mass,.2\n", "has no path of the data set's; its first is 'c.png', wanted is 'a/1."),
        ("", "has no rows"),
    ],
)
def test_a_file_that_is_not_as_wanted_is_refused_in_one_line(tmp_path, records, text, message):
    with pytest.raises(LabelError) as caught:
        _rows(tmp_path, records, text)
    assert message in str(caught.value)
    assert "\n" not in str(caught.value)


def test_only_the_findings_that_are_asked_for_are_taken(tmp_path, records):
    (tmp_path / "peer.csv").write_text(HEADER + "a/1.png,mass,0.75\na/1.png,nodule,0.5\n")
    rows, _ = given_rows(tmp_path / "peer.csv", records, tmp_path, ["nodule", "nodule"])
    assert [row["finding"] for row in rows] == ["nodule"] * len(records)
    with pytest.raises(LabelError, match="has no prediction of edema; it has mass, nodule"):
        given_rows(tmp_path / "peer.csv", records, tmp_path, ["edema"])


def _with_column(tmp_path, records, column, text):
    (tmp_path / "peer.csv").write_text(f"path,finding,probability,{column}\n{text}")
    return given_rows(tmp_path / "peer.csv", records, tmp_path)


def test_a_threshold_that_is_given_is_taken_in_place_of_a_half(tmp_path, records):
    rows, thresholds = _with_column(
        tmp_path,
        records,
        "threshold",
        "a/1.png,mass,0.29,0.3\nb/1.png,mass,0.3,0.30\n2.png,nodule,.6,.7\n",
    )
    calls = {(row["path"], row["finding"]): row.get("call") for row in rows}
    assert calls["a/1.png", "mass"] == "negative"
    assert calls["b/1.png", "mass"] == "positive"
    assert calls["b/2.png", "nodule"] == "negative"
    assert (thresholds["mass"].upper, thresholds["nodule"].upper) == (0.3, 0.7)
    assert thresholds["mass"].source == "given with the predictions"


def test_calls_that_are_given_are_taken(tmp_path, records):
    rows, thresholds = _with_column(
        tmp_path,
        records,
        "call",
        "a/1.png,mass,0.2,positive\nb/1.png,mass,0.1,indeterminate\n2.png,mass,.05,negative\n",
    )
    calls = [row.get("call") for row in rows]
    assert calls == ["positive", "indeterminate", "negative"]
    assert thresholds["mass"].upper is None
    assert thresholds["mass"].source == "the calls that were given with the predictions"


def test_without_a_threshold_even_odds_are_taken_and_said(tmp_path, records):
    (tmp_path / "peer.csv").write_text(HEADER + "a/1.png,mass,0.75\n")
    _, thresholds = given_rows(tmp_path / "peer.csv", records, tmp_path)
    assert thresholds["mass"].upper == 0.5
    assert "came without a threshold" in thresholds["mass"].source


@pytest.mark.parametrize(
    ("column", "text", "message"),
    [
        (
            "threshold",
            "a/1.png,mass,.2,.3\nb/1.png,mass,.2,.4\n",
            "line 3: the threshold of mass is 0.4, and 0.3 above; give all rows of a finding one",
        ),
        ("threshold", "a/1.png,mass,.2,\n", "line 2: threshold is ''; wanted is a number from"),
        ("threshold", "a/1.png,mass,.2,1.5\n", "line 2: threshold is '1.5'; wanted is a number"),
        (
            "call",
            "a/1.png,mass,.2,yes\n",
            "line 2: call is 'yes'; wanted is negative, indeterminate or positive, or a file with",
        ),
        ("call,threshold", "a/1.png,mass,.2,positive,.1\n", "has both call and threshold; leave"),
    ],
)
def test_a_threshold_or_call_that_is_not_as_wanted_is_refused(
    tmp_path, records, column, text, message
):
    with pytest.raises(LabelError) as caught:
        _with_column(tmp_path, records, column, text)
    assert message in str(caught.value)


def test_a_table_that_is_not_utf_8_is_refused(tmp_path, records):
    (tmp_path / "peer.csv").write_bytes(HEADER.encode() + b"r\xf6ntgen.png,mass,0.5\n")
    with pytest.raises(LabelError, match="is not UTF-8"):
        given_rows(tmp_path / "peer.csv", records, tmp_path)


def test_a_missing_file_and_a_missing_column_are_named(tmp_path, records):
    with pytest.raises(LabelError, match="is not there; check --predictions"):
        given_rows(tmp_path / "peer.csv", records, tmp_path)
    (tmp_path / "peer.csv").write_text("path,score\na,1\n")
    with pytest.raises(LabelError, match=r"lacks the column\(s\) finding, probability; it has pa"):
        given_rows(tmp_path / "peer.csv", records, tmp_path)
    (tmp_path / "peer.parquet").write_text("no table")
    with pytest.raises(LabelError, match="no Parquet file"):
        given_rows(tmp_path / "peer.parquet", records, tmp_path)
