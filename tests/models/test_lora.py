from __future__ import annotations

import sys

import pytest
import torch
from safetensors.torch import load_file
from transformers import AutoTokenizer, LlavaForConditionalGeneration

from medllm.errors import CheckpointError, MedllmError
from medllm.models import attach_lora, join_pretrained, load_model, merge_lora, save_model

FINDINGS = ["pneumonia", "effusion"]
PAIRS = [("vit", "llama"), ("dinov2", "qwen2"), ("clip", "gemma2"), ("siglip", "phi3")]
HALVES = {"vision": "model.vision_tower.", "text": "model.language_model."}


@pytest.fixture
def join(hub):
    """Join a network that the test may change."""
    return lambda vision, text: join_pretrained(hub.vision[vision], hub.text[text], FINDINGS)


@pytest.fixture(scope="module")
def pixel_values():
    return torch.randn(2, 3, 32, 32, generator=torch.Generator().manual_seed(0))


def log_odds(model, pixel_values):
    with torch.inference_mode():
        return model.log_odds(pixel_values)


def train_a_step(model, pixel_values, learning_rate=0.5):
    """Two steps: the first moves B alone, since B is zero and gives A no gradient."""
    trainable = [weight for weight in model.network.parameters() if weight.requires_grad]
    optimizer = torch.optim.SGD(trainable, lr=learning_rate)
    for _ in range(2):
        optimizer.zero_grad()
        model.log_odds(pixel_values).sum().backward()
        optimizer.step()
    return trainable


@pytest.mark.parametrize("on", [("vision",), ("text",), ("text", "vision")])
@pytest.mark.parametrize(("vision", "text"), PAIRS)
def test_trained_a_step_and_merged_the_logits_are_equal(vision, text, on, join, pixel_values):
    model = join(vision, text)
    untrained = log_odds(model, pixel_values)
    before = {name: tensor.clone() for name, tensor in model.network.state_dict().items()}
    adapted = attach_lora(model.network, on=on, rank=4)
    halves = {half for half, prefix in HALVES.items() for name in adapted if prefix in name}
    assert halves == set(on)
    # Nothing is moved by attaching, and the dropout sleeps outside of training.
    assert torch.equal(log_odds(model, pixel_values), untrained)
    train_a_step(model, pixel_values)
    trained = log_odds(model, pixel_values)
    assert (trained - untrained).abs().max() > 1e-2
    merged = merge_lora(model.network)
    assert type(merged) is LlavaForConditionalGeneration
    assert merged is model.network
    # Two orders of the same sums.
    torch.testing.assert_close(log_odds(model, pixel_values), trained, atol=1e-4, rtol=0)
    after = model.network.state_dict()
    assert after.keys() == before.keys()
    moved = {name for name in before if not torch.equal(before[name], after[name])}
    projector = {name for name in before if name.startswith("model.multi_modal_projector.")}
    assert moved == {f"{name}.weight" for name in adapted} | projector


def test_a_merged_network_is_saved_as_an_ordinary_checkpoint(join, pixel_values, tmp_path):
    model = join("dinov2", "qwen2")
    attach_lora(model.network)
    train_a_step(model, pixel_values)
    merge_lora(model.network)
    merged = log_odds(model, pixel_values)
    save_model(model, tmp_path / "merged")
    assert torch.equal(log_odds(load_model(tmp_path / "merged"), pixel_values), merged)
    stored = load_file(tmp_path / "merged" / "model.safetensors")
    assert not [name for name in stored if "lora" in name or "base_layer" in name]
    assert not list((tmp_path / "merged").glob("adapter*"))


@pytest.mark.parametrize(
    ("vision", "text", "in_vision", "in_text"),
    [
        # Attention has four layers and an MLP two; a gated one three; Phi-3 fuses them to four.
        ("vit", "llama", 2 * 6, 2 * 7),
        ("dinov2", "qwen2", 2 * 6, 2 * 7),
        # LLaVA reads CLIP and SigLIP before their last layer, which has no adapter then.
        ("clip", "gemma2", 6, 2 * 7),
        ("siglip", "phi3", 6, 2 * 4),
    ],
)
def test_every_linear_layer_that_is_used_has_an_adapter_and_gets_a_gradient(
    vision, text, in_vision, in_text, join, pixel_values
):
    model = join(vision, text)
    adapted = attach_lora(model.network)
    assert sum(name.startswith(HALVES["vision"]) for name in adapted) == in_vision
    assert sum(name.startswith(HALVES["text"]) for name in adapted) == in_text
    assert not [name for name in adapted if "lm_head" in name or "pooler" in name]
    names = {name for name, weight in model.network.named_parameters() if weight.requires_grad}
    assert all("lora_" in name or "multi_modal_projector" in name for name in names)
    for weight in train_a_step(model, pixel_values):
        assert weight.grad.abs().max() > 0


def test_rank_and_alpha_are_those_asked_for(join):
    model = join("vit", "llama")
    attach_lora(model.network, on=["text"], rank=3, alpha=12, dropout=0.25)
    layer = model.network.model.language_model.layers[0].mlp.up_proj
    assert layer.lora_A["default"].weight.shape == (3, 16)
    assert layer.scaling["default"] == 4
    assert layer.lora_dropout["default"].p == 0.25


def test_the_seed_draws_the_adapters(join):
    drawn = []
    for seed in (0, 0, 1):
        model = join("vit", "llama")
        attach_lora(model.network, seed=seed)
        drawn.append(model.network.model.language_model.layers[0].mlp.up_proj.lora_A.default.weight)
    assert torch.equal(drawn[0], drawn[1])
    assert not torch.equal(drawn[0], drawn[2])


def test_wrong_use_is_refused(join):
    model = join("vit", "llama")
    with pytest.raises(ValueError, match="no adapters to merge"):
        merge_lora(model.network)
    for on in ((), ("projector",)):
        with pytest.raises(ValueError, match="name one or both of"):
            attach_lora(model.network, on=on)
    attach_lora(model.network)
    with pytest.raises(ValueError, match="has adapters already"):
        attach_lora(model.network)


def test_a_half_without_linear_layers_is_refused(hub, tmp_path, save_llm):
    tokenizer = AutoTokenizer.from_pretrained(hub.text["phi3"])
    save_llm(tmp_path / "gpt2", "gpt2", tokenizer, n_embd=16, n_layer=2, n_head=2)
    network = join_pretrained(hub.vision["vit"], tmp_path / "gpt2", FINDINGS).network
    with pytest.raises(CheckpointError, match="the text half has no linear layers"):
        attach_lora(network)


def test_without_peft_the_extra_is_named(join, monkeypatch):
    monkeypatch.setitem(sys.modules, "peft", None)
    with pytest.raises(MedllmError, match=r"pip install 'medllm\[train\]'"):
        attach_lora(join("vit", "llama").network)
