"""The benchmark that the marks of the checks were learned by, on one phantom."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from benchmarks import checks_tell_good_from_bad as benchmark
from medllm.dicom import Radiograph
from medllm.explanation.case import Case
from medllm.explanation.composition import explain_case
from medllm.phantom import make_phantom


@pytest.fixture(scope="module")
def judged(tiny_model):
    scans = (
        Radiograph(make_phantom(seed, size=128).pixels, Path("phantom"), "png", "")
        for seed in (920_000, 920_001)
    )
    case, following = (Case(tiny_model, scan, ("pneumonia",)) for scan in scans)
    shuffled = benchmark.shuffled_model(tiny_model, 0)
    kinds = benchmark.kinds_of(case, following, shuffled, "occlusion")
    checks = benchmark.judge_each(case, "occlusion", kinds)
    return case, dict(zip(kinds, checks, strict=True))


def test_the_own_map_is_judged_as_in_a_report(judged):
    case, found = judged
    (explanation,) = explain_case(case, "occlusion")
    values = {check.name: check.value for check in found["own"]}
    assert values == pytest.approx({check.name: check.value for check in explanation.checks})


def test_a_wrong_map_is_judged_as_a_method_that_adds_up_and_for_itself(judged):
    _, found = judged
    agreements = {
        name: next(check.value for check in checks if check.name == "agreement")
        for name, checks in found.items()
    }
    assert len(np.unique(list(agreements.values()))) == len(agreements)
