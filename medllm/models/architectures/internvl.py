"""InternVL: tiles and the whole image, or that alone; patches folded four into one."""

from __future__ import annotations

from typing import Any, ClassVar

import torch
from jaxtyping import Float
from PIL import Image
from transformers import PreTrainedTokenizerBase

from medllm.models.architectures.architecture import Layout
from medllm.models.architectures.tiles import cut, layout_of, shrunk
from medllm.models.architectures.vision_language import VisionLanguage, token_named


class InternVL(VisionLanguage):
    """InternVL in transformers' form, as published without the cutting into tiles.

    Source:
        Chen et al., InternVL 1.5, 2024, section 3.1.
    """

    processor_options: ClassVar[dict[str, bool]] = {"crop_to_patches": False}
    in_one_tensor: ClassVar[bool] = True
    most_tiles: ClassVar[int] = 3  # published ones were trained with up to twelve in all

    def layout(self, network: Any, size: int) -> Layout:
        """Lay the tokens tile by tile, and those of the whole image behind."""
        vision = network.config.vision_config
        (tile, _), (patch, _) = vision.image_size, vision.patch_size
        if size <= tile:
            return super().layout(network, size)
        return layout_of(size // tile, self.side(network.config, tile), tile=tile, patch=patch)

    def side(self, config: Any, size: int) -> int:
        """Count the tokens that are left after patches are folded together."""
        patch, _ = config.vision_config.patch_size
        return int(size // patch * config.downsample_ratio)

    def image_inputs(
        self, config: Any, pixel_values: Float[torch.Tensor, "batch channels size size"]
    ) -> dict[str, Any]:
        """Give each image as one tile, and before it those it is cut into."""
        tile, _ = config.vision_config.image_size
        if pixel_values.shape[-1] <= tile:
            return super().image_inputs(config, pixel_values)
        whole = shrunk(pixel_values, tile, Image.Resampling.BICUBIC)
        return {"pixel_values": torch.cat([cut(pixel_values, tile), whole], dim=1).flatten(0, 1)}

    def spread(self, config: Any, tokenizer: PreTrainedTokenizerBase, n_tokens: int) -> str:
        """Write the image's tokens between the two that open and close it."""
        image = super().spread(config, tokenizer, n_tokens)
        names = ("start_image_token", "end_image_token")
        opened, closed = (token_named(tokenizer, name) for name in names)
        return f"{opened}{image}{closed}"
