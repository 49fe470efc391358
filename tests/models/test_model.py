from __future__ import annotations

import json

import pytest
import torch
from typer.testing import CliRunner

from medllm.cli import app
from medllm.dicom import read_radiograph
from medllm.errors import CheckpointError
from medllm.models import save_model
from medllm.phantom import make_phantom, write_dicom


@pytest.fixture(scope="module")
def files(tmp_path_factory):
    folder = tmp_path_factory.mktemp("images")
    paths = [folder / "a.dcm", folder / "b.dcm"]
    for seed, path in enumerate(paths):
        write_dicom(make_phantom(seed, size=128), path)
    return paths


@pytest.fixture
def numberless(new_tiny_model):
    """A model whose every answer is NaN."""
    model = new_tiny_model()
    with torch.no_grad():
        model.network.lm_head.weight[:] = float("nan")
    return model


def test_an_answer_that_is_no_number_is_refused(numberless, files):
    with pytest.raises(
        CheckpointError, match="answers for pneumonia with log-odds of nan"
    ) as error:
        numberless.predict([read_radiograph(files[0])])
    assert error.value.code == "not-finite"


def test_after_an_answer_that_is_no_number_the_next_file_is_tried(numberless, files, tmp_path):
    save_model(numberless, tmp_path / "model")
    options = ["--model", str(tmp_path / "model"), "--json"]
    done = CliRunner().invoke(app, ["classify", *map(str, files), *options])
    assert done.exit_code == 1
    lines = [json.loads(line) for line in done.stdout.splitlines()]
    assert [line["path"] for line in lines] == [str(path) for path in files]
    assert {line["error"]["code"] for line in lines} == {"not-finite"}


def test_an_empty_list_of_findings_asks_for_none(tiny_model, files):
    assert tiny_model.questions([]) == ()
    (prediction,) = tiny_model.predict([read_radiograph(files[0])], findings=[])
    assert prediction.findings == ()


def test_a_finding_that_is_named_twice_is_asked_once(tiny_model, files):
    named = ["nodule", "pneumonia", "nodule"]
    (prediction,) = tiny_model.predict([read_radiograph(files[0])], named)
    assert [answer.finding for answer in prediction.findings] == ["nodule", "pneumonia"]


def test_a_prediction_names_its_image_by_its_hash(tiny_model, files):
    scans = [read_radiograph(path) for path in files]
    predictions = tiny_model.predict(scans, ["nodule"])
    assert [one.image_sha256 for one in predictions] == [scan.sha256 for scan in scans]
