"""From a radiograph and a finding to an explanation that was checked."""

from __future__ import annotations

import dataclasses
import time
from collections.abc import Sequence

import numpy as np

from medllm.dicom.radiograph import Radiograph
from medllm.errors import AttributionError
from medllm.explanation import checks as tests
from medllm.explanation.attribution import PatchAttribution
from medllm.explanation.case import Case
from medllm.explanation.faithfulness import curves, faithfulness
from medllm.explanation.integrated_gradients import completeness_bound
from medllm.explanation.methods import DEFAULT_METHOD, METHODS
from medllm.explanation.record import AttributionMap, Check, Explanation, Layer, OtherMethod
from medllm.explanation.regions import patch_coverage, patch_shares, regions_of
from medllm.explanation.shapley import zone_effects
from medllm.explanation.words import word_gradients
from medllm.findings import is_kin
from medllm.models import Model
from medllm.models.architectures import VisionLanguage


def explain(
    model: Model,
    scan: Radiograph,
    finding: str,
    *,
    method: str = DEFAULT_METHOD,
    against: str | None = None,
    others: Sequence[str] = (),
) -> Explanation:
    """Explain one finding's log-odds on one radiograph.

    Args:
        model: The model that answered.
        scan: The radiograph.
        finding: Key of the finding.
        method: Key of `METHODS`.
        against: Key of another finding, to explain the difference of the two log-odds: why the
            finding rather than this one.
        others: Keys of methods that are to explain the same beside; one that cannot is told in
            its place and not raised.

    Returns:
        The explanation, with its checks and its verdict.

    Raises:
        AttributionError: The attribution misses its bound, or the method cannot contrast.
        LabelError: The model does not answer for the finding.
        ValueError: There is no such method, or the finding is to be explained against itself.
    """
    return explain_findings(model, scan, [finding], method=method, against=against, others=others)[
        0
    ]


def explain_findings(
    model: Model,
    scan: Radiograph,
    findings: Sequence[str] | None = None,
    *,
    method: str = DEFAULT_METHOD,
    against: str | None = None,
    others: Sequence[str] = (),
) -> tuple[Explanation, ...]:
    """Explain several findings on one radiograph; what they share is computed once.

    Args:
        model: The model that answered.
        scan: The radiograph.
        findings: Keys; all that the model answers for when None.
        method: Key of `METHODS`.
        against: Key of another finding, to explain each finding's difference from it.
        others: Keys of methods that are to explain the same beside.

    Returns:
        An explanation a finding, in order.

    Raises:
        AttributionError: The attribution of a finding misses its bound, or the method cannot
            contrast.
        LabelError: The model does not answer for a finding.
        ValueError: There is no such method, or a finding is to be explained against itself.
    """
    for name in (method, *others):
        if name not in METHODS:
            raise ValueError(f"'{name}' is not a method; use one of: {', '.join(METHODS)}.")
    keys = tuple(question.finding for question in model.questions(findings))
    if against is not None:
        model.questions([against])
    if against in keys:
        raise ValueError(f"'{against}' is to be explained against itself; name another finding.")
    started = time.monotonic()
    case = Case(model, scan, keys, against=against)
    has_words = isinstance(model.architecture, VisionLanguage)
    explanations = [
        dataclasses.replace(
            explanation,
            zone_effects=zone_effects(case, index) if case.zones.found else (),
            tokens=word_gradients(case, keys[index]).tokens if has_words else (),
        )
        for index, explanation in enumerate(explain_case(case, method))
    ]
    seconds = (time.monotonic() - started) / max(1, len(keys))
    return tuple(
        dataclasses.replace(first, seconds=seconds, others=_by_others(case, first, others))
        for first in explanations
    )


def explain_case(case: Case, method: str) -> list[Explanation]:
    """Attribute by one method and check it, for each finding of a case.

    Args:
        case: The radiograph and its findings.
        method: Key of `METHODS`.

    Returns:
        An explanation a finding, in order, without what is of the answer and not of the method:
        the zones' effects and the words.

    Raises:
        AttributionError: The attribution of a finding misses its bound, or the method cannot
            contrast.
    """
    attributions = attributed(case, method)
    for index, attribution in enumerate(attributions):
        _refuse_unusable(case.name(index), method, attribution, float(case.effect[index]))
    checks = judge(case, method, attributions)
    return [
        _explanation(case, index, method, attribution, checks[index])
        for index, attribution in enumerate(attributions)
    ]


