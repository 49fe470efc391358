"""What all explanations of one radiograph share: its tokens, its blurred copy, its log-odds."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field, replace
from functools import cached_property

import numpy as np
import torch
from jaxtyping import Bool, Float, Float64

from medllm.data.anatomy import Zones, find_zones
from medllm.data.blur import BLUR, blurred
from medllm.dicom.radiograph import Radiograph
from medllm.explanation.attribution import PatchAttribution
from medllm.explanation.burned_in_text import find_text
from medllm.explanation.memory import in_chunks
from medllm.models import Model

# What is of the radiograph whatever the model, and what is of both whatever the findings.
_OF_SCAN = ("zones", "text")
_OF_IMAGE = (*_OF_SCAN, "pixel_values", "blurred", "features", "blurred_features")


@dataclass(frozen=True, eq=False)
class Case:
    """One radiograph before one model; each part is computed once, for all findings.

    Attributes:
        model: The model; of one that reasons the text it wrote on this radiograph is kept to, and
            the answer behind it is explained.
        scan: The radiograph.
        findings: Keys of the findings to be explained.
        blur: Standard deviation of the baseline's blur as a share of the input's side.
        against: Key of a finding that each of them is explained against: all log-odds of the case
            are then differences, the finding's less this one's. None explains each by itself.
        attributions: What was made of the case, by method: several ask for the same one.
    """

    model: Model
    scan: Radiograph
    findings: tuple[str, ...]
    blur: float = BLUR
    against: str | None = None
    attributions: dict[str, tuple[PatchAttribution, ...]] = field(default_factory=dict, init=False)

    def __post_init__(self) -> None:
        """Let a model that reasons do so once, before anything is explained."""
        if self.model.card.reasoning_tokens:
            asked = (*self.findings, *([self.against] if self.against else []))
            object.__setattr__(self, "model", self.model.reasoned(self.features, asked))

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
        """The baseline: the same input, strongly blurred."""
        return blurred(self.pixel_values, self.blur)

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
    def zones(self) -> Zones:
        """The regions of the chest in the radiograph."""
        return find_zones(self.scan)

    @cached_property
    def text(self) -> Bool[np.ndarray, "rows columns"]:
        """Where burned-in text and markers were found in the radiograph."""
        return find_text(self.scan.pixels)

    @cached_property
    def blurred_features(self) -> Float[torch.Tensor, "1 patches width"]:
        """Image tokens of the blurred copy."""
        with torch.no_grad():
            return self.model.image_features(self.blurred)

    @cached_property
    def log_odds(self) -> Float64[np.ndarray, " findings"]:
        """Uncalibrated log-odds of the radiograph, a value a finding."""
        return self._without_gradient(self.features).reshape(-1)

    @cached_property
    def baseline_log_odds(self) -> Float64[np.ndarray, " findings"]:
        """The same of the blurred copy."""
        return self._without_gradient(self.blurred_features).reshape(-1)

    @property
    def effect(self) -> Float64[np.ndarray, " findings"]:
        """What the image adds to the baseline's log-odds: the number that is attributed."""
        return np.asarray(self.log_odds - self.baseline_log_odds, dtype=np.float64)

    def asking(self, findings: tuple[str, ...]) -> Case:
        """Ask the same model of other findings, and keep what was computed of the image.

        Args:
            findings: Their keys.

        Returns:
            The case of these.
        """
        return self._lend(replace(self, findings=findings), _OF_IMAGE)

    def before(self, model: Model) -> Case:
        """Show the same radiograph to another model, and keep what was found in it.

        Args:
            model: The other.

        Returns:
            The case of that model.
        """
        return self._lend(replace(self, model=model), _OF_SCAN)

    def log_odds_without(
        self, removed: Bool[np.ndarray, "copies rows columns"]
    ) -> Float64[np.ndarray, "copies findings"]:
        """Score copies of the radiograph in which some patches are blurred.

        Args:
            removed: True where a patch is replaced by that of the blurred copy.

        Returns:
            Uncalibrated log-odds of each copy.

        Raises:
            AttributionError: Not even one copy at a time fits into memory.
        """
        rows, columns = self.model.grid
        _, _, height, width = self.pixel_values.shape
        kept = torch.from_numpy(~removed).float()
        return in_chunks(
            lambda batch_size: self.log_odds_of_parts(
                part.repeat_interleave(height // rows, 1).repeat_interleave(width // columns, 2)
                for part in torch.split(kept, batch_size)
            )
        )

    def log_odds_of_parts(
        self, kept: Iterable[Float[torch.Tensor, "_ height width"]]
    ) -> Float64[np.ndarray, "copies findings"]:
        """Score copies of the radiograph of which only a part is kept.

        Args:
            kept: Batches of masks over the model's input: 1 where a pixel is the image's, 0 where
                it is the blurred copy's, and between them a mixture.

        Returns:
            Uncalibrated log-odds of each copy.
        """
        scores = []
        for masks in kept:
            copies = torch.lerp(self.blurred, self.pixel_values, masks[:, None])
            with torch.no_grad():
                features = self.model.image_features(copies)
            scores.append(self._without_gradient(features))
        return np.concatenate(scores)

    def score_features(
        self, features: Float[torch.Tensor, "copies patches width"]
    ) -> Float[torch.Tensor, "copies findings"]:
        """Score patch tokens; gradients pass through.

        Args:
            features: From the projector, or between those of two images.

        Returns:
            Uncalibrated log-odds, or their differences from those of `against`.
        """
        if self.against is None:
            return self.model.log_odds_from_features(features, self.findings)
        both = self.model.log_odds_from_features(features, (*self.findings, self.against))
        return both[:, :-1] - both[:, -1:]

    def score_pixels(
        self, pixel_values: Float[torch.Tensor, "copies channels size size"]
    ) -> Float[torch.Tensor, "copies findings"]:
        """Score images as `score_features` does their patch tokens.

        Args:
            pixel_values: Prepared by the card's preprocessing, or between two that are.

        Returns:
            Uncalibrated log-odds, or their differences from those of `against`.
        """
        return self.score_features(self.model.image_features(pixel_values))

    def name(self, index: int) -> str:
        """Name one finding of the case by its key, and what it is explained against."""
        return self.findings[index] + (f" against {self.against}" if self.against else "")

    def _lend(self, other: Case, names: Iterable[str]) -> Case:
        """Give another case what a cached property of this one has found already."""
        vars(other).update({name: vars(self)[name] for name in names if name in vars(self)})
        return other

    def _without_gradient(
        self, features: Float[torch.Tensor, "copies patches width"]
    ) -> Float64[np.ndarray, "copies findings"]:
        with torch.no_grad():
            log_odds = self.score_features(features)
        return np.asarray(log_odds.double().cpu().numpy(), dtype=np.float64)
