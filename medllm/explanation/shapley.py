"""Shapley values: exact of the regions of the chest, sampled of the patches."""

from __future__ import annotations

import math
from dataclasses import dataclass
from weakref import WeakKeyDictionary

import numpy as np
import torch
from jaxtyping import Bool, Float64, Int64

from medllm.data.anatomy import REGIONS
from medllm.errors import AttributionError
from medllm.explanation.attribution import PatchAttribution
from medllm.explanation.case import Case
from medllm.explanation.memory import in_chunks
from medllm.explanation.perturbation import windows_of
from medllm.explanation.record import AttributionMap, ZoneEffect
from medllm.explanation.regions import patch_shares

# Random orders of the windows, each taken backwards too. Maps of four times as many correlate with
# these by .91 in the median on phantoms (ADR 24).
_ORDERS = 2


def zone_shapley(case: Case) -> tuple[PatchAttribution, ...]:
    """Attribute each finding to the six lung zones, the mediastinum and what is outside.

    A region that is left out is blurred. All 256 coalitions are scored, for all findings in one
    pass, so the values are exact and add up. A region's value is spread evenly over its area.

    Args:
        case: The radiograph and its findings.

    Returns:
        An attribution a finding, with its completeness error, which is rounding.

    Raises:
        AttributionError: The lungs were not found, so that there are no regions to speak of.

    Source:
        Shapley, A value for n-person games, 1953; Lundberg and Lee, NeurIPS 2017.
    """
    if not case.zones.found:
        raise AttributionError(
            "no lungs were found in the image, so that it cannot be divided into regions; use the "
            "method 'integrated-gradients'.",
            code="no-lungs",
        )
    values, area = _scored(case).shapley, _area(case)
    maps = np.einsum("zf,zrc->frc", values, area)
    return _adding_up(case, maps, n_steps=2 ** int(area.any(axis=(1, 2)).sum()))


def patch_shapley(case: Case) -> tuple[PatchAttribution, ...]:
    """Attribute each finding to windows of patches by what each adds in random orders.

    The blurred copy is turned into the image window by window, in two random orders and in their
    reverses; a window's value is the mean of what it moved the log-odds by. So it is asked among
    few shown windows and among many, where occlusion asks among all others alone: where the rest
    of an image says the same, hiding one window moves nothing. The orders are the same for every
    image. Windows are those of `occlusion`.

    Args:
        case: The radiograph and its findings.

    Returns:
        An attribution a finding, with its completeness error, which is rounding.

    Source:
        Castro et al., Polynomial calculation of the Shapley value based on sampling, Computers &
        Operations Research 2009; orders with their reverses as in Mitchell et al., Sampling
        permutations for Shapley value estimation, JMLR 2022.
    """
    numbers = windows_of(case.model.grid)
    windows = int(numbers.max()) + 1
    chance = np.random.default_rng(0)
    drawn = [chance.permutation(windows) for _ in range(_ORDERS)]
    orders = np.stack([order for one in drawn for order in (one, one[::-1])])
    places = orders.argsort(axis=1)  # of each window in each order
    # What lies between the blurred copy and the image, whose log-odds are known.
    hidden = places[:, None] >= np.arange(1, windows)[:, None]
    copies = hidden[..., numbers].reshape(-1, *numbers.shape)
    between = case.log_odds_without(copies).reshape(len(orders), windows - 1, -1)
    ends = np.stack([case.baseline_log_odds, case.log_odds])[:, None, None]
    first, last = np.broadcast_to(ends, (2, len(orders), 1, ends.shape[-1]))
    gains = np.diff(between, axis=1, prepend=first, append=last)
    values = np.take_along_axis(gains, places[..., None], axis=1).mean(axis=0)
    maps = values.T[:, numbers] / np.bincount(numbers.ravel())[numbers]
    return _adding_up(case, maps, n_steps=len(copies))


def _adding_up(
    case: Case, maps: Float64[np.ndarray, "findings rows columns"], n_steps: int
) -> tuple[PatchAttribution, ...]:
    """Say by how much maps that promise to add up do not."""
    errors = np.abs(maps.sum(axis=(1, 2)) - case.effect)
    return tuple(
        PatchAttribution(per_finding, n_steps, float(error))
        for per_finding, error in zip(maps, errors, strict=True)
    )


