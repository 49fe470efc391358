"""What makes a checkpoint's folder: a configuration, a processor, and how they are written."""

from __future__ import annotations

import json
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from transformers import (
    BaseImageProcessor,
    PreTrainedConfig,
    PreTrainedModel,
    PreTrainedTokenizerFast,
    ProcessorMixin,
)

TOWER = {
    "hidden_size": 32,
    "intermediate_size": 48,
    "num_hidden_layers": 3,
    "num_attention_heads": 4,
}
DECODER = {
    "hidden_size": 32,
    "intermediate_size": 64,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "max_position_embeddings": 2048,
}


def text_settings(tokenizer: PreTrainedTokenizerFast) -> dict[str, Any]:
    """Size the vocabulary as published ones are, a round number above the tokens."""
    return {
        "vocab_size": -(-len(tokenizer) // 64) * 64,
        "pad_token_id": tokenizer.pad_token_id,
        "bos_token_id": tokenizer.bos_token_id,
        "eos_token_id": tokenizer.eos_token_id,
    }


def labels(*names: str) -> dict[str, dict[Any, Any]]:
    """Name a classifier's outputs in order."""
    return {
        "id2label": dict(enumerate(names)),
        "label2id": {name: index for index, name in enumerate(names)},
    }


@dataclass(frozen=True)
class Family:
    """A tiny member of a model family, before it has weights."""

    config: PreTrainedConfig
    # Side of the square image that the processor leaves as it is, in pixels.
    image_size: int
    # Rows and columns of the tokens that such an image becomes, row by row; of its whole view.
    grid: tuple[int, int] | None = None
    # Saved whole, in the present format: one `processor_config.json`, the image processor in it.
    processor: ProcessorMixin | None = None
    # Else the parts, in the older format: `preprocessor_config.json` beside the tokenizer's files,
    image_processor: BaseImageProcessor | None = None
    tokenizer: PreTrainedTokenizerFast | None = None
    # what `processor_config.json` says, where the family has one,
    processor_settings: dict[str, Any] = field(default_factory=dict)
    # and the processor that these files name.
    processor_class: str | None = None
    # Standard deviation of the matrices: as large as it takes for errors to show.
    std: float = 0.2
    # Parameters that are not drawn.
    constants: dict[str, float] = field(default_factory=dict)


def redraw(family: Family, model: PreTrainedModel, seed: int) -> None:
    """Draw all weights anew: matrices large, vectors a little off their start."""
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if name in family.constants:
                parameter.fill_(family.constants[name])
            elif parameter.ndim > 1:
                parameter.normal_(std=family.std, generator=generator)
            elif parameter.ndim == 1:
                parameter.add_(torch.randn(parameter.shape, generator=generator), alpha=0.1)
        for name, buffer in model.named_buffers():
            if name.endswith("running_mean"):
                buffer.normal_(std=family.std, generator=generator)
            elif name.endswith("running_var"):
                buffer.uniform_(0.5, 1.5, generator=generator)


def write(family: Family, model: PreTrainedModel, folder: Path) -> None:
    """Write a folder as the hub holds them."""
    model.save_pretrained(folder)
    for part in (family.processor, family.image_processor, family.tokenizer):
        if part is not None:
            part.save_pretrained(folder)
    if family.processor_settings:
        text = json.dumps(family.processor_settings)
        (folder / "processor_config.json").write_text(text)
    for name in ("preprocessor_config.json", "processor_config.json", "tokenizer_config.json"):
        if (folder / name).exists():
            _amend(folder / name, family.processor_class)


def _amend(path: Path, processor_class: str | None) -> None:
    """Let a file of settings read as on the hub: it names the processor, and no backend."""
    settings = json.loads(path.read_text().replace('ImageProcessorPil"', 'ImageProcessor"'))
    if processor_class is not None:
        settings["processor_class"] = processor_class
    path.write_text(json.dumps(settings, indent=2, sort_keys=True) + "\n")
