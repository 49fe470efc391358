from __future__ import annotations

import dataclasses

import pytest

from medllm.evaluate.explanations.figures import _check
from medllm.evaluate.explanations.kept import essence_of
from medllm.explanation import DEFAULT_METHOD
from medllm.models.measured import UsualRange

pytestmark = pytest.mark.usefixtures("few_resamples")


def test_the_essence_is_of_the_document(evaluated):
    evaluation, _ = evaluated
    kept = essence_of(evaluation)
    assert (kept.dataset, kept.split, kept.name) == ("csv", "all", "csv")
    assert list(kept.methods) == [*evaluation.methods, *evaluation.controls]
    for method, one in kept.methods.items():
        assert one.findings.keys() == {"nodule", "effusion"}
        assert one.verdicts == (evaluation.verdicts if method == DEFAULT_METHOD else {})
        tested = evaluation.sanity.methods.get(method)
        assert (one.n_tested, one.survives) == (
            (tested.n, tested.survives) if tested else (0, None)
        )
    tested = evaluation.sanity.methods[DEFAULT_METHOD]
    assert kept.methods[DEFAULT_METHOD].ssim.value == tested.ssim[-1].value
    assert kept.methods[DEFAULT_METHOD].max_sensitivity.high == tested.max_sensitivity.high


@pytest.mark.parametrize("key", ["nodule", "effusion"])
@pytest.mark.parametrize("method", [DEFAULT_METHOD, "edges", "mean-map", "best-point"])
def test_figures_of_places_are_kept_as_they_are_where_they_have_an_interval(evaluated, method, key):
    evaluation, _ = evaluated
    own = evaluation.localisation[method][key]
    found = essence_of(evaluation).methods[method].findings[key]
    names = ("hit_rate", "pixel_auroc", "miou", "pixel_auroc_lungs", "side_accuracy", "region_rate")
    for name in names:
        wanted, told = getattr(own, name).model_dump(), getattr(found, name)
        assert (told and dataclasses.asdict(told)) == (None if wanted["low"] is None else wanted)
    gap = own.over_mean_map and own.over_mean_map.value
    assert (found.over_mean_map and found.over_mean_map.value) == gap


def test_the_fixed_map_is_the_mean_map_and_a_figure_without_interval_is_not_kept(evaluated):
    evaluation, _ = evaluated
    mean_map = evaluation.localisation["mean-map"]["nodule"]
    for ends, wanted in (
        ({"value": 0.3, "low": 0.2, "high": 0.4}, 0.3),
        ({"value": 0.3, "low": None, "high": None}, None),
    ):
        altered = mean_map.model_copy(
            update={"hit_rate": mean_map.hit_rate.model_copy(update=ends)}
        )
        localisation = {**evaluation.localisation, "mean-map": {"nodule": altered}}
        localisation["mean-map"]["effusion"] = evaluation.localisation["mean-map"]["effusion"]
        kept = essence_of(evaluation.model_copy(update={"localisation": localisation}))
        fixed = kept.methods["occlusion"].findings["nodule"].fixed_hit_rate
        assert (fixed.value if fixed else None) == wanted


def test_the_usual_values_of_a_check_are_kept_and_of_few_explanations_none_are_told(evaluated):
    evaluation, _ = evaluated
    assert all(
        one.usual_low is None for checks in evaluation.checks.values() for one in checks.values()
    )
    assert all(not one.usual for one in essence_of(evaluation).methods.values())
    values = [(f"p{at}", at / 20, True) for at in range(21)]
    figures = _check(values)
    assert (figures.usual_low, figures.usual_high) == (pytest.approx(0.05), pytest.approx(0.95))
    checks = {"occlusion": {"stability": figures}}
    kept = essence_of(evaluation.model_copy(update={"checks": checks})).methods["occlusion"]
    assert kept.usual["stability"] == UsualRange(21, figures.usual_low, figures.usual_high)
