"""Grey images that a kind's processor leaves as they are, and scans of them."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import torch
from PIL import Image

import medllm
from medllm.models import Model


def blocks(side: int, seed: int = 0) -> np.ndarray:
    """Draw a square of blocks of 8 pixels, none of them black or white."""
    cells = np.random.default_rng(seed).integers(80, 177, (side // 8 + 1,) * 2)
    return np.kron(cells, np.ones((8, 8)))[:side, :side].astype(np.uint8)


def picture(grey: np.ndarray) -> Image.Image:
    return Image.fromarray(np.stack([grey] * 3, axis=-1))


def prepared(model: Model, *greys: np.ndarray) -> torch.Tensor:
    contract = model.card.preprocessing
    return torch.cat([contract.prepare(grey.astype(np.float32) / 255) for grey in greys])


def scan_of(grey: np.ndarray) -> medllm.Radiograph:
    return medllm.Radiograph(grey.astype(np.float32) / 255, Path("blocks.png"), "png", "0" * 64)
