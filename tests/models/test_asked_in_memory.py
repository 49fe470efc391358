"""A network in memory asked otherwise: as its folder would be, and kept so by what is fitted."""

from __future__ import annotations

import csv
import dataclasses
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import yaml
from PIL import Image
from transformers import AutoImageProcessor

import medllm
from medllm.datasets import read_dataset
from medllm.errors import CheckpointError, LabelError
from medllm.evaluate import recalibrate, score_records, write_recalibrated
from medllm.models import Calibration, Model, load_model, save_model
from medllm.models.configured import configure
from medllm.phantom import Lesion, make_phantom
from tests.models.architectures.checkpoints import AUTO_MODELS, CLASSIFIERS
from tests.models.architectures.plain import plain_processor

FITTED = Calibration(2.0, -0.5, 0.3, 0.6, "site A: 40 images", 0.3)
WORDS = {
    "wording": "Be brief. {question}",
    "questions": {"mass": ["Any lung mass?", "Is a mass seen?"]},
    "yes_words": ["yes", "found"],
    "context": "History: {context} ",
}
REASONED = {"reasoning": "{question} Describe the lungs first.", "conclusion": "\n\nSo, yes or no:"}
SAID = {"for": ["a radiograph of {finding}", "{finding}"], "against": ["clear lungs"]}


@dataclasses.dataclass(frozen=True)
class InMemory:
    """What a user has in memory of a tiny checkpoint."""

    network: Any
    processor: Any

    def wrapped(self, **options: Any) -> Model:
        return medllm.wrap_pretrained(self.network, self.processor, **options)


@pytest.fixture
def opened(published: Callable[[str], Path]) -> Callable[[str], InMemory]:
    def opened(kind: str) -> InMemory:
        folder = published(kind)
        network = AUTO_MODELS[kind].from_pretrained(folder)
        if kind in CLASSIFIERS:
            return InMemory(network, AutoImageProcessor.from_pretrained(folder, backend="pil"))
        return InMemory(network, plain_processor(folder))

    return opened


@pytest.fixture(scope="module")
def scan() -> medllm.Radiograph:
    phantom = make_phantom(3, size=128, lesions=[Lesion("lung_opacity", "right", "lower")])
    return medllm.Radiograph(phantom.pixels, Path("phantom.png"), "png", "0" * 64)


def answers(model: Model, scan: medllm.Radiograph) -> dict[str, float]:
    return {one.finding: one.log_odds for one in model.predict([scan])[0].findings}


@pytest.mark.parametrize(
    ("kind", "options"),
    [
        ("llava", {"paraphrases": True}),
        ("llava", {"prompts": {**WORDS, **REASONED}, "reasoning": 6, "paraphrases": True}),
        ("qwen3-vl", {"reasoning": 6}),
        ("gemma3", {"prompts": WORDS}),
        ("paligemma", {"paraphrases": True}),
        ("idefics3", {"tiles": 2, "prompts": WORDS}),
        ("smolvlm", {"tiles": 2, "paraphrases": True, "reasoning": 4}),
        ("smolvlm-so400m", {"tiles": 3}),
        ("internvl", {"tiles": 2}),
        ("clip", {"prompts": SAID}),
        ("vit-bert", {"prompts": SAID}),
        ("resnet-classifier", {"prompts": {"labels": {"mass": ["Pneumonia"]}}}),
        ("resnet-classifier", {"prompts": {"independent": False}, "findings": None}),
    ],
)
def test_it_answers_as_the_same_network_saved_and_configured_so(
    opened, published, scan, tmp_path, kind, options
):
    one, options = opened(kind), {"findings": ["mass"], **options}
    if kind in CLASSIFIERS:
        one.network.config.id2label = {0: "Effusion", 1: "Cardiomegaly", 2: "Pneumonia"}
    model = one.wrapped(**options)
    shutil.copytree(published(kind), tmp_path / "plain")
    one.network.save_pretrained(tmp_path / "plain")
    file = tmp_path / "words.yaml"
    file.write_text(yaml.safe_dump(options.get("prompts")))
    configured = configure(
        tmp_path / "plain",
        tmp_path / "own",
        findings=options["findings"],
        prompts=file if "prompts" in options else None,
        paraphrased=options.get("paraphrases", False),
        reasoning_tokens=options.get("reasoning", 0),
        tiles=options.get("tiles", 1),
    )
    wanted = answers(load_model(tmp_path / "own"), scan)
    assert answers(model, scan) == pytest.approx(wanted, abs=1e-5)
    plain = answers(one.wrapped(), scan)
    assert {key: plain.get(key) for key in wanted} != pytest.approx(wanted, abs=1e-5)
    # The card says the same, but for where the network is.
    version = configured.card.version.replace("as published", "in memory")
    assert model.card.version == version
    named = ("name", "version", "description", "base", "base_sha256")
    same = {name: getattr(configured.card, name) for name in named}
    assert dataclasses.replace(model.card, **same) == configured.card
    # A file of own words says what the same words in Python say.
    if "prompts" in options:
        told = one.wrapped(**{**options, "prompts": str(file)})
        assert (told.card, told.sha256) == (model.card, model.sha256)


