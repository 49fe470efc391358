"""The essence of an evaluation of explanations, as it is kept with the checkpoint."""

from __future__ import annotations

import dataclasses

from medllm.evaluate.explanations.controls import MEAN_MAP
from medllm.evaluate.explanations.document import ExplanationEvaluation, SanityFigures
from medllm.evaluate.section import Interval
from medllm.metrics import Estimate
from medllm.models.measured import (
    LocalisedFinding,
    MeasuredExplanations,
    MeasuredMethod,
    UsualRange,
)


def essence_of(evaluation: ExplanationEvaluation) -> MeasuredExplanations:
    """Choose the figures that are kept.

    Args:
        evaluation: All figures.

    Returns:
        Those of the methods and of the controls.
    """
    return MeasuredExplanations(
        dataset=evaluation.dataset,
        split=evaluation.split,
        n_images=evaluation.n_images,
        n_patients=evaluation.n_patients,
        medllm_version=evaluation.medllm_version,
        methods={
            name: _method(evaluation, name) for name in (*evaluation.methods, *evaluation.controls)
        },
    )


def _method(evaluation: ExplanationEvaluation, name: str) -> MeasuredMethod:
    checked = name == evaluation.default_method and any(evaluation.verdicts.values())
    kept = MeasuredMethod(
        findings={
            key: _finding(evaluation, name, key) for key in evaluation.localisation.get(name, {})
        },
        verdicts={str(verdict): n for verdict, n in evaluation.verdicts.items()} if checked else {},
        usual={
            check: UsualRange(one.n, one.usual_low, one.usual_high)
            for check, one in evaluation.checks.get(name, {}).items()
            if one.usual_low is not None and one.usual_high is not None
        },
    )
    tested = evaluation.sanity.methods.get(name) if evaluation.sanity else None
    return kept if tested is None else _with_tests(kept, tested)


def _finding(evaluation: ExplanationEvaluation, name: str, key: str) -> LocalisedFinding:
    own = evaluation.localisation[name][key]
    return LocalisedFinding(
        n=own.n,
        hit_rate=_estimate(own.hit_rate),
        fixed_hit_rate=_estimate(evaluation.localisation[MEAN_MAP][key].hit_rate),
        pixel_auroc=_estimate(own.pixel_auroc),
        over_mean_map=_estimate(own.over_mean_map),
        region_rate=_estimate(own.region_rate),
        region_confirmed=_estimate(own.region_confirmed),
        region_rate_confirmed=_estimate(own.region_rate_confirmed),
        region_rate_contradicted=_estimate(own.region_rate_contradicted),
        miou=_estimate(own.miou),
        pixel_auroc_lungs=_estimate(own.pixel_auroc_lungs),
        side_accuracy=_estimate(own.side_accuracy),
    )


def _with_tests(kept: MeasuredMethod, tested: SanityFigures) -> MeasuredMethod:
    """Add what the method does when all weights are scrambled, and how sure its maps are."""
    return dataclasses.replace(
        kept,
        n_tested=tested.n,
        rank_correlation=_estimate(tested.rank_correlation[-1]),
        rank_correlation_absolute=_estimate(tested.rank_correlation_absolute[-1]),
        ssim=_estimate(tested.ssim[-1]),
        survives=tested.survives,
        infidelity=_estimate(tested.infidelity),
        max_sensitivity=_estimate(tested.max_sensitivity),
    )


def _estimate(figure: Interval | None) -> Estimate | None:
    """Take a figure over; one without an interval is not kept."""
    if figure is None or figure.value is None or figure.low is None or figure.high is None:
        return None
    return Estimate(figure.value, figure.low, figure.high)
