"""Each method against its definition: slow, in float64, through LLaVA's own plain forward."""

from __future__ import annotations

import copy
from pathlib import Path

import numpy as np
import pytest
import torch

from medllm.dicom import Radiograph
from medllm.explanation.case import Case
from medllm.explanation.integrated_gradients import integrated_gradients
from medllm.explanation.occlusion import occlusion
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
