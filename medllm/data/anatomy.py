"""The regions of a frontal chest radiograph: lung zones, mediastinum, and outside the thorax."""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache
from typing import Literal

import numpy as np
from jaxtyping import Float32, UInt8
from scipy.ndimage import distance_transform_edt

from medllm.data.lung_outline import (
    LEFT_LUNG,
    MARGIN,
    RIGHT_LUNG,
    STEPS,
    USUAL,
    draw,
    fit,
    frame_indices,
)
from medllm.data.preprocessing import Preprocessing
from medllm.dicom.radiograph import Radiograph

Zone = Literal["upper", "middle", "lower", "mediastinum", "outside"]
Side = Literal["right", "left"]

REGIONS: tuple[tuple[Zone, Side | None], ...] = (
    ("upper", "right"),
    ("middle", "right"),
    ("lower", "right"),
    ("upper", "left"),
    ("middle", "left"),
    ("lower", "left"),
    ("mediastinum", None),
    ("outside", None),
)
"""All regions, by the PATIENT's side; those before the mediastinum are the lungs."""

MEDIASTINUM = REGIONS.index(("mediastinum", None))
OUTSIDE = REGIONS.index(("outside", None))

# Cells a side that the image is divided into.
_SIDE = 256

# Contrast below which the outline is not believed. Of 40 phantoms none is below 2, of 80 normal
# radiographs of children none below 1.2; smoothed noise reaches 1.1, mostly it stays below 0.8.
_LEAST_CONTRAST = 0.8

_SUPPOSED = (
    "; the file does not say which side is which, and the image's left is taken for the patient's "
    "right"
)

_LATERAL = "fixed shares of the image, because the header says that the view is lateral"
_ON_ITS_SIDE = (
    "fixed shares of the image, because Patient Orientation says that it lies on its side"
)

# Ribs, pleura and costophrenic angles this near to a lung count as that lung's zone.
_RIM = 0.05

# Lung lies behind the domes of the diaphragm too, and what clouds it hides the dome. So what is
# below a lung or the heart belongs to it down to here, in the outline's frame. On 69 radiographs
# of adults 23% of what radiologists outlined as an opacity was else outside; now 11% is.
_BASE = 1.05
# Above this a column's end is the heart's border, not the diaphragm.
_DOME = 0.85


@dataclass(frozen=True, eq=False)
class Zones:
    """The regions of one radiograph.

    Attributes:
        labels: Index in `REGIONS`, on a grid of square number that covers the whole image.
        found_by: How the regions were found, in words.
        found: Whether the lungs were found in the image. Without, the regions are where they
            usually are, and no place may be named after them.
    """

    labels: UInt8[np.ndarray, "side side"]
    found_by: str
    found: bool = True


def rows_run_to(scan: Radiograph) -> Side | None:
    """Say to which of the patient's sides the rows of a frontal radiograph run.

    Args:
        scan: The radiograph.

    Returns:
        The side that the image's right shows; None where Patient Orientation does not say.
    """
    sides: dict[str, Side] = {"L": "left", "R": "right"}
    return sides.get((scan.patient_orientation or ("", ""))[0][:1])


def find_zones(scan: Radiograph) -> Zones:
    """Divide a frontal radiograph into regions.

    Where Patient Orientation does not say which side is which, the patient's right is taken to be
    the image's left; an image whose columns run to the head is turned over for it. Upper, middle
    and lower are thirds of a lung's height, not lobes; the lower goes on behind the diaphragm.

    Args:
        scan: A radiograph.

    Returns:
        The regions; at their usual place where no lungs were found, the view is lateral or the
        image lies on its side. They say so, and whether the sides are only supposed.
    """
    towards = rows_run_to(scan)
    across, down = ((each or " ")[0] for each in scan.patient_orientation or ("", ""))
    if scan.is_lateral or across in "HF" or down in "LR":
        words = _LATERAL if scan.is_lateral else _ON_ITS_SIDE
        return Zones(_frame()[frame_indices(USUAL, _SIDE)], words, found=False)
    upright = np.s_[:: -1 if down == "H" else 1, :: -1 if towards == "right" else 1]
    labels, found = regions_of(scan.pixels[upright])
    found_by = "a standard outline of the lungs, fitted to this image"
    if not found:
        found_by = "fixed shares of the image, because the lungs were not found in it"
    if towards is None:
        found_by += _SUPPOSED
    return Zones(np.ascontiguousarray(labels[upright]), found_by, found)


