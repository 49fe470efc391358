"""What is fitted for a network in memory is kept in a folder, and opened on that network alone."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from torch import nn
from transformers import AutoModel, AutoModelForImageTextToText, AutoProcessor

import medllm
from medllm.data import Preprocessing
from medllm.errors import CheckpointError
from medllm.models import Calibration, Model, load_model, save_model
from tests.models.architectures.checkpoints import write_checkpoint
from tests.models.architectures.images import blocks, scan_of

FITTED = Calibration(2.0, -0.5, 0.3, 0.6, "site A: 40 images", 0.3)
GREY = Preprocessing(size=56, channels=1)


class Linear(nn.Module):
    """Outputs of the mean over pixels, each weighed; times what no weight says."""

    def __init__(self, scale: float = 1.0, seed: int = 0) -> None:
        super().__init__()
        generator = torch.Generator().manual_seed(seed)
        self.weights = nn.Parameter(torch.randn(3, 56, 56, generator=generator) / 56)
        self.scale = scale

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        return self.scale * torch.einsum("bcyx,oyx->bo", images, self.weights)


def wrapped(
    network: nn.Module | None = None, contract: Preprocessing = GREY, **outputs: int
) -> Model:
    outputs = outputs or {"pneumonia": 1, "effusion": 0}
    return medllm.wrap(network or Linear(), outputs, contract, output="logits", name="linear")


@pytest.fixture(scope="module")
def clip(tmp_path_factory: pytest.TempPathFactory) -> Callable[..., Model]:
    folder = write_checkpoint("clip", tmp_path_factory.mktemp("models") / "clip")

    def wrap_anew(change: Callable[[nn.Module], object] = lambda network: None) -> Model:
        network = AutoModel.from_pretrained(folder)
        change(network)
        return medllm.wrap_pretrained(network, AutoProcessor.from_pretrained(folder, backend="pil"))

    return wrap_anew


def calibrated(model: Model) -> Model:
    """As `recalibrate` gives it."""
    question = dataclasses.replace(model.questions(["pneumonia"])[0], calibration=FITTED)
    card = dataclasses.replace(model.card, questions=(question,), version="site A")
    return dataclasses.replace(model, card=card, sha256="")


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("kept") / "site"
    save_model(calibrated(wrapped()), folder)
    return folder


@pytest.mark.parametrize("kind", ["wrap", "wrap_pretrained"])
def test_it_answers_as_it_was_calibrated_on_the_network_wrapped_anew(kind, clip, tmp_path):
    make = wrapped if kind == "wrap" else clip
    plain, saved = make(), save_model(calibrated(make()), tmp_path / "site")
    assert sorted(file.name for file in (tmp_path / "site").iterdir()) == [
        "README.md",
        "medllm.json",
    ]
    again = load_model(tmp_path / "site", base=make())
    assert again.card == saved.card
    assert again.sha256 == saved.sha256 != plain.sha256
    assert again.card.base_sha256 == plain.card.base_sha256
    scan = scan_of(blocks(56, 3))
    (before,), (after,) = plain.predict([scan], ["pneumonia"]), again.predict([scan])
    (answer,) = after.findings
    assert answer.log_odds == before.findings[0].log_odds
    assert answer.probability == pytest.approx(
        float(torch.sigmoid(torch.tensor(answer.log_odds / 2 - 0.5, dtype=torch.float64)))
    )
    assert answer.call in ("negative", "indeterminate", "positive")
    # A folder that was calibrated is opened on a model that was, too.
    assert load_model(tmp_path / "site", base=again).card == saved.card


def test_it_is_explained_and_reported_as_calibrated(site, tmp_path):
    model, scan = load_model(site, base=wrapped()), scan_of(blocks(56, 3))
    (prediction,) = model.predict([scan])
    why = medllm.explain(model, scan, "pneumonia", method="occlusion")
    report = medllm.build_report(scan, prediction, [why])
    report.write(tmp_path, formats=("html", "json"))
    (told,) = (json.loads(file.read_text()) for file in tmp_path.rglob("*.json"))
    assert "site A: 40 images" in json.dumps(told)
    assert model.sha256 in json.dumps(told)


@pytest.mark.parametrize(
    "other",
    [
        lambda: wrapped(Linear(seed=1)),
        lambda: wrapped(pneumonia=2, effusion=0),
        lambda: wrapped(contract=dataclasses.replace(GREY, aspect="pad")),
        lambda: wrapped(Linear().double().float().to(torch.bfloat16)),
    ],
)
def test_another_network_is_refused(site, other):
    with pytest.raises(CheckpointError, match="serves no other model. Wrap the same") as refused:
        load_model(site, base=other())
    assert refused.value.code == "another-base"


def test_other_code_of_the_same_weights_is_refused(site):
    other = wrapped(Linear(scale=2.0))
    assert other.sha256 == wrapped().sha256
    with pytest.raises(CheckpointError, match="self-test of 'linear' .*its code computes otherwi"):
        load_model(site, base=other)


def test_another_pretrained_network_is_refused(clip, tmp_path):
    save_model(calibrated(clip()), tmp_path / "site")

    def sharpen(network: nn.Module) -> None:
        network.logit_scale.data.mul_(1.001)

    with pytest.raises(CheckpointError, match="serves no other model"):
        load_model(tmp_path / "site", base=clip(sharpen))


def test_what_was_told_of_one_patient_is_no_part_of_it(tmp_path):
    folder = write_checkpoint("llava", tmp_path / "llava")
    network = AutoModelForImageTextToText.from_pretrained(folder)
    model = medllm.wrap_pretrained(network, AutoProcessor.from_pretrained(folder, backend="pil"))
    question = dataclasses.replace(model.questions(["pneumonia"])[0], context="Fever. ")
    save_model(model.asking([question]), tmp_path / "site")
    assert load_model(tmp_path / "site", base=model).card.questions == model.card.questions


def test_names_and_the_order_of_outputs_tell_no_networks_apart(site):
    other = medllm.wrap(Linear(), {"effusion": 0, "pneumonia": 1}, GREY, output="logits")
    assert load_model(site, base=other).card.name == "linear"


def test_without_its_network_it_says_what_to_do(site):
    with pytest.raises(CheckpointError) as refused:
        load_model(site)
    assert refused.value.code == "in-memory"
    assert f"the network of {site} ('linear') lives in memory" in str(refused.value)
    assert f"medllm.load_model('{site}', base=medllm.wrap(...))" in str(refused.value)


def test_a_folder_of_its_own_weights_takes_no_base(tmp_path, clip, tiny_model):
    published = write_checkpoint("clip", tmp_path / "clip")
    save_model(tiny_model, tmp_path / "own")
    save_model(load_model(published), tmp_path / "asked")
    for folder in (None, published, tmp_path / "own", tmp_path / "asked"):
        with pytest.raises(CheckpointError, match="lies in files.*leave base out") as refused:
            load_model(folder, base=clip())
        assert refused.value.code == "not-in-memory"


def test_a_base_is_a_wrapped_network_where_it_is(site, tiny_model):
    with pytest.raises(TypeError, match="base is 'tiny'; wanted is what medllm.wrap"):
        load_model(site, base=tiny_model)
    with pytest.raises(TypeError, match="leave device out"):
        load_model(site, base=wrapped(), device="cpu")


def test_the_page_says_where_the_network_is(site):
    assert "Its network lives in memory" in (site / "README.md").read_text()
