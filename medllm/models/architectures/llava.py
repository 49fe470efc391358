"""LLaVA: an encoder's patch tokens through a small projector; medllm's own networks are of it."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from jaxtyping import Float

from medllm.models.architectures.vision_language import VisionLanguage


class Llava(VisionLanguage):
    """LLaVA with a ViT, DINOv2, CLIP or SigLIP tower.

    Source:
        Liu et al., Visual instruction tuning, NeurIPS 2023.
    """

    def encoder_tokens(
        self, network: Any, pixel_values: Float[torch.Tensor, "batch channels size size"]
    ) -> tuple[Float[torch.Tensor, "batch tokens encoder_width"], Callable[..., torch.Tensor]]:
        """Give what goes into the projector, and the projector."""
        seen: list[torch.Tensor] = []
        projector = network.model.multi_modal_projector
        hook = projector.register_forward_pre_hook(lambda _, inputs: seen.append(inputs[0]))
        try:
            self.image_features(network, pixel_values)
        finally:
            hook.remove()
        return seen[0], projector
