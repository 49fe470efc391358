"""Weights of others: all that belongs to the network is taken, or the folder is refused."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file

from medllm.errors import CheckpointError
from medllm.models import join_pretrained, load_model
from medllm.models.weights import refuse_unexpected
from medllm.phantom import pixels_to_try

Q_PROJ = "model.language_model.layers.0.self_attn.q_proj"
BITS_4 = {"quant_method": "bitsandbytes", "load_in_4bit": True, "bnb_4bit_quant_type": "nf4"}
BITS_8 = {"quant_method": "bitsandbytes", "load_in_8bit": True}


@pytest.fixture(name="copied")
def copied_fixture(published, tmp_path):
    return lambda kind: shutil.copytree(published(kind), tmp_path / kind)


def change_config(folder: Path, part: str | None = None, **values: object) -> None:
    file = folder / "config.json"
    config = json.loads(file.read_text())
    changed = config[part] if part else config
    changed.pop("layer_types", None)  # one a layer, of as many as there were
    changed |= values
    file.write_text(json.dumps(config))


def add_tensors(folder: Path, **added: torch.Tensor) -> None:
    tensors = load_file(folder / "model.safetensors")
    save_file(tensors | added, folder / "model.safetensors", metadata={"format": "pt"})


def log_odds_of(folder: Path) -> torch.Tensor:
    model = load_model(folder)
    with torch.inference_mode():
        return model.log_odds(model.card.preprocessing.prepare(pixels_to_try(0)))


@pytest.mark.parametrize(
    ("kind", "part", "values", "message"),
    [
        (
            "vit-classifier",
            None,
            {"num_hidden_layers": 2},
            r"have 16 tensors that .* does not take: vit.layers.2.* and 13 more\. The config",
        ),
        ("vit-classifier", None, {"qkv_bias": False}, r"have 9 tensors .*layers.0.*k_proj.bias"),
        ("qwen2.5-vl", "text_config", {"num_hidden_layers": 1}, r"have 12 tensors .*layers.1\."),
        ("vit-bert", "text_config", {"num_hidden_layers": 1}, r"text_model.encoder.layer.*1"),
    ],
)
def test_a_configuration_of_a_smaller_network_is_refused(copied, kind, part, values, message):
    folder = copied(kind)
    change_config(folder, part, **values)
    with pytest.raises(CheckpointError, match=message):
        load_model(folder)


@pytest.mark.parametrize(
    "name",
    [
        f"{Q_PROJ}.weight_scale",
        f"{Q_PROJ}.lora_A.default.weight",
        "model.multi_modal_projector.linear_1.lora_B.weight",
        "model.language_model.layers.0.self_attn.q_norm.weight",
        "model.image_newline",
    ],
)
def test_a_tensor_of_a_module_that_the_network_has_is_refused(copied, name):
    folder = copied("llava")
    add_tensors(folder, **{name: torch.ones(4)})
    with pytest.raises(CheckpointError, match=rf"have 1 tensors .* {name}\. .* or merge them"):
        load_model(folder)


@pytest.mark.parametrize(
    ("kind", "names"),
    [
        (
            "llava",
            (
                "model.vision_tower.vision_model.embeddings.position_ids",
                "model.language_model.layers.0.self_attn.rotary_emb.inv_freq",
            ),
        ),
        ("llava-siglip", ("model.vision_tower.vision_model.head.probe",)),
        ("vit-classifier", ("vit.pooler.dense.weight", "vit.embeddings.mask_token")),
        ("vit-bert", ("text_model.cls.predictions.bias", "text_model.embeddings.position_ids")),
        ("clip", ("logit_bias",)),
    ],
)
def test_what_the_network_computes_and_heads_that_it_lacks_are_left_out(
    published, copied, kind, names
):
    folder = copied(kind)
    add_tensors(folder, **{name: torch.ones(1) for name in names})
    # Of weights that lie elsewhere in a file sums are rounded otherwise.
    assert torch.allclose(log_odds_of(folder), log_odds_of(published(kind)), atol=1e-4)


def test_a_head_left_out_by_an_identity_is_none_of_the_network():
    class Tower(torch.nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.head = torch.nn.Identity()

    refuse_unexpected(Path("folder"), Tower(), ["head.weight"])


@pytest.mark.parametrize(
    ("changed", "part"), [("clip", "vision_config"), ("vit", None), ("qwen2", None)]
)
def test_halves_with_more_layers_than_they_say_are_not_joined(changed, part, hub, copy):
    folder = copy(changed)
    change_config(folder, part, num_hidden_layers=1)
    pair = (hub.vision["siglip"], folder) if changed == "qwen2" else (folder, hub.text["llama"])
    with pytest.raises(CheckpointError, match=r"tensors that the network .*\.1\."):
        join_pretrained(*pair, ["pneumonia"])


@pytest.mark.parametrize("part", [None, "text_config"])
def test_a_quantization_that_transformers_does_not_know_is_refused(copied, part):
    folder = copied("qwen2.5-vl")
    change_config(folder, part, quantization_config={"quant_method": "modelopt"})
    with pytest.raises(CheckpointError, match="by 'modelopt', which transformers .* does") as error:
        load_model(folder)
    assert error.value.code == "unknown-quantization"


def test_a_quantization_that_modelopt_alone_tells_of_is_refused(copied):
    folder = copied("qwen2.5-vl")
    (folder / "hf_quant_config.json").write_text('{"producer": {"name": "modelopt"}}')
    with pytest.raises(CheckpointError, match=r"by ModelOpt \(hf_quant_config.json\)"):
        load_model(folder)


@pytest.mark.parametrize("kind", ["llava", "clip", "vit-classifier"])
@pytest.mark.parametrize("said", [BITS_4, BITS_8, {"load_in_4bit": True}], ids=["4", "8", "old"])
def test_ordinary_weights_that_are_said_to_be_quantized_are_refused(
    copied, monkeypatch, kind, said: dict[str, Any]
):
    """As a folder that was merged into what it was quantized from keeps it."""
    folder = copied(kind)
    change_config(folder, quantization_config=said)
    monkeypatch.setattr("medllm.models.weights.find_spec", lambda _: None)  # nothing to install
    with pytest.raises(CheckpointError, match="they are not; take its quantization_config out"):
        load_model(folder)
