"""PaliGemma: image and question see each other, so that no prefix can be shared."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, ClassVar

import torch
from jaxtyping import Float, Int64
from transformers import PreTrainedTokenizerBase

from medllm.models.architectures.vision_language import VisionLanguage, token_named
from medllm.models.build import IMAGE_TOKEN


class PaliGemma(VisionLanguage):
    """PaliGemma and PaliGemma 2.

    Source:
        Beyer et al., PaliGemma: a versatile 3B VLM for transfer, 2024, section 3 (the attention).
    """

    in_one_tensor: ClassVar[bool] = True
    shares_prefix: ClassVar[bool] = False

    def prompt_inputs(
        self, config: Any, ids: Int64[torch.Tensor, "batch tokens"], n_tokens: int
    ) -> dict[str, Any]:
        """Mark all of the prompt as what sees both ways; without, PaliGemma 2 sees one way."""
        del config, n_tokens
        return {"token_type_ids": torch.zeros_like(ids)}

    def logits(
        self,
        network: Any,
        hidden: Float[torch.Tensor, "*rows width"],
        words: Sequence[int] | None = None,
    ) -> Float[torch.Tensor, "*rows words"]:
        """Apply the head, and the cap on its logits that PaliGemma 2 has."""
        logits = super().logits(network, hidden, words)
        cap = getattr(network.config.text_config, "final_logit_softcapping", None)
        return logits if cap is None else cap * torch.tanh(logits / cap)

    def template(self, tokenizer: PreTrainedTokenizerBase, text: str) -> str:
        """Write the image, the start of the text, the text and the end of its line."""
        return f"{IMAGE_TOKEN}{token_named(tokenizer, 'bos_token')}{text}\n"
