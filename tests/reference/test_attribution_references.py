"""Each method against its definition: slow, in float64, through LLaVA's own plain forward."""

from __future__ import annotations

import copy
import itertools
from pathlib import Path

import numpy as np
import pytest
import torch
from scipy.stats import linregress

from medllm.dicom import Radiograph
from medllm.explanation import perturbation
from medllm.explanation.attention import attention_rollout, gradient_attention
from medllm.explanation.case import Case
from medllm.explanation.gradients import grad_cam, gradient_x_activation
from medllm.explanation.integrated_gradients import (
    completeness_bound,
    integrated_gradients,
    pixel_integrated_gradients,
)
from medllm.explanation.perturbation import occlusion, rise
from medllm.explanation.shapley import patch_shapley, shapley_values, zone_shapley
from medllm.explanation.words import word_ablation, word_gradients
from medllm.models import Model
from medllm.phantom import make_phantom

FINDINGS = ("effusion", "pneumonia")


@pytest.fixture(scope="module")
def case(tiny_model: Model) -> Case:
    network = copy.deepcopy(tiny_model.network).double()
    pixels = make_phantom(5, size=96).pixels
    scan = Radiograph(pixels, Path("phantom.png"), "png", "0" * 64)
    return Case(Model(network, tiny_model.tokenizer, tiny_model.card), scan, FINDINGS)


def embed(model: Model, finding: str) -> torch.Tensor:
    """Token ids of the whole prompt, one placeholder a patch."""
    (question,) = model.questions([finding])
    text = model.card.prompt_template.replace("<image>", "<image>" * 16)
    return model.tokenizer(text.replace("{question}", question.text), return_tensors="pt")[
        "input_ids"
    ]


def plain_score(model: Model, features: torch.Tensor, finding: str) -> torch.Tensor:
    """Log-odds of one image's tokens: embeddings spliced, one full forward, no cache."""
    ids = embed(model, finding)
    embeddings = model.network.get_input_embeddings()(ids)
    placeholders = ids[0] == model.network.config.image_token_id
    embeddings = embeddings.index_put((torch.tensor([0]), placeholders.nonzero()[:, 0]), features)
    logits = model.network(inputs_embeds=embeddings, use_cache=False).logits[0, -1]
    yes, no = (model.tokenizer.convert_tokens_to_ids(word) for word in ("yes", "no"))
    return logits[yes] - logits[no]


def test_integrated_gradients_agree_with_a_riemann_sum(case):
    n_steps = 80
    tower = case.model.network.model
    with torch.no_grad():
        ends = [
            torch.stack(list(tower.get_image_features(pixel_values=image.double()).pooler_output))
            for image in (case.pixel_values, case.blurred)
        ]
    image, blurred = ends[0][0], ends[1][0]
    for item, finding in zip(integrated_gradients(case), FINDINGS, strict=True):
        total = torch.zeros_like(image)
        for step in range(n_steps):
            at = (blurred + (step + 0.5) / n_steps * (image - blurred)).requires_grad_()
            (gradient,) = torch.autograd.grad(plain_score(case.model, at, finding), at)
            total += gradient / n_steps
        wanted = ((image - blurred) * total).sum(-1).reshape(4, 4).numpy()
        assert np.abs(wanted).max() > 1e-2
        # Sixteen nodes against eighty: each quadrature has its own small error.
        np.testing.assert_allclose(item.values, wanted, atol=5e-4)


def test_occlusion_agrees_with_a_plain_loop(case):
    model = case.model

    def score(pixel_values: torch.Tensor, finding: str) -> float:
        with torch.no_grad():
            outputs = model.network.model.get_image_features(pixel_values=pixel_values.double())
            return plain_score(model, next(iter(outputs.pooler_output)), finding).item()

    for item, finding in zip(occlusion(case), FINDINGS, strict=True):
        wanted = np.zeros((4, 4))
        for row, column in np.ndindex(4, 4):
            part = np.s_[..., 16 * row : 16 * row + 16, 16 * column : 16 * column + 16]
            altered = case.pixel_values.clone()
            altered[part] = case.blurred[part]
            wanted[row, column] = score(case.pixel_values, finding) - score(altered, finding)
        assert np.abs(wanted).max() > 1e-2
        # Captum adds up in the precision of the pixels, which is float32.
        np.testing.assert_allclose(item.values, wanted, atol=1e-6)


