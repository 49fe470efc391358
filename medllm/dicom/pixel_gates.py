"""The gates that look at display values: size, contrast, saturation, polarity."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
from jaxtyping import Float32

from medllm.dicom.gates import make_gate
from medllm.dicom.pixels import END_OF_SCALE
from medllm.dicom.radiograph import Gate

# No radiograph that can be read is smaller; icons and test patterns are.
MIN_SIDE = 64
# 99% of the pixels within four steps of 8-bit grey: nothing can be seen.
MIN_CONTRAST = 4 / 255
# Of 1,000 radiographs of two public sets none had more than 24% of its pixels at the ends.
MAX_SATURATED_SHARE = 0.5

# Rows and columns of the coarse image in which polarity is judged.
_GRID = 32


def polarity_score(pixels: Float32[np.ndarray, "rows columns"]) -> float:
    """Measure whether a frontal chest is shown with air dark.

    Args:
        pixels: Display values in [0, 1].

    Returns:
        (lower centre - border) + (mediastinum - lungs), means of display values; positive
        where air is dark, and with the opposite sign for the inverted image.
    """
    coarse = _block_means(pixels)
    border = np.concatenate(
        [coarse[:, :3].ravel(), coarse[:, -3:].ravel(), coarse[:3, 3:-3].ravel()]
    )
    lungs = coarse[6:20, [6, 7, 8, 9, 10, 21, 22, 23, 24, 25]]
    centre, mediastinum = coarse[8:28, 13:19], coarse[6:22, 13:18]
    return float(centre.mean() - border.mean() + mediastinum.mean() - lungs.mean())


def _block_means(pixels: Float32[np.ndarray, "rows columns"]) -> Float32[np.ndarray, "32 32"]:
    rows, columns = (np.linspace(0, size, _GRID + 1).astype(int)[:-1] for size in pixels.shape)
    sums = np.add.reduceat(np.add.reduceat(pixels, rows, axis=0), columns, axis=1)
    counts = np.outer(
        *(
            np.diff([*starts, size])
            for starts, size in zip((rows, columns), pixels.shape, strict=True)
        )
    )
    return (sums / counts).astype(np.float32)


def _large_enough(pixels: Float32[np.ndarray, "rows columns"]) -> Gate:
    rows, columns = pixels.shape
    return make_gate(
        "too-small",
        "error",
        min(rows, columns) >= MIN_SIDE,
        f"{rows} x {columns} pixels",
        f"the image has {rows} x {columns} pixels, wanted are {MIN_SIDE} or more on either side; "
        "give the original.",
    )


def _not_flat(pixels: Float32[np.ndarray, "rows columns"]) -> Gate:
    low, high = np.percentile(pixels, [0.5, 99.5])
    return make_gate(
        "flat-image",
        "error",
        bool(high - low >= MIN_CONTRAST),
        f"99% of the display values span {high - low:.2f}",
        f"99% of the display values lie within {high - low:.3f} of each other: nothing can be "
        "seen; check the exposure and the window.",
    )


def _not_saturated(pixels: Float32[np.ndarray, "rows columns"]) -> Gate:
    share = float(((pixels < END_OF_SCALE) | (pixels > 1 - END_OF_SCALE)).mean())
    return make_gate(
        "saturated-image",
        "warning",
        share <= MAX_SATURATED_SHARE,
        f"{share:.0%} of the pixels are black or white",
        f"{share:.0%} of the pixels are black or white; check the window and the collimation.",
    )


def polarity_plausible(pixels: Float32[np.ndarray, "rows columns"]) -> Gate:
    """Check that a chest is shown with air dark; means nothing for a lateral view.

    Args:
        pixels: Display values in [0, 1].

    Returns:
        The gate. It only warns: a much overexposed radiograph can look inverted too.
    """
    # Smaller images have failed an error gate, or its acceptance says they are no chest.
    score = polarity_score(pixels) if min(pixels.shape) >= _GRID else 0.0
    return make_gate(
        "polarity-doubtful",
        "warning",
        score >= 0,
        "the mediastinum is brighter than lungs and border",
        "the mediastinum is darker than lungs and border, as in an inverted image; look at it, "
        "and set the polarity yourself if it is wrong.",
    )


# `polarity_plausible` is no row: whether it applies depends on the view.
PIXEL_GATES: tuple[Callable[[Float32[np.ndarray, "rows columns"]], Gate], ...] = (
    _large_enough,
    _not_flat,
    _not_saturated,
)
