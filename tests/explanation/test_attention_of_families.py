"""The methods of attention on other people's vision-language models."""

from __future__ import annotations

import copy
import dataclasses
import re
from types import SimpleNamespace

import numpy as np
import pytest
import torch

from medllm.errors import AttributionError
from medllm.explanation import attention, methods
from medllm.explanation.attention import attention_rollout, gradient_attention
from medllm.explanation.case import Case
from medllm.explanation.methods import METHODS, refusals
from medllm.models import Model, load_model
from medllm.models.configured import configure
from tests.models.architectures.checkpoints import (
    CLASSIFIERS,
    CONTRASTIVE,
    GENERATIVE,
    KINDS,
    Opened,
    image_size,
    opened_once,
)
from tests.models.architectures.images import blocks, scan_of
from tests.models.architectures.planted import token_of, without_mixing

FINDINGS = ("pneumonia", "effusion")
BOTH = ("gradient-attention", "attention-rollout")
# Their encoders are read, too, and their maps are not of the LLM alone.
WITH_ENCODER = ("llava", "llava-siglip", "llava-dinov2", "paligemma", "paligemma2")


@pytest.fixture(scope="module")
def opened(tmp_path_factory: pytest.TempPathFactory) -> Opened:
    return opened_once(tmp_path_factory)


def case_of(kind: str, model: Model, findings: tuple[str, ...] = FINDINGS) -> Case:
    return Case(model, scan_of(blocks(image_size(kind), 5)), findings)


def attention_in_use(model: Model) -> list[str]:
    config = model.network.config
    return [one._attn_implementation for one in (config, config.text_config, config.vision_config)]


@pytest.mark.parametrize("kind", GENERATIVE)
def test_both_maps_are_of_the_usual_log_odds_and_leave_the_network_as_it_was(
    opened, monkeypatch, kind
):
    _, model = opened(kind)
    case, before = case_of(kind, model), attention_in_use(model)
    read = []
    log_odds_at = attention.log_odds_at
    monkeypatch.setattr(
        attention, "log_odds_at", lambda *given: read.append(log_odds_at(*given)) or read[-1]
    )
    gradients, shares = gradient_attention(case), attention_rollout(case)
    assert attention_in_use(model) == before
    assert all(parameter.grad is None for parameter in model.network.parameters())
    got = [value.item() for value in read]
    assert got == pytest.approx([*case.log_odds] * 2, abs=1e-4)  # of sdpa and of eager
    for item in gradients:
        assert item.values.shape == model.grid
        assert item.values.min() >= 0
        assert item.values.max() > 1e-4
    assert np.abs(gradients[0].values - gradients[1].values).max() > 1e-4  # of their own answers
    for item, effect in zip(shares, case.effect, strict=True):
        assert item.values.shape == model.grid
        assert item.values.sum() == pytest.approx(effect, abs=1e-6)
        assert (item.values * effect > 0).all()


@pytest.mark.parametrize("kind", KINDS)
def test_a_method_says_what_it_attributes_to_in_this_network(opened, kind):
    _, model = opened(kind)
    said = {method: methods.layer_of(model, method) for method in METHODS}
    without_tokens = kind not in GENERATIVE
    ends = "pixels" if without_tokens else "image tokens"
    assert said["integrated-gradients"] == said["gradient-x-activation"] == ends
    assert said["occlusion"] == said["smooth-integrated-gradients"] == "pixels"
    assert said["zone-shapley"] == "regions"
    if without_tokens:  # the others refuse
        return
    followed = "encoder tokens" if kind in WITH_ENCODER else "image tokens"
    assert {said[method] for method in BOTH} == {followed}
    # Grad-CAM weighs what the architecture gives it, before the projector or behind it.
    pixel_values = case_of(kind, model).pixel_values
    with torch.no_grad():
        weighed, _ = model.architecture.encoder_tokens(model.network, pixel_values)
        behind = model.architecture.image_features(model.network, pixel_values)
    is_behind = torch.equal(weighed, behind)
    assert said["grad-cam"] == ("image tokens" if is_behind else "encoder tokens")


def draw(model: Model, tokens: torch.Tensor, by: float) -> None:
    """Move the logits of attention at some places of a prompt, in each layer whose weights are had.

    Args:
        by: How far; very low, and no layer looks at them.
    """

    def moved(_module, args, kwargs):
        mask = kwargs["attention_mask"]
        if mask is None or mask.dtype == torch.bool:  # sdpa, which scores the case
            return args, kwargs
        at = torch.zeros(mask.shape[-1], dtype=mask.dtype).index_fill(0, tokens, by)
        return args, kwargs | {"attention_mask": mask + at}

    llm = dict(model.architecture.parts(model.network))["LLM"]
    layers = [part for name, part in llm.named_modules() if name.endswith("self_attn")]
    assert len(layers) == model.network.config.text_config.num_hidden_layers
    for layer in layers:
        layer.register_forward_pre_hook(moved, with_kwargs=True)