def tokens_and_projection(model: Model, pixel_values: torch.Tensor) -> tuple[torch.Tensor, ...]:
    """The encoder's patch tokens and what the projector makes of them, step by step."""
    tower = model.network.model
    hidden = tower.vision_tower(pixel_values.double(), output_hidden_states=True).hidden_states
    tokens = hidden[model.network.config.vision_feature_layer][:, 1:]
    return tokens, tower.multi_modal_projector(tokens)


def test_gradient_x_activation_is_the_gradient_times_the_tokens(case):
    for item, finding in zip(gradient_x_activation(case), FINDINGS, strict=True):
        with torch.no_grad():
            _, features = tokens_and_projection(case.model, case.pixel_values)
        at = features[0].requires_grad_()
        (gradient,) = torch.autograd.grad(plain_score(case.model, at, finding), at)
        wanted = (gradient * at).sum(-1).reshape(4, 4).detach().numpy()
        assert np.abs(wanted).max() > 1e-2
        np.testing.assert_allclose(item.values, wanted, atol=1e-9)


def test_grad_cam_weighs_channels_by_their_mean_gradient_over_patches(case):
    for item, finding in zip(grad_cam(case), FINDINGS, strict=True):
        with torch.no_grad():
            tokens, _ = tokens_and_projection(case.model, case.pixel_values)
        at = tokens.requires_grad_()
        features = case.model.network.model.multi_modal_projector(at)[0]
        (gradient,) = torch.autograd.grad(plain_score(case.model, features, finding), at)
        # Channels over rows and columns, as a convolution's, and the paper's sum over them.
        channels = at[0].T.reshape(-1, 4, 4).detach()
        weights = gradient[0].T.reshape(-1, 4, 4).mean(dim=(1, 2))
        wanted = (weights[:, None, None] * channels).sum(0).numpy()
        assert np.abs(wanted).max() > 1e-3
        np.testing.assert_allclose(item.values, wanted, atol=1e-9)


def attention_of_both_halves(model: Model, pixel_values: torch.Tensor, finding: str):
    """Attention weights of every layer, with the score they lead to."""
    network = model.network
    before = network.config._attn_implementation
    network.set_attn_implementation("eager")
    try:
        tower = network.model
        seen = tower.vision_tower(
            pixel_values.double(), output_hidden_states=True, output_attentions=True
        )
        tokens = seen.hidden_states[network.config.vision_feature_layer][:, 1:]
        features = tower.multi_modal_projector(tokens)[0]
        ids = embed(model, finding)
        embeddings = network.get_input_embeddings()(ids)
        slots = (ids[0] == network.config.image_token_id).nonzero()[:, 0]
        embeddings = embeddings.index_put((torch.tensor([0]), slots), features)
        read = network(inputs_embeds=embeddings, use_cache=False, output_attentions=True)
    finally:
        network.set_attn_implementation(before)
    yes, no = (model.tokenizer.convert_tokens_to_ids(word) for word in ("yes", "no"))
    score = read.logits[0, -1, yes] - read.logits[0, -1, no]
    return score, list(seen.attentions), list(read.attentions), slots


def test_gradient_attention_follows_the_papers_two_equations(case):
    for item, finding in zip(gradient_attention(case), FINDINGS, strict=True):
        score, vision, text, slots = attention_of_both_halves(
            case.model, case.pixel_values, finding
        )
        gradients = torch.autograd.grad(score, [*vision, *text])
        relevance = []
        for weights, slope in ((vision, gradients[:2]), (text, gradients[2:])):
            found = torch.eye(weights[0].shape[-1], dtype=torch.float64)
            for weight, gradient in zip(weights, slope, strict=True):
                heads = [torch.relu(g * w) for w, g in zip(weight[0], gradient[0], strict=True)]
                found = found + (sum(heads) / len(heads)) @ found
            relevance.append(found)
        wanted = [
            sum(
                float((relevance[1][-1, slot] * relevance[0][1 + i, 1 + patch]).detach())
                for i, slot in enumerate(slots.tolist())
            )
            for patch in range(16)
        ]
        assert max(wanted) > 1e-3
        np.testing.assert_allclose(item.values.ravel(), wanted, atol=1e-9)


