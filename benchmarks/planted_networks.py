"""Whether the checks of place and of contrast tell networks apart whose cause is known.

    python benchmarks/planted_networks.py [--n 60] [--first SEED]

Networks made by hand, a set for each phantom with an opacity and a side marker. Each answers by the
mean square of one part of the image: the opacity, the marker, or all outside the rib cage; and of a
second finding, cardiomegaly, by the heart, or by what the first answer is of. Each is explained by
occlusion. Printed are, of the check that each is planted for, how often it is passed and what its
value is: first of the network that is to pass, then of the one that is not.
"""

from __future__ import annotations

import argparse
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import torch
from torch import nn

import medllm
from medllm.data import Preprocessing
from medllm.dicom import Radiograph
from medllm.explanation.record import Check
from medllm.phantom import Lesion, Phantom, make_phantom

# Seeds of this range are drawn for this table alone.
FIRST_SEED = 1_020_000
SIDE = 128
FINDINGS = {"lung_opacity": 0, "cardiomegaly": 1}
# By check, networks and what their two findings are answered by.
PLANTED = {
    "outside-thorax": {"opacity": ("opacity", "heart"), "outside": ("outside", "heart")},
    "on-text": {"opacity": ("opacity", "heart"), "marker": ("marker", "heart")},
    "contrast": {"opacity, heart": ("opacity", "heart"), "opacity, opacity": ("opacity",) * 2},
}


class Planted(nn.Module):
    """Answers by the mean square of two parts of the image."""

    def __init__(self, parts: tuple[torch.Tensor, torch.Tensor]) -> None:
        """Keep what share of each pixel either part covers."""
        super().__init__()
        self.parts = parts
        self.slope = nn.Parameter(torch.ones(()), requires_grad=False)

    def forward(self, pixel_values: torch.Tensor) -> torch.Tensor:
        """Answer; the second finding half as strongly as the first."""
        squares = pixel_values[:, 0].square()
        first, second = ((squares * part).sum(dim=(1, 2)) / part.sum() for part in self.parts)
        return self.slope * torch.stack([first, second / 2], dim=1)


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--n", type=int, default=60, help="phantoms")
    parser.add_argument("--first", type=int, default=FIRST_SEED, help="seed of the first phantom")
    given = parser.parse_args()
    phantoms = list(with_opacity_and_marker(given.n, given.first))
    print(f"{given.n} phantoms; passed, and the check's value: 5%, median, 95%")
    # Of the networks that go by the opacity one stands for three checks.
    every = dict.fromkeys(parts for networks in PLANTED.values() for parts in networks.values())
    made = {parts: [checks_of(phantom, *parts) for phantom in phantoms] for parts in every}
    for check, networks in PLANTED.items():
        for name, parts in networks.items():
            told = [checks[check] for checks in made[parts] if check in checks]
            low, middle, high = np.percentile([one.value for one in told], [5, 50, 95])
            passed = sum(one.passed for one in told)
            print(
                f"{check:16}{name:20}{passed:4} of {len(told)}{low:10.3f}{middle:10.3f}{high:10.3f}"
            )


def with_opacity_and_marker(n: int, seed: int) -> Iterator[Phantom]:
    """Make phantoms until as many as wanted have a marker."""
    while n:
        phantom = make_phantom(seed, size=512, lesions=[Lesion("lung_opacity", "right", "lower")])
        if phantom.marker_mask.any():
            yield phantom
            n -= 1
        seed += 1


def checks_of(phantom: Phantom, first: str, second: str) -> dict[str, Check]:
    """Explain a planted network's first answer, and give the checks that were made by name."""
    parts = (part_of(phantom, first), part_of(phantom, second))
    contract = Preprocessing(size=SIDE, channels=1, normalization="fixed", mean=(0.0,), std=(0.2,))
    model = medllm.wrap(Planted(parts), FINDINGS, contract, output="logits", name="planted")
    scan = Radiograph(phantom.pixels, Path("phantom"), "png", "")
    explanation = medllm.explain(model, scan, "lung_opacity", method="occlusion")
    return {check.name: check for check in explanation.checks}


def part_of(phantom: Phantom, name: str) -> torch.Tensor:
    """Give the share of each pixel of the network's input that a part of the image covers."""
    masks = {
        "opacity": phantom.masks["lung_opacity"],
        "marker": phantom.marker_mask,
        "outside": ~phantom.thorax_mask,
        "heart": phantom.heart_mask,
    }
    mask = torch.from_numpy(masks[name])[None, None].float()
    return nn.functional.adaptive_avg_pool2d(mask, SIDE)[0, 0]


if __name__ == "__main__":
    main()
