"""A phantom as a radiograph, and a model that is linear in its pixels."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import pytest
import torch
from jaxtyping import Float

from medllm.dicom import Radiograph
from medllm.explanation.case import Case
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


def steep_copy(model: LinearModel, scan: Radiograph, steepness: float) -> LinearModel:
    """Put the model behind a curve that rises halfway between the blurred scan and the scan."""
    case = Case(model, scan, ("pneumonia",))
    middle = float(case.log_odds[0] + case.baseline_log_odds[0]) / 2
    slope = steepness / abs(float(case.effect[0]))

    class SteepModel(LinearModel):
        def log_odds_from_features(
            self,
            features: Float[torch.Tensor, "batch patches width"],
            findings: Sequence[str] | None = None,
        ) -> Float[torch.Tensor, "batch findings"]:
            linear = super().log_odds_from_features(features, findings)
            return torch.tanh(slope * (linear - middle))

    return SteepModel(model.network, model.tokenizer, model.card)


def linear_weights() -> torch.Tensor:
    """Weights of three findings over 16 patches of 256 pixels; the first two are opposite."""
    weights = 0.05 * torch.randn(3, 16, 256, generator=torch.Generator().manual_seed(3))
    weights[1] = -weights[0]
    return weights


@pytest.fixture(scope="session")
def linear_model(tiny_model: Model) -> LinearModel:
    return LinearModel(tiny_model.network, tiny_model.tokenizer, tiny_model.card)


@pytest.fixture(scope="session")
def steep_model(linear_model: LinearModel, scan: Radiograph) -> LinearModel:
    """Few integration steps are not enough for it."""
    return steep_copy(linear_model, scan, 40)


@pytest.fixture(scope="session")
def cliff_model(linear_model: LinearModel, scan: Radiograph) -> LinearModel:
    """Its gradient is zero wherever it is asked for; no number of steps is enough."""
    return steep_copy(linear_model, scan, 1e6)


@pytest.fixture(scope="session")
def scan() -> Radiograph:
    phantom = make_phantom(3, size=128, lesions=[Lesion("lung_opacity", "right", "lower")])
    return Radiograph(phantom.pixels, Path("phantom.png"), "png", "0" * 64)
