from __future__ import annotations

import dataclasses

import numpy as np
import pytest
import torch

from medllm.errors import AttributionError, LabelError
from medllm.explanation import METHODS, explain, explain_findings
from medllm.explanation.attribution import PatchAttribution
from medllm.explanation.burned_in_text import find_text
from medllm.explanation.case import Case
from medllm.explanation.judgement import judge
from medllm.explanation.record import TokenAttribution
from medllm.explanation.words import PromptAttribution, word_ablation, word_gradients
from medllm.findings import FINDINGS as KNOWN
from medllm.models import Model, Question
from medllm.report.wording import where

FINDINGS = ("pneumonia", "effusion", "nodule")


@pytest.fixture
def wordless(monkeypatch):
    """For models that are linear in the pixels and have no words."""
    without = PromptAttribution((), 0.0, None)
    monkeypatch.setattr("medllm.explanation.composition.word_gradients", lambda *_: without)


@pytest.mark.parametrize("method", METHODS)
def test_findings_attributed_together_are_as_each_alone(tiny_model, scan, method):
    attribute = METHODS[method].attribute
    together = attribute(Case(tiny_model, scan, FINDINGS))
    for finding, item in zip(FINDINGS, together, strict=True):
        (alone,) = attribute(Case(tiny_model, scan, (finding,)))
        # another padding of the questions sums in another order
        np.testing.assert_allclose(alone.values, item.values, atol=1e-5)


def test_findings_explained_together_are_as_each_alone(tiny_model, scan):
    for finding, together in zip(FINDINGS, explain_findings(tiny_model, scan), strict=True):
        alone = explain(tiny_model, scan, finding)
        assert alone.finding == together.finding == finding
        assert alone.verdict == together.verdict
        for check, same in zip(alone.checks, together.checks, strict=True):
            assert check.name == same.name
            # a patch whose rank hangs on the last digit may change places
            assert check.value == pytest.approx(same.value, abs=0.02)
        assert alone.regions[0].share == pytest.approx(together.regions[0].share, abs=1e-3)


def test_the_number_explained_is_the_number_predicted(tiny_model, scan):
    (prediction,) = tiny_model.predict([scan])
    for answer in prediction.findings:
        explanation = explain(tiny_model, scan, answer.finding, method="integrated-gradients")
        assert explanation.log_odds == pytest.approx(answer.log_odds, abs=1e-5)
        explained = explanation.log_odds - explanation.baseline_log_odds
        missed = abs(explanation.map.values.sum() - explained)
        assert missed == pytest.approx(explanation.completeness_error, abs=1e-9)


def test_only_a_method_that_promises_completeness_is_tested_for_it(linear_model, scan, wordless):
    names = {
        method: [
            check.name for check in explain(linear_model, scan, "nodule", method=method).checks
        ]
        for method in ("integrated-gradients", "occlusion")
    }
    others = ["deletion", "insertion", "faithfulness", "agreement"]
    others += ["confirmation", "stability", "contrast", "outside-thorax", "on-text"]
    assert names["integrated-gradients"] == ["image-use", "completeness", *others]
    assert names["occlusion"] == ["image-use", *others]


def test_an_incomplete_attribution_is_refused_and_its_remedy_works(cliff_model, scan, wordless):
    with pytest.raises(AttributionError, match=r"pneumonia miss .* after 256 steps") as refused:
        explain(cliff_model, scan, "pneumonia")
    assert refused.value.code == "incomplete-attribution"
    assert "occlusion" in str(refused.value)
    assert explain(cliff_model, scan, "pneumonia", method="occlusion").completeness_error is None


def test_a_kind_of_the_finding_is_no_rival_of_its_map(tiny_model, scan, monkeypatch):
    monkeypatch.setattr("medllm.explanation.checks.LEAST_EFFECT", 1e-9)
    for rival, compared in (("lung_opacity", False), ("effusion", True)):
        questions = tuple(Question(key, KNOWN[key].question) for key in ("pneumonia", rival))
        card = dataclasses.replace(tiny_model.card, questions=questions)
        case = Case(dataclasses.replace(tiny_model, card=card), scan, ("pneumonia",))
        (made,) = judge(case, "occlusion", METHODS["occlusion"].attribute(case))
        assert ("contrast" in {check.name for check in made}) is compared


def test_unknown_names_are_refused_with_the_known_ones(tiny_model, scan):
    with pytest.raises(ValueError, match=r"'lime' is not a method; use one of: integrated"):
        explain(tiny_model, scan, "nodule", method="lime")
    with pytest.raises(LabelError, match="hernia"):
        explain(tiny_model, scan, "hernia")


def test_who_watches_is_told_each_method_as_it_begins(tiny_model, scan):
    told = []

    def watch(methods):
        for name in methods:
            told.append(name)
            yield name

    methods = ("gradient-x-activation", "grad-cam", "occlusion")
    watched = explain_findings(
        tiny_model, scan, FINDINGS, method=methods[0], others=methods[1:], watch=watch
    )
    assert told == [*methods]
    for one in watched:
        assert (one.method, *(other.method for other in one.others)) == methods


