"""Does the answer move as the map says, when parts of the image are taken away or shown?"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from jaxtyping import Bool, Float64, Int64

from medllm.explanation.attribution import PatchAttribution
from medllm.explanation.case import Case
from medllm.explanation.record import Check

# Orders that the map must beat; the share was learned, as checks.py says.
RANDOM_ORDERS = 20
LEAST_BEATEN = 0.9
# Parts of the patches that are removed or shown, strongest first.
_PARTS = (1 / 16, 1 / 8, 1 / 4)

# Copies of which random cells are blurred, and cells a side.
_COPIES = 64
_CELLS = 7
# What chance reaches once in twenty: 1.645 / sqrt(64 - 1).
LEAST_FAITHFULNESS = 0.21


def curves(case: Case, attributions: Sequence[PatchAttribution]) -> tuple[tuple[Check, Check], ...]:
    """Test whether the strongest patches move the answer more than chance would.

    A sixteenth, an eighth and a quarter of the patches are blurred in the image (deletion), or
    shown in the blurred copy (insertion): those of the strongest attribution, and as many drawn at
    random. Strongest means: with the sign of what the image as a whole did, so that an answer the
    image speaks against is tested by the patches that lower it.

    Args:
        case: The radiograph and its findings.
        attributions: A map a finding.

    Returns:
        The checks of deletion and of insertion, a pair a finding; the value is the share of the
        random orders that moved the log-odds less, on the mean over the three parts.

    Source:
        Petsiuk et al., RISE, BMVC 2018, section 4.2, at the first quarter of the curves.
    """
    patches = attributions[0].values.size
    direction = np.where(case.effect < 0, -1.0, 1.0)
    chance = np.random.default_rng(0)
    orders = [chance.permutation(patches) for _ in range(RANDOM_ORDERS)]
    orders += [
        np.argsort(-sign * attribution.values, axis=None)
        for sign, attribution in zip(direction, attributions, strict=True)
    ]
    marked = np.concatenate([_first(order, case.model.grid) for order in orders])
    without, shown = case.log_odds_without(marked), case.log_odds_without(~marked)
    lost = direction * (case.log_odds - without)
    won = direction * (shown - case.baseline_log_odds)
    lost, won = (one.reshape(len(orders), len(_PARTS), -1).mean(axis=1) for one in (lost, won))
    return tuple(
        (
            _curve("deletion", lost[:, index], RANDOM_ORDERS + index),
            _curve("insertion", won[:, index], RANDOM_ORDERS + index),
        )
        for index in range(len(attributions))
    )


def _first(order: np.ndarray, grid: tuple[int, int]) -> Bool[np.ndarray, "parts rows columns"]:
    masks = np.zeros((len(_PARTS), order.size), dtype=bool)
    for mask, part in zip(masks, _PARTS, strict=True):
        mask[order[: max(1, round(part * order.size))]] = True
    return masks.reshape(-1, *grid)


def _curve(name: str, means: Float64[np.ndarray, " orders"], own: int) -> Check:
    """Compare the mean move by a map's own order with those by random ones, which come first."""
    by_map, at_random = means[own], means[:RANDOM_ORDERS]
    beaten = float((at_random < by_map).mean())
    low, high = np.percentile(at_random, (2.5, 97.5))
    passed = beaten >= LEAST_BEATEN
    what = {
        "deletion": "Blurring the places the map marks changes the answer more than blurring as "
        "much of the image at random",
        "insertion": "Showing the places the map marks, and nothing else, brings the answer "
        "nearer than showing as much of the image at random",
    }[name]
    return Check(
        name,
        beaten,
        f"at least {LEAST_BEATEN} of {RANDOM_ORDERS} random orders"
        + (" (decides nothing)" if name == "insertion" else ""),
        passed,
        f"{what} in {beaten * RANDOM_ORDERS:.0f} of {RANDOM_ORDERS} trials: by {by_map:.2f} "
        f"log-odds, at random by {low:.2f} to {high:.2f} (95% of the trials)."
        + ("" if passed else " The map does not mark what the answer rests on."),
    )


def faithfulness(case: Case, attributions: Sequence[PatchAttribution]) -> tuple[Check, ...]:
    """Test whether the map foretells how far the answer falls when parts of the image are blurred.

    Half of the patches are blurred in each of 64 copies, in coarse cells drawn at random. The map
    foretells the fall: the sum of the attribution of what is blurred.

    Args:
        case: The radiograph and its findings.
        attributions: A map a finding.

    Returns:
        A check a finding; its value is the correlation of what was foretold with what was
        measured, 0 where either is the same for all copies.

    Source:
        Bhatt et al., Evaluating and aggregating feature-based model explanations, IJCAI 2020
        (faithfulness correlation).
    """
    hidden = hidden_halves(case.model.grid)
    fell = case.log_odds - case.log_odds_without(hidden)
    return tuple(
        _foretold((hidden * attribution.values).sum(axis=(1, 2)), fell[:, index])
        for index, attribution in enumerate(attributions)
    )


def hidden_halves(grid: tuple[int, int]) -> Bool[np.ndarray, "copies rows columns"]:
    """Draw which patches are blurred in each copy: coarse random cells, half of all patches.

    Args:
        grid: Rows and columns of patches.

    Returns:
        True where a patch is blurred.
    """
    rows, columns = grid
    drawn = np.random.default_rng(1).random((_COPIES, _CELLS, _CELLS))
    # Whole patches, since a map says nothing of their parts; on a coarse grid each is a cell.
    patches = drawn[:, _cells_of(rows)][:, :, _cells_of(columns)].reshape(_COPIES, -1)
    # As many in each copy: else a flat map would foretell that more hidden is more lost.
    ranks = patches.argsort(axis=1, kind="stable").argsort(axis=1)
    return np.asarray(ranks < rows * columns // 2).reshape(_COPIES, rows, columns)


def _cells_of(patches: int) -> Int64[np.ndarray, " patches"]:
    """Number of the cell that each patch of a row belongs to; on a coarse grid each its own."""
    return np.arange(patches) * min(_CELLS, patches) // patches


def _foretold(
    foretold: Float64[np.ndarray, " copies"], fell: Float64[np.ndarray, " copies"]
) -> Check:
    flat = np.ptp(foretold) == 0 or np.ptp(fell) == 0
    correlation = 0.0 if flat else float(np.corrcoef(foretold, fell)[0, 1])
    passed = correlation >= LEAST_FAITHFULNESS
    return Check(
        "faithfulness",
        correlation,
        f"correlation of at least {LEAST_FAITHFULNESS} over {_COPIES} altered copies",
        passed,
        "The map foretells how the answer changes when parts of the image are blurred."
        if passed
        else "The map does not foretell how the answer changes when parts of the image are "
        "blurred.",
    )
