from __future__ import annotations

import pytest
import torch

from medllm.datasets import ImageRecord
from medllm.dicom import read_radiograph
from medllm.errors import LabelError, MedllmError
from medllm.evaluate import Decoder, score_records
from medllm.models import Model


def _records(paths):
    return [ImageRecord("csv", path, path.stem, {"pneumonia": 1}) for path in paths]


def test_each_record_has_the_log_odds_that_the_model_predicts_alone(tiny_model, images):
    rows = list(score_records(tiny_model, _records(images[:5]), batch_size=3))
    assert [row.record.path for row in rows] == images[:5]
    for row, path in zip(rows, images, strict=False):
        (alone,) = tiny_model.predict([read_radiograph(path)])
        wanted = {answer.finding: answer.log_odds for answer in alone.findings}
        # A batch sums in another order: some float32 steps at log-odds of about 1.
        assert row.log_odds == pytest.approx(wanted, abs=1e-5)
        assert row.error is None


@pytest.fixture
def mixed(images, tmp_path):
    empty, text = tmp_path / "empty.dcm", tmp_path / "text.dcm"
    empty.write_bytes(b"")
    text.write_text("not an image " * 50)
    return [images[0], tmp_path / "gone.png", images[1], empty, text, images[2]]


@pytest.mark.parametrize("batch_size", [1, 2, 16])
def test_an_unreadable_file_is_a_row_in_its_place(tiny_model, mixed, batch_size):
    rows = list(score_records(tiny_model, _records(mixed), ["effusion"], batch_size=batch_size))
    assert [row.record.path for row in rows] == mixed
    assert [row.error for row in rows] == [
        None,
        "file-not-found",
        None,
        "empty-file",
        "not-an-image-file",
        None,
    ]
    for row in rows:
        assert set(row.log_odds) == (set() if row.error else {"effusion"})
        assert row.message.startswith(str(row.record.path)) == (row.error is not None)
        assert "\n" not in row.message


def test_records_are_taken_one_batch_at_a_time(tiny_model, images):
    taken = []

    def endless():
        while True:
            taken.append(1)
            yield _records(images[:1])[0]

    rows = score_records(tiny_model, endless(), ["nodule"], batch_size=4)
    assert taken == []
    for _ in range(5):
        next(rows)
    assert len(taken) == 8


def test_log_odds_that_are_no_number_are_an_error_row(new_tiny_model, images):
    model = new_tiny_model()
    with torch.no_grad():
        model.network.lm_head.weight[:] = float("nan")
    (row,) = score_records(model, _records(images[:1]))
    assert (row.error, row.log_odds) == ("not-finite", {})
    assert "log-odds of pneumonia are nan" in row.message


def test_a_batch_that_memory_does_not_hold_is_taken_in_halves(tiny_model, images, monkeypatch):
    wanted = [row.log_odds for row in score_records(tiny_model, _records(images[:5]))]
    encode, most, tried = Model.image_features, 2, []

    def scarce(model, pixel_values):
        tried.append(len(pixel_values))
        if len(pixel_values) > most:
            raise torch.OutOfMemoryError("CUDA out of memory")
        return encode(model, pixel_values)

    monkeypatch.setattr(Model, "image_features", scarce)
    tried.clear()
    rows = list(score_records(tiny_model, _records(images[:5]), batch_size=4))
    # The second batch begins with what fitted the first.
    assert tried == [4, 2, 2, 1]
    assert [row.record.path for row in rows] == images[:5]
    for row, one in zip(rows, wanted, strict=True):
        assert row.log_odds == pytest.approx(one, abs=1e-5)
    most = 0
    with pytest.raises(MedllmError, match="not enough memory for one image") as refused:
        list(score_records(tiny_model, _records(images[:5])))
    assert refused.value.code == "out-of-memory"


def test_a_wrong_call_is_refused_before_the_first_image(tiny_model):
    with pytest.raises(LabelError, match="does not answer for 'mass'"):
        score_records(tiny_model, [], ["mass"])
    with pytest.raises(ValueError, match="batch_size is 0"):
        score_records(tiny_model, [], batch_size=0)


def test_a_gate_can_be_accepted(tiny_model, tmp_path):
    import pydicom

    from medllm.phantom import make_phantom, write_dicom

    write_dicom(make_phantom(3, size=128), tmp_path / "a.dcm")
    dataset = pydicom.dcmread(tmp_path / "a.dcm")
    dataset.PresentationIntentType = "FOR PROCESSING"
    dataset.save_as(tmp_path / "a.dcm")
    records = _records([tmp_path / "a.dcm"])
    (refused,) = score_records(tiny_model, records)
    decoder = Decoder(tiny_model.card.preprocessing, accept=["for-processing"])
    (accepted,) = score_records(tiny_model, records, decoder=decoder)
    assert (refused.error, accepted.error) == ("for-processing", None)
