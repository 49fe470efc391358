from __future__ import annotations

import dataclasses

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

    def start(out="out", *, killed_after=None, records=records, model=tiny_model, told=None):
        asked = []

        def score(missing):
            asked.extend(missing)
            for index, row in enumerate(score_records(model, missing, FINDINGS, batch_size=1)):
                if index == killed_after:
                    raise KeyboardInterrupt
                yield row

        path = predict(model, records, FINDINGS, tmp_path, tmp_path / out, score, told or {})
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


def test_a_finished_run_is_not_scored_again(run):
    run()
    assert run()[1] == []


def test_an_unreadable_file_is_a_row_with_its_error(run):
    import pyarrow.parquet as pq

    rows = pq.read_table(run()[0]).to_pylist()
    assert len(rows) == 20
    assert [row["error"] for row in rows[-2:]] == ["file-not-found"] * 2


def test_another_run_in_the_same_folder_is_refused(run, tiny_model, records):
    run()
    other = dataclasses.replace(records[0], labels={"pneumonia": 0})
    for changed, words in (
        ({"records": [other, *records[1:]]}, "records"),
        ({"records": records[:5]}, "n_images, records"),
        ({"model": dataclasses.replace(tiny_model, sha256="1" * 64)}, "model_sha256"),
        ({"told": {"polarity": "inverted"}}, "polarity"),
    ):
        with pytest.raises(MedllmError, match=f"another evaluation, which differs in {words}"):
            run(**changed)


def test_a_folder_that_cannot_be_written_is_told(run, tmp_path):
    (tmp_path / "out").write_text("a file")
    with pytest.raises(MedllmError, match="cannot be written") as caught:
        run()
    assert caught.value.code == "not-written"
