"""LLaVA-NeXT: the image as a whole, then its tiles, each row of tokens closed by a newline."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from jaxtyping import Float

from medllm.models.architectures.architecture import Layout
from medllm.models.architectures.vision_language import VisionLanguage


class LlavaNext(VisionLanguage):
    """LLaVA-NeXT on a square image: its input is the square of tiles, and is shown small before.

    Source:
        Liu et al., LLaVA-NeXT: improved reasoning, OCR, and world knowledge, 2024.
    """

    def geometry(self, config: Any, processor: Any) -> dict[str, Any] | None:
        """Take the largest square that the tiles can make; a radiograph is padded to a square."""
        del processor
        squares = [rows for rows, columns in config.image_grid_pinpoints if rows == columns]
        if not squares:
            raise ValueError(
                f"none of its image_grid_pinpoints, {config.image_grid_pinpoints}, is a square, "
                "and a radiograph is shown to it as one."
            )
        return {"size": max(squares), "aspect": "pad"}

    def layout(self, network: Any, size: int) -> Layout:
        """Lay the tokens of the small image over those of the tiles; a newline shows nothing."""
        config = network.config
        side, base = self.side(config, size), self.side(config, config.vision_config.image_size)
        tiles = side // base
        fine = np.eye(side * side).reshape(side, side, -1)
        coarse = fine.reshape(base, tiles, base, tiles, -1).mean(axis=(1, 3))
        rows = np.concatenate([fine, np.zeros((side, 1, side * side))], axis=1)
        shares = np.concatenate([part.reshape(-1, side * side) for part in (coarse, rows)])
        return Layout((side, side), len(shares), shares)

    def image_inputs(
        self, config: Any, pixel_values: Float[torch.Tensor, "batch channels size size"]
    ) -> dict[str, Any]:
        """Cut the tiles, with the whole image at a tile's size before them."""
        batch, channels, size, _ = pixel_values.shape
        tile = config.vision_config.image_size
        whole = F.interpolate(pixel_values, size=(tile, tile), mode="bicubic", antialias=True)
        tiles = pixel_values.reshape(batch, channels, size // tile, tile, size // tile, tile)
        tiles = tiles.permute(0, 2, 4, 1, 3, 5).reshape(batch, -1, channels, tile, tile)
        return {
            "pixel_values": torch.cat([whole[:, None], tiles], dim=1),
            "image_sizes": torch.tensor([[size, size]] * batch),
        }
