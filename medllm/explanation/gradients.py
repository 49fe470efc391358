"""Gradients of the log-odds at the image tokens, times what the tokens hold."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import torch
from jaxtyping import Float

from medllm.errors import AttributionError
from medllm.explanation.attribution import PatchAttribution
from medllm.explanation.case import Case
from medllm.models import Model
from medllm.models.architectures import Llava

# Those whose architecture gives Grad-CAM the encoder's tokens, and not those behind a projector.
BEFORE_PROJECTOR = (Llava,)


def gradient_x_activation(case: Case) -> tuple[PatchAttribution, ...]:
    """Attribute each finding to the image tokens by their gradient times themselves.

    It is the first-order share of each token in the log-odds, at the image alone: integrated
    gradients with one step and zeros for a baseline. All findings share one forward.

    Args:
        case: The radiograph and its findings.

    Returns:
        An attribution a finding, in log-odds to first order. It does not promise to add up.

    Source:
        Shrikumar et al., Learning important features through propagating activation
        differences, ICML 2017, section 2 (gradient x input).
    """
    features = case.features.detach().requires_grad_()
    return tuple(
        PatchAttribution(case.model.layout.on_grid((features.detach() * gradient).sum(-1)[0]), 1)
        for gradient in _gradients(case, features, features)
    )


def grad_cam(case: Case) -> tuple[PatchAttribution, ...]:
    """Attribute each finding to the tokens of the patches by Grad-CAM.

    The channels of a ViT are the hidden axis, so each channel's weight is the mean of its
    gradient over the patches, and a patch's value is the weighted sum of its channels. Of LLaVA
    the tokens are the encoder's, as the projector is given them, where no class token stands
    between a patch and the answer; of all other families they are the image tokens behind the
    projector. The sign is kept: the paper's ReLU would drop what lowers the finding.

    Args:
        case: The radiograph and its findings.

    Returns:
        An attribution a finding, in log-odds to first order. It does not promise to add up.

    Raises:
        AttributionError: The network has no tokens.

    Source:
        Selvaraju et al., Grad-CAM, ICCV 2017, equations 1 and 2, without the ReLU.
    """
    model = case.model
    if refusal := without_tokens(model, case.findings):
        raise refusal
    with torch.no_grad():
        placed = case.pixel_values.to(model.device, model.dtype)
        tokens, project = model.architecture.encoder_tokens(model.network, placed)
    tokens = tokens.detach().requires_grad_()
    return tuple(
        PatchAttribution(
            model.layout.on_grid((tokens.detach() * gradient.mean(dim=1, keepdim=True)).sum(-1)[0]),
            1,
        )
        for gradient in _gradients(case, project(tokens), tokens)
    )


def without_tokens(model: Model, findings: Sequence[str]) -> AttributionError | None:
    """Say why Grad-CAM cannot serve a model.

    Args:
        model: The model.
        findings: Keys of what it is asked, which makes no difference.

    Returns:
        The error that `grad_cam` would raise of any image; None where it serves.
    """
    if model.architecture.tokens != "pixels":
        return None
    return AttributionError(
        f"model '{model.card.name}' has no image tokens that Grad-CAM could weigh; use the method "
        "'integrated-gradients'.",
        code="no-tokens",
    )


def _gradients(
    case: Case,
    features: Float[torch.Tensor, "1 patches width"],
    at: Float[torch.Tensor, "1 patches channels"],
) -> Iterator[Float[torch.Tensor, "1 patches channels"]]:
    """Give the gradient of each finding's log-odds; one forward serves them all."""
    with torch.enable_grad():
        log_odds = case.score_features(features)[0]
    for value in log_odds:
        (gradient,) = torch.autograd.grad(value, at, retain_graph=True)
        yield gradient
