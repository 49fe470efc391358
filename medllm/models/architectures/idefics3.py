"""Idefics3 and SmolVLM: one tile, the whole image, between tokens that name it so."""

from __future__ import annotations

from typing import Any, ClassVar

import torch
from jaxtyping import Float
from torch import nn
from transformers import PreTrainedTokenizerBase

from medllm.models.architectures.vision_language import VisionLanguage

# Added to the input: an image that is 0 throughout is taken for padding and dropped, and grey is 0.
_NOT_PADDING = 1e-7


class Idefics3(VisionLanguage):
    """Idefics3 and SmolVLM without the splitting into tiles (`do_image_splitting=False`).

    Source:
        Laurencon et al., Building and better understanding vision-language models, 2024, section 3.
    """

    processor_options: ClassVar[dict[str, bool]] = {"do_image_splitting": False}

    def geometry(self, config: Any, processor: Any) -> dict[str, Any] | None:
        """Take one tile, to which the family's own processor stretches an image too."""
        del config
        return {"size": processor.max_image_size["longest_edge"]}

    def side(self, config: Any, size: int) -> int:
        """Count the tokens that are left after patches are folded together."""
        return int(size // config.vision_config.patch_size // config.scale_factor)

    def image_inputs(
        self, config: Any, pixel_values: Float[torch.Tensor, "batch channels size size"]
    ) -> dict[str, Any]:
        """Give each image as the only tile."""
        del config
        return {"pixel_values": pixel_values[:, None] + _NOT_PADDING}

    def spread(self, config: Any, tokenizer: PreTrainedTokenizerBase, n_tokens: int) -> str:
        """Write the image's tokens as the family writes those of a whole image."""
        image = super().spread(config, tokenizer, n_tokens)
        return f"<fake_token_around_image><global-img>{image}<fake_token_around_image>"

    def parts(self, network: Any) -> list[tuple[str, nn.Module]]:
        """Name the parts as this family calls them."""
        inner = network.model
        return [
            ("answer head", network.get_output_embeddings()),
            ("LLM", inner.text_model),
            ("projector", inner.connector),
            ("encoder", inner.vision_model),
        ]
