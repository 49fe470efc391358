"""CLIP and SigLIP, asked by a prompt for and one against as plain transformers compares them."""

from __future__ import annotations

import dataclasses
import json

import numpy as np
import pytest
import torch
from transformers import AutoModel, AutoTokenizer, DistilBertConfig

import medllm
from medllm.errors import AttributionError, CheckpointError
from medllm.evaluate.audits.probes import probes_of
from medllm.explanation.case import Case
from medllm.explanation.integrated_gradients import (
    completeness_bound,
    integrated_gradients,
    pixel_integrated_gradients,
)
from medllm.findings import FINDINGS
from medllm.models import Calibration, load_model, save_model
from tests.models.architectures import discriminative
from tests.models.architectures.checkpoints import (
    CONTRASTIVE,
    Opened,
    image_size,
    opened_once,
    write_checkpoint,
)
from tests.models.architectures.family import redraw, write
from tests.models.architectures.images import blocks, picture, prepared, scan_of
from tests.models.architectures.plain import plain_pixel_values, plain_similarity_log_odds

ASKED = ["pneumonia", "effusion", "nodule"]
PAIRS = [
    ("pneumonia", "no pneumonia"),
    ("pleural effusion", "no pleural effusion"),
    ("lung nodule", "no lung nodule"),
]


@pytest.fixture(scope="module")
def opened(tmp_path_factory: pytest.TempPathFactory) -> Opened:
    return opened_once(tmp_path_factory)


@pytest.mark.parametrize("kind", CONTRASTIVE)
def test_log_odds_are_those_of_plain_transformers_over_the_two_prompts(opened, kind):
    folder, model = opened(kind)
    grey = blocks(image_size(kind))
    with torch.inference_mode():
        got = model.log_odds(prepared(model, grey), ASKED)[0].tolist()
    wanted = [plain_similarity_log_odds(folder, picture(grey), *pair) for pair in PAIRS]
    assert got == pytest.approx(wanted, abs=1e-4)
    assert np.ptp(wanted) > 0.01  # the prompts differ


@pytest.mark.parametrize("kind", CONTRASTIVE)
def test_several_prompts_for_a_finding_are_summed_as_probabilities(opened, kind):
    folder, model = opened(kind)
    grey = blocks(image_size(kind))
    (question,) = model.questions(["pneumonia"])
    several = dataclasses.replace(
        question, yes=("pneumonia", "signs of pneumonia"), no=("clear lungs",)
    )
    card = dataclasses.replace(model.card, questions=(several,))
    with torch.inference_mode():
        got = float(dataclasses.replace(model, card=card).log_odds(prepared(model, grey)))
    apart = [
        plain_similarity_log_odds(folder, picture(grey), text, "clear lungs")
        for text in several.yes
    ]
    assert got == pytest.approx(float(np.logaddexp(*apart)), abs=1e-4)


@pytest.mark.parametrize("kind", CONTRASTIVE)
def test_batch_and_order_and_other_findings_change_nothing(opened, kind):
    _, model = opened(kind)
    images = prepared(model, *(blocks(image_size(kind), seed) for seed in (1, 2, 3)))
    with torch.inference_mode():
        together = model.log_odds(images, ASKED)
        alone = torch.cat([model.log_odds(image[None], ASKED) for image in images])
        swapped = model.log_odds(images, ASKED[::-1]).flip(1)
        every = model.log_odds(images)[:, [list(FINDINGS).index(key) for key in ASKED]]
    for other in (alone, swapped, every):
        torch.testing.assert_close(together, other, atol=2e-5, rtol=0)
    assert (together[0] - together[1]).abs().min() > 1e-4  # the image is seen


@pytest.mark.parametrize("kind", CONTRASTIVE)
def test_gradients_at_the_tokens_are_those_of_plain_transformers_at_the_pixels(opened, kind):
    folder, model = opened(kind)
    grey = blocks(image_size(kind))
    tokens = model.image_features(prepared(model, grey)).requires_grad_()
    model.log_odds_from_features(tokens, ["effusion"]).sum().backward()
    network = AutoModel.from_pretrained(folder).eval()
    words = AutoTokenizer.from_pretrained(folder)(
        list(PAIRS[1]), padding="max_length" if kind == "siglip" else True, return_tensors="pt"
    )
    pixel_values = plain_pixel_values(folder, picture(grey)).requires_grad_()
    logits = network(**words, pixel_values=pixel_values).logits_per_image[0]
    (logits[0] - logits[1]).backward()
    wanted = model.image_features(pixel_values.grad)
    torch.testing.assert_close(tokens.grad, wanted, atol=1e-5, rtol=1e-3)
    assert wanted.abs().sum(-1).min() > 1e-4  # each patch is seen


