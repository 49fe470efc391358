"""Attention of others' networks by its definition, from one plain forward of theirs in float64."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from transformers import AutoModelForImageTextToText

from medllm.explanation.attention import attention_rollout, gradient_attention
from medllm.explanation.case import Case
from medllm.models import Model, load_model
from tests.models.architectures.checkpoints import image_size, write_checkpoint
from tests.models.architectures.images import blocks, picture, scan_of
from tests.models.architectures.plain import plain_inputs

FINDINGS = ("pneumonia", "effusion")
WITH_ENCODER = ("paligemma", "paligemma2")


def plainly(folder: Path, kind: str, model: Model, finding: str):
    """Every attention weight of one forward over pixels and text, and the log-odds behind them."""
    network = AutoModelForImageTextToText.from_pretrained(
        folder, dtype=torch.float64, attn_implementation="eager"
    ).eval()
    grey = blocks(image_size(kind), 5)
    (question,) = model.questions([finding])
    if kind == "llava-next":  # whose processor rounds the small copy of the image
        ids = model.encode([finding])
        pixels = model.card.preprocessing.prepare(grey.astype(np.float32) / 255)
        inputs = model.architecture.image_inputs(network.config, pixels)
        inputs["input_ids"] = torch.cat([ids.prefix, ids.suffixes[0]])[None]
    else:
        said = f"{question.text} Answer with yes or no."
        if "paligemma" in kind:
            said = f"answer en {question.text}"
        inputs = plain_inputs(folder, picture(grey), said)
    inputs["pixel_values"] = inputs["pixel_values"].double()
    vision = []
    for name, part in network.model.named_modules():
        if "vision_tower" in name and name.endswith("self_attn"):
            part.register_forward_hook(lambda _module, _inputs, output: vision.append(output[1]))
    read = network(**inputs, use_cache=False, output_attentions=True)
    yes, no = (
        [model.tokenizer(word, add_special_tokens=False)["input_ids"][0] for word in words]
        for words in (question.yes, question.no)
    )
    logits = read.logits[0, -1]
    score = logits[yes].logsumexp(0) - logits[no].logsumexp(0)
    slots = (inputs["input_ids"][0] == network.config.image_token_id).nonzero()[:, 0]
    return score, vision if kind in WITH_ENCODER else [], list(read.attentions), slots.numpy()


def multiplied(passed: list[np.ndarray], kept: float) -> np.ndarray:
    found = np.eye(len(passed[0]))
    for one in passed:
        found = (kept * np.eye(len(one)) + one) @ found
    return found


@pytest.mark.parametrize(
    "kind", [*WITH_ENCODER, "llava-next", "gemma3", "qwen2.5-vl", "qwen3-vl", "idefics3"]
)
def test_both_methods_follow_their_definitions_over_the_networks_own_forward(tmp_path, kind):
    folder = write_checkpoint(kind, tmp_path / kind)
    model = load_model(folder)
    model.network.double()
    case = Case(model, scan_of(blocks(image_size(kind), 5)), FINDINGS)
    pairs = zip(gradient_attention(case), attention_rollout(case), strict=True)
    for (gradient, rollout), finding, effect in zip(pairs, FINDINGS, case.effect, strict=True):
        score, vision, text, slots = plainly(folder, kind, model, finding)
        assert (len(vision), len(text)) == (3 if kind in WITH_ENCODER else 0, 2)
        slopes = torch.autograd.grad(score, [*vision, *text])
        weights = [one[0].detach().numpy() for one in (*vision, *text)]
        of_heads = [
            np.maximum(one * slope[0].numpy(), 0).mean(axis=0)
            for one, slope in zip(weights, slopes, strict=True)
        ]
        halves = [one.mean(axis=0) / 2 for one in weights]
        wanted = []
        for passed, kept in ((of_heads, 1.0), (halves, 0.5)):
            flow = multiplied(passed[len(vision) :], kept)[-1, slots]
            if vision:
                flow = flow @ multiplied(passed[: len(vision)], kept)
            shares = model.layout.shares
            wanted.append((flow if shares is None else flow @ shares).reshape(model.grid))
        scale = wanted[0].max()
        assert scale > 1e-4
        # The processor's pixels are float32 in another order of operations.
        np.testing.assert_allclose(gradient.values, wanted[0], atol=1e-5 * scale, rtol=1e-5)
        told = effect * wanted[1] / wanted[1].sum()
        np.testing.assert_allclose(rollout.values, told, atol=1e-5, rtol=1e-5)
