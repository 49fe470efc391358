from __future__ import annotations

import dataclasses
import re
from itertools import product
from pathlib import Path

import numpy as np
import pytest
import torch

from medllm.data.anatomy import REGIONS
from medllm.dicom import Radiograph
from medllm.errors import AttributionError
from medllm.explanation import checks
from medllm.explanation.attribution import PatchAttribution
from medllm.explanation.case import Case
from medllm.explanation.faithfulness import curves, faithfulness, hidden_halves
from medllm.explanation.integrated_gradients import completeness_bound, integrated_gradients
from medllm.explanation.judgement import judge, slightly_altered
from medllm.explanation.methods import METHODS
from medllm.explanation.record import Check
from medllm.explanation.verdict import verdict_of

FINDINGS = ("pneumonia", "effusion", "nodule")


def test_true_attributions_beat_chance_and_their_opposite_does_not(linear_model, scan):
    case = Case(linear_model, scan, FINDINGS)
    assert min(case.effect) < 0 < max(case.effect)  # both directions are tested
    true = integrated_gradients(case)
    opposite = [PatchAttribution(-item.values, item.n_steps) for item in true]
    for pair in curves(case, true):
        assert [check.name for check in pair] == ["deletion", "insertion"]
        assert all(check.passed and check.value == 1.0 for check in pair)
    for pair in curves(case, opposite):
        assert all(not check.passed and check.value == 0.0 for check in pair)


def test_an_answer_against_the_finding_is_tested_by_what_lowers_it(linear_model, scan):
    effects = Case(linear_model, scan, FINDINGS).effect
    case = Case(linear_model, scan, (FINDINGS[int(effects.argmin())],))
    assert case.effect[0] < 0
    (true,) = integrated_gradients(case)
    # Right about what lowers the answer, wrong about what raises it.
    below = true.values < 0
    weak = below & (true.values > np.median(true.values[below]))
    half_right = np.where(weak, 1.0, np.minimum(true.values, 0))
    assert curves(case, [PatchAttribution(half_right, 1)])[0][0].passed
    assert not curves(case, [PatchAttribution(-half_right, 1)])[0][0].passed


def test_deletion_says_how_far_the_answer_of_a_linear_model_fell(linear_model, scan):
    case = Case(linear_model, scan, FINDINGS)
    true = integrated_gradients(case)
    for (deletion, _), item, effect in zip(curves(case, true), true, case.effect, strict=True):
        # A sixteenth, an eighth and a quarter of 16 patches, the strongest first.
        strongest = np.sort(np.sign(effect) * item.values, axis=None)[::-1].cumsum()
        fell, low, high = map(
            float, re.findall(r"by (-?[\d.]+) .*by (-?[\d.]+) to (-?[\d.]+)", deletion.sentence)[0]
        )
        assert fell == pytest.approx(strongest[[0, 1, 3]].mean(), abs=0.006)
        assert low < high < fell


def test_deletion_of_one_finding_does_not_depend_on_its_company(tiny_model, scan):
    together = Case(tiny_model, scan, FINDINGS)
    alone = Case(tiny_model, scan, FINDINGS[1:2])
    for together_, alone_ in zip(
        curves(together, integrated_gradients(together))[1],
        curves(alone, integrated_gradients(alone))[0],
        strict=True,
    ):
        assert together_.value == alone_.value


def test_faithfulness_is_one_for_a_linear_models_own_products(linear_model, scan):
    case = Case(linear_model, scan, FINDINGS)
    true = integrated_gradients(case)
    for check in faithfulness(case, true):
        assert check.value == pytest.approx(1, abs=1e-4)
        assert check.passed
    opposite = [PatchAttribution(-item.values, 1) for item in true]
    for check in faithfulness(case, opposite):
        assert check.value == pytest.approx(-1, abs=1e-4)
        assert not check.passed
    chance = np.random.default_rng(0)

    def shuffled(item):
        return PatchAttribution(chance.permutation(item.values.ravel()).reshape(4, 4), 1)

    by_chance = [
        [check.value for check in faithfulness(case, [shuffled(item) for item in true])]
        for _ in range(20)
    ]
    # Over 16 patches a shuffled map's correlation scatters by 0.3, and a mean of 20 by 0.07.
    assert np.abs(np.mean(by_chance, axis=0)).max() < 0.25
    flat = [PatchAttribution(np.ones((4, 4)), 1) for _ in FINDINGS]
    assert all(check.value == 0 for check in faithfulness(case, flat))


