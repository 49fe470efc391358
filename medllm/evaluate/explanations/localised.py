"""What one map is worth on one image whose truth is outlined."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from jaxtyping import Bool, UInt8
from scipy.ndimage import label

from medllm.data.anatomy import REGIONS, Side, Zone, Zones
from medllm.evaluate.explanations.raster import SIDE, lungs_of, on_grid
from medllm.explanation import AttributionMap
from medllm.explanation.regions import regions_of
from medllm.metrics import (
    energy_ratio,
    image_half,
    intersection_over_union,
    otsu_threshold,
    pixel_auroc,
    pointing_game,
    relevance_mass,
    side_hit,
)
from medllm.report.wording import region_key

# Shares of a map's own maximum that are tried as its threshold.
THRESHOLDS = tuple((np.arange(1, 20) / 20).round(2).tolist())


@dataclass(frozen=True, eq=False)
class Truth:
    """What is known of one image and finding, on the grid.

    Attributes:
        outline: Where the finding is; not empty.
        regions: Index in `REGIONS` a cell.
        rows: Pixel rows of the image.
        columns: Pixel columns.
    """

    outline: Bool[np.ndarray, "side side"]
    regions: UInt8[np.ndarray, "side side"]
    rows: int
    columns: int

    def facts(self) -> dict[str, Any]:
        """Give what does not depend on a map: the half it lies in, and its share of the area."""
        return {"half": image_half(self.outline), "area": float(self.outline.mean())}


def localise(attribution: AttributionMap, truth: Truth) -> dict[str, Any]:
    """Measure a map.

    Args:
        attribution: The map, its box in pixels of the image.
        truth: The outline.

    Returns:
        Figures by name, as the table has them.
    """
    scaled, values = on_grid(attribution, truth.rows, truth.columns)
    positive = np.maximum(values, 0)
    highest = float(positive.max())
    # A map without a positive value has nothing above a share of its maximum, or in the outline:
    # it counts as 0 and is not left out, or a method would gain by what it does not mark.
    edges = [share * highest for share in THRESHOLDS] if highest > 0 else []
    overlaps = [intersection_over_union(positive > edge, truth.outline) for edge in edges]
    regions = regions_of(scaled, Zones(truth.regions, ""), SIDE, SIDE)
    strongest = regions[0] if regions[0].share > 0 else None
    held = strongest is not None and (strongest.zone, strongest.side) in _cause(truth)
    return {
        "hit": pointing_game(values, truth.outline),
        "overlap": intersection_over_union(positive > otsu_threshold(positive), truth.outline),
        "overlaps": overlaps or [0.0] * len(THRESHOLDS),
        "pixel_auroc": pixel_auroc(values, truth.outline),
        "pixel_auroc_lungs": pixel_auroc(values, truth.outline, lungs_of(truth.regions)),
        "side_hit": side_hit(values, truth.outline),
        "relevance_mass": relevance_mass(values, truth.outline) if highest > 0 else 0.0,
        "energy_ratio": energy_ratio(values, truth.outline) if highest > 0 else 0.0,
        "region": None if strongest is None else region_key(strongest),
        "region_hit": float(held),
    }


def _cause(truth: Truth) -> set[tuple[Zone, Side | None]]:
    """List the regions that hold most of a lesion; each separate part of the outline is one."""
    parts, n_parts = label(truth.outline)
    held: set[tuple[Zone, Side | None]] = set()
    for part in range(1, n_parts + 1):
        counts = np.bincount(truth.regions[parts == part], minlength=len(REGIONS))
        held.add(REGIONS[int(counts.argmax())])
    return held
