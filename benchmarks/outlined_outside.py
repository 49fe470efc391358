"""Which share of what is outlined the regions put outside of the thorax.

    python benchmarks/outlined_outside.py [--dataset nih --root DIR]

Phantoms' opacities, and the boxes of a data set if one is named. Of each the mean share that lies
outside, and on how many images more than half does; images without lungs found are left out.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Iterator
from pathlib import Path

import numpy as np
from jaxtyping import Bool

from medllm.data.anatomy import OUTSIDE, find_zones
from medllm.datasets import read_dataset
from medllm.dicom import Radiograph
from medllm.phantom import make_phantom, random_lesions

Outlined = tuple[Radiograph, Bool[np.ndarray, "rows columns"]]
_SEEDS = range(4_000_000, 4_000_150)


def phantoms() -> Iterator[Outlined]:
    """Draw phantoms, and keep those with an opacity."""
    for seed in _SEEDS:
        if any(lesion.finding == "lung_opacity" for lesion in random_lesions(seed)):
            phantom = make_phantom(seed, size=256)
            scan = Radiograph(phantom.pixels, Path(f"phantom-{seed}"), "png", "")
            yield scan, phantom.masks["lung_opacity"]


def boxed(dataset: str, root: Path) -> Iterator[Outlined]:
    """Read the radiographs of a data set that have a box of any finding."""
    for record in read_dataset(dataset, root):
        if record.boxes:
            scan = record.radiograph()
            covered = np.zeros(scan.pixels.shape, dtype=bool)
            for x, y, width, height in (box for boxes in record.boxes.values() for box in boxes):
                covered[int(y) : int(y + height), int(x) : int(x + width)] = True
            yield scan, covered


def measure(name: str, images: Iterator[Outlined]) -> None:
    """Print the figures of some images."""
    shares = []
    for scan, outlined in images:
        zones, (rows, columns) = find_zones(scan), np.nonzero(outlined)
        if zones.found and len(rows):
            side = len(zones.labels)
            labels = zones.labels[rows * side // scan.rows, columns * side // scan.columns]
            shares.append((labels == OUTSIDE).mean())
    found = np.array(shares)
    sys.stdout.write(
        f"{name:<10}{len(found)} images, outside on the mean {found.mean():.3f}, more than half "
        f"of it on {(found > 0.5).mean():.3f}\n"
    )


def main() -> None:
    """Measure what the command line names."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--dataset", default="nih")
    parser.add_argument("--root", type=Path)
    given = parser.parse_args()
    measure("phantoms", phantoms())
    if given.root:
        measure(given.dataset, boxed(given.dataset, given.root))


if __name__ == "__main__":
    main()