def test_faithfulness_is_the_correlation_of_foretold_and_measured_falls(tiny_model, scan):
    case = Case(tiny_model, scan, FINDINGS[:1])
    values = np.random.default_rng(2).normal(size=(4, 4))
    (check,) = faithfulness(case, [PatchAttribution(values, 1)])
    foretold, fell = [], []
    # The grid is coarser than the cells, of which the first four a side are used.
    drawn = np.random.default_rng(1).random((64, 7, 7))[:, :4, :4]
    for hidden in drawn < np.median(drawn, axis=(1, 2), keepdims=True):
        foretold.append(values[hidden].sum())
        pixels = np.kron(hidden, np.ones((16, 16))).astype(bool)
        copy = torch.where(torch.from_numpy(pixels), case.blurred, case.pixel_values)
        with torch.no_grad():
            fell.append(case.log_odds[0] - float(tiny_model.log_odds(copy, FINDINGS[:1])))
    assert check.value == pytest.approx(np.corrcoef(foretold, fell)[0, 1], abs=1e-4)


@pytest.mark.parametrize("side", [4, 16, 27])
def test_half_of_the_patches_are_blurred_in_each_copy(side):
    hidden = hidden_halves((side, side))
    assert set(hidden.sum(axis=(1, 2)).tolist()) == {side**2 // 2}
    # In cells: neighbours are mostly blurred together where a cell has several patches.
    together = (hidden[:, 1:] == hidden[:, :-1]).mean()
    assert together > 0.6 if side > 7 else together < 0.6


@pytest.mark.parametrize("size", [64, 512])
def test_the_noise_of_stability_reaches_the_model_whatever_the_files_size(tiny_model, size):
    ramp = np.tile(np.linspace(0, 1, size, dtype=np.float32), (size, 1))
    case = Case(tiny_model, Radiograph(ramp, Path("x.png"), "png", "0" * 64), FINDINGS)
    noisy, _ = slightly_altered(case)
    deviation = (noisy.pixel_values - case.pixel_values).std() / np.ptp(case.pixel_values.numpy())
    assert float(deviation) == pytest.approx(0.02, rel=0.3)


def test_stability_is_the_worst_of_the_altered_copies():
    values = np.random.default_rng(0).normal(size=(4, 4))
    assert checks.stability(values, [values, 2 * values]).value == pytest.approx(1)
    worst = checks.stability(values, [values, -values])
    assert worst.value == pytest.approx(-1)
    assert not worst.passed


def test_contrast_fails_where_another_finding_has_the_same_map():
    values = np.random.default_rng(0).normal(size=(4, 4))
    same = checks.contrast(values, 3 * values, "effusion")
    assert not same.passed
    assert "effusion" in same.sentence
    assert checks.contrast(values, -values, "effusion").passed


def test_agreement_is_of_the_places_that_matter_and_0_for_a_flat_map():
    chance = np.random.default_rng(0)
    values, other = chance.normal(size=(2, 8, 8)) * 0.01
    values[2, 3] = other[2, 3] = 1.0  # one place that both mark; the rest is noise
    agreeing = checks.agreement(values, other, "occlusion")
    assert agreeing.value == pytest.approx(np.corrcoef(values.ravel(), other.ravel())[0, 1])
    assert agreeing.passed
    assert checks.rank_correlation(values, other) < checks.LEAST_AGREEMENT
    assert checks.agreement(values, 3 * values + 1, "occlusion").value == pytest.approx(1)
    reverse = checks.agreement(values, -values, "occlusion")
    assert reverse.value == pytest.approx(-1)
    assert not reverse.passed
    flat = checks.agreement(values, np.zeros((8, 8)), "occlusion")
    assert flat.value == 0.0
    assert not flat.passed


def test_on_text_is_measured_against_an_even_spread_and_its_floor():
    coverage = np.array([[0.0, 0.2], [0.0, 0.0]])  # an even spread puts a twentieth there
    off = checks.on_text(np.array([[1.0, 0.2], [-1.0, 0.0]]), coverage)
    assert off.value == pytest.approx(0.2 * 0.2 / 2.2)
    assert off.passed
    assert off.reference.startswith("at most 0.050")
    on = checks.on_text(np.array([[0.1, -0.9], [0.0, 0.0]]), coverage)  # either sign counts
    assert on.value == pytest.approx(0.18)
    assert not on.passed
    assert "18.0%" in on.sentence
    assert "5.0%" in on.sentence
    assert verdict_of([on]) == "weak"
    small = checks.on_text(np.array([[1.0, 1.5]]), np.array([[0.0, 0.015]]))
    assert small.value > 0.015 / 2  # more than an even spread
    assert small.passed  # but below a hundredth


def test_without_text_the_check_passes_and_promises_nothing():
    none = checks.on_text(np.ones((2, 2)), np.zeros((2, 2)))
    assert none.passed
    assert none.value == 0
    assert "no promise" in none.sentence


@pytest.mark.parametrize("broken", ["refuses", "does not add up"])
def test_without_a_second_method_a_map_is_unconfirmed_and_not_refused_for_it(
    linear_model, scan, monkeypatch, broken
):
    def attribute(case):
        if broken == "refuses":
            raise AttributionError("it cannot.", code="no-gradient")
        return (PatchAttribution(np.ones((4, 4)), 1, completeness_error=9.0),)

    case = Case(linear_model, scan, FINDINGS[:1])
    method = dataclasses.replace(METHODS["integrated-gradients"], attribute=attribute)
    own = METHODS["occlusion"].attribute(case)
    agreed = judge(case, "occlusion", own)[0]
    names = {check.name for check in agreed}
    by_name = {check.name: check for check in agreed}
    assert by_name["confirmation"].value == pytest.approx(
        (by_name["faithfulness"].value + by_name["agreement"].value) / 2
    )
    monkeypatch.setitem(METHODS, "integrated-gradients", method)
    case = Case(linear_model, scan, FINDINGS[:1])
    (made,) = judge(case, "occlusion", own)
    assert {check.name for check in made} == names - {"agreement"} | {"unconfirmed"}
    by_name = {check.name: check for check in made}
    foretold, confirmed = by_name["faithfulness"], by_name["confirmation"]
    assert (confirmed.value, confirmed.passed) == (foretold.value, foretold.passed)
    assert "faithfulness," in confirmed.sentence
    assert verdict_of(made) == "weak"


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


@pytest.mark.parametrize(
    ("precision", "share"),
    [(torch.float32, 0.02), (torch.float64, 0.02), (torch.bfloat16, 0.05), (torch.float16, 0.05)],
)
def test_completeness_allows_a_share_of_the_effect_and_as_many_log_odds(precision, share):
    for effect, bound in ((0.1, share), (-0.9, share), (-3.0, 3 * share), (3.0, 3 * share)):
        allowed = completeness_bound(effect, precision)
        assert checks.completeness(bound - 1e-3, allowed).passed
        assert not checks.completeness(bound + 1e-3, allowed).passed


@pytest.mark.parametrize(
    ("foretold", "agreed", "passed", "verdict"),
    [
        (0.9, 0.1, True, "weak"),
        (-0.1, 0.95, True, "weak"),
        (0.5, 0.5, True, "supported"),
        (0.25, 0.45, False, "do not use"),  # each passes, barely, and a wrong map may
        (0.1, 0.1, False, "do not use"),
    ],
)
def test_two_tests_confirm_a_map_together(foretold, agreed, passed, verdict):
    one = Check("faithfulness", foretold, "", foretold >= 0.21, "")
    other = Check("agreement", agreed, "", agreed >= checks.LEAST_AGREEMENT, "")
    confirmed = checks.confirmation(one, other)
    assert confirmed.value == pytest.approx((foretold + agreed) / 2)
    assert confirmed.passed is passed
    assert ("do not confirm" in confirmed.sentence) is not passed
    assert verdict_of([one, other, confirmed]) == verdict


def test_verdict_falls_with_the_weightiest_failure_and_not_with_insertion():
    necessary = ("image-use", "deletion", "stability", "confirmation", "completeness")
    names = (*necessary, "outside-thorax", "unconfirmed", "faithfulness", "agreement", "insertion")
    for results in product((True, False), repeat=len(names)):
        made = [Check(name, 0.0, "", ok, "") for name, ok in zip(names, results, strict=True)]
        wanted = (
            "do not use" if not all(results[:5]) else "supported" if all(results[5:9]) else "weak"
        )
        assert verdict_of(made) == wanted
