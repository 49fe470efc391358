"""Idefics3 and SmolVLM: the whole image as one tile, behind the tiles it is cut into or alone."""

from __future__ import annotations

import math
from typing import Any, ClassVar

import torch
from jaxtyping import Float
from PIL import Image
from torch import nn
from transformers import PreTrainedTokenizerBase

from medllm.models.architectures.architecture import Layout
from medllm.models.architectures.tiles import cut, layout_of, shrunk
from medllm.models.architectures.vision_language import VisionLanguage

# Added to the input: an image that is 0 throughout is taken for padding and dropped, and grey is 0.
_NOT_PADDING = 1e-7


class Idefics3(VisionLanguage):
    """Idefics3 and SmolVLM, as published without the splitting into tiles.

    Source:
        Laurencon et al., Building and better understanding vision-language models, 2024, section 3.
    """

    processor_options: ClassVar[dict[str, bool]] = {"do_image_splitting": False}

    def geometry(self, config: Any, processor: Any) -> dict[str, Any] | None:
        """Take one tile, to which the family's own processor stretches an image too."""
        del config
        return {"size": processor.max_image_size["longest_edge"]}

    most_tiles: ClassVar[int] = 4  # as many as its own processors cut

    def layout(self, network: Any, size: int) -> Layout:
        """Lay the tokens tile by tile, and those of the whole image behind."""
        vision = network.config.vision_config
        tile = vision.image_size
        if size <= tile:
            return super().layout(network, size)
        side = self.side(network.config, tile)
        return layout_of(size // tile, side, tile=tile, patch=vision.patch_size)

    def side(self, config: Any, size: int) -> int:
        """Count the tokens that are left after patches are folded together."""
        return int(size // config.vision_config.patch_size // config.scale_factor)

    def image_inputs(
        self, config: Any, pixel_values: Float[torch.Tensor, "batch channels size size"]
    ) -> dict[str, Any]:
        """Give each image as one tile, and before it those it is cut into."""
        tile, size = config.vision_config.image_size, pixel_values.shape[-1]
        shown = pixel_values[:, None]
        if size > tile:
            whole = shrunk(pixel_values, tile, Image.Resampling.LANCZOS)
            shown = torch.cat([cut(pixel_values, tile), whole], dim=1)
        return {"pixel_values": shown + _NOT_PADDING}

    def spread(self, config: Any, tokenizer: PreTrainedTokenizerBase, n_tokens: int) -> str:
        """Write the image's tokens as the family writes those of tiles and of a whole image."""
        side = self.side(config, config.vision_config.image_size)
        tiles = math.isqrt(max(0, n_tokens // side**2 - 1))
        image = super().spread(config, tokenizer, n_tokens // (tiles**2 + 1))
        rows = (
            "".join(
                f"<fake_token_around_image><row_{row}_col_{column}>{image}"
                for column in range(1, tiles + 1)
            )
            for row in range(1, tiles + 1)
        )
        before = "".join(f"{row}\n" for row in rows) + ("\n" if tiles else "")
        return f"{before}<fake_token_around_image><global-img>{image}<fake_token_around_image>"

    def parts(self, network: Any) -> list[tuple[str, nn.Module]]:
        """Name the parts as this family calls them."""
        inner = network.model
        return [
            ("answer head", network.get_output_embeddings()),
            ("LLM", inner.text_model),
            ("projector", inner.connector),
            ("encoder", inner.vision_model),
        ]