@pytest.mark.parametrize(
    "kind",
    [
        *("llava", "llava-next", "paligemma", "gemma3", "qwen2-vl", "qwen3-vl", "idefics3"),
        *("smolvlm-so400m", "idefics3 in tiles", "internvl in tiles"),
    ],
)
def test_the_map_marks_the_one_patch_that_is_looked_at(opened, tmp_path, kind):
    kind, _, tiled = kind.partition(" in ")
    folder, _ = opened(kind)
    model = configure(folder, tmp_path / "own", tiles=2) if tiled else load_model(folder)
    model = without_mixing(model)
    case = Case(model, scan_of(blocks(model.card.preprocessing.size, 6)), ("pneumonia",))
    rows, columns = model.grid
    row, column = 3 * rows // 4, columns // 4
    side = model.card.preprocessing.size // rows
    inside = tuple(slice(at * side, (at + 1) * side) for at in (row, column))
    encoded = model.encode(["pneumonia"])
    slots = (encoded.prefix == encoded.image_token_id).nonzero()[:, 0]
    seen = slots[token_of(model, case.pixel_values, inside)]
    draw(model, slots[slots != seen], -1e4)
    # An encoder's attention spreads though it moves nothing here; only its gradient knows that.
    for method in BOTH[:1] if kind in WITH_ENCODER else BOTH:
        (found,) = METHODS[method].attribute(case)
        assert abs(found.values[row, column]) > 1e-5
        found.values[row, column] = 0
        assert not found.values.any()


@pytest.mark.parametrize("kind", ["llava", "paligemma", "qwen3-vl"])
def test_a_network_whose_weights_are_frozen_has_the_same_map(opened, kind):
    _, loaded = opened(kind)
    wanted = gradient_attention(case_of(kind, loaded))
    frozen = copy.deepcopy(loaded.network).requires_grad_(False)
    got = gradient_attention(case_of(kind, dataclasses.replace(loaded, network=frozen)))
    for one, other in zip(got, wanted, strict=True):
        np.testing.assert_allclose(one.values, other.values, atol=1e-6)


@pytest.mark.parametrize("kind", ["paligemma", "qwen2-vl", "internvl"])
def test_several_wordings_share_one_map_and_effect(opened, kind):
    _, loaded = opened(kind)
    (question,) = loaded.questions(["mass"])
    texts = (question.text, "Any mass?")
    apart = [
        gradient_attention(
            case_of(kind, loaded.asking([dataclasses.replace(question, text=text)]), ("mass",))
        )[0].values
        for text in texts
    ]
    model = loaded.asking([dataclasses.replace(question, paraphrases=texts[1:])])
    case = case_of(kind, model, ("mass",))
    np.testing.assert_allclose(
        gradient_attention(case)[0].values, np.mean(apart, axis=0), atol=1e-6
    )
    assert attention_rollout(case)[0].values.sum() == pytest.approx(case.effect[0], abs=1e-6)


def test_the_answer_behind_a_text_is_followed_over_it(opened, tmp_path):
    folder, _ = opened("qwen2.5-vl")
    model = configure(folder, tmp_path / "own", findings=["mass"], reasoning_tokens=6)
    case = case_of("qwen2.5-vl", model, ("mass",))
    assert case.model.card.questions[0].reasoning
    (found,) = gradient_attention(case)
    (question,) = case.model.card.questions
    other = case.model.asking([dataclasses.replace(question, reasoning="Nothing is seen.")])
    (changed,) = gradient_attention(case_of("qwen2.5-vl", other, ("mass",)))
    assert np.abs(found.values - changed.values).max() > 1e-4


@pytest.mark.parametrize("method", BOTH)
@pytest.mark.parametrize("kind", ["llava", "qwen3-vl"])
def test_an_answer_of_several_tokens_is_refused(opened, kind, method):
    _, model = opened(kind)
    (question,) = model.questions(["mass"])
    model = model.asking([dataclasses.replace(question, yes=("present",), no=("absent",))])
    with pytest.raises(AttributionError, match="answer words of mass are of several tokens"):
        METHODS[method].attribute(case_of(kind, model, ("mass",)))


