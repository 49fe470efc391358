"""A grid over the whole image, on which outlines, regions and maps are laid over each other."""

from __future__ import annotations

from collections.abc import Iterable

import numpy as np
from jaxtyping import Bool, Float64, UInt8

from medllm.data.anatomy import REGIONS
from medllm.datasets.record import Box
from medllm.explanation import AttributionMap

# Rows and columns of the grid, whatever the image's: a share of an area is the same on both, and
# images of all sizes can be averaged. A cell is a 256th of the image's side, finer than any patch.
SIDE = 256

LUNGS = tuple(index for index, (_, side) in enumerate(REGIONS) if side is not None)


def boxes_on_grid(boxes: Iterable[Box], rows: int, columns: int) -> Bool[np.ndarray, "side side"]:
    """Mark the cells whose centre lies in a box.

    Args:
        boxes: x, y, width, height in pixels of the image.
        rows: Pixel rows of the image.
        columns: Pixel columns.

    Returns:
        True within. A box that misses every centre has the cell that its own centre lies in.
    """
    marked = np.zeros((SIDE, SIDE), dtype=bool)
    for x, y, width, height in boxes:
        down, across = _within(y, height, rows), _within(x, width, columns)
        marked[np.ix_(down, across)] = True
    return marked


def _within(start: float, extent: float, length: int) -> Bool[np.ndarray, " side"]:
    centres = (np.arange(SIDE) + 0.5) * length / SIDE
    within = (centres >= start) & (centres < start + extent)
    if not within.any():
        within[int(np.clip((start + extent / 2) * SIDE / length, 0, SIDE - 1))] = True
    return within


def mask_on_grid(mask: Bool[np.ndarray, "rows columns"]) -> Bool[np.ndarray, "side side"]:
    """Mark the cells whose centre lies in a mask.

    Args:
        mask: Of the image's size.

    Returns:
        True within; where no centre is, the cells that hold a pixel of the mask.
    """
    marked = labels_on_grid(mask)
    if not marked.any():
        rows, columns = np.nonzero(mask)
        marked[rows * SIDE // mask.shape[0], columns * SIDE // mask.shape[1]] = True
    return marked


def labels_on_grid(labels: np.ndarray) -> np.ndarray:
    """Give each cell the label of the pixel at its centre.

    Args:
        labels: A label a pixel, of any type.

    Returns:
        A label a cell, of the same type.
    """
    at = [((np.arange(SIDE) + 0.5) * length / SIDE).astype(int) for length in labels.shape]
    return labels[np.ix_(*at)]


def lungs_of(regions: UInt8[np.ndarray, "side side"]) -> Bool[np.ndarray, "side side"]:
    """Mark the cells of the lungs' zones, given a region's index a cell."""
    return np.isin(regions, LUNGS)


def on_grid(
    attribution: AttributionMap, rows: int, columns: int
) -> tuple[AttributionMap, Float64[np.ndarray, "side side"]]:
    """Bring a map to the grid as the report draws it: smooth, and no higher than its patches.

    Args:
        attribution: A map of the image.
        rows: Pixel rows of the image.
        columns: Pixel columns.

    Returns:
        The map with its box in cells, and its value at each cell; 0 outside the box, where the
        model sees nothing.
    """
    x, y, width, height = attribution.box
    across, down = SIDE / columns, SIDE / rows
    scaled = AttributionMap(
        attribution.values, (x * across, y * down, width * across, height * down)
    )
    return scaled, scaled.spread((SIDE, SIDE), (SIDE, SIDE))