def test_each_way_of_asking_is_a_model_of_its_own(opened):
    """So that what was computed or written of the one is not taken for that of the other."""
    one = opened("smolvlm")
    ways: list[dict[str, Any]] = [
        {},
        {"paraphrases": True},
        {"prompts": {"questions": {"mass": ["Any lung mass?"]}}},
        {"prompts": {"wording": "Be brief. {question}"}},
        {"prompts": {"context": "History: {context} "}},
        {"reasoning": 4},
        {"reasoning": 5},
        {"tiles": 2},
    ]
    models = [one.wrapped(findings=["mass"], **way) for way in ways]
    assert len({model.sha256 for model in models}) == len(ways)
    # But for tiles, which are how an image becomes its input, they are of one network.
    assert len({model.card.base_sha256 for model in models}) == 2


def calibrated(model: Model) -> Model:
    """As `recalibrate` gives it."""
    (question,) = model.questions(["mass"])
    fitted = dataclasses.replace(question, calibration=FITTED)
    card = dataclasses.replace(model.card, questions=(fitted,), version="site A")
    return dataclasses.replace(model, card=card, sha256="")


@pytest.mark.parametrize(
    ("kind", "options", "again"),
    [
        ("llava", {"prompts": WORDS, "paraphrases": True}, {}),
        ("llava", {"paraphrases": True, "reasoning": 6}, {"prompts": WORDS}),
        ("clip", {"prompts": SAID}, {}),
        ("smolvlm", {"tiles": 2, "paraphrases": True}, {"tiles": 2}),
        ("llava", {}, {"paraphrases": True}),
    ],
)
def test_what_is_fitted_keeps_how_it_was_asked_however_the_base_is_wrapped(
    opened, scan, tmp_path, kind, options, again
):
    one = opened(kind)
    model = one.wrapped(findings=["mass"], **options)
    saved = save_model(calibrated(model), tmp_path / "site")
    found = load_model(tmp_path / "site", base=opened(kind).wrapped(**again))
    assert found.card == saved.card
    assert found.card.questions[0].paraphrases == model.card.questions[0].paraphrases
    assert answers(found, scan) == answers(model, scan)
    (answer,) = found.predict([scan])[0].findings
    wanted = torch.sigmoid(torch.tensor(answer.log_odds / 2 - 0.5, dtype=torch.float64))
    assert answer.probability == pytest.approx(float(wanted), abs=1e-9)


@pytest.mark.parametrize("tiles", [1, 3])
def test_a_base_of_other_tiles_is_refused(opened, tmp_path, tiles):
    one = opened("internvl")
    save_model(calibrated(one.wrapped(findings=["mass"], tiles=2)), tmp_path / "site")
    with pytest.raises(CheckpointError, match="preprocessing, processor, tiles and") as refused:
        load_model(tmp_path / "site", base=one.wrapped(tiles=tiles))
    assert refused.value.code == "another-base"


def test_a_classifier_whose_labels_meant_something_else_is_refused(opened, tmp_path):
    one = opened("resnet-classifier")
    one.network.config.id2label = {0: "a", 1: "b", 2: "c"}
    save_model(calibrated(one.wrapped(prompts={"labels": {"mass": ["a"]}})), tmp_path / "site")
    assert load_model(tmp_path / "site", base=one.wrapped(labels={"mass": ["a"]})).card.questions
    for other in ({"labels": {"mass": ["b"]}}, {"labels": {"mass": ["a"]}, "independent": False}):
        with pytest.raises(CheckpointError, match="serves no other model"):
            load_model(tmp_path / "site", base=one.wrapped(prompts=other))


def test_no_text_is_written_to_keep_or_open_a_model_that_reasons(opened, tmp_path, monkeypatch):
    """It would be one a finding; and a token that a GPU writes otherwise would refuse the rest."""
    model = opened("llava").wrapped(reasoning=6)
    written: list[int] = []
    monkeypatch.setattr(type(model.network), "generate", lambda *_, **__: written.append(1))
    save_model(model, tmp_path / "site")
    again = load_model(tmp_path / "site", base=model)
    assert not written
    assert set(again.card.self_test.log_odds) == set(model.card.findings)


