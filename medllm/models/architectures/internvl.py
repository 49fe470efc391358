"""InternVL: one tile, its patches folded four into one."""

from __future__ import annotations

from typing import Any, ClassVar

from transformers import PreTrainedTokenizerBase

from medllm.models.architectures.vision_language import VisionLanguage


class InternVL(VisionLanguage):
    """InternVL in transformers' form, without the cutting into tiles (`crop_to_patches=False`).

    Source:
        Chen et al., InternVL 1.5, 2024, section 3.1.
    """

    processor_options: ClassVar[dict[str, bool]] = {"crop_to_patches": False}
    in_one_tensor: ClassVar[bool] = True

    def side(self, config: Any, size: int) -> int:
        """Count the tokens that are left after patches are folded together."""
        patch, _ = config.vision_config.patch_size
        return int(size // patch * config.downsample_ratio)

    def spread(self, config: Any, tokenizer: PreTrainedTokenizerBase, n_tokens: int) -> str:
        """Write the image's tokens between the two that open and close it."""
        image = super().spread(config, tokenizer, n_tokens)
        return f"{tokenizer.start_image_token}{image}{tokenizer.end_image_token}"
