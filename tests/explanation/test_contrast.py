"""Why this finding rather than that: the difference of two log-odds, by every method."""

from __future__ import annotations

from functools import partial
from itertools import permutations

import numpy as np
import pytest
from scipy.stats import spearmanr

from medllm.errors import AttributionError, LabelError
from medllm.explanation import DEFAULT_METHOD, METHODS, explain, explain_findings
from medllm.explanation.case import Case
from medllm.explanation.faithfulness import faithfulness
from medllm.explanation.integrated_gradients import completeness_bound, integrated_gradients
from medllm.explanation.judgement import judge
from medllm.explanation.words import word_ablation, word_gradients

FINDINGS = ("pneumonia", "effusion", "nodule")
BY_ATTENTION = ("gradient-attention", "attention-rollout")
LINEAR = [name for name in METHODS if name not in BY_ATTENTION]


@pytest.mark.parametrize("method", LINEAR)
def test_the_map_of_a_difference_is_the_difference_of_the_maps(tiny_model, scan, method):
    attribute = METHODS[method].attribute
    if method in ("integrated-gradients", "pixel-integrated-gradients"):
        # A difference can need other steps than its parts until it adds up.
        attribute = partial(attribute, most_steps=16)
    apart = [item.values for item in attribute(Case(tiny_model, scan, FINDINGS))]
    contrasted = attribute(Case(tiny_model, scan, FINDINGS[:2], against="nodule"))
    for index in range(2):
        wanted = apart[index] - apart[2]
        assert np.abs(wanted).max() > 1e-3
        # another batch sums in another order
        np.testing.assert_allclose(contrasted[index].values, wanted, atol=1e-5)


@pytest.mark.parametrize("method", LINEAR)
def test_every_number_of_a_contrast_is_of_the_difference(tiny_model, scan, method):
    asked, other, _ = tiny_model.predict([scan])[0].findings
    found = explain(tiny_model, scan, "pneumonia", method=method, against="effusion")
    assert (found.finding, found.against) == ("pneumonia", "effusion")
    assert found.log_odds == pytest.approx(asked.log_odds - other.log_odds, abs=1e-5)
    effect = found.log_odds - found.baseline_log_odds
    checks = {check.name: check for check in found.checks}
    assert checks["image-use"].value == pytest.approx(abs(effect))
    assert sum(part.shapley for part in found.zone_effects) == pytest.approx(effect, abs=1e-5)
    if found.completeness_error is not None:
        missed = abs(found.map.values.sum() - effect)
        assert missed == pytest.approx(found.completeness_error, abs=1e-9)
        assert missed <= completeness_bound(effect)


@pytest.mark.parametrize(("asked", "against", "third"), list(permutations(FINDINGS)))
def test_a_difference_is_told_from_the_third_findings_difference(
    linear_model, scan, asked, against, third
):
    case = Case(linear_model, scan, (asked,), against=against)
    (checks,) = judge(case, "integrated-gradients", integrated_gradients(case))
    names = {check.name: check for check in checks}
    assert f"the map of {third} against {against}" in names["contrast"].reference
    first, rival = (
        item.values
        for item in integrated_gradients(Case(linear_model, scan, (asked, third), against=against))
    )
    wanted = spearmanr(first, rival, axis=None).statistic
    assert names["contrast"].value == pytest.approx(wanted)
    # A linear model's own products beat chance, on the difference too.
    assert names["deletion"].value == names["insertion"].value == 1.0


@pytest.mark.parametrize("method", BY_ATTENTION)
def test_attention_of_one_question_cannot_tell_two_apart(tiny_model, scan, method):
    with pytest.raises(AttributionError, match="use the method 'integrated-grad") as refused:
        explain(tiny_model, scan, "pneumonia", method=method, against="effusion")
    assert refused.value.code == "no-contrast"


def test_faithfulness_is_to_the_difference_and_not_to_one_answer(linear_model, scan):
    contrast = Case(linear_model, scan, ("pneumonia",), against="nodule")
    alone = Case(linear_model, scan, ("pneumonia",))
    (true,) = faithfulness(contrast, integrated_gradients(contrast))
    (other,) = faithfulness(contrast, integrated_gradients(alone))
    assert true.value == pytest.approx(1.0, abs=1e-5)
    assert other.value < 0.9


@pytest.mark.parametrize("attribute", [word_gradients, word_ablation])
def test_words_of_both_questions_are_told_those_of_the_second_against_it(
    tiny_model, scan, attribute
):
    alone = Case(tiny_model, scan, FINDINGS)
    asked, other = (
        {token.text: token.value for token in attribute(alone, finding).tokens}
        for finding in ("pneumonia", "effusion")
    )
    found = attribute(Case(tiny_model, scan, FINDINGS[:1], against="effusion"), "pneumonia")
    shared = ["<image>", "Is", "there", "evidence", "of"]
    texts = [token.text for token in found.tokens]
    assert texts == [*shared, "pneumonia?", "pleural", "effusion?"]
    for token in found.tokens:
        wanted = asked.get(token.text, 0.0) - other.get(token.text, 0.0)
        assert token.value == pytest.approx(wanted, abs=1e-6)
    before = [attribute(alone, finding).baseline_log_odds for finding in ("pneumonia", "effusion")]
    assert found.baseline_log_odds == pytest.approx(before[0] - before[1], abs=1e-6)
    if found.completeness_error is not None:
        whole = alone.log_odds[0] - alone.log_odds[1] - found.baseline_log_odds
        missed = abs(sum(token.value for token in found.tokens) - whole)
        assert missed <= found.completeness_error + 1e-5


def test_a_finding_is_explained_against_another_that_is_answered(tiny_model, scan):
    with pytest.raises(ValueError, match="'nodule' is to be explained against itself"):
        explain(tiny_model, scan, "nodule", against="nodule")
    with pytest.raises(ValueError, match="'effusion' is to be explained against itself"):
        explain_findings(tiny_model, scan, against="effusion")
    with pytest.raises(LabelError, match="does not answer for 'hernia'"):
        explain(tiny_model, scan, "nodule", against="hernia")


def test_other_methods_are_set_beside_as_each_alone(tiny_model, scan):
    found = explain(tiny_model, scan, "pneumonia", others=["rise", "grad-cam"])
    assert found.method == DEFAULT_METHOD
    assert [other.method for other in found.others] == ["rise", "grad-cam"]
    for other in found.others:
        alone = explain(tiny_model, scan, "pneumonia", method=other.method)
        np.testing.assert_allclose(other.explanation.map.values, alone.map.values, atol=1e-6)
        assert other.explanation.verdict == alone.verdict
        assert other.explanation.regions[0].share == pytest.approx(alone.regions[0].share)
        wanted = np.corrcoef(alone.map.values.ravel(), found.map.values.ravel())[0, 1]
        assert other.correlation == pytest.approx(wanted, abs=1e-6)
        assert other.refusal == ""
    assert explain(tiny_model, scan, "pneumonia").others == ()


def test_another_method_that_refuses_is_told_and_does_not_fail(tiny_model, scan):
    found = explain(
        tiny_model,
        scan,
        "pneumonia",
        against="effusion",
        others=["attention-rollout", "patch-ablation"],
    )
    refused, given = found.others
    assert (refused.method, refused.explanation, refused.correlation) == (
        "attention-rollout",
        None,
        None,
    )
    assert "attention is of one question's words" in refused.refusal
    assert given.explanation.against == "effusion"
    with pytest.raises(ValueError, match="'lime' is not a method"):
        explain(tiny_model, scan, "pneumonia", others=["lime"])
