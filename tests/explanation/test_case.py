from __future__ import annotations

import numpy as np
import pytest

from medllm.explanation.case import Case


@pytest.fixture
def case(tiny_model, scan):
    case = Case(tiny_model, scan, ("pneumonia", "effusion"))
    _ = case.effect, case.zones, case.text
    return case


def test_other_findings_are_asked_of_the_image_as_it_was_computed(case):
    other = case.asking(("nodule",))
    for name in ("zones", "text", "pixel_values", "blurred", "features", "blurred_features"):
        assert getattr(other, name) is getattr(case, name)
    alone = Case(case.model, case.scan, ("nodule",))
    np.testing.assert_array_equal(other.effect, alone.effect)
    assert not np.isclose(other.log_odds, case.log_odds).any()


def test_another_model_sees_the_image_anew_and_the_chest_where_it_was(case, new_tiny_model):
    model = new_tiny_model(std=0.1)
    other = case.before(model)
    assert other.zones is case.zones
    assert other.text is case.text
    np.testing.assert_array_equal(
        other.effect, Case(model, case.scan, ("pneumonia", "effusion")).effect
    )
    assert not np.isclose(other.log_odds, case.log_odds).any()
