"""Tiny checkpoints of other people's model families, in the folder format of the hub."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from transformers import AutoModel, AutoModelForImageClassification, AutoModelForImageTextToText

from medllm.models import Model, load_model
from tests.models.architectures import discriminative, gemma, llava, qwen, tiled
from tests.models.architectures.family import Family, redraw, write

_GENERATIVE: dict[str, Callable[[], Family]] = {
    "llava": llava.llava,
    "llava-siglip": llava.llava_siglip,
    "llava-dinov2": llava.llava_dinov2,
    "llava-next": llava.llava_next,
    "paligemma": gemma.paligemma,
    "paligemma2": gemma.paligemma2,
    "gemma3": gemma.gemma3,
    "qwen2-vl": qwen.qwen2_vl,
    "qwen2.5-vl": qwen.qwen2_5_vl,
    "qwen3-vl": qwen.qwen3_vl,
    "idefics3": tiled.idefics3,
    "smolvlm": tiled.smolvlm,
    "smolvlm-so400m": tiled.smolvlm_so400m,
    "internvl": tiled.internvl,
}
_CONTRASTIVE: dict[str, Callable[[], Family]] = {
    "clip": discriminative.clip,
    "siglip": discriminative.siglip,
    "vit-bert": discriminative.vit_bert,
}
_CLASSIFIERS: dict[str, Callable[[], Family]] = {
    "vit-classifier": discriminative.vit_classifier,
    "resnet-classifier": discriminative.resnet_classifier,
}
_BUILDERS = {**_GENERATIVE, **_CONTRASTIVE, **_CLASSIFIERS}

GENERATIVE: tuple[str, ...] = tuple(_GENERATIVE)
CONTRASTIVE: tuple[str, ...] = tuple(_CONTRASTIVE)
CLASSIFIERS: tuple[str, ...] = tuple(_CLASSIFIERS)
KINDS: tuple[str, ...] = (*GENERATIVE, *CONTRASTIVE, *CLASSIFIERS)

# By what a checkpoint of the kind is opened.
AUTO_MODELS: dict[str, Any] = {
    **dict.fromkeys(GENERATIVE, AutoModelForImageTextToText),
    **dict.fromkeys(CONTRASTIVE, AutoModel),
    **dict.fromkeys(CLASSIFIERS, AutoModelForImageClassification),
}


Opened = Callable[[str], tuple[Path, Model]]


def opened_once(
    folders: pytest.TempPathFactory, write_kind: Callable[[str, Path], Path] | None = None
) -> Opened:
    """Write a checkpoint of a kind and load it when it is first asked for."""
    kept: dict[str, tuple[Path, Model]] = {}

    def opened(kind: str) -> tuple[Path, Model]:
        if kind not in kept:
            folder = (write_kind or write_checkpoint)(kind, folders.mktemp("kinds") / kind)
            kept[kind] = (folder, load_model(folder))
        return kept[kind]

    return opened


def image_size(kind: str) -> int:
    """Side of the square image, in pixels, that the kind's processor does not resize."""
    return _BUILDERS[kind]().image_size


def image_grid(kind: str) -> tuple[int, int]:
    """Rows and columns of the tokens of that image, of its whole view where it has tiles too."""
    grid = _BUILDERS[kind]().grid
    if grid is None:
        raise ValueError(f"{kind} has no image tokens; ask of one of {GENERATIVE}.")
    return grid


def write_checkpoint(kind: str, folder: Path, *, seed: int = 0) -> Path:
    """Write a tiny checkpoint of random weights and give its folder.

    Args:
        kind: One of `KINDS`.
        folder: Where to; made if need be.
        seed: The weights follow from it.
    """
    family = _BUILDERS[kind]()
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        model = AUTO_MODELS[kind].from_config(family.config, dtype=torch.float32)
    redraw(family, model, seed)
    folder.mkdir(parents=True, exist_ok=True)
    write(family, model, folder)
    return folder
