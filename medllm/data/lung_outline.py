"""A standard outline of both lungs, and where it fits a frontal radiograph best."""

from __future__ import annotations

from dataclasses import astuple, dataclass
from functools import lru_cache
from itertools import product

import numpy as np
from jaxtyping import Float64, Int64, UInt8
from numpy.typing import NDArray
from PIL import Image, ImageDraw
from scipy.ndimage import distance_transform_edt, gaussian_filter
from scipy.stats import rankdata

# The outline in its own frame: x from the right lung's lateral border (0) to the left lung's
# (1), y from the apices (0) to the lower of the two costophrenic angles (1). Drawn after the
# mean lung fields of 200 phantoms; the patient's right is the image's left.
RIGHT_LUNG = (
    (0.30, 0.00), (0.19, 0.05), (0.14, 0.10), (0.08, 0.20), (0.04, 0.30), (0.015, 0.40),
    (0.00, 0.50), (0.00, 0.80), (0.01, 0.97), (0.03, 0.98), (0.10, 0.93), (0.20, 0.90),
    (0.30, 0.89), (0.385, 0.90), (0.385, 0.70), (0.395, 0.50), (0.395, 0.15), (0.38, 0.05),
    (0.33, 0.00),
)  # fmt: skip
LEFT_LUNG = (
    (0.67, 0.00), (0.62, 0.05), (0.60, 0.15), (0.61, 0.40), (0.63, 0.55), (0.67, 0.65),
    (0.74, 0.75), (0.77, 0.85), (0.78, 0.92), (0.85, 0.92), (0.90, 0.94), (0.95, 1.00),
    (0.985, 1.00), (1.00, 0.85), (1.00, 0.50), (0.985, 0.40), (0.96, 0.30), (0.92, 0.20),
    (0.86, 0.10), (0.81, 0.05), (0.72, 0.00),
)  # fmt: skip

# The frame is tabulated with this margin on all sides, in this many steps a side.
MARGIN = 0.3
STEPS = 200

# Side of the image that the outline is fitted to, in pixels.
_SIDE = 64

# What is compared, in distance from the outline: lung deeper than the core, and a band of
# what surrounds it. The edge between them is left out, for it lies elsewhere in each patient.
_CORE, _BAND = 0.03, (0.02, 0.06)
_NOT_COMPARED, _SURROUNDING, _LUNG = 0, 1, 2

# Contrast is best a little inside the lungs' edge: by this factor, on phantoms.
_WIDER, _HIGHER = 1.08, 1.04


@dataclass(frozen=True)
class Placement:
    """Where the outline lies, in shares of the image's width and height.

    Attributes:
        middle: x of the line between the lungs.
        right_width: From the middle to the right lung's lateral border.
        left_width: From the middle to the left lung's.
        centre: y of half the outline's height.
        height: Height of the outline.
    """

    middle: float
    right_width: float
    left_width: float
    centre: float
    height: float


# Medians of 200 phantoms.
USUAL = Placement(middle=0.5, right_width=0.375, left_width=0.375, centre=0.54, height=0.66)


def frame_indices(
    placement: Placement, side: int
) -> tuple[Int64[np.ndarray, "rows 1"], Int64[np.ndarray, "1 columns"]]:
    """Find the entry of the frame's table that each cell of a square image falls on.

    Args:
        placement: Where the outline lies.
        side: Rows and columns of the image.

    Returns:
        Indices of rows and of columns, to index a table with.
    """
    at = (np.arange(side) + 0.5) / side
    width = np.where(at < placement.middle, placement.right_width, placement.left_width)
    x = 0.5 + (at - placement.middle) / (2 * width)
    y = 0.5 + (at - placement.centre) / placement.height
    return _index(y)[:, None], _index(x)[None, :]


def _index(coordinate: Float64[np.ndarray, " cells"]) -> Int64[np.ndarray, " cells"]:
    scaled = (coordinate + MARGIN) / (1 + 2 * MARGIN) * STEPS
    return np.clip(scaled, 0, STEPS - 1).astype(np.int64)


def draw(*outlines: tuple[tuple[float, float], ...]) -> UInt8[np.ndarray, "steps steps"]:
    """Draw outlines into a table of the frame.

    Args:
        *outlines: Corners in the frame; a later one covers an earlier one.

    Returns:
        1 within the first outline, 2 within the second, and so on; 0 elsewhere.
    """
    canvas = Image.new("L", (STEPS, STEPS))
    for number, corners in enumerate(outlines, start=1):
        scaled = [
            ((x + MARGIN) / (1 + 2 * MARGIN) * STEPS, (y + MARGIN) / (1 + 2 * MARGIN) * STEPS)
            for x, y in corners
        ]
        ImageDraw.Draw(canvas).polygon(scaled, fill=number)
    return np.asarray(canvas)