def test_what_passes_by_the_sink_of_a_deep_network_is_followed_in_16_bits(opened):
    """Most of what any layer gathers is of the first token, and most of the rest in the next."""
    _, loaded = opened("llava-next")
    network = copy.deepcopy(loaded.network)
    llm = network.model.language_model
    llm.layers = torch.nn.ModuleList(copy.deepcopy(llm.layers[at % 2]) for at in range(40))
    for at, layer in enumerate(llm.layers):
        layer.self_attn.layer_idx = at
        layer.self_attn.config = network.config.text_config  # and not a copy
    network.config.text_config.num_hidden_layers = 40
    model = dataclasses.replace(loaded, network=network)
    draw(model, torch.tensor([0]), 5.0)
    (wanted,) = attention_rollout(case_of("llava-next", model, ("mass",)))
    network.half()
    (found,) = attention_rollout(case_of("llava-next", model, ("mass",)))
    assert np.corrcoef(found.values.ravel(), wanted.values.ravel())[0, 1] > 0.99


@pytest.mark.parametrize("method", BOTH)
@pytest.mark.parametrize("kind", ["gemma3", "qwen3-vl"])
def test_an_llm_that_gives_no_weights_is_refused(opened, monkeypatch, kind, method):
    _, model = opened(kind)
    monkeypatch.setattr(type(model.network), "set_attn_implementation", lambda *_: None)
    with pytest.raises(AttributionError, match="the LLM of .* gives no attention weights; use"):
        METHODS[method].attribute(case_of(kind, model))


@pytest.mark.parametrize("method", BOTH)
@pytest.mark.parametrize("alone", [lambda weights: weights[:1], lambda weights: [None, weights[1]]])
def test_an_llm_that_gives_weights_of_some_layers_alone_is_refused(
    opened, monkeypatch, alone, method
):
    _, model = opened("internvl")
    read_prompt = attention.read_prompt

    def part_of(*given, **options):
        read = read_prompt(*given, **options)
        return SimpleNamespace(
            last_hidden_state=read.last_hidden_state, attentions=alone(read.attentions)
        )

    monkeypatch.setattr(attention, "read_prompt", part_of)
    with pytest.raises(AttributionError, match="no attention weights of some of its") as refused:
        METHODS[method].attribute(case_of("internvl", model))
    assert refused.value.code == "no-attention"


@pytest.mark.parametrize("kind", ["llava", "gemma3"])
def test_a_failure_leaves_the_attention_as_it_was(opened, monkeypatch, kind):
    _, model = opened(kind)
    case, before = case_of(kind, model), attention_in_use(model)

    def fails(*_given, **_options):
        assert attention_in_use(model)[1] == "eager"
        raise RuntimeError("out of luck")

    monkeypatch.setattr(attention, "read_prompt", fails)
    with pytest.raises(RuntimeError, match="out of luck"):
        gradient_attention(case)
    assert attention_in_use(model) == before


@pytest.mark.parametrize("kind", [*CONTRASTIVE, *CLASSIFIERS])
def test_a_network_without_image_tokens_is_refused(opened, kind):
    _, model = opened(kind)
    case = Case(model, scan_of(blocks(image_size(kind), 5)), model.card.findings[:1])
    for method in BOTH:
        with pytest.raises(AttributionError, match="no image tokens .* use the method") as refused:
            METHODS[method].attribute(case)
        assert refused.value.code == "no-attention"


@pytest.mark.parametrize("kind", ["clip", "resnet-classifier", "llava"])
def test_what_cannot_serve_a_model_is_known_before_any_image(opened, kind):
    _, model = opened(kind)
    case = Case(model, scan_of(blocks(image_size(kind), 5)), model.card.findings[:1])
    refused = refusals(model, case.findings, METHODS)
    assert set(refused) == (set() if kind == "llava" else {"grad-cam", *BOTH})
    for name, error in refused.items():
        with pytest.raises(AttributionError, match=re.escape(str(error))) as raised:
            METHODS[name].attribute(case)
        assert raised.value.code == error.code


def test_attention_serves_a_model_while_one_finding_is_answered_by_one_token(opened):
    _, model = opened("llava")
    (question,) = model.questions(["mass"])
    model = model.asking([dataclasses.replace(question, yes=("present",), no=("absent",))])
    assert refusals(model, ("mass", "pneumonia"), BOTH) == {}
    refused = refusals(model, ("mass",), BOTH)
    assert [*refused] == [*BOTH]
    assert str(refused[BOTH[0]]).startswith("the answer words of mass are of several tokens")