def zone_effects(case: Case, index: int) -> tuple[ZoneEffect, ...]:
    """Say what each region of the chest does to one finding's answer.

    Args:
        case: The radiograph and its findings.
        index: Number of the finding.

    Returns:
        The regions that the model's input has some of, the largest Shapley value first.
    """
    scored = _scored(case)
    effects = [
        ZoneEffect(*REGIONS[zone], float(scored.shapley[zone, index]), float(without[index]))
        for zone, without in scored.without.items()
    ]
    return tuple(sorted(effects, key=lambda effect: effect.shapley, reverse=True))


@dataclass(frozen=True, eq=False)
class _Scored:
    """What all coalitions of regions came to.

    Attributes:
        shapley: Log-odds, in the order of `REGIONS`; 0 for a region that the input has none of.
        without: Log-odds a finding, by the number of the one region that is blurred.
    """

    shapley: Float64[np.ndarray, "regions findings"]
    without: dict[int, Float64[np.ndarray, " findings"]]


# A report asks for them beside another method's map, and again for each of its findings. They go
# with their case, which holds the network.
_FOUND: WeakKeyDictionary[Case, _Scored] = WeakKeyDictionary()


def _scored(case: Case) -> _Scored:
    if case not in _FOUND:
        _FOUND[case] = _score(case)
    return _FOUND[case]


def _score(case: Case) -> _Scored:
    zone_of = _zone_of_pixels(case)
    present = np.unique(zone_of)
    kept = ((np.arange(2 ** len(present))[:, None] >> np.arange(len(present))) & 1).astype(bool)
    table = torch.zeros(len(kept), len(REGIONS))
    table[:, present] = torch.from_numpy(kept).float()
    pixels = torch.from_numpy(zone_of)
    log_odds = in_chunks(
        lambda batch_size: case.log_odds_of_parts(
            part[:, pixels] for part in torch.split(table, batch_size)
        )
    )
    values = np.zeros((len(REGIONS), log_odds.shape[1]))
    values[present] = shapley_values(kept, log_odds)
    every = len(kept) - 1
    return _Scored(
        values, {int(zone): log_odds[every - (1 << at)] for at, zone in enumerate(present)}
    )


def shapley_values(
    kept: Bool[np.ndarray, "coalitions players"],
    scores: Float64[np.ndarray, "coalitions outputs"],
) -> Float64[np.ndarray, "players outputs"]:
    """Give each player's mean marginal contribution over all orders.

    Args:
        kept: Every coalition once; row number i holds the players whose bits are set in i.
        scores: What each coalition reaches.

    Returns:
        The Shapley values; they sum to the score of all minus that of none.
    """
    n = kept.shape[1]
    sizes = kept.sum(axis=1)
    # |S|! (n - |S| - 1)! / n!, the share of the orders in which S comes before the player.
    weights = np.array(
        [math.factorial(s) * math.factorial(n - s - 1) / math.factorial(n) for s in range(n)]
    )
    values = np.zeros((n, scores.shape[1]))
    for player in range(n):
        without = np.flatnonzero(~kept[:, player])
        gains = scores[without + (1 << player)] - scores[without]
        values[player] = weights[sizes[without]] @ gains
    return values


def _zone_of_pixels(case: Case) -> Int64[np.ndarray, "size size"]:
    """Number of the region that has most of each pixel of the model's input."""
    size = case.pixel_values.shape[-1]
    over = AttributionMap(np.zeros((size, size)), case.box)
    shares = patch_shares(over, case.zones, case.scan.rows, case.scan.columns)
    return np.asarray(shares.argmax(axis=0), dtype=np.int64)


def _area(case: Case) -> Float64[np.ndarray, "regions rows columns"]:
    """Say how much of each region's area lies in each patch; a region's shares sum to 1, or 0."""
    zone_of, (rows, columns) = _zone_of_pixels(case), case.model.grid
    size = len(zone_of)
    inside = (zone_of == np.arange(len(REGIONS))[:, None, None]).astype(np.float64)
    blocks = inside.reshape(len(REGIONS), rows, size // rows, columns, size // columns)
    counts = blocks.sum(axis=(2, 4))
    total = counts.sum(axis=(1, 2), keepdims=True)
    return np.asarray(counts / np.maximum(total, 1), dtype=np.float64)
