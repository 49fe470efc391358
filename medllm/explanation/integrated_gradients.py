"""Integrated gradients of the log-odds over the image tokens, with steps added until complete."""

from __future__ import annotations

import numpy as np
import torch
from captum.attr import IntegratedGradients
from jaxtyping import Float

from medllm.explanation.attribution import PatchAttribution
from medllm.explanation.case import BATCH_SIZE, Case

FIRST_STEPS = 16
MOST_STEPS = 256


def completeness_bound(effect: float) -> float:
    """Say how far the attributions' sum may be from the number they explain.

    Args:
        effect: Log-odds of the image minus those of the baseline.

    Returns:
        2% of the effect, and at least 0.02 log-odds, which moves a probability by at most half
        a percentage point.
    """
    return max(0.02, 0.02 * abs(effect))


def integrated_gradients(
    case: Case, *, most_steps: int = MOST_STEPS
) -> tuple[PatchAttribution, ...]:
    """Attribute each finding to the image tokens at the projector's output.

    The path runs straight from the tokens of the blurred copy to those of the image. A patch's
    value is the sum over its token's width.

    Args:
        case: The radiograph and its findings.
        most_steps: Steps at which an attribution is left as it is; they start at `FIRST_STEPS`
            and double until the attribution is complete.

    Returns:
        An attribution a finding; whether it is complete is for the caller to judge by
        `completeness_bound`.

    Source:
        Sundararajan et al., Axiomatic attribution for deep networks, ICML 2017; Gauss-Legendre
        nodes in place of their Riemann sum.
    """
    return tuple(_attribute(case, index, most_steps) for index in range(len(case.findings)))


def _attribute(case: Case, index: int, most_steps: int) -> PatchAttribution:
    finding, effect = case.findings[index], float(case.effect[index])

    def score(
        features: Float[torch.Tensor, "copies patches width"],
    ) -> Float[torch.Tensor, " copies"]:
        return case.model.log_odds_from_features(features, [finding])[:, 0]

    method = IntegratedGradients(score)
    n_steps = min(FIRST_STEPS, most_steps)
    while True:
        attributed = method.attribute(
            case.features,
            case.blurred_features,
            n_steps=n_steps,
            internal_batch_size=BATCH_SIZE,
        )
        values = attributed[0].double().sum(dim=-1).cpu().numpy()
        error = abs(float(values.sum()) - effect)
        if error <= completeness_bound(effect) or n_steps >= most_steps:
            return PatchAttribution(np.reshape(values, case.model.grid), n_steps, error)
        n_steps = min(2 * n_steps, most_steps)