@lru_cache(maxsize=1)
def _compared() -> UInt8[np.ndarray, "steps steps"]:
    lungs = draw(RIGHT_LUNG, LEFT_LUNG) > 0
    unit = (1 + 2 * MARGIN) / STEPS
    inside, outside = distance_transform_edt(lungs) * unit, distance_transform_edt(~lungs) * unit
    table = np.full(lungs.shape, _NOT_COMPARED, dtype=np.uint8)
    table[(outside >= _BAND[0]) & (outside < _BAND[1])] = _SURROUNDING
    table[inside > _CORE] = _LUNG
    return table


def fit(pixels: NDArray[np.float32]) -> tuple[Placement, float]:
    """Fit the outline to a frontal radiograph whose patient's right is the image's left.

    The outline is moved and stretched until the lungs within it are darkest against what
    surrounds them, over a grid of placements and then step by step from the best three. It is
    a matter of the whole outline, so an opacity or an effusion leaves it standing.

    Args:
        pixels: Display values in [0, 1], low is air.

    Returns:
        The placement, and its contrast: the difference of mean brightness between surroundings
        and lungs in units of their standard deviation.
    """
    shrunk = Image.fromarray(pixels).resize((_SIDE, _SIDE), Image.Resampling.BOX)
    smooth = gaussian_filter(np.asarray(shrunk, dtype=np.float64), 1.0, mode="nearest")
    # Ranks see the same picture whatever window and gamma it was exported with.
    ranks = rankdata(smooth).reshape(smooth.shape) / smooth.size
    starts = [
        Placement(middle, width / 2, width / 2, centre, height)
        for middle, width, centre, height in product(
            (0.42, 0.5, 0.58), (0.6, 0.7, 0.8, 0.9), (0.36, 0.44, 0.52, 0.6), (0.5, 0.6, 0.7, 0.8)
        )
    ]
    starts.sort(key=lambda placement: _merit(ranks, placement), reverse=True)
    best = max(
        (_climb(ranks, start) for start in starts[:3]), key=lambda found: _merit(ranks, found)
    )
    placement = Placement(
        best.middle,
        best.right_width * _WIDER,
        best.left_width * _WIDER,
        best.centre,
        best.height * _HIGHER,
    )
    return placement, _contrast(ranks, best)


def _climb(ranks: Float64[np.ndarray, "side side"], start: Placement) -> Placement:
    values, merit = np.array(astuple(start)), _merit(ranks, start)
    steps = np.array([0.04, 0.03, 0.03, 0.04, 0.06])
    while steps[0] > 0.006:
        improved = False
        for move in np.concatenate([np.diag(steps), -np.diag(steps)]):
            tried = _merit(ranks, Placement(*(values + move)))
            if tried > merit:
                values, merit, improved = values + move, tried, True
        if not improved:
            steps = steps / 2
    return Placement(*values.tolist())


def _merit(ranks: Float64[np.ndarray, "side side"], placement: Placement) -> float:
    """Contrast, less what an unlikely shape costs: lopsided, off the middle, wide, low."""
    if min(placement.right_width, placement.left_width, placement.height / 2) < 0.18:
        return -np.inf
    top, bottom = (placement.centre + sign * placement.height / 2 for sign in (-1, 1))
    right, left = placement.middle - placement.right_width, placement.middle + placement.left_width
    if min(right, top) < 0 or max(left, bottom) > 1:
        return -np.inf
    ratio = placement.height / (placement.right_width + placement.left_width)
    usual = USUAL.height / (USUAL.right_width + USUAL.left_width)
    unlikely = (
        3 * np.log(ratio / usual) ** 2
        + 3 * np.log(placement.right_width / placement.left_width) ** 2
        + 5 * (placement.middle - USUAL.middle) ** 2
        # Below an opacity the lung is bright too; without this the outline shrinks above it.
        - np.log(min(placement.height / USUAL.height, 1))
    )
    return _contrast(ranks, placement) - float(unlikely)


def _contrast(ranks: Float64[np.ndarray, "side side"], placement: Placement) -> float:
    kinds = _compared()[frame_indices(placement, _SIDE)]
    lung, surrounding = ranks[kinds == _LUNG], ranks[kinds == _SURROUNDING]
    if min(lung.size, surrounding.size) < 60:  # of 4,096 pixels; the outline left the image
        return -np.inf
    spread = np.sqrt((lung.var() + surrounding.var()) / 2 + 1e-4)
    return float((surrounding.mean() - lung.mean()) / spread)
