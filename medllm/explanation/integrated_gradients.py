"""Integrated gradients of the log-odds, over image tokens or pixels, until they add up."""

from __future__ import annotations

from collections.abc import Callable

import torch
from captum.attr import IntegratedGradients, NoiseTunnel

from medllm.explanation.attribution import PatchAttribution, sum_by_patch
from medllm.explanation.case import Case
from medllm.explanation.memory import in_chunks

FIRST_STEPS = 16
MOST_STEPS = 256

# SmoothGrad's noise as a share of the range of the input, and its samples.
_NOISE = 0.1
_SAMPLES = 8

Score = Callable[[torch.Tensor], torch.Tensor]


def completeness_bound(effect: float, precision: torch.dtype = torch.float32) -> float:
    """Say how far the attributions' sum may be from the number they explain.

    Args:
        effect: Log-odds of the image minus those of the baseline.
        precision: What the network computes in.

    Returns:
        2% of the effect, and at least 0.02 log-odds, which moves a probability by at most half
        a percentage point. In 16 bits, where the effect itself is rounded by as much, 5% and at
        least 0.05.
    """
    share = 0.02 if precision.itemsize >= 4 else 0.05
    return max(share, share * abs(effect))


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
    found = []
    for index, effect in enumerate(case.effect):
        (attributed,), n_steps, error = until_complete(
            _token_score(case, index),
            (case.features,),
            (case.blurred_features,),
            float(effect),
            completeness_bound(effect, case.model.dtype),
            most_steps,
        )
        values = case.model.layout.on_grid(attributed[0].double().sum(dim=-1))
        found.append(PatchAttribution(values, n_steps, error))
    return tuple(found)


def pixel_integrated_gradients(
    case: Case, *, most_steps: int = MOST_STEPS
) -> tuple[PatchAttribution, ...]:
    """Attribute each finding to the pixels, summed over each patch.

    The path runs straight from the blurred copy to the image.

    Args:
        case: The radiograph and its findings.
        most_steps: As for the image tokens.

    Returns:
        An attribution a finding; whether it is complete is for the caller to judge by
        `completeness_bound`.

    Source:
        Sundararajan et al., ICML 2017.
    """
    found = []
    for index, effect in enumerate(case.effect):
        (attributed,), n_steps, error = until_complete(
            _pixel_score(case, index),
            (case.pixel_values,),
            (case.blurred,),
            float(effect),
            completeness_bound(effect, case.model.dtype),
            most_steps,
        )
        found.append(PatchAttribution(sum_by_patch(attributed[0], case.model.grid), n_steps, error))
    return tuple(found)


def smooth_integrated_gradients(case: Case) -> tuple[PatchAttribution, ...]:
    """Attribute each finding to the pixels: the mean over noisy copies, summed over each patch.

    Args:
        case: The radiograph and its findings.

    Returns:
        An attribution a finding. It adds up for each noisy copy and not for the image, so it does
        not promise to.

    Source:
        Smilkov et al., SmoothGrad: removing noise by adding noise, 2017; 8 copies with a tenth of
        the range as noise.
    """
    spread = float(case.pixel_values.max() - case.pixel_values.min())
    found = []
    for index in range(len(case.findings)):
        tunnel = NoiseTunnel(IntegratedGradients(_pixel_score(case, index)))

        def attribute(batch_size: int, tunnel: NoiseTunnel = tunnel) -> torch.Tensor:
            with torch.random.fork_rng(devices=[]):
                torch.manual_seed(0)
                smoothed: torch.Tensor = tunnel.attribute(
                    case.pixel_values,
                    nt_type="smoothgrad",
                    nt_samples=_SAMPLES,
                    nt_samples_batch_size=1,
                    stdevs=_NOISE * spread,
                    baselines=case.blurred,
                    n_steps=FIRST_STEPS,
                    internal_batch_size=batch_size,
                )
            return smoothed

        values = sum_by_patch(in_chunks(attribute)[0], case.model.grid)
        found.append(PatchAttribution(values, _SAMPLES * FIRST_STEPS))
    return tuple(found)


def _token_score(case: Case, index: int) -> Score:
    alone = case.asking((case.findings[index],))
    return lambda features: alone.score_features(features)[:, 0]


def _pixel_score(case: Case, index: int) -> Score:
    alone = case.asking((case.findings[index],))
    return lambda pixel_values: alone.score_pixels(pixel_values)[:, 0]


def until_complete(
    score: Callable[..., torch.Tensor],
    image: tuple[torch.Tensor, ...],
    baseline: tuple[torch.Tensor, ...],
    effect: float,
    bound: float,
    most_steps: int = MOST_STEPS,
) -> tuple[tuple[torch.Tensor, ...], int, float]:
    """Attribute a score to its arguments together, with steps doubled until it is complete.

    Args:
        score: Takes as many arguments as `image` has; gives a value a copy.
        image: Where the path ends, batches of one.
        baseline: Where it begins, of the same shapes.
        effect: Score of the image minus that of the baseline.
        bound: Completeness error at which it is complete.
        most_steps: Steps at which an attribution is left as it is.

    Returns:
        The attribution of each argument, of its shape; the steps; and the completeness error.
    """
    method = IntegratedGradients(score)
    n_steps = min(FIRST_STEPS, most_steps)
    while True:

        def attribute(batch_size: int, n_steps: int = n_steps) -> tuple[torch.Tensor, ...]:
            found: tuple[torch.Tensor, ...] = method.attribute(
                image, baseline, n_steps=n_steps, internal_batch_size=batch_size
            )
            return found

        attributed = in_chunks(attribute)
        error = abs(sum(float(part.double().sum()) for part in attributed) - effect)
        if error <= bound or n_steps >= most_steps:
            return attributed, n_steps, error
        n_steps = min(2 * n_steps, most_steps)
