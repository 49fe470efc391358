"""A phantom as a radiograph, and a model that is linear in its pixels."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import pytest
import torch
from jaxtyping import Float

from medllm.dicom import Radiograph
from medllm.models import Model
from medllm.phantom import Lesion, make_phantom


class LinearModel(Model):
    """Patch tokens are the patches' pixels; log-odds are a weighted sum of them."""

    def image_features(
        self, pixel_values: Float[torch.Tensor, "batch channels size size"]
    ) -> Float[torch.Tensor, "batch patches width"]:
        patches = pixel_values.unfold(2, 16, 16).unfold(3, 16, 16)  # (B, 1, 4, 4, 16, 16)
        return patches.flatten(4).flatten(1, 3)

    def log_odds_from_features(
        self,
        features: Float[torch.Tensor, "batch patches width"],
        findings: Sequence[str] | None = None,
    ) -> Float[torch.Tensor, "batch findings"]:
        keys = [question.finding for question in self.card.questions]
        scores = torch.einsum("bpd,fpd->bf", features, linear_weights())
        return scores[:, [keys.index(key) for key in findings or keys]]


class SteepModel(LinearModel):
    """The same behind a steep curve at the midpoint of the path, which few steps miss."""

    steepness = 200.0

    def log_odds_from_features(
        self,
        features: Float[torch.Tensor, "batch patches width"],
        findings: Sequence[str] | None = None,
    ) -> Float[torch.Tensor, "batch findings"]:
        # log-odds of the phantom's blurred copy and of itself are 0.74 and 1.14
        return torch.tanh(
            self.steepness * (super().log_odds_from_features(features, findings) - 0.9)
        )


class CliffModel(SteepModel):
    """A step; its gradient is zero wherever it is asked for."""

    steepness = 1e6


def linear_weights() -> torch.Tensor:
    """Weights of three findings over 16 patches of 256 pixels; the image lowers the second."""
    weights = 0.05 * torch.randn(3, 16, 256, generator=torch.Generator().manual_seed(3))
    return weights * torch.tensor([1.0, -1.0, 1.0])[:, None, None]


@pytest.fixture(scope="session")
def linear_model(tiny_model: Model) -> LinearModel:
    return LinearModel(tiny_model.network, tiny_model.tokenizer, tiny_model.card)


@pytest.fixture(scope="session")
def steep_model(tiny_model: Model) -> SteepModel:
    return SteepModel(tiny_model.network, tiny_model.tokenizer, tiny_model.card)


@pytest.fixture(scope="session")
def cliff_model(tiny_model: Model) -> CliffModel:
    return CliffModel(tiny_model.network, tiny_model.tokenizer, tiny_model.card)


@pytest.fixture(scope="session")
def scan() -> Radiograph:
    phantom = make_phantom(3, size=128, lesions=[Lesion("lung_opacity", "right", "lower")])
    return Radiograph(phantom.pixels, Path("phantom.png"), "png", "0" * 64)
