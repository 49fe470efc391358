"""The images of one source at the model's size, with all that is known of each."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from jaxtyping import Bool, Float, UInt8

from medllm.data import Preprocessing
from medllm.data.anatomy import MEDIASTINUM, OUTSIDE, regions_in_input
from medllm.data.prepared import prepare_images, prepare_phantoms
from medllm.datasets import ImageRecord
from medllm.datasets.age import years_of_attribute
from medllm.datasets.record import Box
from medllm.models import Model
from medllm.phantom import Lesion, Phantom, make_phantom
from medllm.phantom.record import shown_findings

# Cells a side of the maps that say where a finding lies; fine enough to be moved and averaged.
CELLS = 32
ADULT_YEARS = 18.0
# The regions before these are the thorax, and the lungs alone.
_INSIDE = (OUTSIDE, MEDIASTINUM)

Cells = UInt8[torch.Tensor, "cells cells"]
Track = Callable[[Iterable[int]], Iterable[int]]


@dataclass(frozen=True, eq=False)
class ImageSet:
    """Images of one source, one part.

    Attributes:
        source: Name of the data set, or `phantom`.
        pixels: Display values, 0 to 255, at the model's size.
        patients: Patient of each image.
        labels: 1 or 0 a finding's key, an image, or between them where a policy makes a label soft;
            what is not in it is unknown.
        attributes: What divides the images into groups, such as `view_position`.
        regions: Where a finding lies that an image has, where that is known: share of each cell
            that it covers, 0 to 255. A finding labelled 0 lies nowhere.
        content: Hash over what the images were prepared from; blank for images made in memory.
        at_once: Images that a network is run on at a time.
        shapes: Rows and columns of the source images; blank where all were square.
    """

    source: str
    pixels: UInt8[torch.Tensor, "images size size"]
    patients: Sequence[str]
    labels: Sequence[Mapping[str, float]]
    attributes: Sequence[Mapping[str, str]]
    regions: Sequence[Mapping[str, Cells]]
    content: str = ""
    at_once: int = 64
    shapes: Sequence[tuple[int, int]] = ()
    _lungs: dict[int, np.ndarray | None] = field(default_factory=dict, init=False, repr=False)

    @classmethod
    def of_records(
        cls,
        source: str,
        records: Sequence[ImageRecord],
        preprocessing: Preprocessing,
        folder: Path,
        track: Track = iter,
    ) -> ImageSet:
        """Read the images of a data set's records.

        Args:
            source: Name of the data set.
            records: The records.
            preprocessing: The model's contract.
            folder: Where prepared images are kept.
            track: Shows progress over the numbers of the images.

        Returns:
            The images, in the records' order.

        Raises:
            DicomError: An image cannot be read, or may not be scored.
        """
        prepared = prepare_images(records, preprocessing, folder, track=track)
        return cls(
            source=source,
            pixels=prepared.pixels,
            patients=[record.patient_id for record in records],
            labels=[record.labels for record in records],
            attributes=[record.attributes for record in records],
            regions=[
                _boxed(record, preprocessing.box(int(rows), int(columns)))
                for record, (rows, columns) in zip(records, prepared.shapes, strict=True)
            ],
            content=prepared.content,
            shapes=[(int(rows), int(columns)) for rows, columns in prepared.shapes],
        )

    @classmethod
    def of_phantoms(
        cls, seeds: Sequence[int], preprocessing: Preprocessing, folder: Path, track: Track = iter
    ) -> ImageSet:
        """Make phantoms; each is its own patient."""
        prepared = prepare_phantoms(seeds, preprocessing, folder, track=track)
        # The truth of a phantom does not depend on its size, and a small one is quickly made.
        phantoms = [make_phantom(seed, size=4 * CELLS) for seed in seeds]
        return cls(
            source="phantom",
            pixels=prepared.pixels,
            patients=[str(seed) for seed in seeds],
            labels=[phantom_labels(phantom.lesions) for phantom in phantoms],
            attributes=[
                {"age_years": str(p.age_years), "sex": p.sex, "view_position": p.view}
                for p in phantoms
            ],
            regions=[_masked(phantom) for phantom in phantoms],
            content=prepared.content,
        )

    def __len__(self) -> int:
        """Count the images."""
        return len(self.patients)

    def truth(self, findings: Sequence[str]) -> Float[torch.Tensor, "images findings"]:
        """Give labels as numbers; NaN where unknown."""
        rows = [[row.get(key, float("nan")) for key in findings] for row in self.labels]
        return torch.tensor(rows, dtype=torch.float32).reshape(len(self), len(findings))

    def places_known(self, findings: Sequence[str]) -> Bool[torch.Tensor, "images findings"]:
        """Say where the place of a finding is known: of a negative, and of what has a region.

        Args:
            findings: Keys.

        Returns:
            Whether `place` tells it.
        """
        known = self.truth(findings) == 0
        for row, regions in enumerate(self.regions):
            for column, finding in enumerate(findings):
                known[row, column] |= finding in regions
        return known

    def place(self, row: int, findings: Sequence[str]) -> UInt8[torch.Tensor, "findings c c"]:
        """Say where findings lie in one image.

        Args:
            row: Number of the image.
            findings: Keys.

        Returns:
            Maps of 0 to 255; empty where an image has no region.
        """
        nowhere = torch.zeros(CELLS, CELLS, dtype=torch.uint8)
        return torch.stack([self.regions[row].get(finding, nowhere) for finding in findings])

    def inside(
        self, row: int, preprocessing: Preprocessing, *, lungs_alone: bool
    ) -> Bool[torch.Tensor, "size size"] | None:
        """Say where the thorax of one image lies, or its lungs alone.

        Args:
            row: Number of the image.
            preprocessing: What brought it to its size.
            lungs_alone: Without the mediastinum.

        Returns:
            Where; None where the lungs are not found.
        """
        if row not in self._lungs:
            display = self.pixels[row].numpy().astype(np.float32) / 255
            shape = self.shapes[row] if self.shapes else (len(display), len(display))
            regions = regions_in_input(display, shape, preprocessing)
            # A bit a pixel: these are kept of all images.
            self._lungs[row] = (
                None if regions is None else np.packbits([regions < one for one in _INSIDE])
            )
        if (packed := self._lungs[row]) is None:
            return None
        side = self.pixels.shape[-1]
        bits = np.unpackbits(packed, count=len(_INSIDE) * side * side)
        return torch.from_numpy(bits.reshape(-1, side, side)[int(lungs_alone)].astype(bool))

    def scores(self, model: Model, findings: Sequence[str]) -> Float[np.ndarray, "images findings"]:
        """Score all images.

        Args:
            model: A model of the size that the images were prepared for.
            findings: Keys.

        Returns:
            Uncalibrated log-odds.
        """
        return self.apply(
            lambda pixel_values: model.log_odds(pixel_values, findings), model.card.preprocessing
        )

    def apply(
        self,
        forward: Callable[[torch.Tensor], torch.Tensor],
        preprocessing: Preprocessing,
        shown: Callable[[torch.Tensor], torch.Tensor] = lambda display: display,
    ) -> Float[np.ndarray, "images outputs"]:
        """Run a network over all images.

        Args:
            forward: From `pixel_values` to a row an image.
            preprocessing: For the normalization.
            shown: Changes display values, 0 to 1, before that.

        Returns:
            The rows, in the images' order.
        """
        with torch.inference_mode():
            chunks = [
                forward(preprocessing.pixel_values(shown(chunk.float() / 255))).cpu()
                for chunk in torch.split(self.pixels, self.at_once)
            ]
        values: np.ndarray = torch.cat(chunks).double().numpy()
        return values


def years_of(attributes: Mapping[str, str]) -> float | None:
    """Read a patient's age.

    Args:
        attributes: Columns of the data set's table.

    Returns:
        Years; None where there is no number.

    Example:
        >>> years_of({"age_years": "12"})
        12.0
    """
    return years_of_attribute(attributes.get("age_years", ""))


def phantom_labels(lesions: Sequence[Lesion]) -> dict[str, int]:
    """Say which questions a phantom of these lesions answers.

    Its opacity is an airspace opacity, so that it also stands for pneumonia. A nodule or an
    effusion is dense too: whether that counts as a lung opacity is left unknown.

    Args:
        lesions: What is put in.

    Returns:
        1 or 0 a finding's key.
    """
    labels = shown_findings(lesions)
    labels["pneumonia"] = labels["lung_opacity"]
    if not labels["lung_opacity"] and (labels["nodule"] or labels["effusion"]):
        del labels["lung_opacity"]
    return labels


def _boxed(record: ImageRecord, square: Box) -> dict[str, Cells]:
    """Give the share of each cell of the model's square that boxes cover: a box may be small."""
    left, top, width, height = square
    marked = {}
    for finding, boxes in record.boxes.items():
        if record.labels.get(finding) != 1:
            continue
        covered = torch.zeros(CELLS, CELLS)
        for x, y, box_width, box_height in boxes:
            down = _covered((y - top) / height, box_height / height)
            across = _covered((x - left) / width, box_width / width)
            covered = covered.maximum(down[:, None] * across)
        if covered.any():  # else it lies where the model does not look
            marked[finding] = (covered * 255).round().to(torch.uint8)
    return marked


def _covered(start: float, extent: float) -> Float[torch.Tensor, " cells"]:
    """Give the share of each cell that a stretch covers, in units of the square's side."""
    edges = torch.arange(CELLS + 1)
    low, high = start * CELLS, (start + extent) * CELLS
    return (edges[1:].clamp(max=high) - edges[:-1].clamp(min=low)).clamp(min=0)


def _masked(phantom: Phantom) -> dict[str, Cells]:
    regions = {key: _shrunk(mask) for key, mask in phantom.masks.items()}
    if "lung_opacity" in regions:
        regions["pneumonia"] = regions["lung_opacity"]
    return regions


def _shrunk(mask: np.ndarray) -> Cells:
    covered = F.adaptive_avg_pool2d(torch.from_numpy(mask)[None].float(), CELLS)[0]
    return (covered * 255).round().to(torch.uint8)
