"""Parts of the training data in memory: real images by data set, and phantoms by seed."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import torch
import torch.nn.functional as F
from jaxtyping import Bool, Float, UInt8

from medllm.data import Preprocessing
from medllm.datasets import ImageRecord
from medllm.dicom import read_radiograph
from medllm.models import Model
from medllm.phantom import Phantom, make_phantom

_BATCH_SIZE = 64
# Cells a side of the maps that say where a finding lies; fine enough to be moved and averaged.
CELLS = 32

Regions = UInt8[torch.Tensor, "images findings cells cells"]
Known = Bool[torch.Tensor, "images findings"]


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
        pixels = {}
        for name, chosen in records.items():
            images = [
                preprocessing.resize(read_radiograph(record.path).pixels) for record in chosen
            ]
            pixels[name] = (torch.cat(images) * 255).round().to(torch.uint8)
        return cls(records, pixels)

    def regions(self, dataset: str, findings: Sequence[str]) -> tuple[Regions, Known]:
        """Say where findings lie: in the boxes of an image that has them, nowhere in a negative.

        Args:
            dataset: Its name.
            findings: Keys.

        Returns:
            Maps of 0 or 255, and whether they are known.
        """
        records = self.records[dataset]
        maps = torch.zeros(len(records), len(findings), CELLS, CELLS, dtype=torch.uint8)
        known = self.labels(dataset, findings) == 0
        for row, record in enumerate(records):
            for column, finding in enumerate(findings):
                if record.boxes.get(finding) and record.labels.get(finding) == 1:
                    scan = read_radiograph(record.path)
                    maps[row, column] = _cells_of(record.boxes[finding], scan.rows, scan.columns)
                    known[row, column] = True
        return maps, known

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
        masks: Share of each cell that a finding covers, 0 to 255.
    """

    truth: Sequence[Mapping[str, int]]
    pixels: UInt8[torch.Tensor, "images size size"]
    masks: Sequence[Mapping[str, UInt8[torch.Tensor, "cells cells"]]]

    @classmethod
    def make(cls, seeds: Sequence[int], preprocessing: Preprocessing) -> PhantomPart:
        """Make the phantoms at twice the model's size and bring them to it."""
        truth, pixels, masks = [], [], []
        for seed in seeds:
            phantom = make_phantom(seed, size=2 * preprocessing.size)
            truth.append(phantom_labels(phantom))
            resized = preprocessing.resize(phantom.pixels)
            pixels.append((resized * 255).round().to(torch.uint8))
            masks.append({key: _shrunk(mask) for key, mask in phantom.masks.items()})
        return cls(truth, torch.cat(pixels), masks)

    def regions(self, findings: Sequence[str]) -> tuple[Regions, Known]:
        """Say where findings lie; of a phantom it is always known, but for unknown labels."""
        maps = torch.zeros(len(self.truth), len(findings), CELLS, CELLS, dtype=torch.uint8)
        for row, masks in enumerate(self.masks):
            for column, finding in enumerate(findings):
                source = "lung_opacity" if finding == "pneumonia" else finding
                if source in masks:
                    maps[row, column] = masks[source]
        return maps, ~self.labels(findings).isnan()

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
                for chunk in torch.split(pixels, _BATCH_SIZE)
            ]
        )


def _table(
    labels: Sequence[Mapping[str, int]], findings: Sequence[str]
) -> Float[torch.Tensor, "images findings"]:
    rows = [[row.get(key, float("nan")) for key in findings] for row in labels]
    return torch.tensor(rows, dtype=torch.float32)


def _cells_of(
    boxes: Sequence[tuple[float, float, float, float]], rows: int, columns: int
) -> UInt8[torch.Tensor, "cells cells"]:
    """Mark the cells whose centre lies in a box."""
    down = (torch.arange(CELLS) + 0.5) * rows / CELLS
    across = (torch.arange(CELLS) + 0.5) * columns / CELLS
    marked = torch.zeros(CELLS, CELLS, dtype=torch.bool)
    for x, y, width, height in boxes:
        inside_rows = (down >= y) & (down < y + height)
        marked |= inside_rows[:, None] & (across >= x) & (across < x + width)
    return marked.to(torch.uint8) * 255


def _shrunk(mask: np.ndarray) -> UInt8[torch.Tensor, "cells cells"]:
    covered = F.adaptive_avg_pool2d(torch.from_numpy(mask)[None].float(), CELLS)[0]
    return (covered * 255).round().to(torch.uint8)


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
