"""Scored images whose true calibration is known."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from scipy.special import expit

from medllm.datasets import ImageRecord
from medllm.evaluate import ScoredRecord


def simulate(
    findings: tuple[str, ...] = ("pneumonia",),
    *,
    n_patients: int = 400,
    images_a_patient: int = 2,
    temperature: float = 3.0,
    bias: float = -0.5,
    seed: int = 0,
) -> list[ScoredRecord]:
    """Draw labels that are calibrated at the given temperature and bias."""
    rng = np.random.default_rng(seed)
    rows = []
    for patient in range(n_patients):
        for image in range(images_a_patient):
            log_odds = {finding: float(rng.normal(scale=5)) for finding in findings}
            labels = {
                finding: int(rng.random() < expit(value / temperature + bias))
                for finding, value in log_odds.items()
            }
            record = ImageRecord("csv", Path(f"{patient}-{image}.png"), f"p{patient}", labels)
            rows.append(ScoredRecord(record, log_odds))
    return rows


@pytest.fixture(scope="session")
def simulated() -> Callable[..., list[ScoredRecord]]:
    return simulate


@pytest.fixture(scope="session")
def images(tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    """Forty small grey pictures, each another blur."""
    folder = tmp_path_factory.mktemp("images")
    rng = np.random.default_rng(0)
    paths = []
    for index in range(40):
        coarse = Image.fromarray(rng.integers(256, size=(4, 4), dtype=np.uint8))
        path = folder / f"{index}.png"
        coarse.resize((72, 72), Image.Resampling.BICUBIC).save(path)
        paths.append(path)
    return paths
