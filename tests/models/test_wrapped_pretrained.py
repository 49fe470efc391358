"""A network of transformers in memory, read as the folder that it would be saved to."""

from __future__ import annotations

import copy
import dataclasses
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import peft
import pytest
import torch
from torch import nn
from transformers import (
    AutoImageProcessor,
    CLIPVisionModel,
    GPT2Config,
    GPT2LMHeadModel,
    PreTrainedModel,
    ViTForImageClassification,
)

import medllm
from medllm.errors import CheckpointError
from medllm.models import Model, attach_lora, merge_lora
from medllm.phantom import make_phantom
from tests.models.architectures.checkpoints import (
    AUTO_MODELS,
    CLASSIFIERS,
    KINDS,
    write_checkpoint,
)
from tests.models.architectures.plain import plain_processor


@dataclass(frozen=True)
class Saved:
    """A tiny checkpoint, and what its user has in memory."""

    kind: str
    folder: Path

    def network(self) -> Any:
        return AUTO_MODELS[self.kind].from_pretrained(self.folder)

    def processor(self) -> Any:
        if self.kind in CLASSIFIERS:
            return AutoImageProcessor.from_pretrained(self.folder, backend="pil")
        return plain_processor(self.folder)

    def wrapped(self) -> Model:
        return medllm.wrap_pretrained(self.network(), self.processor())


@pytest.fixture(scope="module")
def saved(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], Saved]:
    kept: dict[str, Saved] = {}

    def write_once(kind: str) -> Saved:
        if kind not in kept:
            folder = write_checkpoint(kind, tmp_path_factory.mktemp("kinds") / kind)
            kept[kind] = Saved(kind, folder)
        return kept[kind]

    return write_once


def answers(model: Model) -> torch.Tensor:
    shown = model.card.preprocessing.prepare(make_phantom(3, size=128).pixels)
    with torch.inference_mode():
        return model.log_odds(shown)


@pytest.mark.parametrize("kind", KINDS)
def test_it_answers_as_the_folder_that_it_is_saved_to(saved, kind):
    one = saved(kind)
    network = one.network()
    model, opened = medllm.wrap_pretrained(network, one.processor()), medllm.load_model(one.folder)
    assert model.network is network
    assert torch.equal(answers(model), answers(opened))
    assert (model.grid, model.architecture) == (opened.grid, opened.architecture)
    assert (model.card.name, model.card.version) == (type(network).__name__, "in memory")
    named = ("name", "version", "description", "base", "base_sha256")
    same = {name: getattr(opened.card, name) for name in named}
    assert dataclasses.replace(model.card, **same) == opened.card
    again = one.wrapped()
    assert (again.sha256, again.card.base_sha256) == (model.sha256, model.card.base_sha256)


def test_it_is_left_as_it_was_but_for_the_mode(saved):
    one = saved("paligemma")
    network, processor = one.network().to(torch.bfloat16).train(), one.processor()
    config, settings = network.config.to_dict(), copy.deepcopy(processor.tokenizer.init_kwargs)
    model = medllm.wrap_pretrained(network, processor, name="tuned")
    assert not network.training
    assert model.dtype == network.dtype == torch.bfloat16
    assert network.config.to_dict() == config
    assert processor.tokenizer.init_kwargs == settings
    assert repr(model).startswith("Model(tuned in memory: ")


def test_what_a_training_leaves_behind_changes_neither_answer_nor_hash(saved):
    one = saved("gemma3")
    network, processor = one.network().train(), one.processor()
    assert network.config.text_config.tie_word_embeddings
    network.activation_checkpointing_enable()
    network.config.use_cache = network.config.text_config.use_cache = False
    network.config._name_or_path, network.config.architectures = "site/tuned", ["Gemma3Model"]
    processor.tokenizer(["one", "two words"], padding=True, truncation=True, max_length=4)
    model, again = medllm.wrap_pretrained(network, processor), one.wrapped()
    assert torch.equal(answers(model), answers(again))
    assert model.sha256 == again.sha256


def test_the_hash_is_of_weights_configuration_and_processor(saved):
    one = saved("vit-classifier")

    def sha256(change: Callable[[Any, Any], None] = lambda network, processor: None) -> str:
        network, processor = one.network(), one.processor()
        change(network, processor)
        return medllm.wrap_pretrained(network, processor).sha256

    def scale(network: Any, _: Any) -> None:
        network.classifier.weight.data.mul_(2)

    def rename(network: Any, _: Any) -> None:
        network.config.id2label = {0: "healthy", 1: "pneumonia"}

    def brighten(_: Any, processor: Any) -> None:
        processor.image_mean = [0.4] * 3

    assert len({sha256(), sha256(scale), sha256(rename), sha256(brighten)}) == 4
    assert sha256() == sha256()


