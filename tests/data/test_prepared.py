from __future__ import annotations

import os

import numpy as np
import pytest
import torch
from PIL import Image

from medllm.data import Preprocessing
from medllm.data.prepared import prepare_images, prepare_phantoms
from medllm.datasets import ImageRecord
from medllm.errors import DicomError

CONTRACT = Preprocessing(size=64)


@pytest.fixture
def records(tmp_path):
    """Nine images, each of another patient."""
    found = []
    for index in range(9):
        path = tmp_path / "a" / f"{index}.png"
        path.parent.mkdir(exist_ok=True)
        values = np.random.default_rng(index).integers(0, 256, (64, 64)).astype(np.uint8)
        Image.fromarray(values).save(path)
        found.append(ImageRecord("csv", path, f"patient {index}", {}))
    return found


def cut_off(records, at):
    whole = {index: records[index].path.read_bytes() for index in at}
    for index, data in whole.items():
        records[index].path.write_bytes(data[:300])
    return whole


def test_images_that_cannot_be_read_are_told_together(records, tmp_path):
    cut_off(records, (1, 3, 4, 5, 6, 7, 8))
    with pytest.raises(DicomError) as caught:
        prepare_images(records, CONTRACT, tmp_path / "kept")
    told = str(caught.value)
    assert told.startswith("7 of 9 images cannot be prepared: 1.png (")
    assert ", 6.png (" in told
    assert "7.png" not in told
    assert ", and 2 more. Mend them, or take their rows out" in told
    assert "patient" not in told


def test_processes_prepare_what_one_does(records, tmp_path, monkeypatch):
    alone = prepare_images(records, CONTRACT, tmp_path / "alone")
    phantoms = prepare_phantoms(range(6), CONTRACT, tmp_path / "alone").pixels
    monkeypatch.setattr("medllm.data.prepared._IMAGES_A_PROCESS", 3)
    monkeypatch.setattr("os.cpu_count", lambda: 2)
    # Where this process does nothing itself, others do.
    monkeypatch.setattr("medllm.data.preprocessing.Preprocessing.resize", _not_in(os.getpid()))
    told = []

    def track(numbers):
        for number in numbers:
            yield number
            told.append(number)

    shared = prepare_images(records, CONTRACT, tmp_path / "shared", track=track)
    assert torch.equal(shared.pixels, alone.pixels)
    assert shared.content == alone.content
    assert told == list(range(9))
    made = prepare_phantoms(range(6), CONTRACT, tmp_path / "shared").pixels
    assert torch.equal(made, phantoms)
    cut_off(records, (1, 8))
    with pytest.raises(DicomError, match=r"2 of 9 images cannot be prepared: 1\.png .*8\.png"):
        prepare_images(records, CONTRACT, tmp_path / "shared")


def _not_in(process):
    resize = Preprocessing.resize

    def elsewhere(self, pixels):
        assert os.getpid() != process
        return resize(self, pixels)

    return elsewhere


def test_what_was_prepared_beside_them_is_not_prepared_anew(records, tmp_path, monkeypatch):
    expected = prepare_images(records, CONTRACT, tmp_path / "expected")
    folder, whole = tmp_path / "kept", cut_off(records, (1, 8))
    with pytest.raises(DicomError, match="2 of 9 images"):
        prepare_images(records, CONTRACT, folder)
    decoded, radiograph = [], ImageRecord.radiograph

    def noted(self, *arguments, **options):
        decoded.append(self.name)
        return radiograph(self, *arguments, **options)

    monkeypatch.setattr(ImageRecord, "radiograph", noted)
    records[1].path.write_bytes(whole[1])
    with pytest.raises(DicomError, match="1 of 9 images cannot be prepared: 8.png"):
        prepare_images(records, CONTRACT, folder)
    assert decoded == ["1.png", "8.png"]
    # The row is taken out of the table.
    again = prepare_images(records[:8], CONTRACT, folder)
    assert decoded == ["1.png", "8.png"]
    assert torch.equal(again.pixels, expected.pixels[:8])
    assert again.shapes.tolist() == [[64, 64]] * 8
    assert len(list(folder.iterdir())) == 2  # the images, and what shape they had
