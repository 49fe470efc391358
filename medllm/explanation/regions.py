"""An attribution map in words: how much of it fell on each region of the chest."""

from __future__ import annotations

import numpy as np
from jaxtyping import Bool, Float64

from medllm.data.anatomy import OUTSIDE, REGIONS, Zones
from medllm.explanation.record import AttributionMap, Region


def patch_shares(
    attribution: AttributionMap, zones: Zones, rows: int, columns: int
) -> Float64[np.ndarray, "regions patch_rows patch_columns"]:
    """Say how much of each patch's area lies in each region.

    Args:
        attribution: The map; its grid and box are used, not its values.
        zones: The regions of the source image.
        rows: Rows of the source image.
        columns: Columns of the source image.

    Returns:
        Shares of the patch's area in the order of `REGIONS`; they sum to 1 a patch. What lies
        beyond the image, where it was padded, is outside.
    """
    shares = np.stack(
        [
            patch_coverage(attribution, zones.labels == index, rows, columns)
            for index in range(len(REGIONS))
        ]
    )
    shares[OUTSIDE] += 1 - shares.sum(axis=0)
    return shares


def patch_coverage(
    attribution: AttributionMap, mask: Bool[np.ndarray, "_ _"], rows: int, columns: int
) -> Float64[np.ndarray, "patch_rows patch_columns"]:
    """Say how much of each patch's area lies in a mask.

    Args:
        attribution: The map; its grid and box are used, not its values.
        mask: True within, on any grid that covers the whole source image.
        rows: Rows of the source image.
        columns: Columns of the source image.

    Returns:
        Shares of the patch's area. What lies beyond the image is not in the mask.
    """
    x, y, width, height = attribution.box
    patch_rows, patch_columns = attribution.values.shape
    down = _overlap(y, height, patch_rows, rows, mask.shape[0])
    across = _overlap(x, width, patch_columns, columns, mask.shape[1])
    return np.asarray(down @ mask @ across.T, dtype=np.float64)


def _overlap(
    start: float, extent: float, patches: int, length: int, cells: int
) -> Float64[np.ndarray, "patches cells"]:
    """Share of each patch's extent that lies in each cell, along one axis."""
    patch_edges = start + np.arange(patches + 1) * extent / patches
    cell_edges = np.arange(cells + 1) * length / cells
    low = np.maximum(patch_edges[:-1, None], cell_edges[None, :-1])
    high = np.minimum(patch_edges[1:, None], cell_edges[None, 1:])
    return np.asarray(np.maximum(high - low, 0) / (extent / patches), dtype=np.float64)


def regions_of(
    attribution: AttributionMap, zones: Zones, rows: int, columns: int
) -> tuple[Region, ...]:
    """Divide a map among the regions; a patch's value is spread evenly over its area.

    Args:
        attribution: The map.
        zones: The regions of the source image.
        rows: Rows of the source image.
        columns: Columns of the source image.

    Returns:
        Every region, largest share of the positive attribution first. The shares sum to 1, or
        are all 0 where no patch raises the finding.
    """
    shares = patch_shares(attribution, zones, rows, columns)
    signed = (shares * attribution.values).sum(axis=(1, 2))
    positive = (shares * np.maximum(attribution.values, 0)).sum(axis=(1, 2))
    total = positive.sum()
    regions = [
        Region(zone, side, float(positive[index] / total) if total > 0 else 0.0, float(value))
        for index, ((zone, side), value) in enumerate(zip(REGIONS, signed, strict=True))
    ]
    return tuple(sorted(regions, key=lambda region: region.share, reverse=True))
