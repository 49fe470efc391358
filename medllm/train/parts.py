"""Parts of the training data in memory: real images by data set, and phantoms by seed."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import torch
from jaxtyping import Float, UInt8

from medllm.data import Preprocessing
from medllm.datasets import ImageRecord
from medllm.models import Model
from medllm.phantom import Phantom, make_phantom
from medllm.train.images import load_pixels

_BATCH_SIZE = 64


@dataclass(frozen=True, eq=False)
class RealPart:
    """Training, validation or test part of the real data sets.

    Attributes:
        records: Records a data set.
        pixels: Display values, 0 to 255, a data set.
    """

    records: Mapping[str, Sequence[ImageRecord]]
    pixels: Mapping[str, UInt8[torch.Tensor, "images size size"]]

    @classmethod
    def load(
        cls, records: Mapping[str, Sequence[ImageRecord]], preprocessing: Preprocessing
    ) -> RealPart:
        """Read all images of a part."""
        return cls(
            records, {name: load_pixels(chosen, preprocessing) for name, chosen in records.items()}
        )

    def labels(
        self, dataset: str, findings: Sequence[str]
    ) -> Float[torch.Tensor, "images findings"]:
        """Give labels as numbers; NaN where unknown."""
        return _table([record.labels for record in self.records[dataset]], findings)

    def log_odds(
        self, model: Model, dataset: str, findings: Sequence[str]
    ) -> Float[torch.Tensor, "images findings"]:
        """Score all images of a data set."""
        return score(model, self.pixels[dataset], findings)


@dataclass(frozen=True, eq=False)
class PhantomPart:
    """Phantoms of a range of seeds.

    Attributes:
        truth: Labels of each phantom.
        pixels: Display values, 0 to 255.
    """

    truth: Sequence[Mapping[str, int]]
    pixels: UInt8[torch.Tensor, "images size size"]

    @classmethod
    def make(cls, seeds: Sequence[int], preprocessing: Preprocessing) -> PhantomPart:
        """Make the phantoms at twice the model's size and bring them to it."""
        truth, pixels = [], []
        for seed in seeds:
            phantom = make_phantom(seed, size=2 * preprocessing.size)
            truth.append(phantom_labels(phantom))
            resized = preprocessing.resize(phantom.pixels)
            pixels.append((resized * 255).round().to(torch.uint8))
        return cls(truth, torch.cat(pixels))

    def labels(self, findings: Sequence[str]) -> Float[torch.Tensor, "images findings"]:
        """Give labels as numbers; NaN where unknown."""
        return _table(self.truth, findings)

    def log_odds(
        self, model: Model, findings: Sequence[str]
    ) -> Float[torch.Tensor, "images findings"]:
        """Score all phantoms."""
        return score(model, self.pixels, findings)


def score(
    model: Model, pixels: UInt8[torch.Tensor, "images size size"], findings: Sequence[str]
) -> Float[torch.Tensor, "images findings"]:
    """Score images that are in memory at the model's size.

    Args:
        model: The model.
        pixels: Display values, 0 to 255.
        findings: Keys.

    Returns:
        Uncalibrated log-odds.
    """
    normalize = model.card.preprocessing.normalize
    with torch.inference_mode():
        return torch.cat(
            [
                model.log_odds(normalize(chunk.float() / 255)[:, None], findings)
                for chunk in pixels.split(_BATCH_SIZE)
            ]
        )


def _table(
    labels: Sequence[Mapping[str, int]], findings: Sequence[str]
) -> Float[torch.Tensor, "images findings"]:
    return torch.tensor([[row.get(key, float("nan")) for key in findings] for row in labels])


def phantom_labels(phantom: Phantom) -> dict[str, int]:
    """Say which questions a phantom answers.

    Its opacity is an airspace opacity, so that it also stands for pneumonia. A nodule or an
    effusion is dense too: whether that counts as a lung opacity is left unknown.

    Args:
        phantom: The phantom.

    Returns:
        1 or 0 a finding's key.
    """
    labels = dict(phantom.findings)
    labels["pneumonia"] = labels["lung_opacity"]
    if not labels["lung_opacity"] and (labels["nodule"] or labels["effusion"]):
        del labels["lung_opacity"]
    return labels
