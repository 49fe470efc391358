"""Every attribution method on joined checkpoints of other encoders and LLMs."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from medllm.dicom import Radiograph
from medllm.explanation import METHODS
from medllm.explanation.case import Case
from medllm.explanation.words import word_ablation, word_gradients
from medllm.phantom import make_phantom

PAIRS = [("clip", "llama"), ("siglip", "qwen2"), ("dinov2", "qwen2"), ("vit", "phi3")]


@pytest.fixture(scope="module")
def scan() -> Radiograph:
    return Radiograph(make_phantom(5, size=64).pixels, Path("phantom.png"), "png", "0" * 64)


@pytest.mark.parametrize(("vision", "text"), PAIRS)
def test_every_method_serves_a_foreign_model(joined, scan, vision, text):
    model = joined(vision, text)
    before = model.network.config._attn_implementation
    case = Case(model, scan, ("pneumonia", "effusion"))
    for name, method in METHODS.items():
        for item, effect in zip(method.attribute(case), case.effect, strict=True):
            assert item.values.shape == model.grid, name
            assert np.isfinite(item.values).all(), name
            assert np.ptp(item.values) > 0, name
            if item.completeness_error is not None:
                missed = abs(item.values.sum() - effect)
                assert missed == pytest.approx(item.completeness_error, abs=1e-6), name
    assert model.network.config._attn_implementation == before


@pytest.mark.parametrize(("vision", "text"), PAIRS)
def test_words_of_a_foreign_tokenizer_are_whole(joined, scan, vision, text):
    model = joined(vision, text)
    case = Case(model, scan, ("pneumonia",))
    (question,) = model.questions(["pneumonia"])
    prompt = model.prompt(question).replace("<image>", " <image> ").split()
    for attribute in (word_gradients, word_ablation):
        found = attribute(case, "pneumonia")
        assert [token.text for token in found.tokens] == prompt
        image = next(token.value for token in found.tokens if token.text == "<image>")
        assert image != 0