def test_rollout_shares_the_effect_as_attention_alone_flows(case):
    for item, finding, effect in zip(attention_rollout(case), FINDINGS, case.effect, strict=True):
        _, vision, text, slots = attention_of_both_halves(case.model, case.pixel_values, finding)
        flows = []
        for weights in (vision, text):
            flow = torch.eye(weights[0].shape[-1], dtype=torch.float64)
            for weight in weights:
                mean = weight[0].mean(dim=0)
                half = 0.5 * (mean + torch.eye(len(mean), dtype=torch.float64))
                flow = half / half.sum(-1, keepdim=True) @ flow
            flows.append(flow)
        reached = (flows[1][-1, slots] @ flows[0][1:, 1:]).detach().numpy()
        wanted = effect * reached / reached.sum()
        np.testing.assert_allclose(item.values.ravel(), wanted, atol=1e-9)


def test_pixel_integrated_gradients_agree_with_a_riemann_sum(case, monkeypatch):
    # Random weights are rough over pixels: few steps add up, while single patches do not settle.
    monkeypatch.setattr("medllm.explanation.integrated_gradients.FIRST_STEPS", 128)
    n_steps = 400
    image, blurred = case.pixel_values.double(), case.blurred.double()
    for item, finding in zip(pixel_integrated_gradients(case), FINDINGS, strict=True):
        total = torch.zeros_like(image)
        for step in range(n_steps):
            at = (blurred + (step + 0.5) / n_steps * (image - blurred)).requires_grad_()
            _, features = tokens_and_projection(case.model, at)
            score = plain_score(case.model, features[0], finding)
            total += torch.autograd.grad(score, at)[0] / n_steps
        wanted = ((image - blurred) * total)[0, 0].reshape(4, 16, 4, 16).sum((1, 3)).numpy()
        assert np.abs(wanted).max() > 1e-2
        np.testing.assert_allclose(item.values, wanted, atol=2e-3)


def test_zone_shapley_is_the_mean_gain_over_all_orders():
    players = 4
    generator = np.random.default_rng(0)
    scores = generator.normal(size=(2**players, 2))
    kept = ((np.arange(2**players)[:, None] >> np.arange(players)) & 1).astype(bool)
    wanted = np.zeros((players, 2))
    orders = list(itertools.permutations(range(players)))
    for order in orders:
        coalition = 0
        for player in order:
            wanted[player] += scores[coalition + (1 << player)] - scores[coalition]
            coalition += 1 << player
    np.testing.assert_allclose(shapley_values(kept, scores), wanted / len(orders), atol=1e-12)


def test_patch_shapley_is_the_mean_gain_over_its_orders(case):
    chance = np.random.default_rng(0)
    orders = [
        order for _ in range(2) for one in [chance.permutation(16)] for order in (one, one[::-1])
    ]
    wanted = np.zeros((16, len(FINDINGS)))
    for order in orders:
        hidden = np.ones((1, 16), dtype=bool)
        before = case.log_odds_without(hidden.reshape(1, 4, 4))[0]
        for patch in order:
            hidden[0, patch] = False
            after = case.log_odds_without(hidden.reshape(1, 4, 4))[0]
            wanted[patch] += (after - before) / len(orders)
            before = after
    for item, one in zip(patch_shapley(case), wanted.T, strict=True):
        assert np.abs(one).max() > 1e-2
        np.testing.assert_allclose(item.values.ravel(), one, atol=1e-6)
        assert item.n_steps == 4 * 15  # each order's ends are known


@pytest.mark.parametrize("method", [zone_shapley, patch_shapley])
def test_shapley_values_of_the_network_add_up(case, method):
    for item, effect in zip(method(case), case.effect, strict=True):
        assert item.completeness_error < 1e-5
        assert item.values.sum() == pytest.approx(effect, abs=1e-5)


