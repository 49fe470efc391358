"""Where letters, labels and markers stand in a radiograph, by classical image processing."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
from jaxtyping import Bool, Float32
from numpy.typing import NDArray
from PIL import Image
from scipy.ndimage import (
    binary_dilation,
    distance_transform_edt,
    find_objects,
    grey_opening,
    label,
)

# Longest side that is looked at, in pixels; the sizes below are in these. Letters below a
# seventieth of the side melt into each other here, and are found as words or not at all.
_SIDE = 512

# What is narrower than this stands out from an opening: strokes of letters do, limbs do not.
_WIDEST_STROKE = 8

# How far a stroke stands out from the opening, and a letter from what is around it, both in
# shares of the image's range. Ribs, vessels and most wires stay below a quarter.
_LEAST_STROKE = 0.2
_LEAST_CONTRAST = 0.33

# Dark letters are black, and stand on bright ground: gaps between limbs are dark too.
_LEAST_CONTRAST_DARK = 0.6
_MOST_BRIGHTNESS_DARK = 0.05

# Longer side of a letter, or of a word whose letters run together; the shorter side at least.
_LENGTHS, _LEAST_BREADTH = (7, 64), 4
# Breadth over length, by the spread of the pixels: less is a piece of wire or the rim of a plate.
_LEAST_ROUNDNESS = 0.15
# Stroke over length: more is a disc, as of an electrode.
_MOST_STROKE = 0.6

# Pixels around a letter that count as it: its edge.
_RIM = 2


def find_text(pixels: NDArray[np.float32]) -> NDArray[np.bool_]:
    """Find burned-in text and markers: small, narrow, sharp and far brighter than their ground.

    Black letters on bright ground are found too, as where white ones were burned into an image
    that is shown inverted. Metal of a letter's size, such as a clip or an electrode's rim, can be
    taken for a letter; a faint letter on bright ground is missed.

    Args:
        pixels: Display values in [0, 1].

    Returns:
        True in the rectangles around what was found, of the size of `pixels`.
    """
    small = _resized(pixels)
    low, high = np.percentile(small, (0.5, 99.5))
    found = np.zeros(small.shape, dtype=np.bool_)
    if high > low:
        bright = (small - np.float32(low)) / np.float32(high - low)
        for place in _letters(bright, _LEAST_CONTRAST, -np.inf):
            found[place] = True
        for place in _letters(1 - bright, _LEAST_CONTRAST_DARK, 1 - _MOST_BRIGHTNESS_DARK):
            found[place] = True
    rows, columns = (
        ((np.arange(length) + 0.5) * shrunk / length).astype(np.int64)
        for length, shrunk in zip(pixels.shape, small.shape, strict=True)
    )
    return found[np.ix_(rows, columns)]


def _resized(pixels: NDArray[np.float32]) -> NDArray[np.float32]:
    factor = _SIDE / max(pixels.shape)
    rows, columns = (max(1, round(length * factor)) for length in pixels.shape)
    how = Image.Resampling.BOX if factor < 1 else Image.Resampling.BICUBIC
    resized = Image.fromarray(pixels).resize((columns, rows), how)
    return np.asarray(resized, dtype=np.float32).clip(0, 1)


def _letters(
    picture: Float32[np.ndarray, "rows columns"], least_contrast: float, least_peak: float
) -> Iterator[tuple[slice, slice]]:
    """Give the rectangle around each letter that is brighter than its ground."""
    strokes = picture - grey_opening(picture, size=_WIDEST_STROKE + 1) > _LEAST_STROKE
    labels, _ = label(strokes, np.ones((3, 3)))
    for number, (down, across) in enumerate(find_objects(labels), start=1):
        if not _is_shaped_like_a_letter(labels[down, across] == number):
            continue
        around = _widened(down, 4), _widened(across, 4)
        letter = labels[around] == number
        peak = np.percentile(picture[around][letter], 85)
        ground = picture[around][_ring(letter)]
        if ground.size and peak >= least_peak and peak - np.median(ground) >= least_contrast:
            yield _widened(down, _RIM), _widened(across, _RIM)


def _is_shaped_like_a_letter(letter: Bool[np.ndarray, "rows columns"]) -> bool:
    short, long = sorted(letter.shape)
    if short < _LEAST_BREADTH or not _LENGTHS[0] <= long <= _LENGTHS[1]:
        return False
    # The spread of a square pixel itself is 1 / 12.
    spread = np.linalg.eigvalsh(np.cov(np.nonzero(letter)) + np.eye(2) / 12)
    stroke = 2 * distance_transform_edt(np.pad(letter, 1)).max()
    return bool(spread[0] >= _LEAST_ROUNDNESS**2 * spread[1] and stroke <= _MOST_STROKE * long)


def _ring(letter: Bool[np.ndarray, "rows columns"]) -> Bool[np.ndarray, "rows columns"]:
    """What lies around a letter, beyond its blurred edge."""
    near = binary_dilation(letter, iterations=2)
    return np.asarray(binary_dilation(near, iterations=2) & ~near, dtype=np.bool_)


def _widened(extent: slice, by: int) -> slice:
    return slice(max(0, extent.start - by), extent.stop + by)
