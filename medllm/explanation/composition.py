"""From a radiograph and a finding to an explanation that was checked."""

from __future__ import annotations

import dataclasses
import time
from collections.abc import Callable, Iterable, Sequence

from medllm.dicom.radiograph import Radiograph
from medllm.errors import AttributionError, did_you_mean
from medllm.explanation import checks as tests
from medllm.explanation.attribution import PatchAttribution
from medllm.explanation.case import Case
from medllm.explanation.integrated_gradients import completeness_bound
from medllm.explanation.judgement import judge, judge_place, tried
from medllm.explanation.methods import DEFAULT_METHOD, METHODS, layer_of
from medllm.explanation.record import AttributionMap, Check, Explanation, OtherMethod
from medllm.explanation.regions import regions_of
from medllm.explanation.shapley import zone_effects
from medllm.explanation.verdict import verdict_of
from medllm.explanation.words import PromptAttribution, word_ablation, word_gradients
from medllm.machine import out_of_memory_told
from medllm.models import Model
from medllm.models.architectures import VisionLanguage
from medllm.models.model import in_evaluation, require_radiograph

# Is given the methods, and passes each on as it begins: to show progress.
Watch = Callable[[Sequence[str]], Iterable[str]]


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
        TypeError: The scan is no radiograph.
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
    watch: Watch = lambda methods: methods,
) -> tuple[Explanation, ...]:
    """Explain several findings on one radiograph; what they share is computed once.

    Args:
        model: The model that answered.
        scan: The radiograph.
        findings: Keys; all that the model answers for when None.
        method: Key of `METHODS`.
        against: Key of another finding, to explain each finding's difference from it.
        others: Keys of methods that are to explain the same beside.
        watch: Passes on the method and the others, each as it begins, to show progress.

    Returns:
        An explanation a finding, in order.

    Raises:
        AttributionError: The attribution of a finding misses its bound, the method cannot
            contrast, or memory does not suffice for one image.
        LabelError: The model does not answer for a finding.
        TypeError: The scan is no radiograph.
        ValueError: There is no such method, or a finding is to be explained against itself.
    """
    for name in (method, *others):
        if name not in METHODS:
            raise ValueError(
                f"'{name}' is not a method; use one of: {', '.join(METHODS)}."
                f"{did_you_mean(name, METHODS)}"
            )
    require_radiograph(scan)
    keys = tuple(question.finding for question in model.questions(findings))
    if against is not None:
        model.questions([against])
    if against in keys:
        raise ValueError(f"'{against}' is to be explained against itself; name another finding.")
    if not keys:
        return ()
    case = Case(model, scan, keys, against=against)
    # Some methods run the network's parts themselves.
    with out_of_memory_told(AttributionError), in_evaluation(model.network):
        return _explained(case, (method, *others), watch)


def _explained(case: Case, methods: Sequence[str], watch: Watch) -> tuple[Explanation, ...]:
    """Explain by the first method, and set what the others give beside it."""
    at_work = iter(watch(methods))
    explained = _by_first(case, next(at_work))
    alone = [case.asking((first.finding,)) for first in explained]
    beside: list[list[OtherMethod]] = [[] for _ in explained]
    for name in at_work:
        for one, first, found in zip(alone, explained, beside, strict=True):
            found.append(_by_other(one, first, name))
    return tuple(
        dataclasses.replace(first, others=tuple(found))
        for first, found in zip(explained, beside, strict=True)
    )


def _by_first(case: Case, method: str) -> list[Explanation]:
    """Explain by one method, with what is of the answer: the zones' effects and the words."""
    started = time.monotonic()
    has_words = isinstance(case.model.architecture, VisionLanguage)
    explanations = []
    for index, explanation in enumerate(explain_case(case, method)):
        words = _words(case, case.findings[index]) if has_words else None
        explanations.append(
            dataclasses.replace(
                explanation,
                zone_effects=zone_effects(case, index) if case.zones.found else (),
                tokens=words.tokens if words else (),
                tokens_completeness_error=words.completeness_error if words else None,
            )
        )
    seconds = (time.monotonic() - started) / len(explanations)
    return [dataclasses.replace(one, seconds=seconds) for one in explanations]


def _words(case: Case, finding: str) -> PromptAttribution:
    """Attribute to the words by gradients; where these do not add up, by leaving words out."""
    found = word_gradients(case, finding)
    error = found.completeness_error
    total = sum(token.value for token in found.tokens)
    if error is None or error <= completeness_bound(total, case.model.dtype):
        return found
    return word_ablation(case, finding)


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
    attributions = []
    for attribution in tried(case, method):
        if isinstance(attribution, AttributionError):
            raise attribution
        attributions.append(attribution)
    checks = judge(case, method, attributions)
    return [
        _explanation(case, index, method, attribution, checks[index])
        for index, attribution in enumerate(attributions)
    ]


def _by_other(alone: Case, first: Explanation, method: str) -> OtherMethod:
    """Explain one finding by another method; where it refuses, say why."""
    started = time.monotonic()
    try:
        (explanation,) = explain_case(alone, method)
    except AttributionError as error:
        return OtherMethod(method, refusal=str(error))
    explanation = dataclasses.replace(explanation, seconds=time.monotonic() - started)
    alike = tests.correlation(explanation.map.values, first.map.values)
    return OtherMethod(method, explanation, alike)


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
        layer=layer_of(case.model, method),
        baseline=case.baseline,
        n_steps=attribution.n_steps,
        log_odds=float(case.log_odds[index]),
        baseline_log_odds=float(case.baseline_log_odds[index]),
        completeness_error=attribution.completeness_error,
        map=over,
        regions=regions_of(over, zones, rows, columns) if zones.found else (),
        zones_from=zones.found_by,
        checks=checks,
        verdict=verdict_of(checks),
        against=case.against,
    )
