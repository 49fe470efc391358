"""Occlusion: how the log-odds change when a window of patches is blurred."""

from __future__ import annotations

import torch
from captum.attr import Occlusion
from jaxtyping import Float

from medllm.explanation.attribution import PatchAttribution
from medllm.explanation.case import BATCH_SIZE, Case

# Windows along a side of the image. A finer grid is occluded in windows of several patches, so
# that there are at most 64 passes whatever the encoder.
_STEPS = 8


def occlusion(case: Case) -> tuple[PatchAttribution, ...]:
    """Attribute each finding to windows of patches, blurred one after the other.

    A window is one patch; on a grid finer than 8 x 8 it is several, which share its drop in
    log-odds evenly. What is left out is blurred, not blackened: black is air, which is itself a
    finding. Windows of 2 x 2 patches that overlap put less of the map on the lesions of phantoms.

    Args:
        case: The radiograph and its findings.

    Returns:
        An attribution a finding. It does not promise to add up.

    Source:
        Zeiler and Fergus, Visualizing and understanding convolutional networks, ECCV 2014, with
        a blur in place of their grey square.
    """
    channels, size = case.pixel_values.shape[1:3]
    rows, _ = case.model.grid
    patch = size // rows
    window = -(-rows // _STEPS)  # patches, rounded up
    passes = 0

    def score(
        pixel_values: Float[torch.Tensor, "copies channels size size"],
    ) -> Float[torch.Tensor, "copies findings"]:
        nonlocal passes
        passes += len(pixel_values)
        return case.model.log_odds(pixel_values, case.findings)

    drops = Occlusion(score).attribute(
        case.pixel_values,
        sliding_window_shapes=(channels, window * patch, window * patch),
        strides=(channels, window * patch, window * patch),
        baselines=case.blurred,
        perturbations_per_eval=BATCH_SIZE,
    )  # (findings, channels, size, size); the same for all pixels of a patch
    values = drops[:, 0, ::patch, ::patch].double().cpu().numpy() / window**2
    return tuple(PatchAttribution(per_finding, passes) for per_finding in values)
