"""From a radiograph and a finding to an explanation that was checked."""

from __future__ import annotations

import dataclasses
import time
from collections.abc import Sequence

from medllm.dicom.radiograph import Radiograph
from medllm.errors import AttributionError
from medllm.explanation import checks as tests
from medllm.explanation.anatomy import Zones, find_zones
from medllm.explanation.attribution import PatchAttribution
from medllm.explanation.case import Case
from medllm.explanation.integrated_gradients import completeness_bound
from medllm.explanation.methods import DEFAULT_METHOD, METHODS
from medllm.explanation.record import AttributionMap, Check, Explanation
from medllm.explanation.regions import patch_shares, regions_of
from medllm.models import Model


def explain(
    model: Model, scan: Radiograph, finding: str, *, method: str = DEFAULT_METHOD
) -> Explanation:
    """Explain one finding's log-odds on one radiograph.

    Args:
        model: The model that answered.
        scan: The radiograph.
        finding: Key of the finding.
        method: Key of `METHODS`.

    Returns:
        The explanation, with its checks and its verdict.

    Raises:
        AttributionError: The attribution misses its bound.
        LabelError: The model does not answer for the finding.
        ValueError: There is no such method.
    """
    return explain_findings(model, scan, [finding], method=method)[0]


def explain_findings(
    model: Model,
    scan: Radiograph,
    findings: Sequence[str] | None = None,
    *,
    method: str = DEFAULT_METHOD,
) -> tuple[Explanation, ...]:
    """Explain several findings on one radiograph; what they share is computed once.

    Args:
        model: The model that answered.
        scan: The radiograph.
        findings: Keys; all that the model answers for when None.
        method: Key of `METHODS`.

    Returns:
        An explanation a finding, in order.

    Raises:
        AttributionError: The attribution of a finding misses its bound.
        LabelError: The model does not answer for a finding.
        ValueError: There is no such method.
    """
    if method not in METHODS:
        raise ValueError(f"'{method}' is not a method; use one of: {', '.join(METHODS)}.")
    started = time.monotonic()
    keys = tuple(question.finding for question in model.questions(findings))
    case = Case(model, scan, keys)
    zones = find_zones(scan)
    attributions = METHODS[method].attribute(case)
    for index, attribution in enumerate(attributions):
        _refuse_incomplete(keys[index], attribution, float(case.effect[index]))
    others = METHODS[METHODS[method].unlike].attribute(case)
    deletions = tests.deletions(case, attributions)
    explanations = []
    for index, attribution in enumerate(attributions):
        effect = float(case.effect[index])
        checks = [
            tests.image_use(effect),
            deletions[index],
            tests.agreement(attribution.values, others[index].values, METHODS[method].unlike),
        ]
        if attribution.completeness_error is not None:
            checks.insert(1, tests.completeness(attribution.completeness_error, effect))
        explanations.append(_explanation(case, index, method, attribution, zones, checks))
    seconds = (time.monotonic() - started) / max(1, len(keys))
    return tuple(dataclasses.replace(explanation, seconds=seconds) for explanation in explanations)


def _refuse_incomplete(finding: str, attribution: PatchAttribution, effect: float) -> None:
    error, bound = attribution.completeness_error, completeness_bound(effect)
    if error is not None and not error <= bound:
        raise AttributionError(
            f"the attributions of {finding} miss the log-odds they explain by {error:.3f} after "
            f"{attribution.n_steps} steps, allowed are {bound:.3f}; use the method 'occlusion'.",
            code="incomplete-attribution",
        )


def _explanation(
    case: Case,
    index: int,
    method: str,
    attribution: PatchAttribution,
    zones: Zones,
    checks: Sequence[Check],
) -> Explanation:
    over = AttributionMap(attribution.values, case.box)
    shares = patch_shares(over, zones, case.scan.rows, case.scan.columns)
    made = (*checks, tests.outside_thorax(attribution.values, shares))
    return Explanation(
        finding=case.findings[index],
        method=method,
        layer=METHODS[method].layer,
        baseline=case.baseline,
        n_steps=attribution.n_steps,
        log_odds=float(case.log_odds[index]),
        baseline_log_odds=float(case.baseline_log_odds[index]),
        completeness_error=attribution.completeness_error,
        map=over,
        regions=regions_of(over, zones, case.scan.rows, case.scan.columns),
        zones_from=zones.found_by,
        checks=made,
        verdict=tests.verdict_of(made),
    )
