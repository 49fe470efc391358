"""Gemma 3 and MedGemma: pooled image tokens that see each other, then causal text."""

from __future__ import annotations

import math
from typing import Any, ClassVar

import torch
from jaxtyping import Int64
from transformers import PreTrainedTokenizerBase

from medllm.models.architectures.vision_language import VisionLanguage, token_named


class Gemma3(VisionLanguage):
    """Gemma 3 with its SigLIP tower.

    Source:
        Gemma Team, Gemma 3 technical report, 2025, section 2.1.
    """

    processor_options: ClassVar[dict[str, bool]] = {"do_pan_and_scan": False}
    in_one_tensor: ClassVar[bool] = True

    def side(self, config: Any, size: int) -> int:
        """Take the tokens that are left after pooling, whatever the input's size."""
        del size
        return math.isqrt(config.mm_tokens_per_image)

    def prompt_inputs(
        self, config: Any, ids: Int64[torch.Tensor, "batch tokens"], n_tokens: int
    ) -> dict[str, Any]:
        """Mark the image's tokens; without, they would see each other one way alone."""
        del n_tokens
        return {"token_type_ids": (ids == config.image_token_id).long()}

    def marker(self, config: Any, tokenizer: PreTrainedTokenizerBase) -> str:
        """Give the token that opens an image."""
        del config
        return token_named(tokenizer, "boi_token")

    def spread(self, config: Any, tokenizer: PreTrainedTokenizerBase, n_tokens: int) -> str:
        """Write the image's tokens between the two that open and close it."""
        image = super().spread(config, tokenizer, n_tokens)
        opened, closed = (token_named(tokenizer, name) for name in ("boi_token", "eoi_token"))
        return f"\n\n{opened}{image}{closed}\n\n"
