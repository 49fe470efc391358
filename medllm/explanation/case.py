"""What all explanations of one radiograph share: its tokens, its blurred copy, its log-odds."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

import numpy as np
import torch
from jaxtyping import Bool, Float, Float64
from scipy.ndimage import gaussian_filter

from medllm.dicom.radiograph import Radiograph
from medllm.models import Model

# Standard deviation of the blur as a share of the input's side. Of 60 phantoms with one opacity the
# default method's strongest region was the opacity's zone and side in 28, 23, 34 and 35 with an
# eighth, a quarter, a half and a flat image (benchmarks/explanation_on_phantoms.py). With a
# half the baseline still has the image's own shades.
BLUR = 1 / 2

# Altered copies of an image a forward pass; more gain nothing on a CPU and cost memory.
BATCH_SIZE = 16


@dataclass(frozen=True, eq=False)
class Case:
    """One radiograph before one model; each part is computed once, for all findings.

    Attributes:
        model: The model.
        scan: The radiograph.
        findings: Keys of the findings to be explained.
        blur: Standard deviation of the baseline's blur as a share of the input's side.
    """

    model: Model
    scan: Radiograph
    findings: tuple[str, ...]
    blur: float = BLUR

    @property
    def box(self) -> tuple[float, float, float, float]:
        """Extent of the patch grid in source pixels: x, y, width, height."""
        return self.model.card.preprocessing.box(self.scan.rows, self.scan.columns)

    @cached_property
    def pixel_values(self) -> Float[torch.Tensor, "1 channels size size"]:
        """The model's input."""
        return self.model.prepare(self.scan)

    @cached_property
    def blurred(self) -> Float[torch.Tensor, "1 channels size size"]:
        """The baseline: the same input, strongly blurred.

        Neither black nor zero: black is air to a radiograph, and zeros can meet the point where
        a normalization layer is singular. It is blurred after normalization, so that a part of
        it can stand for the same part of the input.
        """
        sigma = self.blur * self.pixel_values.shape[-1]
        values = gaussian_filter(
            self.pixel_values.numpy(), (0, 0, sigma, sigma), mode="nearest", truncate=3
        )
        return torch.from_numpy(values)

    @property
    def baseline(self) -> str:
        """The baseline in words."""
        sigma = self.blur * self.model.card.preprocessing.size
        return (
            f"the same image, blurred (standard deviation {sigma:.0f} of "
            f"{self.model.card.preprocessing.size} pixels)"
        )

    @cached_property
    def features(self) -> Float[torch.Tensor, "1 patches width"]:
        """Image tokens of the radiograph, at the projector's output."""
        with torch.no_grad():
            return self.model.image_features(self.pixel_values)

    @cached_property
    def blurred_features(self) -> Float[torch.Tensor, "1 patches width"]:
        """Image tokens of the blurred copy."""
        with torch.no_grad():
            return self.model.image_features(self.blurred)

    @cached_property
    def log_odds(self) -> Float64[np.ndarray, " findings"]:
        """Uncalibrated log-odds of the radiograph, a value a finding."""
        return self._score_features(self.features).reshape(-1)

    @cached_property
    def baseline_log_odds(self) -> Float64[np.ndarray, " findings"]:
        """The same of the blurred copy."""
        return self._score_features(self.blurred_features).reshape(-1)

    @property
    def effect(self) -> Float64[np.ndarray, " findings"]:
        """What the image adds to the baseline's log-odds: the number that is attributed."""
        return np.asarray(self.log_odds - self.baseline_log_odds, dtype=np.float64)

    def log_odds_without(
        self, removed: Bool[np.ndarray, "copies rows columns"]
    ) -> Float64[np.ndarray, "copies findings"]:
        """Score copies of the radiograph in which some patches are blurred.

        Args:
            removed: True where a patch is replaced by that of the blurred copy.

        Returns:
            Uncalibrated log-odds of each copy.
        """
        rows, columns = self.model.grid
        _, _, height, width = self.pixel_values.shape
        scores = []
        for start in range(0, len(removed), BATCH_SIZE):
            pixels = torch.from_numpy(removed[start : start + BATCH_SIZE])
            pixels = pixels.repeat_interleave(height // rows, 1)
            pixels = pixels.repeat_interleave(width // columns, 2)
            copies = torch.where(pixels[:, None], self.blurred, self.pixel_values)
            with torch.no_grad():
                features = self.model.image_features(copies)
            scores.append(self._score_features(features))
        return np.concatenate(scores)

    def _score_features(
        self, features: Float[torch.Tensor, "copies patches width"]
    ) -> Float64[np.ndarray, "copies findings"]:
        with torch.no_grad():
            log_odds = self.model.log_odds_from_features(features, self.findings)
        return np.asarray(log_odds.double().cpu().numpy(), dtype=np.float64)
