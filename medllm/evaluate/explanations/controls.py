"""Maps that owe nothing to the model: what a method must be better than."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass, field

import numpy as np
from jaxtyping import Bool, Float64, Int64, UInt8
from scipy.ndimage import sobel

from medllm.evaluate.explanations.raster import SIDE
from medllm.explanation import AttributionMap
from medllm.explanation.case import Case

MEAN_MAP, BEST_POINT, EDGES, RANDOM = "mean-map", "best-point", "edges", "random"

CONTROLS = {
    MEAN_MAP: "the mean of the outlines of all other patients: the hard control, without a look "
    "at the image",
    BEST_POINT: "the one point that lies in most outlines of all other patients",
    EDGES: "an edge detector: the image's gradient by Sobel, averaged over each patch",
    RANDOM: "a random number a patch",
}
"""What each control is, in words, the hardest first."""

# Cells a side of the mean map; finer than most patch grids, so that it is not held back.
_MEAN_SIDE = 32


def edge_map(case: Case) -> AttributionMap:
    """Take the image's edges for a map.

    Args:
        case: The image before the model.

    Returns:
        Magnitude of the gradient, averaged over each patch; 0 or more.

    Source:
        Adebayo et al., Sanity checks for saliency maps, NeurIPS 2018: maps that look like those
        of an edge detector.
    """
    image = case.pixel_values[0].double().mean(dim=0).cpu().numpy()
    magnitude = np.hypot(sobel(image, axis=0), sobel(image, axis=1))
    rows, columns = case.model.grid
    height, width = image.shape
    blocks = magnitude.reshape(rows, height // rows, columns, width // columns)
    return AttributionMap(blocks.mean(axis=(1, 3)), case.box)


def random_map(case: Case, name: str) -> AttributionMap:
    """Draw a map, the same for the same image and finding.

    Args:
        case: The image before the model.
        name: Of the image and the finding.

    Returns:
        Values in [0, 1).
    """
    seed = int.from_bytes(hashlib.sha256(name.encode()).digest()[:8])
    return AttributionMap(np.random.default_rng(seed).random(case.model.grid), case.box)


@dataclass(eq=False)
class Outlines:
    """The outlines of one finding, by patient, packed eight cells a byte.

    Attributes:
        total: Outlines that hold each cell.
        n: Outlines.
        by_patient: Packed outlines.
    """

    total: Int64[np.ndarray, "side side"] = field(
        default_factory=lambda: np.zeros((SIDE, SIDE), dtype=np.int64)
    )
    n: int = 0
    by_patient: dict[str, list[UInt8[np.ndarray, " bytes"]]] = field(default_factory=dict)

    def add(self, patient: str, packed: bytes) -> None:
        """Count an outline in.

        Args:
            patient: Whose it is.
            packed: Of `pack`.
        """
        self.by_patient.setdefault(patient, []).append(np.frombuffer(packed, dtype=np.uint8))
        self.total += unpack(packed)
        self.n += 1

    def of_others(self, patient: str) -> Float64[np.ndarray, "side side"] | None:
        """Average the outlines of all other patients.

        Args:
            patient: Whose outlines are left out.

        Returns:
            Share of the outlines that hold each cell, 0 to 1; None where there are none.
        """
        own = self.by_patient.get(patient, [])
        n = self.n - len(own)
        if not n:
            return None
        held = self.total.copy()
        for packed in own:
            held -= unpack(packed.tobytes())
        return held / n


def mean_map(shares: Float64[np.ndarray, "side side"], rows: int, columns: int) -> AttributionMap:
    """Make a map of the mean outline.

    Args:
        shares: Of `Outlines.of_others`.
        rows: Pixel rows of the image it is laid over.
        columns: Pixel columns.

    Returns:
        A map over the whole image.
    """
    cell = SIDE // _MEAN_SIDE
    blocks = shares.reshape(_MEAN_SIDE, cell, _MEAN_SIDE, cell).mean(axis=(1, 3))
    return AttributionMap(blocks, (0.0, 0.0, float(columns), float(rows)))


def pack(outline: Bool[np.ndarray, "side side"]) -> bytes:
    """Pack an outline, eight cells a byte."""
    return np.packbits(outline).tobytes()


def unpack(packed: bytes) -> Bool[np.ndarray, "side side"]:
    """Undo `pack`."""
    bits = np.unpackbits(np.frombuffer(packed, dtype=np.uint8))
    return bits.reshape(SIDE, SIDE).astype(bool)