def test_another_vocabulary_is_another_model(saved):
    one = saved("llava")
    processor = one.processor()
    processor.tokenizer.add_tokens(["<site>"])
    assert medllm.wrap_pretrained(one.network(), processor).sha256 != one.wrapped().sha256


def test_what_a_reasoning_model_writes_by_is_hashed(saved, tmp_path):
    one = saved("llava")
    network, processor = one.network(), one.processor()

    def wrap_anew(**options: Any) -> Model:
        return medllm.wrap_pretrained(network, processor, findings=["pneumonia"], **options)

    model = wrap_anew(reasoning=8)
    before = answers(model)
    medllm.save_model(model, tmp_path / "site")
    # Settings of a draw, of which none is made; and how the base is asked.
    network.generation_config.update(do_sample=True, temperature=0.6, max_new_tokens=900)
    again = medllm.load_model(tmp_path / "site", base=wrap_anew())
    assert torch.equal(answers(again), before)
    network.generation_config.repetition_penalty = 5.0
    other = wrap_anew(reasoning=8)
    assert (answers(other) - before).abs().max() > 0.01
    with pytest.raises(CheckpointError, match="serves no other model") as refused:
        medllm.load_model(tmp_path / "site", base=other)
    assert refused.value.code == "another-base"


def test_the_processors_chat_template_comes_before_that_of_the_llm(saved):
    one = saved("llava")
    processor = one.processor()
    processor.tokenizer.chat_template = "{{ messages[0]['content'] }}"
    model = medllm.wrap_pretrained(one.network(), processor)
    assert model.card.prompt_template == one.wrapped().card.prompt_template


class Tuned(ViTForImageClassification):
    """As one's own loss is often put into a network."""


def test_a_subclass_of_ones_own_is_read_as_what_it_derives_from(saved):
    one = saved("vit-classifier")
    network = Tuned.from_pretrained(one.folder)
    network.config.architectures = ["ViTModel"]  # what it was before it was trained
    model = medllm.wrap_pretrained(network, one.processor())
    assert torch.equal(answers(model), answers(one.wrapped()))
    assert model.card.name == "Tuned"


def widened(network: PreTrainedModel) -> PreTrainedModel:
    """Let adapters say something, as trained ones do."""
    generator = torch.Generator().manual_seed(0)
    for name, weight in network.named_parameters():
        if "lora_" in name:
            nn.init.normal_(weight, std=0.3, generator=generator)
    return network


def test_adapters_within_a_network_count(saved):
    one = saved("llava")
    network = one.network()
    attach_lora(network, rank=2)
    model = medllm.wrap_pretrained(widened(network), one.processor())
    adapted = answers(model)
    merged = medllm.wrap_pretrained(merge_lora(network), one.processor())
    torch.testing.assert_close(adapted, answers(merged), atol=1e-4, rtol=0)
    assert (adapted - answers(one.wrapped())).abs().max() > 0.01
    assert len({model.sha256, merged.sha256, one.wrapped().sha256}) == 3


# peft asks transformers by a name that this version calls old.
@pytest.mark.filterwarnings("ignore:.is_gradient_checkpointing:FutureWarning")
def test_a_model_of_peft_is_wrapped_once_it_is_merged(saved):
    one = saved("llava")
    settings = peft.LoraConfig(target_modules=["q_proj"])
    adapted = widened(peft.get_peft_model(one.network(), settings))
    model = medllm.wrap_pretrained(adapted.merge_and_unload(), one.processor())
    assert (answers(model) - answers(one.wrapped())).abs().max() > 0.01


@pytest.mark.parametrize(
    ("kind", "part", "message"),
    [
        ("llava", lambda processor: None, "NoneType without an image proc.*AutoProcessor.from"),
        ("llava", lambda processor: processor.tokenizer, "without an image processor"),
        ("llava", lambda processor: processor.image_processor, "without a tokenizer.*AutoProcess"),
        ("clip", lambda processor: processor.image_processor, "without a tokenizer"),
        ("vit-classifier", lambda processor: "vit", "a str without .* AutoImageProcessor.from"),
    ],
)
def test_an_unfit_processor_is_refused_with_what_is_wanted(saved, kind, part, message):
    one = saved(kind)
    with pytest.raises(TypeError, match=message):
        medllm.wrap_pretrained(one.network(), part(one.processor()))


def test_a_classifier_takes_the_whole_processor_too(saved):
    one, whole = saved("vit-classifier"), saved("clip").processor()
    whole.image_processor = one.processor()
    model = medllm.wrap_pretrained(one.network(), whole)
    assert torch.equal(answers(model), answers(one.wrapped()))


TINY = {"n_embd": 16, "n_layer": 1, "n_head": 2}