def attributed(case: Case, method: str) -> tuple[PatchAttribution, ...]:
    """Attribute by one method; what was made of the same case before is given again.

    Args:
        case: The radiograph and its findings.
        method: Key of `METHODS`.

    Returns:
        An attribution a finding.

    Raises:
        AttributionError: The method cannot serve the model, or cannot contrast.
    """
    if method not in case.attributions:
        case.attributions[method] = METHODS[method].attribute(case)
    return case.attributions[method]


def _by_others(case: Case, first: Explanation, methods: Sequence[str]) -> tuple[OtherMethod, ...]:
    """Explain one finding by other methods; one that refuses says why."""
    alone = case.asking((first.finding,))
    found = []
    for name in methods:
        started = time.monotonic()
        try:
            (explanation,) = explain_case(alone, name)
        except AttributionError as error:
            found.append(OtherMethod(name, refusal=str(error)))
            continue
        explanation = dataclasses.replace(explanation, seconds=time.monotonic() - started)
        alike = tests.correlation(explanation.map.values, first.map.values)
        found.append(OtherMethod(name, explanation, alike))
    return tuple(found)


def _refuse_unusable(
    finding: str, method: str, attribution: PatchAttribution, effect: float
) -> None:
    if not np.isfinite(attribution.values).all():
        raise AttributionError(
            f"the attributions of {finding} by '{method}' are not finite; use the method "
            "'occlusion', and check the model with `medllm models verify`.",
            code="not-finite",
        )
    _refuse_incomplete(finding, attribution, effect)
    if not attribution.values.any() and abs(effect) >= tests.LEAST_EFFECT:
        raise AttributionError(
            f"'{method}' attributes nothing to any patch, while the image moves the log-odds of "
            f"{finding} by {effect:.2f}; use the method 'occlusion'.",
            code="all-zero-map",
        )


def _refuse_incomplete(finding: str, attribution: PatchAttribution, effect: float) -> None:
    error, bound = attribution.completeness_error, completeness_bound(effect)
    if error is not None and not error <= bound:
        raise AttributionError(
            f"the attributions of {finding} miss the log-odds they explain by {error:.3f} after "
            f"{attribution.n_steps} steps, allowed are {bound:.3f}; use the method 'occlusion'.",
            code="incomplete-attribution",
        )


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
    others = attributed(case, unlike)
    altered = [METHODS[method].attribute(changed) for changed in _slightly_altered(case)]
    rivals = _rivals(case, method)
    parts = zip(curves(case, attributions), faithfulness(case, attributions), strict=True)
    made = []
    for index, (attribution, (of_curves, foretold)) in enumerate(
        zip(attributions, parts, strict=True)
    ):
        values, effect = attribution.values, float(case.effect[index])
        error = attribution.completeness_error
        checks = [
            tests.image_use(effect),
            *([] if error is None else [tests.completeness(error, effect)]),
            *of_curves,
            foretold,
            tests.agreement(values, others[index].values, unlike),
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


def _slightly_altered(case: Case) -> tuple[Case, Case]:
    """Add noise of a hundredth of the range, and shift by a pixel of the input."""
    pixels, scan = case.scan.pixels, case.scan
    noise = np.random.default_rng(0).normal(scale=0.01, size=pixels.shape)
    step = max(1, round(max(pixels.shape) / case.pixel_values.shape[-1]))
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


def _layer(case: Case, method: str) -> Layer:
    """Say what a method attributes to; a network without image tokens has its pixels instead."""
    layer = METHODS[method].layer
    return case.model.architecture.tokens if layer == "image tokens" else layer


def _explanation(
    case: Case,
    index: int,
    method: str,
    attribution: PatchAttribution,
    checks: tuple[Check, ...],
) -> Explanation:
    over, zones = AttributionMap(attribution.values, case.box), case.zones
    rows, columns = case.scan.rows, case.scan.columns
    checks = (*checks, *judge_place(case, attribution))
    return Explanation(
        finding=case.findings[index],
        method=method,
        layer=_layer(case, method),
        baseline=case.baseline,
        n_steps=attribution.n_steps,
        log_odds=float(case.log_odds[index]),
        baseline_log_odds=float(case.baseline_log_odds[index]),
        completeness_error=attribution.completeness_error,
        map=over,
        regions=regions_of(over, zones, rows, columns) if zones.found else (),
        zones_from=zones.found_by,
        checks=checks,
        verdict=tests.verdict_of(checks),
        against=case.against,
    )
