"""The attribution methods by name."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from medllm.errors import AttributionError
from medllm.explanation.attention import attention_rollout, gradient_attention
from medllm.explanation.attribution import PatchAttribution
from medllm.explanation.case import Case
from medllm.explanation.gradients import grad_cam, gradient_x_activation
from medllm.explanation.integrated_gradients import (
    integrated_gradients,
    pixel_integrated_gradients,
    smooth_integrated_gradients,
)
from medllm.explanation.perturbation import occlusion, patch_ablation, rise
from medllm.explanation.record import Layer
from medllm.explanation.shapley import zone_shapley
from medllm.machine import out_of_memory_told


@dataclass(frozen=True)
class Method:
    """One way to attribute log-odds to patches.

    Attributes:
        attribute: Gives an attribution a finding of the case, in order.
        layer: What it attributes to.
        unlike: Key of a method that works otherwise, for comparison.
    """

    attribute: Callable[[Case], tuple[PatchAttribution, ...]]
    layer: Layer
    unlike: str


METHODS = {
    "integrated-gradients": Method(integrated_gradients, "image tokens", "occlusion"),
    "gradient-x-activation": Method(gradient_x_activation, "image tokens", "occlusion"),
    "grad-cam": Method(grad_cam, "image tokens", "occlusion"),
    "gradient-attention": Method(gradient_attention, "image tokens", "occlusion"),
    "attention-rollout": Method(attention_rollout, "image tokens", "occlusion"),
    "pixel-integrated-gradients": Method(pixel_integrated_gradients, "pixels", "occlusion"),
    "smooth-integrated-gradients": Method(smooth_integrated_gradients, "pixels", "occlusion"),
    "occlusion": Method(occlusion, "pixels", "integrated-gradients"),
    "patch-ablation": Method(patch_ablation, "pixels", "integrated-gradients"),
    "rise": Method(rise, "pixels", "integrated-gradients"),
    "zone-shapley": Method(zone_shapley, "regions", "integrated-gradients"),
}

# On phantoms it points best, and names the right region far oftener than occlusion (ADR 14).
DEFAULT_METHOD = "integrated-gradients"


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