@pytest.mark.parametrize(
    ("made", "message"),
    [
        (
            lambda one: one.network().model,
            "LlavaModel, which has no head.*AutoModelForImageTextToText",
        ),
        (
            lambda one: CLIPVisionModel(one.network().config.vision_config),
            "'CLIPVisionModel' is of type 'clip_vision_model', an encoder without a head",
        ),
        (
            lambda one: GPT2LMHeadModel(GPT2Config(**TINY)),
            "'GPT2LMHeadModel' is of type 'gpt2'; medllm knows llava",
        ),
    ],
)
def test_a_network_of_another_kind_is_refused(saved, made, message):
    one = saved("llava")
    with pytest.raises(CheckpointError, match=message):
        medllm.wrap_pretrained(made(one), one.processor())


# Run as users do, where no types are checked before.
MISTAKEN = """
import medllm, medllm.data, peft, torch
from transformers import AutoImageProcessor, ViTForImageClassification

processor = AutoImageProcessor.from_pretrained("vit", backend="pil")
network = ViTForImageClassification.from_pretrained("vit")
medllm.save_model(medllm.wrap_pretrained(network, processor), "site")
adapted = peft.get_peft_model(network, peft.LoraConfig(target_modules=["fc1"]))
for call in (
    lambda: medllm.wrap_pretrained(adapted, processor),
    lambda: medllm.wrap_pretrained("vit", processor),
    lambda: medllm.wrap_pretrained(torch.nn.Linear(2, 2), processor),
    lambda: medllm.load_model("site", base=network),
    lambda: medllm.wrap(network, ["mass"], medllm.data.Preprocessing(), output="logits"),
    lambda: medllm.wrap(network, {"mass": 0}, {"size": 224}, output="logits"),
    lambda: medllm.wrap_pretrained(network, processor, prompts=["Any {finding}?"]),
    lambda: medllm.wrap_pretrained(network, processor, paraphrases=["Any {finding}?"]),
):
    try:
        call()
    except TypeError as error:
        print(error)
"""


def test_what_is_given_in_the_place_of_a_network_is_told(programs, tmp_path):
    write_checkpoint("vit-classifier", tmp_path / "vit")
    program = programs.run(code=MISTAKEN, folder=tmp_path)
    assert program.wait() == 0, program.stderr
    told = program.stdout.splitlines()
    assert len(told) == 8
    assert "fold them in first: network = network.merge_and_unload()." in told[0]
    assert told[1].startswith("a str is no network of transformers. medllm.wrap(network, outputs")
    assert told[2].startswith("a Linear is no network of transformers.")
    assert told[3].startswith("base is a ViTForImageClassification; wanted is what medllm.wrap or")
    assert told[4].startswith("outputs is a list; wanted is the place of each finding's output")
    assert told[5].startswith("preprocessing is a dict; wanted is a medllm.data.Preprocessing")
    assert told[6].startswith("prompts is a list; wanted is a table of texts, such as {")
    assert told[7].startswith("paraphrases is a list; wanted is True or False. Texts of your own")


def test_what_cannot_be_read_is_told_of_the_network_and_of_no_folder(saved):
    one = saved("llava")
    processor = one.processor()
    processor.chat_template = processor.tokenizer.chat_template = None
    with pytest.raises(CheckpointError, match="^'tuned' has no chat template") as refused:
        medllm.wrap_pretrained(one.network(), processor, name="tuned")
    assert refused.value.code == "chat-template"


def test_labels_that_mean_no_finding_by_name_are_given_a_meaning(saved):
    one = saved("vit-classifier")
    network = one.network()
    network.config.id2label = {0: "LABEL_0", 1: "LABEL_1"}
    with pytest.raises(CheckpointError, match=r'LABEL_0, LABEL_1.*labels=\{"pneumonia"') as refused:
        medllm.wrap_pretrained(network, one.processor())
    assert refused.value.code == "no-finding"
    models = [
        medllm.wrap_pretrained(network, one.processor(), labels={"mass": [label]})
        for label in ("LABEL_1", "LABEL_0")
    ]
    (question,) = models[0].card.questions
    assert (question.finding, question.yes, question.no) == ("mass", ("LABEL_1",), ("LABEL_0",))
    assert torch.equal(answers(models[0]), -answers(models[1]))
    # One network, asked otherwise: what was computed of the one is not of the other.
    assert models[0].sha256 != models[1].sha256
    assert models[0].card.base_sha256 == models[1].card.base_sha256


def test_weights_that_are_elsewhere_are_refused(saved):
    one = saved("vit-classifier")
    network = one.network()
    network.classifier.to("meta")
    with pytest.raises(CheckpointError, match="'classifier.bias' is not in the memory"):
        medllm.wrap_pretrained(network, one.processor())
