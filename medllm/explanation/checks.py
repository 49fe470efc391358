"""Tests of one explanation on the case at hand, and the verdict they lead to."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence

import numpy as np
from jaxtyping import Float64
from scipy.stats import spearmanr

from medllm.data.anatomy import OUTSIDE
from medllm.explanation.record import Check

# Completeness follows from the method's own promise. The marks of deletion, faithfulness,
# agreement, confirmation and stability were learned on phantoms with known truth, by
# benchmarks/checks_tell_good_from_bad.py (ADR 16, 17). The others say by definition what would be
# unreasonable to fail, and tell networks apart whose cause is known (ADR 23).

# A change of the odds by a fifth; less leaves nothing to explain.
LEAST_EFFECT = 0.2
LEAST_AGREEMENT = 0.4
LEAST_CONFIRMATION = 0.4
# A map most of which is off the chest is not of a finding in it, however little chest there is.
MOST_OUTSIDE = 0.5
# A letter is a part of a patch: by chance alone it can hold a hundredth of a map.
MOST_ON_TEXT = 0.01
LEAST_STABILITY = 0.35
MOST_ALIKE = 0.95


def image_use(effect: float) -> Check:
    """Test whether the image, rather than the question alone, made the answer.

    Args:
        effect: Log-odds of the image minus those of its blurred copy.

    Returns:
        The check.
    """
    passed = abs(effect) >= LEAST_EFFECT
    found = f"Blurring the whole image moves the log-odds by {abs(effect):.2f}"
    return Check(
        "image-use",
        abs(effect),
        f"at least {LEAST_EFFECT} log-odds",
        passed,
        f"{found}: the model looked at the image."
        if passed
        else f"{found}: the model hardly used this image's detail for this answer.",
    )


def completeness(error: float, bound: float) -> Check:
    """Test whether the attributions add up to what they explain.

    Args:
        error: Completeness error in log-odds.
        bound: `completeness_bound` of what is explained.

    Returns:
        The check.
    """
    passed = error <= bound
    return Check(
        "completeness",
        error,
        f"at most {bound:.3f} log-odds",
        passed,
        "The map accounts for the whole answer."
        if passed
        else f"The map leaves {error:.2f} log-odds of the answer unaccounted for.",
    )


def agreement(
    values: Float64[np.ndarray, "rows columns"],
    other: Float64[np.ndarray, "rows columns"],
    other_method: str,
) -> Check:
    """Test whether an unlike method gives a like map.

    Most patches of a map are near nothing, and their order says nothing. So the values are
    compared and not their ranks, among which the few that matter are lost.

    Args:
        values: The map that is explained with.
        other: The other method's map.
        other_method: Its key.

    Returns:
        The check; its value is Pearson's correlation, 0 where a map is flat.
    """
    found = correlation(values, other)
    passed = found >= LEAST_AGREEMENT
    return Check(
        "agreement",
        found,
        f"correlation with {other_method} of at least {LEAST_AGREEMENT}",
        passed,
        "A second method, which works otherwise, gives much the same map."
        if passed
        else "A second method, which works otherwise, gives another map.",
    )


def unconfirmed(other_method: str) -> Check:
    """Say that no unlike method could be asked, in place of `agreement`.

    Args:
        other_method: Key of the method that refused.

    Returns:
        The check, which fails.
    """
    return Check(
        "unconfirmed",
        0.0,
        f"a map by {other_method} to compare with",
        False,
        "The second method, which works otherwise, cannot be used here: nothing confirms the map.",
    )


def confirmation(foretold: Check, agreeing: Check) -> Check:
    """Test whether faithfulness and agreement confirm the map together.

    Each is a correlation that a right map may miss by chance, and they miss unlike maps: one hides
    many patches at a time, the other compares with a method that hides few. A wrong map has
    neither.

    Args:
        foretold: The check `faithfulness`.
        agreeing: The check `agreement`, or `unconfirmed` in its place.

    Returns:
        The check; its value is the mean of both, or faithfulness alone where nothing could be
        agreed with: its own mark then decides.
    """
    if agreeing.name == "unconfirmed":
        verb = "confirms" if foretold.passed else "does not confirm"
        told = f"The one test that could be made, faithfulness, {verb} the map."
        return dataclasses.replace(foretold, name="confirmation", sentence=told)
    mean = (foretold.value + agreeing.value) / 2
    passed = mean >= LEAST_CONFIRMATION
    verb = "confirm" if passed else "do not confirm"
    return Check(
        "confirmation",
        mean,
        f"mean of faithfulness and agreement of at least {LEAST_CONFIRMATION}",
        passed,
        f"Two unlike tests, faithfulness and agreement, taken together {verb} the map.",
    )


def outside_thorax(
    values: Float64[np.ndarray, "rows columns"],
    shares: Float64[np.ndarray, "regions rows columns"],
) -> Check:
    """Test whether the map lies on the chest: most of it, and more than an even spread would.

    Args:
        values: The map.
        shares: Share of each patch's area in each region.

    Returns:
        The check; its value is the share of the attribution, of either sign, outside.
    """
    outside = shares[OUTSIDE]
    weights = np.abs(values)
    total = weights.sum()
    share = float((weights * outside).sum() / total) if total > 0 else 1.0
    even = float(outside.mean())
    bound = min(even, MOST_OUTSIDE)
    passed = share <= bound
    return Check(
        "outside-thorax",
        share,
        f"at most {bound:.2f}: half, or the share of an even spread if less",
        passed,
        f"{share:.0%} of the attribution lies outside the thorax; an even spread would put "
        f"{even:.0%} there.",
    )


def on_text(
    values: Float64[np.ndarray, "rows columns"], coverage: Float64[np.ndarray, "rows columns"]
) -> Check:
    """Test whether the map keeps off burned-in text and markers, which tell of no disease.

    Args:
        values: The map.
        coverage: Share of each patch's area in which text was found.

    Returns:
        The check; its value is the share of the attribution, of either sign, on the text: a
        patch's value is spread evenly over its area. It passes where no text was found.
    """
    weights = np.abs(values)
    total = weights.sum()
    share = float((weights * coverage).sum() / total) if total > 0 else 0.0
    even = float(coverage.mean())
    bound = max(even, MOST_ON_TEXT)
    passed = share <= bound
    found = (
        f"{share:.1%} of the attribution lies on letters or markers that were found in the image; "
        f"an even spread would put {even:.1%} there"
    )
    return Check(
        "on-text",
        share,
        f"at most {bound:.3f}: {MOST_ON_TEXT}, or the share of an even spread if more",
        passed,
        "No letters or markers were found in the image; that is no promise that there are none."
        if not coverage.any()
        else f"{found}."
        if passed
        else f"{found}: the model may have gone by them rather than by the patient.",
    )


def stability(
    values: Float64[np.ndarray, "rows columns"],
    altered: Sequence[Float64[np.ndarray, "rows columns"]],
) -> Check:
    """Test whether the map stays when the image is changed by what no reader would see.

    Args:
        values: The map.
        altered: Its maps of the same image with a little noise, and shifted by a pixel or two.

    Returns:
        The check; its value is the lowest rank correlation.
    """
    lowest = min(rank_correlation(values, other) for other in altered)
    passed = lowest >= LEAST_STABILITY
    return Check(
        "stability",
        lowest,
        f"rank correlation of at least {LEAST_STABILITY} under slight changes",
        passed,
        "The map stays much the same when the image is changed slightly."
        if passed
        else "The map changes when the image is changed by less than an eye would notice.",
    )


def contrast(
    values: Float64[np.ndarray, "rows columns"],
    other: Float64[np.ndarray, "rows columns"],
    other_finding: str,
) -> Check:
    """Test whether another finding with another answer has another map.

    Args:
        values: The map.
        other: The map of a finding whose answer differs.
        other_finding: Its key.

    Returns:
        The check; its value is the rank correlation.
    """
    found = rank_correlation(values, other)
    passed = found <= MOST_ALIKE
    return Check(
        "contrast",
        found,
        f"rank correlation with the map of {other_finding} of at most {MOST_ALIKE}",
        passed,
        f"The map of another finding ({other_finding}), whose answer differs, differs too."
        if passed
        else f"The map is that of another finding ({other_finding}) too, whose answer differs: it "
        "does not tell the two apart.",
    )


def correlation(
    values: Float64[np.ndarray, "rows columns"], other: Float64[np.ndarray, "rows columns"]
) -> float:
    """Pearson's correlation of two maps; 0 where one is flat."""
    if np.ptp(values) == 0 or np.ptp(other) == 0:
        return 0.0
    return float(np.corrcoef(values.ravel(), other.ravel())[0, 1])


def rank_correlation(
    values: Float64[np.ndarray, "rows columns"], other: Float64[np.ndarray, "rows columns"]
) -> float:
    """Spearman's rank correlation; 0 where a map is flat."""
    if np.ptp(values) == 0 or np.ptp(other) == 0:
        return 0.0
    return float(spearmanr(values, other, axis=None).statistic)