def regions_of(
    pixels: Float32[np.ndarray, "rows columns"],
) -> tuple[UInt8[np.ndarray, "side side"], bool]:
    """Divide display values into regions; the patient's right is the image's left.

    Args:
        pixels: Display values in [0, 1], low is air.

    Returns:
        Index in `REGIONS`, on a grid of square number that covers the image; and whether the lungs
        were found, without which the regions are where they usually are.
    """
    placement, contrast = fit(np.ascontiguousarray(pixels))
    found = bool(contrast >= _LEAST_CONTRAST)
    return _frame()[frame_indices(placement if found else USUAL, _SIDE)], found


def regions_in_input(
    display: Float32[np.ndarray, "size size"], shape: tuple[int, int], preprocessing: Preprocessing
) -> UInt8[np.ndarray, "size size"] | None:
    """Divide an image at a model's size into regions; what was padded lies outside.

    Args:
        display: Display values in [0, 1], as `Preprocessing.resize` gives them; the patient's
            right is the image's left.
        shape: Rows and columns of the source image.
        preprocessing: What brought it to this size.

    Returns:
        Index in `REGIONS` of each pixel; None where the lungs are not found.
    """
    x, y, width, height = preprocessing.box(*shape)
    rows = _filled(y, height, shape[0], preprocessing.size)
    columns = _filled(x, width, shape[1], preprocessing.size)
    labels, found = regions_of(display[rows, columns])
    if not found:
        return None
    regions = np.full(display.shape, OUTSIDE, dtype=np.uint8)
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


@lru_cache(maxsize=1)
def _frame() -> UInt8[np.ndarray, "steps steps"]:
    """The regions as a table of the outline's frame."""
    # The lungs' medial borders: up the right lung's, down the left lung's.
    between = (*(corner for corner in RIGHT_LUNG if corner[0] > 0.3), *LEFT_LUNG[:9])
    above = draw(between, RIGHT_LUNG, LEFT_LUNG)
    drawn = _down_to_the_base(above)
    table = np.full((STEPS, STEPS), OUTSIDE, dtype=np.uint8)
    table[drawn == 1] = MEDIASTINUM
    for number, side in ((2, 0), (3, 3)):
        rows = np.flatnonzero((above == number).any(axis=1))
        upper, middle, _ = np.array_split(rows, 3)
        thirds = np.digitize(np.arange(STEPS), [upper[-1] + 1, middle[-1] + 1])
        table = np.where(drawn == number, (side + thirds[:, None]).astype(np.uint8), table)
    distance, nearest = distance_transform_edt(drawn == 0, return_indices=True)
    rim = distance * (1 + 2 * MARGIN) / STEPS <= _RIM
    return np.where(rim, table[tuple(nearest)], table)


def _down_to_the_base(drawn: UInt8[np.ndarray, "steps steps"]) -> UInt8[np.ndarray, "steps steps"]:
    """Continue what ends at the diaphragm, column by column."""
    rows = np.arange(STEPS)[:, None]
    heights = (rows + 0.5) / STEPS * (1 + 2 * MARGIN) - MARGIN
    lowest = STEPS - 1 - (drawn[::-1] > 0).argmax(axis=0)
    ends_at_dome = (drawn > 0).any(axis=0) & (heights[lowest, 0] > _DOME)
    below = ends_at_dome & (rows > lowest) & (heights <= _BASE)
    return np.where(below, drawn[lowest, np.arange(STEPS)], drawn)
