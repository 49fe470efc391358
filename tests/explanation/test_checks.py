from __future__ import annotations

from itertools import product

import numpy as np
import pytest

from medllm.explanation import checks
from medllm.explanation.anatomy import REGIONS
from medllm.explanation.attribution import PatchAttribution
from medllm.explanation.case import Case
from medllm.explanation.integrated_gradients import integrated_gradients
from medllm.explanation.record import Check

FINDINGS = ("pneumonia", "effusion", "nodule")


def test_true_attributions_beat_chance_and_their_opposite_does_not(linear_model, scan):
    case = Case(linear_model, scan, FINDINGS)
    assert min(case.effect) < 0 < max(case.effect)  # both directions are tested
    true = integrated_gradients(case)
    opposite = [PatchAttribution(-item.values, item.n_steps) for item in true]
    for check in checks.deletions(case, true):
        assert check.passed
        assert check.value == 1.0
    for check in checks.deletions(case, opposite):
        assert not check.passed
        assert check.value == 0.0


def test_an_answer_against_the_finding_is_tested_by_what_lowers_it(linear_model, scan):
    effects = Case(linear_model, scan, FINDINGS).effect
    case = Case(linear_model, scan, (FINDINGS[int(effects.argmin())],))
    assert case.effect[0] < 0
    (true,) = integrated_gradients(case)
    # Right about what lowers the answer, wrong about what raises it.
    below = true.values < 0
    weak = below & (true.values > np.median(true.values[below]))
    half_right = np.where(weak, 1.0, np.minimum(true.values, 0))
    assert checks.deletions(case, [PatchAttribution(half_right, 1)])[0].passed
    assert not checks.deletions(case, [PatchAttribution(-half_right, 1)])[0].passed


def test_deletion_of_one_finding_does_not_depend_on_its_company(tiny_model, scan):
    together = Case(tiny_model, scan, FINDINGS)
    alone = Case(tiny_model, scan, FINDINGS[1:2])
    assert (
        checks.deletions(together, integrated_gradients(together))[1].value
        == checks.deletions(alone, integrated_gradients(alone))[0].value
    )


def test_agreement_is_that_of_ranks_and_0_for_a_flat_map():
    values = np.random.default_rng(0).normal(size=(4, 4))
    assert checks.agreement(values, np.exp(values), "occlusion").value == pytest.approx(1)
    reverse = checks.agreement(values, -values, "occlusion")
    assert reverse.value == pytest.approx(-1)
    assert not reverse.passed
    flat = checks.agreement(values, np.zeros((4, 4)), "occlusion")
    assert flat.value == 0.0
    assert not flat.passed


def test_outside_thorax_is_measured_against_an_even_spread():
    shares = np.zeros((len(REGIONS), 2, 2))
    shares[REGIONS.index(("outside", None))] = [[1.0, 0.5], [0.0, 0.5]]
    shares[0] = 1 - shares[-1]
    on_the_chest = checks.outside_thorax(np.array([[0.1, 0.0], [-0.9, 0.0]]), shares)
    assert on_the_chest.value == pytest.approx(0.1)  # either sign counts
    assert on_the_chest.passed
    assert "0.50" in on_the_chest.reference
    assert not checks.outside_thorax(np.array([[0.9, 0.0], [-0.1, 0.0]]), shares).passed


@pytest.mark.parametrize("sign", [1, -1])
def test_image_use_asks_for_the_size_of_the_effect_and_not_its_sign(sign):
    assert checks.image_use(sign * 0.25).passed
    assert not checks.image_use(sign * 0.15).passed


def test_completeness_allows_2_percent_and_at_least_2_hundredths():
    assert checks.completeness(0.019, 0.1).passed
    assert not checks.completeness(0.021, -0.9).passed
    assert checks.completeness(0.059, -3.0).passed
    assert not checks.completeness(0.061, 3.0).passed


def test_verdict_falls_with_the_weightiest_failure():
    names = ("image-use", "completeness", "deletion", "agreement", "outside-thorax")
    for results in product((True, False), repeat=5):
        made = [Check(name, 0.0, "", ok, "") for name, ok in zip(names, results, strict=True)]
        wanted = "supported" if all(results) else "weak" if all(results[:3]) else "do not use"
        assert checks.verdict_of(made) == wanted
