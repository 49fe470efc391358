"""Networks that answer by one part of the image, so that it is known what a map must show."""

from __future__ import annotations

from functools import partial

import pytest

from benchmarks import planted_networks
from medllm.phantom import Lesion, make_phantom


@pytest.fixture(scope="module")
def checks_of():
    phantom = make_phantom(1_030_001, size=512, lesions=[Lesion("lung_opacity", "right", "lower")])
    return partial(planted_networks.checks_of, phantom)


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
