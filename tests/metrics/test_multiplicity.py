from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from medllm.metrics import holm

P_VALUES = st.lists(
    st.one_of(st.floats(0, 1), st.sampled_from([0.01, 0.02, 0.05])), max_size=20
).map(lambda values: np.array(values, dtype=float))


# As statsmodels 0.15.0 gives them: multipletests(..., method="holm").
@pytest.mark.parametrize(
    ("p_values", "adjusted"),
    [
        ([0.01, 0.04, 0.03, 0.005], [0.03, 0.06, 0.06, 0.02]),
        (
            [0.0001, 0.05, 0.02, 0.9, 0.02, 0.7, 0.0031],
            [0.0007, 0.15, 0.1, 1.0, 0.1, 1.0, 0.0186],
        ),
    ],
)
def test_adjusted_p_values_are_those_of_statsmodels(p_values, adjusted):
    assert holm(np.array(p_values)) == pytest.approx(adjusted, abs=1e-12)


@given(p_values=P_VALUES, level=st.floats(0.001, 0.999))
def test_what_is_below_the_level_is_what_the_steps_reject(p_values, level):
    # Holm 1979: from the lowest on, reject while p is at most the level over the tests left.
    rejected = np.zeros(len(p_values), dtype=bool)
    for step, index in enumerate(np.argsort(p_values, kind="stable")):
        if p_values[index] * (len(p_values) - step) > level:
            break
        rejected[index] = True
    assert (holm(p_values) <= level).tolist() == rejected.tolist()


@given(p_values=P_VALUES)
def test_order_is_kept_and_bonferroni_is_never_exceeded(p_values):
    adjusted = holm(p_values)
    order = np.argsort(p_values, kind="stable")
    assert (np.diff(adjusted[order]) >= 0).all()
    assert (adjusted >= p_values).all()
    assert (adjusted <= np.minimum(1, len(p_values) * p_values)).all()


@given(p_values=P_VALUES, seed=st.integers(0, 1000))
def test_the_order_of_the_tests_does_not_matter(p_values, seed):
    shuffled = np.random.default_rng(seed).permutation(len(p_values))
    assert holm(p_values[shuffled]).tolist() == holm(p_values)[shuffled].tolist()


def test_one_test_needs_no_adjustment_and_none_gives_none():
    assert holm(np.array([0.04])).tolist() == [0.04]
    assert holm(np.array([])).tolist() == []


def test_a_test_that_could_not_be_made_is_kept_and_not_counted():
    got = holm(np.array([0.01, math.nan, 0.03]))
    assert math.isnan(got[1])
    assert got[[0, 2]] == pytest.approx([0.02, 0.03])


@pytest.mark.parametrize("wrong", [-0.01, 1.01, math.inf])
def test_what_is_no_chance_is_refused(wrong):
    with pytest.raises(ValueError, match="between 0 and 1"):
        holm(np.array([0.5, wrong]))
