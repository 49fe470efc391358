from __future__ import annotations

import dataclasses

import pytest
from transformers import (
    CLIPVisionConfig,
    Dinov2Config,
    LlamaConfig,
    SiglipVisionConfig,
    ViTConfig,
)

from medllm.data import Preprocessing
from medllm.models import build_network
from medllm.models.reading import check_tokens

SHAPE = {
    "hidden_size": 16,
    "num_hidden_layers": 2,
    "num_attention_heads": 2,
    "intermediate_size": 32,
}


@pytest.mark.parametrize("kind", [ViTConfig, Dinov2Config, CLIPVisionConfig, SiglipVisionConfig])
def test_a_new_network_of_any_encoder_has_a_token_a_patch(kind, tiny_model):
    vision = kind(**SHAPE, image_size=32, patch_size=8)
    network = build_network(vision, LlamaConfig(**SHAPE), tiny_model.tokenizer)
    card = dataclasses.replace(tiny_model.card, preprocessing=Preprocessing(size=32, channels=3))
    model = dataclasses.replace(tiny_model, network=network, card=card)
    assert model.grid == (4, 4)
    check_tokens(model)