@pytest.mark.parametrize("kind", CONTRASTIVE)
def test_the_towers_own_patches_are_the_map(opened, kind):
    _, model = opened(kind)
    vision = model.network.config.vision_config
    side = vision.image_size // vision.patch_size
    assert model.grid == (side, side)


@pytest.mark.parametrize("kind", CONTRASTIVE)
@pytest.mark.parametrize("place", [(0, 1), (2, 0), (3, 2)])
def test_the_map_marks_the_one_patch_that_is_seen(opened, kind, place):
    folder, _ = opened(kind)
    model = load_model(folder)
    side = model.card.preprocessing.size // model.grid[0]
    window = torch.zeros(image_size(kind), image_size(kind))
    row, column = place[0] * side, place[1] * side
    window[row : row + side, column : column + side] = 1
    model.network.vision_model.register_forward_pre_hook(
        lambda _, args, kwargs: (args, kwargs | {"pixel_values": kwargs["pixel_values"] * window}),
        with_kwargs=True,
    )
    case = Case(model, scan_of(blocks(image_size(kind), 4)), ("pneumonia",))
    (attribution,) = integrated_gradients(case)
    size = np.abs(attribution.values)
    assert np.unravel_index(size.argmax(), size.shape) == place
    assert size.sum() == pytest.approx(size[place], abs=1e-6)
    assert abs(float(case.effect[0])) > 1e-4  # rounding is 1e-6


@pytest.mark.parametrize("kind", CONTRASTIVE)
@pytest.mark.parametrize("method", ["integrated-gradients", "occlusion", "zone-shapley"])
def test_it_explains(opened, kind, method):
    _, model = opened(kind)
    explanation = medllm.explain(
        model, scan_of(blocks(image_size(kind), 5)), "pneumonia", method=method
    )
    effect = explanation.log_odds - explanation.baseline_log_odds
    assert abs(effect) > 0.05
    if method == "integrated-gradients":
        assert explanation.layer == "pixels"
        assert explanation.map.values.sum() == pytest.approx(effect, abs=completeness_bound(effect))
    assert explanation.tokens == ()


def test_tokens_or_pixels_give_one_map(opened):
    _, model = opened("clip")
    case = Case(model, scan_of(blocks(56, 6)), ("pneumonia", "mass"))
    for ours, theirs in zip(
        integrated_gradients(case), pixel_integrated_gradients(case), strict=True
    ):
        np.testing.assert_allclose(ours.values, theirs.values, atol=1e-5)


def test_methods_that_need_tokens_or_attention_refuse_and_name_another(opened):
    _, model = opened("clip")
    scan = scan_of(blocks(56))
    for method, code in (("grad-cam", "no-tokens"), ("attention-rollout", "no-attention")):
        with pytest.raises(AttributionError, match="use the method") as refused:
            medllm.explain(model, scan, "pneumonia", method=method)
        assert refused.value.code == code


def test_a_prompt_says_both_sides_and_has_no_article(opened):
    _, model = opened("clip")
    assert model.prompt(model.questions(["nodule"])[0]) == "'lung nodule' against 'no lung nodule'"
    texts = [text for one in model.questions() for text in (*one.yes, *one.no)]
    assert len(set(texts)) == 2 * len(FINDINGS)
    assert all(text == text.lower() for text in texts)
    assert not any(text.removeprefix("no ").startswith(("a ", "an ")) for text in texts)


@pytest.mark.parametrize("kind", CONTRASTIVE)
def test_words_that_do_not_reach_the_network_are_not_probed(opened, kind):
    _, model = opened(kind)
    (question,) = model.questions(["pneumonia"])
    reworded = dataclasses.replace(question, text="Does it rain?")
    card = dataclasses.replace(model.card, questions=(reworded,))
    image = prepared(model, blocks(56))
    with torch.inference_mode():
        other = dataclasses.replace(model, card=card).log_odds(image)
        assert torch.equal(other, model.log_odds(image, ["pneumonia"]))
    assert {probe.kind for probe in probes_of(model, ["pneumonia"])} == {"blurred", "hidden"}


