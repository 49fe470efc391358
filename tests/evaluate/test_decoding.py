from __future__ import annotations

import numpy as np
import pytest
from PIL import Image

from medllm.data import Preprocessing
from medllm.datasets import ImageRecord
from medllm.dicom import read_radiograph
from medllm.errors import MedllmError
from medllm.evaluate import Decoder, decode

CONTRACT = Preprocessing(size=16)


def _records(paths):
    return [ImageRecord("csv", path, path.stem, {}) for path in paths]


def test_processes_give_what_one_process_gives_in_the_same_order(images, tmp_path):
    records = _records([*images[:9], tmp_path / "gone.png", *images[9:20]])
    alone = list(decode(records, Decoder(CONTRACT)))
    shared = list(decode(records, Decoder(CONTRACT), workers=2))
    assert [one.record.path for one in shared] == [record.path for record in records]
    for one, other in zip(alone, shared, strict=True):
        assert (one.error, one.rows, one.columns) == (other.error, other.rows, other.columns)
        if one.error is None:
            assert (one.display == other.display).all()
    assert [one.error for one in shared if one.error] == ["file-not-found"]


def test_records_are_taken_a_few_ahead(images):
    taken = []

    def endless():
        while True:
            taken.append(1)
            yield _records(images[:1])[0]

    decoded = decode(endless(), Decoder(CONTRACT), workers=2)
    next(decoded)
    assert len(taken) <= 2 * 4
    decoded.close()


def test_the_size_is_that_of_the_file(images):
    (one,) = decode(_records(images[:1]), Decoder(CONTRACT))
    scan = read_radiograph(images[0])
    assert (one.rows, one.columns) == (scan.rows, scan.columns)
    assert (one.display == CONTRACT.resize(scan.pixels)[0].numpy()).all()


def test_a_kept_image_is_the_same_and_is_not_read_again(images, tmp_path, monkeypatch):
    decoder = Decoder(CONTRACT, cache=tmp_path / "cache")
    (first,) = decode(_records(images[:1]), decoder)
    monkeypatch.setattr(ImageRecord, "radiograph", lambda *_, **__: pytest.fail("read again"))
    (again,) = decode(_records(images[:1]), decoder)
    assert (again.display == first.display).all()
    assert (again.rows, again.columns) == (first.rows, first.columns)


@pytest.mark.parametrize(
    "other",
    [
        Decoder(Preprocessing(size=8), cache=None),
        Decoder(CONTRACT, polarity="inverted"),
        Decoder(CONTRACT, accept=("for-processing",)),
    ],
)
def test_a_kept_image_serves_its_own_contract_alone(images, tmp_path, other):
    kept = tmp_path / "cache"
    list(decode(_records(images[:1]), Decoder(CONTRACT, cache=kept)))
    changed = Decoder(other.preprocessing, other.accept, other.polarity, kept)
    (got,) = decode(_records(images[:1]), changed)
    (wanted,) = decode(_records(images[:1]), other)
    assert (got.display == wanted.display).all()
    assert len(list(kept.rglob("*.npz"))) == 2


def test_a_changed_file_is_read_again(images, tmp_path):
    path = tmp_path / "a.png"
    path.write_bytes(images[0].read_bytes())
    decoder = Decoder(CONTRACT, cache=tmp_path / "cache")
    (first,) = decode(_records([path]), decoder)
    picture = Image.open(path)
    Image.fromarray(255 - np.asarray(picture)).save(path)
    (second,) = decode(_records([path]), decoder)
    assert np.abs(first.display - second.display).max() > 0.1


def test_what_a_power_cut_left_of_a_kept_image_is_written_again(images, tmp_path):
    decoder, (record,) = Decoder(CONTRACT, cache=tmp_path), _records(images[:1])
    wanted = decoder(record).display
    (kept,) = tmp_path.rglob("*.npz")
    whole = kept.read_bytes()
    for left in (b"", whole[: len(whole) // 2]):
        kept.write_bytes(left)
        assert np.array_equal(decoder(record).display, wanted)
        assert kept.read_bytes() == whole


def test_errors_are_not_kept(tmp_path):
    decoder = Decoder(CONTRACT, cache=tmp_path / "cache")
    (tmp_path / "bad.png").write_bytes(b"\x89PNG\r\n\x1a\n cut off")
    for _ in range(2):
        (one,) = decode(_records([tmp_path / "bad.png"]), decoder)
        assert one.error == "truncated"
    assert not list((tmp_path / "cache").rglob("*.npz"))


def test_a_cache_that_cannot_be_written_ends_the_run(images, tmp_path):
    (tmp_path / "cache").write_text("a file, not a folder")
    with pytest.raises(MedllmError, match="a prepared image cannot be kept") as caught:
        list(decode(_records(images[:1]), Decoder(CONTRACT, cache=tmp_path / "cache")))
    assert caught.value.code == "cache-failed"
