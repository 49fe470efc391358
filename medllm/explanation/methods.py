"""The attribution methods by name."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal

from medllm.explanation.attribution import PatchAttribution
from medllm.explanation.case import Case
from medllm.explanation.integrated_gradients import integrated_gradients
from medllm.explanation.occlusion import occlusion


@dataclass(frozen=True)
class Method:
    """One way to attribute log-odds to patches.

    Attributes:
        attribute: Gives an attribution a finding of the case, in order.
        layer: What it attributes to.
        unlike: Key of a method that works otherwise, for comparison.
    """

    attribute: Callable[[Case], tuple[PatchAttribution, ...]]
    layer: Literal["image tokens", "pixels"]
    unlike: str


METHODS = {
    "integrated-gradients": Method(integrated_gradients, "image tokens", "occlusion"),
    "occlusion": Method(occlusion, "pixels", "integrated-gradients"),
}

DEFAULT_METHOD = "integrated-gradients"
