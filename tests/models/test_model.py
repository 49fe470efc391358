from __future__ import annotations

import json

import numpy as np
import pytest
import torch
from torch import nn
from typer.testing import CliRunner

import medllm
from medllm.cli import app
from medllm.data import Preprocessing
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


class Normalized(nn.Module):
    """As most convolutional networks: other answers while it is trained."""

    def __init__(self) -> None:
        super().__init__()
        self.seen, self.norm = nn.Conv2d(1, 4, 3, stride=2), nn.BatchNorm2d(4)
        self.drop, self.head = nn.Dropout(0.5), nn.Linear(4, 2)

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        return self.head(self.drop(self.norm(self.seen(images)).relu().mean((2, 3))))


@pytest.fixture
def trained():
    """A model whose network is in the midst of its training, with one part that stays frozen."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        network = Normalized()
    outputs = {"pneumonia": 0, "effusion": 1}
    model = medllm.wrap(network, outputs, Preprocessing(size=64, channels=1), output="logits")

    def train() -> None:
        network.train()
        network.seen.eval()

    return model, network, train


def modes(network: nn.Module) -> list[bool]:
    return [part.training for part in network.modules()]


def test_a_network_put_back_into_training_answers_as_it_is_evaluated(trained, files):
    model, network, train = trained
    scans = [read_radiograph(path) for path in files]
    wanted = model.predict(scans)
    train()
    before, kept = modes(model.network), {k: v.clone() for k, v in network.state_dict().items()}
    assert any(before)
    assert not all(modes(network))
    for got in (model.predict(scans), [*model.predict(scans[:1]), *model.predict(scans[1:])]):
        for one, other in zip(got, wanted, strict=True):
            assert [answer.log_odds for answer in one.findings] == pytest.approx(
                [answer.log_odds for answer in other.findings], abs=1e-6
            )
    assert modes(model.network) == before
    assert all(torch.equal(value, kept[name]) for name, value in network.state_dict().items())


@pytest.mark.parametrize("method", ["integrated-gradients", "occlusion"])
def test_it_is_explained_as_it_is_evaluated(trained, files, method):
    model, network, train = trained
    scan = read_radiograph(files[0])
    wanted = medllm.explain(model, scan, "pneumonia", method=method)
    train()
    before, kept = modes(model.network), {k: v.clone() for k, v in network.state_dict().items()}
    got = medllm.explain(model, scan, "pneumonia", method=method)
    assert (got.log_odds, got.baseline_log_odds) == (wanted.log_odds, wanted.baseline_log_odds)
    np.testing.assert_array_equal(got.map.values, wanted.map.values)
    assert modes(model.network) == before
    assert all(torch.equal(value, kept[name]) for name, value in network.state_dict().items())


def test_it_is_left_in_training_where_an_answer_fails(trained):
    model, network, train = trained
    train()
    before = modes(network)
    with pytest.raises(RuntimeError):
        model.log_odds(torch.zeros(1, 3, 64, 64))
    assert modes(network) == before
