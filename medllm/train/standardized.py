"""A projector that sees standardized features while it is trained, and is plain afterwards."""

from __future__ import annotations

from collections.abc import Iterable

import torch
from jaxtyping import Float
from torch import nn
from transformers import LlavaForConditionalGeneration


class StandardizedLinear(nn.Module):
    """A linear layer behind a fixed standardization of its inputs.

    LLaVA takes the encoder's hidden states before their last normalization. After masked
    autoencoding these are some hundred long, with a few dimensions ten times the others, and
    a learning rate that suits the rest of the network throws the projector about.

    Attributes:
        linear: What is trained.
        mean: Mean of each input dimension.
        std: Standard deviation of each input dimension.
    """

    mean: torch.Tensor
    std: torch.Tensor

    def __init__(
        self,
        linear: nn.Linear,
        mean: Float[torch.Tensor, " width"],
        std: Float[torch.Tensor, " width"],
    ) -> None:
        """Put mean and deviation in front of a layer.

        Args:
            linear: Layer whose inputs are standardized.
            mean: Mean of each input dimension, of training images.
            std: Standard deviation of each.
        """
        super().__init__()
        self.linear = linear
        self.register_buffer("mean", mean)
        self.register_buffer("std", std.clamp_min(1e-6))

    def forward(
        self, inputs: Float[torch.Tensor, "*batch width"]
    ) -> Float[torch.Tensor, "*batch out"]:
        """Standardize and apply."""
        outputs: torch.Tensor = self.linear((inputs - self.mean) / self.std)
        return outputs

    def folded(self) -> nn.Linear:
        """Give one linear layer that does the same."""
        plain = nn.Linear(
            self.linear.in_features, self.linear.out_features, device=self.linear.weight.device
        )
        with torch.no_grad():
            plain.weight.copy_(self.linear.weight / self.std)
            plain.bias.copy_(self.linear.bias - plain.weight @ self.mean)
        return plain


def standardize_projector(
    network: LlavaForConditionalGeneration,
    batches: Iterable[Float[torch.Tensor, "_ channels size size"]],
) -> None:
    """Put a standardization in front of a new network's projector.

    Args:
        network: Changed in place.
        batches: Training images to take mean and deviation from, a few at a time.
    """
    total, squares, count = torch.zeros(()), torch.zeros(()), 0
    for pixel_values in batches:
        # In double precision, so that a deviation far below its mean is not rounded away.
        features = _features(network, pixel_values).cpu().double()
        total = total + features.sum(dim=0)
        squares = squares + features.square().sum(dim=0)
        count += len(features)
    mean = total / count
    std = ((squares - count * mean.square()) / (count - 1)).clamp_min(0).sqrt()
    projector = network.model.multi_modal_projector
    found = (value.float().to(network.device) for value in (mean, std))
    projector.linear_1 = StandardizedLinear(projector.linear_1, *found)


def _features(
    network: LlavaForConditionalGeneration,
    pixel_values: Float[torch.Tensor, "batch channels size size"],
) -> Float[torch.Tensor, "tokens width"]:
    with torch.no_grad():
        hidden = network.model.vision_tower(pixel_values, output_hidden_states=True).hidden_states
    # A tower without a leading token gives patches alone.
    first = 1 if network.config.vision_feature_select_strategy == "default" else 0
    features: torch.Tensor = hidden[network.config.vision_feature_layer][:, first:].flatten(0, 1)
    return features


def fold_projector(network: LlavaForConditionalGeneration) -> None:
    """Fold the standardization into the projector's weights; the network computes the same."""
    projector = network.model.multi_modal_projector
    projector.linear_1 = projector.linear_1.folded()
