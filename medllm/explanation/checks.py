"""Tests of one explanation on the case at hand, and the verdict they lead to."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from jaxtyping import Bool, Float64
from scipy.stats import spearmanr

from medllm.explanation.anatomy import REGIONS
from medllm.explanation.attribution import PatchAttribution
from medllm.explanation.case import Case
from medllm.explanation.integrated_gradients import completeness_bound
from medllm.explanation.record import Check, Verdict

# All marks below are provisional: they stand for what would be unreasonable to fail, and were
# not learned from readers. Only completeness follows from the method's own promise.

# A change of the odds by a fifth; less leaves nothing to explain.
LEAST_EFFECT = 0.2
# Two maps of one truth at the patch grid's resolution.
LEAST_AGREEMENT = 0.3
# A map most of which is off the chest is not of a finding in it, however little chest there is.
MOST_OUTSIDE = 0.5
# Orders that the map must beat, as in a test at the level of one in twenty.
RANDOM_ORDERS = 20
LEAST_BEATEN = 0.95
# Parts of the patches that are removed, strongest first.
_REMOVED = (1 / 16, 1 / 8, 1 / 4)

# Checks without which a map says nothing about the model's answer.
_NECESSARY = {"image-use", "completeness", "deletion"}


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
        f"at least {LEAST_EFFECT} log-odds (provisional)",
        passed,
        f"{found}: the model looked at the image."
        if passed
        else f"{found}: the model hardly used this image's detail for this answer.",
    )


def completeness(error: float, effect: float) -> Check:
    """Test whether the attributions add up to what they explain.

    Args:
        error: Completeness error in log-odds.
        effect: Log-odds of the image minus those of its blurred copy.

    Returns:
        The check.
    """
    bound = completeness_bound(effect)
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
    """Test whether an unlike method ranks the patches alike.

    Args:
        values: The map that is explained with.
        other: The other method's map.
        other_method: Its key.

    Returns:
        The check; its value is Spearman's rank correlation, 0 where a map is flat.
    """
    flat = np.ptp(values) == 0 or np.ptp(other) == 0
    correlation = 0.0 if flat else float(spearmanr(values, other, axis=None).statistic)
    passed = correlation >= LEAST_AGREEMENT
    return Check(
        "agreement",
        correlation,
        f"rank correlation with {other_method} of at least {LEAST_AGREEMENT} (provisional)",
        passed,
        "A second method, which works otherwise, points to the same places."
        if passed
        else "A second method, which works otherwise, points to other places.",
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
    outside = shares[REGIONS.index(("outside", None))]
    weights = np.abs(values)
    total = weights.sum()
    share = float((weights * outside).sum() / total) if total > 0 else 1.0
    even = float(outside.mean())
    bound = min(even, MOST_OUTSIDE)
    passed = share <= bound
    return Check(
        "outside-thorax",
        share,
        f"at most {bound:.2f}: half, or the share of an even spread if less (provisional)",
        passed,
        f"{share:.0%} of the attribution lies outside the thorax; an even spread would put "
        f"{even:.0%} there.",
    )


def deletions(case: Case, attributions: Sequence[PatchAttribution]) -> tuple[Check, ...]:
    """Test whether blurring the strongest patches moves the answer more than chance would.

    A sixteenth, an eighth and a quarter of the patches are blurred: those of the strongest
    attribution, and as many drawn at random. Strongest means: with the sign of what the image
    as a whole did, so that an answer the image speaks against is tested by the patches that
    lower it.

    Args:
        case: The radiograph and its findings.
        attributions: A map a finding.

    Returns:
        A check a finding; its value is the share of the random orders that moved the
        log-odds less, on the mean over the three parts.
    """
    patches = attributions[0].values.size
    direction = np.where(case.effect < 0, -1.0, 1.0)
    chance = np.random.default_rng(0)
    orders = [chance.permutation(patches) for _ in range(RANDOM_ORDERS)]
    orders += [
        np.argsort(-sign * attribution.values, axis=None)
        for sign, attribution in zip(direction, attributions, strict=True)
    ]
    removed = np.concatenate([_removed(order, case.model.grid) for order in orders])
    moved = direction * (case.log_odds - case.log_odds_without(removed))
    moved = moved.reshape(len(orders), len(_REMOVED), -1).mean(axis=1)  # (orders, findings)
    at_random, marked = moved[:RANDOM_ORDERS], np.diagonal(moved[RANDOM_ORDERS:])
    return tuple(_deletion(float(beaten)) for beaten in (at_random < marked).mean(axis=0))


def _removed(order: np.ndarray, grid: tuple[int, int]) -> Bool[np.ndarray, "parts rows columns"]:
    masks = np.zeros((len(_REMOVED), order.size), dtype=bool)
    for mask, part in zip(masks, _REMOVED, strict=True):
        mask[order[: max(1, round(part * order.size))]] = True
    return masks.reshape(-1, *grid)


def _deletion(beaten: float) -> Check:
    passed = beaten >= LEAST_BEATEN
    return Check(
        "deletion",
        beaten,
        f"at least {LEAST_BEATEN} of {RANDOM_ORDERS} random orders (provisional)",
        passed,
        "Blurring the places the map marks changes the answer more than blurring as much of the "
        f"image at random in {beaten * RANDOM_ORDERS:.0f} of {RANDOM_ORDERS} trials"
        + ("." if passed else ": the map does not mark what the answer rests on."),
    )


def verdict_of(checks: Sequence[Check]) -> Verdict:
    """Decide what an explanation is worth.

    `do not use` when a check fails without which the map says nothing about the answer: the
    image was hardly used, the map does not add up, or removing what it marks matters no more
    than removing anything. `weak` when these pass and a check of plausibility fails: another
    method points elsewhere, or the map avoids the thorax. Else `supported`. The call has no
    part in it: a negative answer is explained as well as a positive one, since what is
    attributed is the difference that the image makes, whatever its sign.

    Args:
        checks: The checks made.

    Returns:
        The verdict.
    """
    failed = {check.name for check in checks if not check.passed}
    if failed & _NECESSARY:
        return "do not use"
    return "weak" if failed else "supported"