def test_rise_is_the_slope_of_the_scores_on_what_is_kept(case):
    masks = torch.cat(list(perturbation._masks(64)))
    assert masks.shape == (512, 64, 64)
    assert masks.min() >= 0
    assert masks.max() <= 1
    assert masks.mean() == pytest.approx(0.5, abs=0.01)
    scores = case.log_odds_of_parts([masks])
    kept = masks.reshape(512, 4, 16, 4, 16).mean(dim=(2, 4)).double().numpy()
    for index, item in enumerate(rise(case)):
        for row, column in np.ndindex(4, 4):
            slope = linregress(kept[:, row, column], scores[:, index]).slope
            assert item.values[row, column] == pytest.approx(slope, abs=1e-7)


def test_words_agree_with_a_riemann_sum_over_image_and_words(case):
    finding, n_steps = "pneumonia", 100
    model = case.model
    ids = embed(model, finding)[0]
    table = model.network.get_input_embeddings().weight
    is_image = ids == model.network.config.image_token_id
    with torch.no_grad():
        ends = [
            tokens_and_projection(model, image)[1][0] for image in (case.pixel_values, case.blurred)
        ]
    # What begins the prompt is no word of it and stays.
    is_word = ~is_image & (ids != model.tokenizer.bos_token_id)
    words = table[ids[is_word]].detach()
    mean = table.mean(0).detach().expand_as(words)

    def score(image: torch.Tensor, text: torch.Tensor) -> torch.Tensor:
        embeddings = table[ids].detach()[None]
        embeddings = embeddings.index_put((torch.tensor([0]), is_image.nonzero()[:, 0]), image)
        embeddings = embeddings.index_put((torch.tensor([0]), is_word.nonzero()[:, 0]), text)
        logits = model.network(inputs_embeds=embeddings, use_cache=False).logits[0, -1]
        yes, no = (model.tokenizer.convert_tokens_to_ids(word) for word in ("yes", "no"))
        return logits[yes] - logits[no]

    sums = [torch.zeros_like(ends[0]), torch.zeros_like(words)]
    starts = ((ends[1], ends[0]), (mean, words))
    for step in range(n_steps):
        at = [
            (low + (step + 0.5) / n_steps * (high - low)).requires_grad_() for low, high in starts
        ]
        for total, gradient in zip(sums, torch.autograd.grad(score(*at), at), strict=True):
            total += gradient / n_steps
    wanted = [
        ((high - low) * total).sum(-1) for (low, high), total in zip(starts, sums, strict=True)
    ]
    found = word_gradients(case, finding)
    values = {token.text: token.value for token in found.tokens}
    assert values.pop("<image>") == pytest.approx(float(wanted[0].detach().sum()), abs=2e-2)
    assert list(values) == ["Is", "there", "evidence", "of", "pneumonia?"]
    assert sum(values.values()) == pytest.approx(float(wanted[1].sum()), abs=2e-2)
    with torch.no_grad():
        whole = float(score(ends[0], words) - score(ends[1], mean))
    assert found.completeness_error <= completeness_bound(whole)


def test_word_ablation_agrees_with_a_plain_loop(case):
    model, finding = case.model, "pneumonia"
    ids = embed(model, finding)
    with torch.no_grad():
        features = tokens_and_projection(model, case.pixel_values)[1][0]
        whole = float(plain_score(model, features, finding))
    found = word_ablation(case, finding)
    values = {token.text: token.value for token in found.tokens}
    word = int(model.tokenizer.convert_tokens_to_ids("evidence"))
    table = model.network.get_input_embeddings()
    changed = copy.deepcopy(model.network)
    with torch.no_grad():
        changed.get_input_embeddings().weight[word] = table.weight.mean(0)
        without = Model(changed, model.tokenizer, model.card)
        drop = whole - float(plain_score(without, features, finding))
    assert (ids == word).sum() == 1
    assert abs(drop) > 1e-3
    assert values["evidence"] == pytest.approx(drop, abs=1e-9)
    assert found.completeness_error is None
