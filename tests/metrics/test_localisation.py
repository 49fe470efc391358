from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from sklearn.metrics import jaccard_score, roc_auc_score

from medllm.metrics import (
    balanced_side_accuracy,
    energy_ratio,
    image_half,
    intersection_over_union,
    otsu_threshold,
    pixel_auroc,
    pointing_game,
    relevance_mass,
    side_hit,
    tuned_overlap,
)

# The lesion is the middle two cells of the upper row.
VALUES = np.array([[0.5, 4.0, 1.0, -3.0], [2.0, 0.0, -1.0, 0.5]])
TRUTH = np.array([[False, True, True, False], [False, False, False, False]])
NONE = np.zeros((2, 4), dtype=bool)


def _random(seed, shape=(12, 14)):
    generator = np.random.default_rng(seed)
    values = generator.normal(size=shape).round(1)  # with ties
    truth = np.zeros(shape, dtype=bool)
    truth[3:8, 2:7] = True
    return values, truth


def test_the_highest_pixel_is_in_or_out_and_a_near_miss_is_a_miss():
    assert pointing_game(VALUES, TRUTH) == 1
    assert pointing_game(VALUES, np.roll(TRUTH, 1, axis=1)) == 0


def test_a_flat_map_hits_as_often_as_a_random_point():
    assert pointing_game(np.zeros((2, 4)), TRUTH) == TRUTH.mean()


def _within_groups(values, threshold):
    """Sum of squares about the mean of each group: what Otsu's threshold makes smallest."""
    groups = (values[values <= threshold], values[values > threshold])
    return sum(((group - group.mean()) ** 2).sum() for group in groups if len(group))


@given(st.lists(st.integers(-20, 20), min_size=2, max_size=40))
def test_otsus_threshold_leaves_least_variance_within_the_groups(numbers):
    values = np.array(numbers, dtype=float)
    least = min(_within_groups(values, cut) for cut in values)
    # sums of squares up to 16,000 in float64
    assert _within_groups(values, otsu_threshold(values)) == pytest.approx(least, abs=1e-9)


def test_otsus_threshold_parts_two_heaps_and_marks_nothing_on_a_flat_map():
    generator = np.random.default_rng(0)
    heaps = np.concatenate([generator.normal(0, 1, 900), generator.normal(10, 1, 100)])
    assert (heaps > otsu_threshold(heaps)).sum() == 100
    assert not (np.ones(9) > otsu_threshold(np.ones(9))).any()


@pytest.mark.parametrize("seed", range(3))
def test_overlap_is_the_jaccard_index(seed):
    values, truth = _random(seed)
    marked = values > 0.4
    wanted = jaccard_score(truth.ravel(), marked.ravel())
    assert intersection_over_union(marked, truth) == pytest.approx(wanted, abs=1e-12)
    assert np.isnan(intersection_over_union(NONE, NONE))


def test_relevance_is_the_positive_attribution_alone():
    # Positive: 0.5 + 4 + 1 + 2 + 0.5 = 8, of which 5 within two of eight cells.
    assert relevance_mass(VALUES, TRUTH) == 5 / 8
    assert energy_ratio(VALUES, TRUTH) == (5 / 8) / (2 / 8)
    assert energy_ratio(np.ones((2, 4)), TRUTH) == 1
    assert np.isnan(relevance_mass(-np.abs(VALUES), TRUTH))
    assert np.isnan(energy_ratio(VALUES, NONE))


@pytest.mark.parametrize("seed", range(3))
def test_pixel_auroc_is_scikit_learns_also_within_a_region(seed):
    values, truth = _random(seed)
    assert pixel_auroc(values, truth) == pytest.approx(
        roc_auc_score(truth.ravel(), values.ravel()), abs=1e-12
    )
    lungs = np.zeros_like(truth)
    lungs[:, 1:9] = True
    assert pixel_auroc(values, truth, lungs) == pytest.approx(
        roc_auc_score(truth[lungs], values[lungs]), abs=1e-12
    )
    assert np.isnan(pixel_auroc(values, truth, truth))


def test_a_truth_is_one_sided_only_when_all_of_it_is():
    assert image_half(np.array([[True, True, False, False]])) == "left"
    assert image_half(np.array([[False, False, True, False]])) == "right"
    assert image_half(np.array([[False, True, True, False]])) is None
    # The middle column of an odd number is in neither half.
    assert image_half(np.array([[False, True, False]])) is None
    assert image_half(NONE) is None


def test_the_side_with_more_positive_attribution_counts_whatever_is_negative():
    left = np.array([[True, False, False, False]])
    values = np.array([[1.0, 1.0, 1.5, -9.0]])
    assert side_hit(values, left) == 1
    assert side_hit(values, left[:, ::-1]) == 0
    assert side_hit(np.ones((1, 4)), left) == 0.5
    assert np.isnan(side_hit(values, np.ones((1, 4), dtype=bool)))


def test_always_naming_the_frequent_side_is_chance():
    in_left = np.array([True] * 21 + [False] * 8)
    assert balanced_side_accuracy(in_left.astype(float), in_left) == 0.5
    hits = np.array([1.0, 0.0, np.nan, 1.0])
    sides = np.array([True, True, True, False])
    assert balanced_side_accuracy(hits, sides) == (0.5 + 1) / 2
    assert np.isnan(balanced_side_accuracy(hits[:3], sides[:3]))


def test_a_threshold_is_tuned_on_the_other_folds_alone():
    # Fold 0 is best at the first threshold and fold 1 at the second; each gets the other's.
    overlaps = np.array([[0.9, 0.2], [0.8, 0.1], [0.3, 0.7]])
    tuned, chosen = tuned_overlap(overlaps, np.array([0, 0, 1]))
    assert tuned.tolist() == [0.2, 0.1, 0.3]
    assert list(chosen) == [1, 0]
    alone, none = tuned_overlap(overlaps, np.zeros(3, dtype=int))
    assert np.isnan(alone).all()
    assert list(none) == []


@given(seed=st.integers(0, 50))
def test_mirrored_maps_score_alike_and_scale_does_not_matter(seed):
    values, truth = _random(seed)
    for figure in (pointing_game, relevance_mass, energy_ratio, pixel_auroc):
        # sums run in another order
        assert figure(values[:, ::-1], truth[:, ::-1]) == pytest.approx(figure(values, truth))
        assert figure(3 * values, truth) == pytest.approx(figure(values, truth))
