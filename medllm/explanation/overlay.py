"""An attribution map as a picture over its radiograph: colours, contour lines, colour bar."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import matplotlib
import numpy as np
from contourpy import contour_generator
from jaxtyping import Float64, UInt8
from numpy.typing import NDArray
from PIL import Image

from medllm.dicom.radiograph import Radiograph
from medllm.explanation.record import AttributionMap

# Log-odds that earn full colour on one hundredth of the map's area. The scale is fixed, so that
# two maps can be compared and a weak one looks weak. At 1, two of three supported maps of
# the default method reach it where they are strongest, and one of 24 that are refused.
FULL_COLOUR = 1.0

# Longest side of the picture in pixels: enough for a screen, small enough to send.
LONGEST_SIDE = 1024

# Crameri's managua: perceptually uniform, readable with any colour vision, lightest at both
# ends. Reversed: orange to yellow raises the finding, blue to cyan lowers it.
_COLOURS = matplotlib.colormaps["managua_r"]

# Finer lines than this only make the picture's file larger.
CONTOUR_GRID = 256

# Share of the positive attribution that the contour of the top region encloses.
_TOP_SHARE = 0.5

# A region of one value can be at the level, and a line through its rounding would be drawn at
# random; just below the level it runs around the region.
_AT_LEVEL = 1 - 1e-9


@dataclass(frozen=True, eq=False)
class Overlay:
    """What to lay over a radiograph, and how to read it.

    Attributes:
        rgba: Colours with transparency, of the size of `display_image`; straight alpha.
        raising: Lines around the smallest area that holds half of the positive attribution;
            each a list of points, x and y in pixels of `rgba`.
        lowering: Lines around the area that lowers the finding at half of full colour or more.
        scale: Log-odds a patch at which the colour is full; the bar runs from minus to plus it.
        bar: The bar's colours from minus to plus `scale`, as `rgba` has them.
        is_clipped: Whether values lie beyond the bar, whose colours are those of its ends.
    """

    rgba: UInt8[np.ndarray, "rows columns 4"]
    raising: tuple[Float64[np.ndarray, "_ 2"], ...]
    lowering: tuple[Float64[np.ndarray, "_ 2"], ...]
    scale: float
    bar: UInt8[np.ndarray, "1 steps 4"]
    is_clipped: bool


def display_size(rows: int, columns: int) -> tuple[int, int]:
    """Say how large a radiograph is shown.

    Args:
        rows: Rows of the source image.
        columns: Columns of the source image.

    Returns:
        Rows and columns of the picture; the longest side is at most `LONGEST_SIDE`.
    """
    factor = min(1.0, LONGEST_SIDE / max(rows, columns))
    return max(1, round(rows * factor)), max(1, round(columns * factor))


def in_source_pixels(
    lines: Sequence[Float64[np.ndarray, "_ 2"]], rows: int, columns: int
) -> tuple[Float64[np.ndarray, "_ 2"], ...]:
    """Bring lines of an overlay to the pixels of the image that it is of.

    Args:
        lines: Points, x and y in pixels of the overlay.
        rows: Rows of the source image.
        columns: Columns of the source image.

    Returns:
        The same lines, x and y in source pixels; 0.5 is the centre of the first.
    """
    shown_rows, shown_columns = display_size(rows, columns)
    scale = np.array([columns / shown_columns, rows / shown_rows])
    return tuple(line * scale for line in lines)


def display_image(scan: Radiograph) -> UInt8[np.ndarray, "rows columns"]:
    """Shrink a radiograph for showing.

    Args:
        scan: The radiograph; display values in [0, 1].

    Returns:
        Grey values, 0 is air.
    """
    rows, columns = display_size(scan.rows, scan.columns)
    grey = Image.fromarray(np.rint(scan.pixels * 255).astype(np.uint8))
    return np.asarray(grey.resize((columns, rows), Image.Resampling.LANCZOS))


def draw_overlay(scan: Radiograph, attribution: AttributionMap) -> Overlay:
    """Draw a map over its radiograph.

    Args:
        scan: The radiograph that was explained.
        attribution: Its map, signed, in log-odds a patch.

    Returns:
        The overlay, of the size of `display_image(scan)`.
    """
    source_shape = (scan.rows, scan.columns)
    field = attribution.spread(source_shape, display_size(*source_shape))
    scale = FULL_COLOUR * 100 / attribution.values.size
    return Overlay(
        rgba=_colour(field / scale),
        raising=_contours(field, top_level(field)),
        lowering=_contours(-field, scale / 2),
        scale=scale,
        bar=_colour(np.linspace(-1.0, 1.0, 256)[None]),
        is_clipped=bool(np.abs(attribution.values).max() > scale),
    )


def dashes(
    line: Float64[np.ndarray, "_ 2"], length: float
) -> tuple[Float64[np.ndarray, "_ 2"], ...]:
    """Cut a line into dashes, for a display that draws solid lines alone.

    Args:
        line: Points, x and y.
        length: Of a dash, and of the gap behind it, in the unit of the points.

    Returns:
        The dashes, each a line that follows the whole one.
    """
    walked = np.concatenate([[0.0], np.cumsum(np.hypot(*np.diff(line, axis=0).T))])
    pieces = []
    for start in np.arange(0.0, walked[-1], 2 * length):
        end = min(start + length, walked[-1])
        inner = walked[(walked > start) & (walked < end)]
        at = np.concatenate([[start], inner, [end]])
        pieces.append(np.stack([np.interp(at, walked, axis) for axis in line.T], axis=1))
    return tuple(pieces)


def _colour(
    relative: Float64[np.ndarray, "rows columns"],
) -> UInt8[np.ndarray, "rows columns 4"]:
    """Colour values of which -1 and 1 are full; 0 is transparent, opaque from one half on."""
    rgba = _COLOURS((np.clip(relative, -1, 1) + 1) / 2)
    rgba[..., 3] = np.clip(2 * np.abs(relative), 0, 1)
    return np.asarray(np.rint(rgba * 255), dtype=np.uint8)


def top_level(field: Float64[np.ndarray, "rows columns"]) -> float:
    """Find the level above which half of the positive attribution lies.

    Args:
        field: Attribution at each pixel.

    Returns:
        The level; 0 where nothing is positive. What is at it counts as above.
    """
    positive = np.sort(field[field > 0])[::-1]
    if positive.size == 0:
        return 0.0
    share = np.cumsum(positive) / positive.sum()
    return float(positive[np.searchsorted(share, _TOP_SHARE)]) * _AT_LEVEL


def _contours(
    field: Float64[np.ndarray, "rows columns"], level: float
) -> tuple[NDArray[np.float64], ...]:
    """Trace the lines where the field passes the level, in pixels of the field."""
    if level <= 0 or not field.min() < level < field.max():
        return ()
    step = max(1, max(field.shape) // CONTOUR_GRID)
    rows, columns = (np.arange(0, length, step) + 0.5 for length in field.shape)
    lines = contour_generator(columns, rows, field[::step, ::step]).lines(level)
    return tuple(np.asarray(line, dtype=np.float64) for line in lines)
