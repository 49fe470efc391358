"""All training images of a recipe with their labels, weights and regions, batch by batch."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import torch
from jaxtyping import Bool, Float, Int64, UInt8

from medllm.data import Preprocessing
from medllm.train.augmentation import (
    ALL,
    LUNGS,
    NOTHING,
    Changes,
    change,
    covered,
    draw_changes,
    flatten,
    hide,
    move,
    put_into,
    uncut,
)
from medllm.train.image_set import CELLS, ImageSet
from medllm.train.questions import lies_in_lungs
from medllm.train.recipe import Strength

# Labels rarer than this, or their opposite, weigh no more than at this share.
_RAREST = 0.05


@dataclass(frozen=True, eq=False)
class LabelledImages:
    """All training images with labels a question.

    Attributes:
        sets: The images by source.
        source: Number of the set of each image.
        row: Number of each image in its set.
        labels: 1 or 0; NaN where unknown.
        weights: Weight of each label in the loss; the mean of their sum an image is 1.
        findings: Keys of the findings whose place is learned.
        regions_known: Whether it is known where each lies.
        questions: Keys of all questions, the columns of the labels.
    """

    sets: Sequence[ImageSet]
    source: Int64[torch.Tensor, " images"]
    row: Int64[torch.Tensor, " images"]
    labels: Float[torch.Tensor, "images questions"]
    weights: Float[torch.Tensor, "images questions"]
    findings: Sequence[str]
    regions_known: Bool[torch.Tensor, "images findings"]
    questions: Sequence[str]

    @classmethod
    def join(
        cls,
        sets: Sequence[tuple[ImageSet, int, float]],
        questions: Sequence[str],
        findings: Sequence[str],
        emphasis: Sequence[float],
    ) -> LabelledImages:
        """Put the sources together.

        Args:
            sets: Images, how often each is shown an epoch, and the weight of the source.
            questions: Keys of all questions, the columns of the labels.
            findings: Keys of the findings whose place is learned.
            emphasis: Weight of each question.

        Returns:
            The images. In each source the positives and the negatives of a question weigh the
            same.
        """
        parts: list[tuple[torch.Tensor, ...]] = []
        for number, (images, repeats, weight) in enumerate(sets):
            truth = images.truth(questions)
            rows = torch.arange(len(images))
            weights = _even_weights(truth) * torch.tensor(emphasis) * weight
            known = images.places_known(findings)
            part = (torch.full_like(rows, number), rows, truth, weights, known)
            parts += [part] * repeats
        source, row, labels, weights, regions_known = (
            torch.cat(columns) for columns in zip(*parts, strict=True)
        )
        weights = weights / weights.sum(dim=1).mean()
        return cls(
            [images for images, _, _ in sets],
            source,
            row,
            labels,
            weights,
            findings,
            regions_known,
            questions,
        )

    @property
    def known_places(self) -> float:
        """Findings of an image whose place is known, in the mean."""
        return float(self.regions_known.float().sum(dim=1).mean().clamp_min(1e-6))

    def pixels(self, chosen: Int64[torch.Tensor, " batch"]) -> UInt8[torch.Tensor, "batch s s"]:
        """Take the images of a batch from their sources."""
        return torch.stack([images.pixels[row] for images, row in self._rows(chosen)])

    def regions(
        self, chosen: Int64[torch.Tensor, " batch"]
    ) -> UInt8[torch.Tensor, "batch findings cells cells"]:
        """Draw where the findings of a batch lie, 0 to 255, over a grid of cells.

        Of all images at once that would be some gigabytes, most of them of nothing.
        """
        return torch.stack([images.place(row, self.findings) for images, row in self._rows(chosen)])

    def _rows(self, chosen: Int64[torch.Tensor, " batch"]) -> Iterator[tuple[ImageSet, int]]:
        pairs = zip(self.source[chosen].tolist(), self.row[chosen].tolist(), strict=True)
        return ((self.sets[source], row) for source, row in pairs)

    def batch(
        self,
        chosen: Int64[torch.Tensor, " batch"],
        generator: torch.Generator,
        strength: Strength,
        preprocessing: Preprocessing,
        share: slice,
        device: torch.device,
    ) -> dict[str, torch.Tensor]:
        """Draw changed images with their labels, weights and moved regions."""
        drawn = draw_changes(len(chosen), generator, strength)
        mine, changes = chosen[share], drawn.take(share, device)
        here = drawn.take(share, torch.device("cpu"))
        pixels, is_mixed = self._surrounded(mine, here, preprocessing)
        is_unseen = here.unseen != NOTHING
        unseen = covered(self._unseen(mine, here, preprocessing).to(device), changes)
        is_flat = changes.is_flat[:, None, None]
        display = flatten(change(pixels.to(device), changes)[:, 0], unseen & is_flat)
        shown = hide(preprocessing.pixel_values(display), changes.hidden)
        regions = move(self.regions(mine).to(device), changes.poses, padding_mode="zeros")
        regions = regions * uncut(CELLS, changes.edges)  # nothing lies where all is black
        return {
            "pixel_values": hide(shown, unseen & ~is_flat),
            "labels": _at_even_odds(self.labels[mine], is_unseen).to(device),
            "weights": (self.weights[mine] * _asked(self.questions, is_mixed | is_unseen)).to(
                device
            ),
            "regions": regions,
            "regions_known": (
                self.regions_known[mine] & _asked(self.findings, is_mixed) & ~is_unseen[:, None]
            ).to(device),
            "hidden": changes.hidden.float(),
        }

    def _surrounded(
        self, chosen: Int64[torch.Tensor, " batch"], changes: Changes, preprocessing: Preprocessing
    ) -> tuple[UInt8[torch.Tensor, "batch s s"], Bool[torch.Tensor, " batch"]]:
        """Take the images of a batch, some with another's surroundings; and say which."""
        pixels, is_mixed = self.pixels(chosen), changes.partners >= 0
        for at, (images, row) in enumerate(self._rows(chosen)):
            if not is_mixed[at]:
                continue
            inside = images.inside(row, preprocessing, lungs_alone=bool(changes.lungs_alone[at]))
            if inside is None:
                is_mixed[at] = False
                continue
            partner = min(int(changes.partners[at] * len(images)), len(images) - 1)
            pixels[at] = put_into(images.pixels[partner], pixels[at], inside)
        return pixels, is_mixed

    def _unseen(
        self, chosen: Int64[torch.Tensor, " batch"], changes: Changes, preprocessing: Preprocessing
    ) -> Bool[torch.Tensor, "batch s s"]:
        """Say what is hidden of the images of a batch; all where their lungs are not found."""
        side = self.sets[0].pixels.shape[-1]
        hidden = torch.zeros(len(chosen), side, side, dtype=torch.bool)
        for at, (images, row) in enumerate(self._rows(chosen)):
            part = int(changes.unseen[at])
            if part == NOTHING:
                continue
            inside = None
            if part != ALL:
                inside = images.inside(row, preprocessing, lungs_alone=part == LUNGS)
            hidden[at] = True if inside is None else inside
        return hidden


def _at_even_odds(
    labels: Float[torch.Tensor, "batch questions"], chosen: Bool[torch.Tensor, " batch"]
) -> Float[torch.Tensor, "batch questions"]:
    """Take back the known answers of some images."""
    return torch.where(chosen[:, None] & ~labels.isnan(), 0.5, labels)


def _asked(
    questions: Sequence[str], is_mixed: Bool[torch.Tensor, " batch"]
) -> Bool[torch.Tensor, "batch questions"]:
    """Say what is asked of each image: of two patients, or unseen, only what the lungs show."""
    of_lungs = torch.tensor([lies_in_lungs(key) for key in questions], dtype=torch.bool)
    return ~is_mixed[:, None] | of_lungs


def _even_weights(
    labels: Float[torch.Tensor, "images questions"],
) -> Float[torch.Tensor, "images questions"]:
    prevalence = labels.nanmean(dim=0).clamp(_RAREST, 1 - _RAREST).nan_to_num(0.5)
    weights = torch.where(labels == 1, 0.5 / prevalence, 0.5 / (1 - prevalence))
    return weights * ~labels.isnan()
