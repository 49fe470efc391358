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
        for key, found in one.findings.items():
            own = evaluation.localisation[method][key]
            for name in ("hit_rate", "pixel_auroc", "miou", "pixel_auroc_lungs", "side_accuracy"):
                wanted = getattr(own, name).model_dump()
                told = getattr(found, name)
                if wanted["low"] is None:  # of a best point alone, or too few one-sided ones
                    assert told is None
                else:
                    assert dataclasses.asdict(told) == wanted
            if method == "mean-map":
                assert found.over_mean_map is None
            elif own.over_mean_map is not None:
                assert found.over_mean_map.value == own.over_mean_map.value
        assert one.verdicts == (evaluation.verdicts if method == DEFAULT_METHOD else {})
        tested = evaluation.sanity.methods.get(method)
        if tested is None:
            assert one.n_tested == 0
            continue
        assert (one.n_tested, one.survives) == (tested.n, tested.survives)
        assert one.ssim.value == tested.ssim[-1].value
        if tested.max_sensitivity.value is not None:  # of an edge map it is not asked
            assert one.max_sensitivity.high == tested.max_sensitivity.high


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
