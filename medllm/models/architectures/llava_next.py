"""LLaVA-NeXT: the image as a whole, then its tiles, each row of tokens closed by a newline."""

from __future__ import annotations

from typing import Any

import torch
from jaxtyping import Float
from PIL import Image
from torch import nn

from medllm.models.architectures.architecture import Layout
from medllm.models.architectures.tiles import cut, layout_of, shrunk
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
        vision = network.config.vision_config
        tile, patch = vision.image_size, vision.patch_size
        side = self.side(network.config, tile)
        return layout_of(size // tile, side, tile=tile, patch=patch, whole_first=True, closed=True)

    def image_inputs(
        self, config: Any, pixel_values: Float[torch.Tensor, "batch channels size size"]
    ) -> dict[str, Any]:
        """Cut the tiles, with the whole image at a tile's size before them."""
        batch, _, size, _ = pixel_values.shape
        tile = config.vision_config.image_size
        whole = shrunk(pixel_values, tile, Image.Resampling.BICUBIC)
        return {
            "pixel_values": torch.cat([whole, cut(pixel_values, tile)], dim=1),
            "image_sizes": torch.tensor([[size, size]] * batch),
        }

    def parts(self, network: Any) -> list[tuple[str, nn.Module]]:
        """Name head, LLM, projector and encoder; the newline goes with the projector."""
        inner = network.model
        return [
            (name, nn.Sequential(part, nn.ParameterList([inner.image_newline])))
            if name == "projector"
            else (name, part)
            for name, part in super().parts(network)
        ]
