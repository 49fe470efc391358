from __future__ import annotations

import dataclasses
import os
import shutil

import pyarrow.parquet as pq
import pytest

from medllm.datasets import ImageRecord
from medllm.errors import MedllmError
from medllm.evaluate import resumable, score_records
from medllm.evaluate.resumable import predict

FINDINGS = ["pneumonia", "nodule"]


@pytest.fixture
def records(images, tmp_path):
    gone = tmp_path / "gone.png"
    return [ImageRecord("csv", path, path.stem, {"pneumonia": 1}) for path in [*images[:9], gone]]


@pytest.fixture
def run(tiny_model, records, tmp_path, monkeypatch):
    monkeypatch.setattr(resumable, "PART", 3)

    def start(
        out="out",
        *,
        killed_after=None,
        records=records,
        model=tiny_model,
        told=None,
        root=tmp_path,
    ):
        asked = []

        def score(missing):
            asked.extend(missing)
            for index, row in enumerate(score_records(model, missing, FINDINGS, batch_size=1)):
                if index == killed_after:
                    raise KeyboardInterrupt
                yield row

        path = predict(model, records, FINDINGS, root, tmp_path / out, score, told or {})
        return path, asked

    return start


def test_a_killed_run_goes_on_and_ends_as_an_unbroken_one(run, tmp_path, records):
    whole, _ = run("whole")
    with pytest.raises(KeyboardInterrupt):
        run("broken", killed_after=7)
    parts = sorted(path.name for path in (tmp_path / "broken" / "parts").iterdir())
    assert parts == ["000000.parquet", "000001.parquet"]
    broken, asked = run("broken")
    assert asked == records[6:]
    assert broken.read_bytes() == whole.read_bytes()
    assert not (tmp_path / "broken" / "parts").exists()


def test_a_part_that_is_missing_in_the_middle_is_made_again(run, tmp_path, records):
    with pytest.raises(KeyboardInterrupt):
        run("broken", killed_after=9)
    (tmp_path / "broken" / "parts" / "000001.parquet").unlink()
    _, asked = run("broken")
    assert asked == [*records[3:6], *records[9:]]
    assert (tmp_path / "broken" / "predictions.parquet").read_bytes() == run("whole")[
        0
    ].read_bytes()


def test_of_a_finished_run_only_what_failed_is_scored_again(run, records):
    path, _ = run()
    before = path.read_bytes()
    again, asked = run()
    assert asked == records[9:]
    assert again.read_bytes() == before


def test_a_mended_file_is_scored_and_the_others_stay(run, records, images):
    path, _ = run()
    before = pq.read_table(path).to_pylist()
    shutil.copy(images[20], records[9].path)
    run()
    after = pq.read_table(path).to_pylist()
    assert after[:18] == before[:18]
    assert [row["error"] for row in after[18:]] == [None, None]
    assert after[18]["log_odds"] is not None


def test_a_file_that_was_replaced_is_scored_again(run, records, images, tmp_path):
    own = tmp_path / "own.png"
    shutil.copy(images[0], own)
    changed = [dataclasses.replace(records[0], path=own), *records[1:9]]
    path, _ = run(records=changed)
    first = pq.read_table(path).to_pylist()
    # Copied with its old time of writing; that it was moved here is newer.
    shutil.copy2(images[30], tmp_path / "new.png")
    os.utime(tmp_path / "new.png", ns=(0, 0))
    (tmp_path / "new.png").replace(own)
    _, asked = run(records=changed)
    assert asked == changed[:1]
    second = pq.read_table(path).to_pylist()
    assert second[0]["log_odds"] != first[0]["log_odds"]
    assert second[2:] == first[2:]


def test_what_failed_in_a_killed_run_is_scored_again(run, records, tmp_path, images):
    failing = [records[9], *records[:9]]
    with pytest.raises(KeyboardInterrupt):
        run(killed_after=5, records=failing)
    shutil.copy(images[20], records[9].path)
    path, asked = run(records=failing)
    assert asked == [failing[0], *failing[3:]]
    assert pq.read_table(path).column("error").null_count == 20


def test_an_unreadable_file_is_a_row_with_its_error(run):
    rows = pq.read_table(run()[0]).to_pylist()
    assert len(rows) == 20
    assert [row["error"] for row in rows[-2:]] == ["file-not-found"] * 2


def test_another_run_in_the_same_folder_is_refused(run, tiny_model, records, tmp_path):
    run()
    other = dataclasses.replace(records[0], labels={"pneumonia": 0})
    for changed, words in (
        ({"records": [other, *records[1:]]}, "the images or"),
        ({"records": records[:5]}, r"the number of images \(10 then, 5 now\), the images or"),
        ({"model": dataclasses.replace(tiny_model, sha256="1" * 64)}, "the model"),
        ({"told": {"polarity": "inverted"}}, "--polarity"),
        ({"root": tmp_path / "elsewhere"}, "--root"),
        (
            {"records": [dataclasses.replace(one, attributes={"a": "b"}) for one in records]},
            "the images",
        ),
        ({"records": [dataclasses.replace(one, split="test") for one in records]}, "the images"),
        (
            {"records": [dataclasses.replace(one, polarity="inverted") for one in records]},
            "the images",
        ),
        (
            {"records": [dataclasses.replace(one, other_labels={"a": {}}) for one in records]},
            "the images",
        ),
    ):
        with pytest.raises(MedllmError, match=f"another evaluation, which differs in {words}"):
            run(**changed)


@pytest.mark.parametrize("text", ["{", "[]", ""])
def test_a_folder_that_does_not_say_what_it_holds_is_refused(run, tmp_path, text):
    path, _ = run()
    (tmp_path / "out" / "run.json").write_text(text)
    with pytest.raises(MedllmError, match="run.json is damaged"):
        run()
    (tmp_path / "out" / "run.json").unlink()
    with pytest.raises(MedllmError, match="holds predictions.parquet and no run.json"):
        run()
    path.unlink()
    run()


def test_a_folder_that_cannot_be_written_is_told(run, tmp_path):
    (tmp_path / "out").write_text("a file")
    with pytest.raises(MedllmError, match="cannot be written") as caught:
        run()
    assert caught.value.code == "not-written"
