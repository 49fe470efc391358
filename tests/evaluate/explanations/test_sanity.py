from __future__ import annotations

import dataclasses
import json
from itertools import count

import numpy as np
import pyarrow.parquet as pq
import pytest
import torch

from medllm.dicom import Radiograph
from medllm.errors import AttributionError
from medllm.evaluate import evaluate_explanations
from medllm.evaluate.explanations import sanity
from medllm.evaluate.explanations.page import render
from medllm.evaluate.wording import number
from medllm.explanation import METHODS as KNOWN
from medllm.explanation import methods
from medllm.explanation.case import Case
from medllm.phantom import make_phantom

pytestmark = pytest.mark.usefixtures("few_resamples")

METHODS = ("integrated-gradients", "occlusion")
N_PATIENTS = 6


@pytest.fixture(scope="module")
def case(tiny_model, tmp_path_factory):
    pixels = make_phantom(1, size=96).pixels
    scan = Radiograph(pixels, tmp_path_factory.mktemp("scan"), "png", "")
    return Case(tiny_model, scan, ("nodule",))


@pytest.fixture(scope="module")
def values(case):
    return KNOWN["occlusion"].attribute(case)[0].values


def test_infidelity_is_that_of_the_paper_by_the_best_factor(case, values):
    chance = np.random.default_rng(0)
    squares = np.stack([sanity._square(chance, 4, 4) for _ in range(64)])
    fell = case.log_odds[0] - case.log_odds_without(squares > 0)[:, 0]
    foretold = (squares * values).sum(axis=(1, 2))
    factor = (foretold * fell).mean() / (foretold**2).mean()
    wanted = ((factor * foretold - fell) ** 2).mean()
    # log-odds are of float32, and the fall is a difference of two
    assert sanity.infidelity_of(case, values) == pytest.approx(wanted, rel=1e-4)
    assert sanity.infidelity_of(case, -7 * values) == pytest.approx(wanted, rel=1e-4)
    flat = sanity.infidelity_of(case, np.zeros_like(values))
    assert flat == pytest.approx((fell**2).mean(), rel=1e-4)
    assert wanted < flat


def test_squares_lie_in_the_image_and_have_every_size_up_to_half_of_its_side():
    chance = np.random.default_rng(0)
    drawn = np.stack([sanity._square(chance, 8, 6) for _ in range(500)])
    assert set(drawn.sum(axis=(1, 2)).tolist()) == {1, 4, 9}
    assert drawn.any(axis=0).all()


def test_sensitivity_is_the_farthest_move_as_a_share_of_the_map(case):
    def attribute(shown):
        return [shown.pixel_values[0, 0, ::16, ::16].double().numpy()]

    pixels = case.pixel_values
    radius = 0.02 * float(pixels.max() - pixels.min())
    generator = torch.Generator().manual_seed(0)
    noise = radius * (2 * torch.rand((3, *pixels.shape[1:]), generator=generator) - 1)
    moved = noise[:, 0, ::16, ::16].double().flatten(1).norm(dim=1)
    wanted = float(moved.max() / pixels[0, 0, ::16, ::16].double().norm())
    assert sanity.max_sensitivity(case, attribute) == pytest.approx(wanted, rel=1e-5)


@pytest.mark.parametrize("method", KNOWN)
def test_every_method_is_tested_with_its_gradients(case, method):
    told = sanity.try_methods(case, [method])
    row = told[method]["nodule"]
    assert row.keys() == {*sanity.ALIKENESS, "infidelity", "max_sensitivity"}
    assert row["max_sensitivity"] > 0
    assert all(len(row[name]) == 6 for name in sanity.ALIKENESS)
    edges = told["edges"]["nodule"]
    assert edges["rank_correlation"] == pytest.approx([1.0] * 6)
    assert edges["ssim"] == pytest.approx([1.0] * 6)


def test_a_map_of_the_attention_outlives_the_answer_and_integrated_gradients_do_not(case):
    told = sanity.try_methods(case, METHODS)
    rollout = sanity.try_methods(case, ["attention-rollout"])["attention-rollout"]["nodule"]
    assert rollout["rank_correlation_absolute"][0] == pytest.approx(1)
    assert abs(told["integrated-gradients"]["nodule"]["rank_correlation_absolute"][-1]) < 0.9


def test_a_map_with_the_other_sign_is_alike_without_it_alone(values):
    assert sanity.rank_correlation(values, -values) == pytest.approx(-1)
    assert sanity.rank_correlation(np.abs(values), np.abs(-values)) == pytest.approx(1)
    assert sanity.rank_correlation(values, np.zeros_like(values)) == 0


def test_structural_similarity_is_that_of_the_paper():
    chance = np.random.default_rng(0)
    first, second = chance.random((2, 4, 4))
    # One window, as large as the map: means, variances and covariance of all its patches.
    x, y = first / first.max(), second / second.max()
    c1, c2 = 0.01**2, 0.03**2
    joint = (x * y).mean() - x.mean() * y.mean()
    above = (2 * x.mean() * y.mean() + c1) * (2 * joint + c2)
    below = (x.mean() ** 2 + y.mean() ** 2 + c1) * (x.var() + y.var() + c2)
    assert sanity.structural_similarity(first, second) == pytest.approx(above / below, rel=1e-5)
    assert sanity.structural_similarity(first, 3 * first) == pytest.approx(1)


