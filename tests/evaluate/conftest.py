"""Scored images whose true calibration is known, and a browser to see pages in."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image
from scipy.special import expit

from medllm.datasets import ImageRecord
from medllm.evaluate import Predictions, ScoredRecord


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


def predictions_of(
    rows: list[ScoredRecord], attributes: dict[str, list[str]] | None = None
) -> Predictions:
    """Put simulated rows into arrays, calibrated at temperature 3 and bias -.5."""
    findings = tuple(rows[0].log_odds)
    log_odds = np.array([[row.log_odds[key] for key in findings] for row in rows])
    probabilities = expit(log_odds / 3 - 0.5)
    columns = attributes or {}
    return Predictions(
        findings=findings,
        paths=[row.record.path.name for row in rows],
        patients=[row.record.patient_id for row in rows],
        attributes=[
            {key: values[at] for key, values in columns.items()} for at in range(len(rows))
        ],
        errors=np.full(log_odds.shape, "", dtype=object),
        shapes=np.tile([10.0, 20.0], (len(rows), 1)),
        labels=np.array([[row.record.labels[key] for key in findings] for row in rows], float),
        log_odds=log_odds,
        probabilities=probabilities,
        called=probabilities >= 0.5,
        ruled_out=probabilities < 0.5,
        other_labels={},
        probes={},
    )


@pytest.fixture(scope="session")
def arrayed() -> Callable[..., Predictions]:
    return predictions_of


@pytest.fixture(scope="session")
def simulated_predictions() -> Predictions:
    return predictions_of(simulate())


@pytest.fixture(scope="session")
def two_findings() -> Predictions:
    return predictions_of(simulate(("pneumonia", "effusion"), n_patients=150))


# Frames the page at a width, opens all of it and writes down what it sees.
PROBE = """<!DOCTYPE html><iframe id="page" src="page.html" width="{width}" height="900"></iframe>
<pre id="seen"></pre><script>
document.getElementById("page").addEventListener("load", (event) => {{
  const page = event.target.contentDocument;
  for (const part of page.querySelectorAll("details")) part.open = true;
  const plots = [...page.querySelectorAll("svg[role=img]")];
  const first = page.querySelector("table.figures tbody th");
  const scroll = first.closest(".scroll");
  scroll.scrollLeft = 200;
  const seen = {{
    width: page.documentElement.clientWidth,
    contentWidth: page.documentElement.scrollWidth,
    bannerColour: getComputedStyle(page.querySelector(".banner")).backgroundColor,
    drawn: plots.every((plot) => plot.getBoundingClientRect().height > 50),
    pictures: [...page.images].map((image) => image.complete ? image.naturalWidth : 0),
    scrolled: scroll.scrollLeft,
    nameStays: first.getBoundingClientRect().left - scroll.getBoundingClientRect().left,
    requests: event.target.contentWindow.performance.getEntriesByType("resource")
      .map((entry) => entry.name).filter((name) => !name.startsWith("data:")),
  }};
  document.getElementById("seen").textContent = JSON.stringify(seen);
}});
</script>"""


@pytest.fixture
def see_page(
    tmp_path: Path, see_probe: Callable[[str], dict[str, Any]]
) -> Callable[[bytes, int], dict[str, Any]]:
    """Open a page in a browser, all of it unfolded, and say what is seen."""

    def see(page: bytes, width: int) -> dict[str, Any]:
        (tmp_path / "page.html").write_bytes(page)
        return see_probe(PROBE.format(width=width))

    return see
