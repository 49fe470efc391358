"""The checks of maps on the case at hand, whoever made the maps."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence

import numpy as np

from medllm.errors import AttributionError
from medllm.explanation import checks as tests
from medllm.explanation.attribution import PatchAttribution
from medllm.explanation.case import Case
from medllm.explanation.faithfulness import curves, faithfulness
from medllm.explanation.integrated_gradients import completeness_bound
from medllm.explanation.methods import METHODS, attributed
from medllm.explanation.record import AttributionMap, Check
from medllm.explanation.regions import patch_coverage, patch_shares
from medllm.findings import is_kin

# Standard deviation as a share of the range: five grey levels of 256.
_NOISE = 0.02


def tried(case: Case, method: str) -> list[PatchAttribution | AttributionError]:
    """Attribute by one method, and say where a report by it would be refused.

    Args:
        case: The radiograph and its findings.
        method: Key of `METHODS`.

    Returns:
        An attribution per finding, in order; an error in its place where the method cannot serve,
        or gives what is not finite, does not add up, or is nothing.
    """
    try:
        attributions = attributed(case, method)
    except AttributionError as error:
        return [error] * len(case.findings)
    return [
        _unusable(case, index, method, attribution) or attribution
        for index, attribution in enumerate(attributions)
    ]


def _unusable(
    case: Case, index: int, method: str, attribution: PatchAttribution
) -> AttributionError | None:
    finding, effect = case.name(index), float(case.effect[index])
    if not np.isfinite(attribution.values).all():
        return AttributionError(
            f"the attributions of {finding} by '{method}' are not finite; use the method "
            "'occlusion', and check the model with `medllm models verify`.",
            code="not-finite",
        )
    error = attribution.completeness_error
    bound = _bound(case, index)
    if error is not None and not error <= bound:
        return AttributionError(
            f"the attributions of {finding} miss the log-odds they explain by {error:.3f} after "
            f"{attribution.n_steps} steps, allowed are {bound:.3f}; use the method 'occlusion'.",
            code="incomplete-attribution",
        )
    if not attribution.values.any() and abs(effect) >= tests.LEAST_EFFECT:
        return AttributionError(
            f"'{method}' attributes nothing to any patch, while the image moves the log-odds of "
            f"{finding} by {effect:.2f}; use the method 'occlusion'.",
            code="all-zero-map",
        )
    return None


def _bound(case: Case, index: int) -> float:
    return completeness_bound(float(case.effect[index]), case.model.dtype)


def judge(
    case: Case, method: str, attributions: Sequence[PatchAttribution]
) -> list[tuple[Check, ...]]:
    """Make every check of some maps that needs the model, whoever made them.

    Args:
        case: The radiograph and its findings.
        method: Key of the method that the maps are said to be of.
        attributions: A map a finding.

    Returns:
        The checks of each map; those of `judge_place` are not among them.
    """
    unlike = METHODS[method].unlike
    others = tried(case, unlike)
    altered = [METHODS[method].attribute(changed) for changed in slightly_altered(case)]
    rivals = _rivals(case, method)
    parts = zip(curves(case, attributions), faithfulness(case, attributions), strict=True)
    made = []
    for index, (attribution, (of_curves, foretold)) in enumerate(
        zip(attributions, parts, strict=True)
    ):
        values, effect = attribution.values, float(case.effect[index])
        error, other = attribution.completeness_error, others[index]
        agreeing = (
            tests.unconfirmed(unlike)
            if isinstance(other, AttributionError)
            else tests.agreement(values, other.values, unlike)
        )
        checks = [
            tests.image_use(effect),
            *([] if error is None else [tests.completeness(error, _bound(case, index))]),
            *of_curves,
            foretold,
            agreeing,
            tests.confirmation(foretold, agreeing),
            tests.stability(values, [found[index].values for found in altered]),
        ]
        if rival := rivals[index]:
            checks.append(tests.contrast(values, rival[1].values, rival[0]))
        made.append(tuple(checks))
    return made


def judge_place(case: Case, attribution: PatchAttribution) -> tuple[Check, ...]:
    """Make the checks of where a map lies.

    Args:
        case: The radiograph.
        attribution: The map.

    Returns:
        That of the thorax, where the lungs are found, and that of burned-in text.
    """
    values, zones = attribution.values, case.zones
    over, rows, columns = AttributionMap(values, case.box), case.scan.rows, case.scan.columns
    checks = []
    if zones.found:
        checks.append(tests.outside_thorax(values, patch_shares(over, zones, rows, columns)))
    checks.append(tests.on_text(values, patch_coverage(over, case.text, rows, columns)))
    return tuple(checks)


def slightly_altered(case: Case) -> tuple[Case, Case]:
    """Alter a radiograph by what no reader would mind.

    Args:
        case: The radiograph.

    Returns:
        Its case with a little noise, and with a shift by a pixel of the model's input.
    """
    pixels, scan = case.scan.pixels, case.scan
    step = max(1, round(max(pixels.shape) / case.pixel_values.shape[-1]))
    # In grains of a pixel of the input: finer ones would be averaged away before the model.
    grains = np.random.default_rng(0).normal(scale=_NOISE, size=np.array(pixels.shape) // step + 1)
    noise = grains.repeat(step, 0).repeat(step, 1)[: pixels.shape[0], : pixels.shape[1]]
    shifted = np.pad(pixels, ((step, 0), (step, 0)), mode="edge")[:-step, :-step]
    noisy = np.clip(pixels + noise, 0, 1).astype(pixels.dtype)
    return (
        dataclasses.replace(case, scan=dataclasses.replace(scan, pixels=noisy)),
        dataclasses.replace(case, scan=dataclasses.replace(scan, pixels=shifted)),
    )


def _rivals(case: Case, method: str) -> list[tuple[str, PatchAttribution] | None]:
    """The map of the finding whose answer differs most, for each; None where none differs.

    A kind of the finding itself is no rival: it lies in the same place.
    """
    asked = (question.finding for question in case.model.questions())
    every = tuple(key for key in asked if key != case.against)
    asked_all = case.asking(every)
    effects = asked_all.effect
    chosen = []
    for finding, effect in zip(case.findings, case.effect, strict=True):
        unlike = [not is_kin(finding, key) for key in every]
        apart = np.abs(effects - effect) * unlike
        far = int(apart.argmax())
        chosen.append(every[far] if apart[far] >= tests.LEAST_EFFECT else None)
    keys = tuple(dict.fromkeys(key for key in chosen if key is not None))
    others = asked_all.asking(keys)
    found = METHODS[method].attribute(others) if keys else ()
    maps = {key: (others.name(index), found[index]) for index, key in enumerate(keys)}
    return [None if key is None else maps[key] for key in chosen]
