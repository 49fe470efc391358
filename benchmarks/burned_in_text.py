"""How often the side markers of phantoms are found, and what else is taken for text.

    python benchmarks/burned_in_text.py [--n 200] [--size 512]

Phantoms with and without a lead letter; wires, electrodes and tubes are in both. A marker is found
when more than half of it is in what was found. Everything found farther from it than a
twenty-fifth of the image's side is a false alarm.
"""

from __future__ import annotations

import argparse

import numpy as np
from scipy.ndimage import maximum_filter

from medllm.explanation.burned_in_text import find_text
from medllm.phantom import make_phantom

# Seeds of this range are drawn for this table alone.
FIRST_SEED = 940_000


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--n", type=int, default=200, help="phantoms")
    parser.add_argument("--size", type=int, default=512, help="rows and columns")
    given = parser.parse_args()
    found: list[bool] = []
    alarms: dict[bool, list[float]] = {True: [], False: []}
    for seed in range(FIRST_SEED, FIRST_SEED + given.n):
        phantom = make_phantom(seed, size=given.size)
        marker = phantom.marker_mask
        text = find_text(phantom.pixels)
        if marker.any():
            found.append(bool(text[marker].mean() > 0.5))
        near = maximum_filter(marker, 2 * (given.size // 25) + 1)
        alarms[bool(marker.any())].append(float((text & ~near).mean()))
    print(f"{given.n} phantoms of {given.size} x {given.size} pixels")
    print(f"markers found: {sum(found)} of {len(found)}")
    for with_marker, shares in alarms.items():
        kind = "with" if with_marker else "without"
        print(
            f"false alarms {kind} a marker: in {np.count_nonzero(shares)} of {len(shares)}, "
            f"{np.mean(shares):.6f} of the area"
        )


if __name__ == "__main__":
    main()
