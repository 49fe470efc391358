"""The attribution methods by name."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass

from medllm.errors import AttributionError
from medllm.explanation.attention import (
    WITH_ENCODER,
    attention_rollout,
    gradient_attention,
    without_attention,
)
from medllm.explanation.attribution import PatchAttribution
from medllm.explanation.case import Case
from medllm.explanation.gradients import (
    BEFORE_PROJECTOR,
    grad_cam,
    gradient_x_activation,
    without_tokens,
)
from medllm.explanation.integrated_gradients import (
    integrated_gradients,
    pixel_integrated_gradients,
    smooth_integrated_gradients,
)
from medllm.explanation.perturbation import occlusion, patch_ablation, rise
from medllm.explanation.record import Layer
from medllm.explanation.shapley import patch_shapley, zone_shapley
from medllm.machine import out_of_memory_told
from medllm.models import Model
from medllm.models.architectures.architecture import Architecture

# Says why a method cannot serve a model for some findings, whatever the image; None where it can.
Refusal = Callable[[Model, Sequence[str]], AttributionError | None]


def _serves_all(_model: Model, _findings: Sequence[str]) -> None:
    return None


@dataclass(frozen=True)
class Method:
    """One way to attribute log-odds to patches.

    Attributes:
        attribute: Gives an attribution a finding of the case, in order.
        layer: What it attributes to; `layer_of` says it of a model.
        unlike: Key of a method that works otherwise, for comparison.
        refusal: Says why it cannot serve a model for any of some findings, whatever the image.
        in_encoder: Kinds of network of which it attributes to the encoder's tokens instead.
    """

    attribute: Callable[[Case], tuple[PatchAttribution, ...]]
    layer: Layer
    unlike: str
    refusal: Refusal = _serves_all
    in_encoder: tuple[type[Architecture], ...] = ()


METHODS = {
    "integrated-gradients": Method(integrated_gradients, "image tokens", "occlusion"),
    "gradient-x-activation": Method(gradient_x_activation, "image tokens", "occlusion"),
    "grad-cam": Method(grad_cam, "image tokens", "occlusion", without_tokens, BEFORE_PROJECTOR),
    "gradient-attention": Method(
        gradient_attention, "image tokens", "occlusion", without_attention, WITH_ENCODER
    ),
    "attention-rollout": Method(
        attention_rollout, "image tokens", "occlusion", without_attention, WITH_ENCODER
    ),
    "pixel-integrated-gradients": Method(pixel_integrated_gradients, "pixels", "occlusion"),
    "smooth-integrated-gradients": Method(smooth_integrated_gradients, "pixels", "occlusion"),
    "occlusion": Method(occlusion, "pixels", "integrated-gradients"),
    "patch-ablation": Method(patch_ablation, "pixels", "integrated-gradients"),
    "rise": Method(rise, "pixels", "integrated-gradients"),
    "patch-shapley": Method(patch_shapley, "pixels", "rise"),
    "zone-shapley": Method(zone_shapley, "regions", "integrated-gradients"),
}

# On phantoms it points best, and names the right region far oftener than occlusion (ADR 14).
DEFAULT_METHOD = "integrated-gradients"


def layer_of(model: Model, method: str) -> Layer:
    """Say what a method attributes to in a model's network.

    Args:
        model: The model.
        method: Key of `METHODS`, which can serve the model.

    Returns:
        The layer. Where a network has no image tokens, its pixels stand for them.
    """
    architecture, row = model.architecture, METHODS[method]
    if isinstance(architecture, row.in_encoder):
        return "encoder tokens"
    return architecture.tokens if row.layer == "image tokens" else row.layer


def refusals(
    model: Model, findings: Sequence[str], methods: Iterable[str]
) -> dict[str, AttributionError]:
    """Say which methods cannot serve a model, whatever the image.

    Args:
        model: The model.
        findings: Keys of what it is asked; at least one.
        methods: Keys of `METHODS`.

    Returns:
        Why not, by method; what is refused of one image or of one finding is not among it.
    """
    found = ((name, METHODS[name].refusal(model, findings)) for name in methods)
    return {name: error for name, error in found if error is not None}


def attributed(case: Case, method: str) -> tuple[PatchAttribution, ...]:
    """Attribute by one method; what was made of the same case before is given again.

    Args:
        case: The radiograph and its findings.
        method: Key of `METHODS`.

    Returns:
        An attribution a finding.

    Raises:
        AttributionError: The method cannot serve the model, cannot contrast, or wants more memory
            than there is.
    """
    if method not in case.attributions:
        with out_of_memory_told(AttributionError):
            case.attributions[method] = METHODS[method].attribute(case)
    return case.attributions[method]
