"""Closed outlines of where an attribution lies, for programs that draw or count areas."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, cast

import numpy as np
from contourpy import FillType, contour_generator
from jaxtyping import Bool, Float64
from matplotlib.path import Path
from numpy.typing import NDArray

from medllm.explanation.overlay import CONTOUR_GRID, display_size, top_level
from medllm.explanation.record import AttributionMap

# A smaller part is the interpolation's, and a reader would take it for a place.
_LEAST_SHARE = 0.01


@dataclass(frozen=True, eq=False)
class Part:
    """One part of the smallest area that holds half of the positive attribution.

    Attributes:
        outline: Its outer border, closed: x and y in pixels of the source image, where 0 is the
            border of the first pixel and 0.5 its centre.
        share: Share of the positive attribution of the whole map within the outline, 0 to 1.
    """

    outline: Float64[np.ndarray, "points 2"]
    share: float


def top_parts(attribution: AttributionMap, source_shape: tuple[int, int]) -> tuple[Part, ...]:
    """Outline the smallest area that holds half of the positive attribution.

    Args:
        attribution: The map, signed.
        source_shape: Rows and columns of the source image.

    Returns:
        The parts of that area that hold a hundredth of the positive attribution or more, largest
        share first; none where nothing is positive. A hole counts to the part around it.
    """
    field = np.maximum(attribution.spread(source_shape, display_size(*source_shape)), 0)
    step = max(1, max(field.shape) // CONTOUR_GRID)
    sampled = field[::step, ::step]
    total, shown = sampled.sum(), np.array(field.shape[::-1])
    if total == 0:
        return ()
    to_source = np.array(source_shape[::-1]) / shown
    # The values go on to the image's border, and beyond it is nothing: so all lines close.
    rows, columns = (
        np.concatenate([[-1, 0], np.arange(0, length, step) + 0.5, [length, length + 1]])
        for length in field.shape
    )
    filled = contour_generator(
        columns,
        rows,
        np.pad(np.pad(sampled, 1, mode="edge"), 1),
        fill_type=FillType.OuterOffset,
    ).filled(top_level(field), np.inf)
    areas, borders = cast("tuple[list[NDArray[Any]], list[NDArray[Any]]]", filled)
    centres = np.stack(np.meshgrid(columns[2:-2], rows[2:-2]), axis=-1)
    parts = []
    for points, border in zip(areas, borders, strict=True):
        outer = np.clip(points[border[0] : border[1]], 0, shown)
        share = float(sampled[_within(outer, centres)].sum() / total)
        parts.append(Part(np.asarray(outer * to_source, dtype=np.float64), share))
    kept = [part for part in parts if part.share >= _LEAST_SHARE]
    return tuple(sorted(kept, key=lambda part: -part.share))


def _within(
    outline: Float64[np.ndarray, "points 2"], points: Float64[np.ndarray, "rows columns 2"]
) -> Bool[np.ndarray, "rows columns"]:
    inside = Path(outline).contains_points(points.reshape(-1, 2))
    return np.asarray(inside.reshape(points.shape[:2]), dtype=np.bool_)
