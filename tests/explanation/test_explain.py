from __future__ import annotations

import numpy as np
import pytest

from medllm.errors import AttributionError, LabelError
from medllm.explanation import METHODS, explain, explain_findings

FINDINGS = ("pneumonia", "effusion", "nodule")


@pytest.mark.parametrize("method", METHODS)
def test_findings_explained_together_are_as_each_alone(tiny_model, scan, method):
    for finding, together in zip(
        FINDINGS, explain_findings(tiny_model, scan, method=method), strict=True
    ):
        alone = explain(tiny_model, scan, finding, method=method)
        assert alone.finding == together.finding == finding
        # another padding of the questions sums in another order
        np.testing.assert_allclose(alone.map.values, together.map.values, atol=1e-5)
        assert alone.verdict == together.verdict
        for check, same in zip(alone.checks, together.checks, strict=True):
            assert check.name == same.name
            # a patch whose rank hangs on the last digit may change places
            assert check.value == pytest.approx(same.value, abs=0.02)
        assert alone.regions[0].share == pytest.approx(together.regions[0].share, abs=1e-3)


def test_the_number_explained_is_the_number_predicted(tiny_model, scan):
    (prediction,) = tiny_model.predict([scan])
    for answer in prediction.findings:
        explanation = explain(tiny_model, scan, answer.finding)
        assert explanation.log_odds == pytest.approx(answer.log_odds, abs=1e-5)
        explained = explanation.log_odds - explanation.baseline_log_odds
        missed = abs(explanation.map.values.sum() - explained)
        assert missed == pytest.approx(explanation.completeness_error, abs=1e-9)


def test_only_a_method_that_promises_completeness_is_tested_for_it(linear_model, scan):
    names = {
        method: [
            check.name for check in explain(linear_model, scan, "nodule", method=method).checks
        ]
        for method in METHODS
    }
    others = ["deletion", "agreement", "outside-thorax"]
    assert names["integrated-gradients"] == ["image-use", "completeness", *others]
    assert names["occlusion"] == ["image-use", *others]


def test_an_incomplete_attribution_is_refused_and_its_remedy_works(cliff_model, scan):
    with pytest.raises(AttributionError, match=r"pneumonia miss .* after 256 steps") as refused:
        explain(cliff_model, scan, "pneumonia")
    assert refused.value.code == "incomplete-attribution"
    assert "occlusion" in str(refused.value)
    assert explain(cliff_model, scan, "pneumonia", method="occlusion").method == "occlusion"


def test_unknown_names_are_refused_with_the_known_ones(tiny_model, scan):
    with pytest.raises(ValueError, match=r"'lime' is not a method; use one of: integrated"):
        explain(tiny_model, scan, "nodule", method="lime")
    with pytest.raises(LabelError, match="hernia"):
        explain(tiny_model, scan, "hernia")
