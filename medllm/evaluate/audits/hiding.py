"""The same image without its lungs, and without the whole thorax."""

from __future__ import annotations

import numpy as np
import torch
from jaxtyping import Bool, Float, UInt8

from medllm.data import Preprocessing
from medllm.explanation.anatomy import REGIONS, regions_of

LUNGS_HIDDEN = "lungs hidden"
THORAX_HIDDEN = "thorax hidden"
_OUTSIDE = REGIONS.index(("outside", None))
_MEDIASTINUM = REGIONS.index(("mediastinum", None))
_SHOWN = {LUNGS_HIDDEN: (_MEDIASTINUM, _OUTSIDE), THORAX_HIDDEN: (_OUTSIDE,)}


def hide(
    display: Float[torch.Tensor, "size size"], shape: tuple[int, int], preprocessing: Preprocessing
) -> dict[str, Float[torch.Tensor, "size size"]]:
    """Make copies of an image in which its lungs, or all of its thorax, are flat.

    What is hidden gets the mean of what is left, and so does nothing else: a copy blurred or
    normalized before would still tell how bright the lungs were. Their outline is left.

    Args:
        display: Display values in [0, 1], as `Preprocessing.resize` gives them.
        shape: Rows and columns of the source image.
        preprocessing: What brought it to this size.

    Returns:
        Display values by `LUNGS_HIDDEN` and `THORAX_HIDDEN`; none where the lungs are not found.
    """
    regions = _regions(display.numpy(), shape, preprocessing)
    if regions is None:
        return {}
    return {
        name: _flattened(display, torch.from_numpy(np.isin(regions, shown)))
        for name, shown in _SHOWN.items()
    }


def _flattened(
    display: Float[torch.Tensor, "size size"], shown: Bool[torch.Tensor, "size size"]
) -> Float[torch.Tensor, "size size"]:
    return torch.where(shown, display, display[shown].mean())


def _regions(
    display: Float[np.ndarray, "size size"], shape: tuple[int, int], preprocessing: Preprocessing
) -> UInt8[np.ndarray, "size size"] | None:
    """Divide the square into regions; what was padded lies outside."""
    x, y, width, height = preprocessing.box(*shape)
    rows = _filled(y, height, shape[0], preprocessing.size)
    columns = _filled(x, width, shape[1], preprocessing.size)
    labels, found = regions_of(display[rows, columns])
    if not found:
        return None
    regions = np.full(display.shape, _OUTSIDE, dtype=labels.dtype)
    # The cell that the middle of each pixel falls on.
    down, across = (
        (2 * np.arange(part.stop - part.start) + 1) * len(labels) // (2 * (part.stop - part.start))
        for part in (rows, columns)
    )
    regions[rows, columns] = labels[np.ix_(down, across)]
    return regions


def _filled(start: float, length: float, source: int, size: int) -> slice:
    """Find the pixels of the square, along one axis, that show the source image."""
    first, last = max(0.0, -start), min(length, source - start)
    return slice(round(first / length * size), round(last / length * size))