def test_no_finding_has_no_explanation(tiny_model, scan):
    assert explain_findings(tiny_model, scan, []) == ()


def test_words_and_regions_share_the_same_total(tiny_model, scan):
    for explanation in explain_findings(tiny_model, scan):
        effect = explanation.log_odds - explanation.baseline_log_odds
        parts = explanation.zone_effects
        assert sum(part.shapley for part in parts) == pytest.approx(effect, abs=1e-5)
        assert len(parts) == 8
        (image,) = [token for token in explanation.tokens if token.text == "<image>"]
        assert len(explanation.tokens) > 3
        assert image.value != 0


def test_where_gradients_do_not_add_up_the_words_are_left_out_in_turn(
    tiny_model, scan, monkeypatch
):
    case = Case(tiny_model, scan, ("nodule",))
    whole = explain(tiny_model, scan, "nodule")
    assert whole.tokens == word_gradients(case, "nodule").tokens
    assert 0 <= whole.tokens_completeness_error < 0.1
    flat = PromptAttribution((TokenAttribution("<image>", 0.0),), 0.0, 2.5)
    monkeypatch.setattr("medllm.explanation.composition.word_gradients", lambda *_: flat)
    told = explain(tiny_model, scan, "nodule")
    assert told.tokens == word_ablation(case, "nodule").tokens != whole.tokens
    assert told.tokens_completeness_error is None


def test_attribution_on_letters_is_that_of_the_pixels_they_were_found_in(tiny_model, scan):
    pixels = scan.pixels.copy()
    pixels[10:20, 8:10] = pixels[18:20, 8:15] = 1.0  # an L
    lettered = dataclasses.replace(scan, pixels=pixels)
    text = find_text(pixels)
    assert text[10:20, 8:10].all()
    explanation = explain(tiny_model, lettered, "nodule")
    values = np.abs(np.kron(explanation.map.values, np.ones((32, 32))))
    (check,) = [check for check in explanation.checks if check.name == "on-text"]
    assert check.value == pytest.approx(values[text].sum() / values.sum())


def test_no_place_is_named_where_the_lungs_are_not_found(tiny_model, scan):
    noise = np.random.default_rng(0).random(scan.pixels.shape).astype(np.float32)
    explanation = explain(tiny_model, dataclasses.replace(scan, pixels=noise), "nodule")
    assert explanation.regions == explanation.zone_effects == ()
    assert "outside-thorax" not in [check.name for check in explanation.checks]
    assert where(explanation, scan).startswith("no place is named")


@pytest.mark.parametrize(("values", "code"), [(np.nan, "not-finite"), (0.0, "all-zero-map")])
def test_a_map_that_is_not_finite_or_all_zero_is_refused(
    linear_model, scan, monkeypatch, values, code
):
    def broken(case):
        return tuple(PatchAttribution(np.full((4, 4), values), 1) for _ in case.findings)

    method = dataclasses.replace(METHODS["grad-cam"], attribute=broken)
    monkeypatch.setitem(METHODS, "grad-cam", method)
    with pytest.raises(AttributionError, match="occlusion") as refused:
        explain(linear_model, scan, "pneumonia", method="grad-cam")
    assert refused.value.code == code


@pytest.mark.parametrize("method", ["grad-cam", "gradient-attention", "integrated-gradients"])
def test_where_not_even_one_image_fits_that_is_told(tiny_model, scan, monkeypatch, method):
    def full(model, *_):
        raise torch.OutOfMemoryError("CUDA out of memory")

    monkeypatch.setattr(Model, "log_odds_from_features", full)
    with pytest.raises(AttributionError, match="not enough memory for one image") as refused:
        explain(tiny_model, scan, "effusion", method=method)
    assert refused.value.code == "out-of-memory"


@pytest.mark.parametrize("method", ["integrated-gradients", "occlusion", "zone-shapley"])
def test_a_whole_explanation_fits_the_memory_at_hand(tiny_model, scan, monkeypatch, method):
    wanted = explain(tiny_model, scan, "effusion", method=method)
    encode = Model.image_features

    def scarce(model, pixel_values):
        if len(pixel_values) > 4:
            raise torch.OutOfMemoryError("CUDA out of memory")
        return encode(model, pixel_values)

    monkeypatch.setattr(Model, "image_features", scarce)
    got = explain(tiny_model, scan, "effusion", method=method)
    np.testing.assert_allclose(got.map.values, wanted.map.values, atol=1e-5)
    # Sums in another order: a check that counts may count one more or less.
    for check, other in zip(got.checks, wanted.checks, strict=True):
        assert check.value == pytest.approx(other.value, abs=0.1), check.name
