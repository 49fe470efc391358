from __future__ import annotations

import numpy as np
import pytest

from medllm.evaluate.recalibration.cross_fit import apply
from medllm.evaluate.recalibration.figures import calibration_figures
from medllm.models import Calibration


def test_a_share_of_one_or_none_has_the_exact_interval_of_its_patients():
    rng = np.random.default_rng(0)
    labels = np.repeat([0, 1], 30)
    log_odds = labels + rng.normal(size=60)
    # Everyone is called.
    calibration = Calibration(low=0.001, high=0.001)
    figures = calibration_figures(
        calibration,
        apply(calibration, log_odds),
        labels,
        [f"p{at // 2}" for at in range(60)],
        n_resamples=50,
    )
    # Fifteen patients with the finding, as many without: 0.025 = low^15 (Clopper and Pearson).
    least = 0.025 ** (1 / 15)
    assert (figures.sensitivity.value, figures.sensitivity.high) == (1, 1)
    assert figures.sensitivity.low == pytest.approx(least)
    assert (figures.specificity.low, figures.specificity.value) == (0, 0)
    assert figures.specificity.high == pytest.approx(1 - least)