def write_images(folder: Path, model: Model) -> None:
    """Images with labels that follow the model's answers, every fifth turned round."""
    rng = np.random.default_rng(0)
    for at in range(50):
        coarse = Image.fromarray(rng.integers(256, size=(4, 4), dtype=np.uint8))
        coarse.resize((72, 72), Image.Resampling.BICUBIC).save(folder / f"{at}.png")
    scans = [medllm.read_radiograph(folder / f"{at}.png") for at in range(50)]
    log_odds = [one["mass"].log_odds for one in model.predict(scans, ["mass"])]
    with (folder / "labels.csv").open("w", newline="") as stream:
        table = csv.writer(stream)
        table.writerow(["path", "patient_id", "mass"])
        for at, value in enumerate(log_odds):
            label = (value > np.median(log_odds)) != (at % 5 == 0)
            table.writerow([f"{at}.png", f"p{at}", int(label)])


def test_a_calibration_is_of_the_way_it_was_asked(opened, scan, tmp_path):
    one = opened("llava")
    model = one.wrapped(findings=["mass"], prompts=WORDS, paraphrases=True)
    write_images(tmp_path, model)
    scored = list(score_records(model, read_dataset("csv", tmp_path), ["mass"]))
    fitted = recalibrate(model, scored, "site", n_resamples=20)
    written = write_recalibrated(fitted, tmp_path / "site")
    found = load_model(tmp_path / "site", base=one.wrapped())
    assert found.card == written.card
    assert found.card.is_calibrated
    assert answers(found, scan) == answers(model, scan)
    # A calibration of the same network asked otherwise does not take its place.
    other = dataclasses.replace(fitted, source=one.wrapped(findings=["mass"]))
    with pytest.raises(CheckpointError, match="and not of this model"):
        write_recalibrated(other, tmp_path / "site")


@pytest.mark.parametrize(
    ("kind", "options", "message"),
    [
        ("paligemma", {"reasoning": 8}, "does not reason in text; leave reasoning out"),
        ("paligemma", {"prompts": {"context": "{context} "}}, "has 'context', which"),
        ("clip", {"reasoning": 8}, "asked nothing in sentences"),
        ("clip", {"tiles": 2}, "an image whole, not in tiles; leave tiles out"),
        ("vit-classifier", {"paraphrases": True}, "asked nothing in sentences"),
        ("vit-classifier", {"reasoning": 8}, "asked nothing in sentences"),
        ("vit-classifier", {"tiles": 2}, "an image whole, not in tiles"),
        ("vit-classifier", {"prompts": SAID}, "wrap_pretrained has 'for', which 'ViTForIm"),
        ("llava", {"tiles": 2}, "an image whole, not in tiles"),
        ("llava", {"labels": {"mass": ["LABEL_1"]}}, "'labels', which 'LlavaFor.* Leave 'labels'"),
        ("llava", {"prompts": {"wordin": "x"}}, "wrap_pretrained: wordin: no such key"),
        ("llava", {"prompts": {"wording": "x"}}, r"wording: .*\{question\} once"),
        ("llava", {"prompts": "nowhere.yaml"}, "nowhere.yaml cannot be read"),
        (
            "llava",
            {"reasoning": 2000},
            r"138 tokens and 2000 of .*, and 'Llava.* reads 2048",
        ),
        ("internvl", {"tiles": 4}, "at most 3 x 3 tiles; got 4"),
    ],
)
def test_what_a_kind_cannot_do_is_refused_as_of_a_folder(opened, kind, options, message):
    one = opened(kind)
    with pytest.raises(CheckpointError, match=message):
        one.wrapped(**options)


def test_what_no_kind_can_do_is_refused(opened):
    one = opened("vit-classifier")
    with pytest.raises(ValueError, match="findings is empty"):
        one.wrapped(findings=[])
    with pytest.raises(ValueError, match="tiles is 0; wanted are those along a side"):
        one.wrapped(tiles=0)
    with pytest.raises(ValueError, match="reasoning is -1; wanted is a number of tokens"):
        one.wrapped(reasoning=-1)
    with pytest.raises(ValueError, match="labels is given, and stands in prompts too"):
        one.wrapped(labels={"mass": ["a"]}, prompts={"labels": {"mass": ["a"]}})
    with pytest.raises(LabelError, match="does not answer for 'mas'"):
        opened("clip").wrapped(findings=["mas"])
