"""Networks that answer by one part of the image, so that it is known what a map must show."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from torch import nn

import medllm
from medllm.data import Preprocessing
from medllm.dicom import Radiograph
from medllm.phantom import Lesion, make_phantom

SIDE = 128


class Planted(nn.Module):
    """Answers each of two findings by the mean square of a part of the image."""

    def __init__(self, *parts):
        super().__init__()
        self.parts = nn.ParameterList(nn.Parameter(part / part.sum()) for part in parts)

    def forward(self, pixel_values):
        squares = pixel_values[:, 0].square()
        first, second = ((squares * part).sum(dim=(1, 2)) for part in self.parts)
        return torch.stack([first, second / 2], dim=1)


@pytest.fixture(scope="module")
def checks_of():
    phantom = make_phantom(1_030_001, size=512, lesions=[Lesion("lung_opacity", "right", "lower")])
    masks = {
        "opacity": phantom.masks["lung_opacity"],
        "marker": phantom.marker_mask,
        "outside": ~phantom.thorax_mask,
        "heart": phantom.heart_mask,
    }
    contract = Preprocessing(size=SIDE, channels=1, normalization="fixed", mean=(0.0,), std=(0.2,))
    scan = Radiograph(phantom.pixels, Path("phantom"), "png", "")

    def explained(*names):
        shrunk = [
            nn.functional.adaptive_avg_pool2d(torch.from_numpy(masks[name])[None].float(), SIDE)[0]
            for name in names
        ]
        outputs = {"lung_opacity": 0, "cardiomegaly": 1}
        model = medllm.wrap(Planted(*shrunk), outputs, contract, output="logits")
        explanation = medllm.explain(model, scan, "lung_opacity", method="occlusion")
        return {check.name: check for check in explanation.checks}

    return explained


@pytest.mark.parametrize(
    ("part", "failed"),
    [("opacity", set()), ("marker", {"on-text"}), ("outside", {"outside-thorax"})],
)
def test_what_a_network_goes_by_is_told_by_the_check_made_for_it(checks_of, part, failed):
    checks = checks_of(part, "heart")
    assert {"on-text", "outside-thorax", "contrast"} <= checks.keys()
    of_place = {"on-text", "outside-thorax"} & {one for one in checks if not checks[one].passed}
    assert failed <= of_place
    assert part == "marker" or of_place == failed  # a marker lies outside, too
    assert checks["contrast"].passed


def test_two_findings_answered_by_the_same_place_are_told(checks_of):
    assert not checks_of("opacity", "opacity")["contrast"].passed
