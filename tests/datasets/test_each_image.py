from __future__ import annotations

import os

import pytest

from medllm.datasets import ImageRecord
from medllm.datasets.each_image import each_image
from medllm.errors import MedllmError


def _name_and_process(record):
    assert not record.labels
    return record.name, os.getpid()


def test_many_images_go_to_other_processes_in_their_order(tmp_path):
    records = [ImageRecord("csv", tmp_path / f"{i}.png", "p", {"edema": 1}) for i in range(600)]
    told = []

    def progress(stage, done, total):
        told.append((done, total))

    seen = list(each_image(_name_and_process, records, workers=2, progress=progress))
    assert [name for name, _ in seen] == [record.name for record in records]
    assert os.getpid() not in {process for _, process in seen}
    assert told == [(done, 600) for done in range(1, 601)]
    few = list(each_image(_name_and_process, records[:200], workers=2))
    assert {process for _, process in few} == {os.getpid()}


def _end_the_process(record):
    os._exit(9)


def test_a_process_that_is_ended_is_an_error_with_a_remedy(tmp_path):
    records = [ImageRecord("csv", tmp_path / "a.png", "p", {})] * 600
    with pytest.raises(MedllmError, match="use fewer workers"):
        list(each_image(_end_the_process, records, workers=2))