@pytest.mark.parametrize("kind", CONTRASTIVE)
def test_a_prompt_that_is_too_long_is_refused_and_not_cut(opened, kind):
    _, model = opened(kind)
    (question,) = model.questions(["pneumonia"])
    long = dataclasses.replace(question, yes=("pneumonia " * 40,))
    card = dataclasses.replace(model.card, questions=(long,))
    with pytest.raises(CheckpointError, match=r"tokens and the network reads 32; write it short"):
        dataclasses.replace(model, card=card).log_odds(prepared(model, blocks(image_size(kind))))


def test_siglips_tokenizer_opens_without_sentencepiece(opened, tmp_path):
    folder = write_checkpoint("siglip", tmp_path / "siglip")
    file = folder / "tokenizer_config.json"
    settings = json.loads(file.read_text()) | {"tokenizer_class": "SiglipTokenizer"}
    settings.pop("backend", None)  # as Google's folders are
    file.write_text(json.dumps(settings))
    _, model = opened("siglip")
    image = prepared(model, blocks(56))
    with torch.inference_mode():
        assert torch.equal(load_model(folder).log_odds(image), model.log_odds(image))


def test_a_calibration_is_kept_beside_the_weights(opened, tmp_path):
    _, model = opened("siglip")
    (question,) = model.questions(["effusion"])
    fitted = Calibration(2.0, -0.5, 0.3, 0.6, "site A: 40 images", 0.3)
    question = dataclasses.replace(question, calibration=fitted)
    card = dataclasses.replace(model.card, questions=(question,))
    saved = save_model(dataclasses.replace(model, card=card), tmp_path / "site")
    image = prepared(model, blocks(56))
    with torch.inference_mode():
        assert torch.equal(saved.log_odds(image), model.log_odds(image, ["effusion"]))
    assert saved.card.questions == (question,)


@pytest.mark.parametrize("kind", CONTRASTIVE)
def test_the_parts_hold_all_but_the_scale(opened, kind):
    _, model = opened(kind)
    held = {id(p) for _, part in model.architecture.parts(model.network) for p in part.parameters()}
    rest = {name for name, p in model.network.named_parameters() if id(p) not in held}
    assert rest <= {"logit_scale", "logit_bias"}


@pytest.mark.parametrize("kind", ["clip", "vit-bert"])
def test_a_tokenizer_that_pads_on_the_left_moves_no_word(opened, tmp_path, kind):
    """What is asked beside would else say where a text begins, and so which token is pooled."""
    folder = write_checkpoint(kind, tmp_path / kind)
    file = folder / "tokenizer_config.json"
    file.write_text(json.dumps(json.loads(file.read_text()) | {"padding_side": "left"}))
    model, (_, right) = load_model(folder), opened(kind)
    image = prepared(model, blocks(56))
    with torch.inference_mode():
        assert torch.equal(model.log_odds(image), right.log_odds(image))
        beside = model.log_odds(image, ["pneumonia", "enlarged_cardiomediastinum"])[:, :1]
        # Rounding of a batch of another length.
        assert torch.allclose(model.log_odds(image, ["pneumonia"]), beside, atol=1e-4)


def test_a_text_tower_that_pools_nothing_is_refused_in_one_line(tmp_path):
    """As of DistilBERT, whose output has no pooled token."""
    family = discriminative.vit_bert()
    text = family.config.text_config
    family.config.text_config = DistilBertConfig(
        dim=text.hidden_size,
        hidden_dim=text.intermediate_size,
        n_layers=2,
        n_heads=4,
        vocab_size=text.vocab_size,
        max_position_embeddings=text.max_position_embeddings,
        pad_token_id=text.pad_token_id,
    )
    network = AutoModel.from_config(family.config)
    redraw(family, network, 0)
    write(family, network, tmp_path)
    with pytest.raises(CheckpointError, match="fails on 3 channel.* no attribute 'pooler_output'"):
        load_model(tmp_path)