def test_the_figures_are_of_the_first_image_of_each_patient(evaluated):
    evaluation, out = evaluated
    rows = pq.read_table(out / "explanations.parquet").to_pylist()
    tried = [row for row in rows if row["infidelity"] is not None]
    assert {row["path"] for row in tried} == {f"{index}.png" for index in range(0, 12, 2)}
    assert {row["method"] for row in tried} == {*METHODS, "edges"}
    found = evaluation.sanity
    # the damaged image's patient was chosen too, and has no figures
    assert found.n_images == N_PATIENTS + 1
    for method in METHODS:
        own = [row for row in tried if row["method"] == method]
        one = found.methods[method]
        assert (one.n, one.n_patients) == (len(own), N_PATIENTS)
        for name in ("infidelity", "max_sensitivity"):
            assert getattr(one, name).value == pytest.approx(np.mean([row[name] for row in own]))
            assert getattr(one, name).low <= getattr(one, name).value
        ends = np.mean([row["rank_correlation"][-1] for row in own])
        assert one.rank_correlation[-1].value == pytest.approx(ends)
        assert len(one.ssim) == len(found.steps)
    assert found.methods["edges"].survives is True
    values = json.loads((out / "metrics.json").read_text())
    assert values["sanity"]["methods"]["edges"]["survives"] is True


def test_a_method_survives_by_either_correlation(outlined, tiny_model, tmp_path, monkeypatch):
    def signed(sign):
        def attribute(case):
            values = np.arange(16.0).reshape(4, 4)
            own = case.model.network is tiny_model.network
            known = KNOWN["grad-cam"].attribute(case)
            return tuple(
                dataclasses.replace(one, values=values if own else sign * values) for one in known
            )

        return attribute

    for sign in (-1, 1):
        altered = dataclasses.replace(KNOWN["grad-cam"], attribute=signed(sign))
        monkeypatch.setitem(methods.METHODS, "occlusion", altered)
        evaluation = evaluate_explanations(
            outlined, tiny_model, tmp_path / str(sign), ["occlusion"], checked="none"
        )
        one = evaluation.sanity.methods["occlusion"]
        assert one.survives is True
        assert one.rank_correlation[-1].value == pytest.approx(sign)


@pytest.mark.parametrize("works", [0, 2])
def test_a_method_that_fails_is_a_line_with_its_reason(
    works, outlined, tiny_model, tmp_path, monkeypatch
):
    calls = count()

    def attribute(case):
        if next(calls) >= works:
            raise AttributionError("too little memory.", code="out-of-memory")
        return KNOWN["grad-cam"].attribute(case)

    failing = dataclasses.replace(KNOWN["occlusion"], attribute=attribute)
    monkeypatch.setitem(methods.METHODS, "occlusion", failing)
    few = dataclasses.replace(outlined, images=outlined.images[1:2])
    evaluation = evaluate_explanations(few, tiny_model, tmp_path, METHODS, checked="none")
    one = evaluation.sanity.methods["occlusion"]
    assert (one.n, one.survives, one.failed) == (0, None, {"out-of-memory": 1})
    assert evaluation.sanity.methods["integrated-gradients"].n == 1
    page = render(evaluation, {}).decode()
    assert '<td colspan="7">not tested</td><td>out-of-memory: 1</td>' in page


def test_of_one_image_it_is_not_said_whether_a_method_survives(outlined, tiny_model, tmp_path):
    few = dataclasses.replace(outlined, images=outlined.images[1:2])
    evaluation = evaluate_explanations(few, tiny_model, tmp_path, ["grad-cam"], checked="none")
    edges = evaluation.sanity.methods["edges"]
    assert edges.rank_correlation[-1].value == pytest.approx(1)  # as of many images
    assert (edges.n_patients, edges.survives) == (1, None)
    page = render(evaluation, {}).decode()
    assert "<td>too few images</td>" in page
    assert "on the first image of 1 patient. Means" in page


def test_none_are_tested_where_none_are_asked_for(outlined, tiny_model, tmp_path):
    few = dataclasses.replace(outlined, images=outlined.images[1:2])
    evaluation = evaluate_explanations(
        few, tiny_model, tmp_path, ["grad-cam"], checked="none", sanity=0
    )
    assert evaluation.sanity is None
    assert "were not tested in this evaluation" in render(evaluation, {}).decode()


def test_the_page_shows_each_method_with_its_cascade(evaluated):
    evaluation, out = evaluated
    page = (out / "report.html").read_text()
    assert "no: the map survives" in page
    for method, one in evaluation.sanity.methods.items():
        values = ", ".join(number(end.value, 2) for end in one.rank_correlation)
        assert f'aria-label="{method}: rank correlation by step, with sign 1.00, {values};' in page
        assert number(one.infidelity.value, 3) in page
