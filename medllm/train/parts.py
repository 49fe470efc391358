"""From a recipe's sources to training, validation and test images, checked before they are used."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from medllm.data import Preprocessing
from medllm.datasets import ImageRecord, read_dataset, split_by_patient, write_split
from medllm.errors import TrainingError
from medllm.phantom.lesions import random_lesions
from medllm.train.image_set import ImageSet, Track, phantom_labels
from medllm.train.questions import with_auxiliary_labels
from medllm.train.recipe import Recipe, Source

Part = Literal["train", "validation", "test"]
PARTS: tuple[Part, ...] = ("train", "validation", "test")
# Seeds of phantoms; far apart, so that no part can grow into another.
_FIRST_SEED = {"train": 1_000_000, "validation": 2_000_000, "test": 3_000_000}


@dataclass(frozen=True, eq=False)
class Division:
    """What goes into which part.

    Attributes:
        records: Records a data set and part.
        seeds: Seeds of phantoms a part.
    """

    records: Mapping[str, Mapping[Part, Sequence[ImageRecord]]]
    seeds: Mapping[Part, Sequence[int]]

    def load(
        self, part: Part, preprocessing: Preprocessing, folder: Path, track: Track = iter
    ) -> dict[str, ImageSet]:
        """Read the images of one part.

        Args:
            part: Its name.
            preprocessing: The model's contract.
            folder: Where prepared images are kept.
            track: Shows progress.

        Returns:
            The images a source; sources without images in this part are left out.

        Raises:
            DicomError: An image cannot be read, or may not be scored.
        """
        sets = {
            name: ImageSet.of_records(name, parts[part], preprocessing, folder, track)
            for name, parts in self.records.items()
            if parts[part]
        }
        if self.seeds.get(part):
            sets["phantom"] = ImageSet.of_phantoms(self.seeds[part], preprocessing, folder, track)
        return {name: with_auxiliary_labels(images) for name, images in sets.items()}

    def content(self) -> str:
        """Hash over files' names, patients, labels, boxes and parts, without opening the files.

        With the content of the images (`ImageSet.content`) it is what decides the training.
        """
        digest = hashlib.sha256()
        for name, parts in sorted(self.records.items()):
            for part, records in parts.items():
                for record in records:
                    known = [record.name, record.patient_id, dict(record.labels)]
                    row = [name, part, *known, dict(record.attributes), dict(record.boxes)]
                    digest.update(json.dumps(row, sort_keys=True).encode())
        digest.update(
            json.dumps({part: list(seeds) for part, seeds in self.seeds.items()}).encode()
        )
        return digest.hexdigest()

    def write(self, path: Path) -> None:
        """Write the division of the data sets as a table that can be shared."""
        write_split(path, (item for parts in self.records.values() for item in parts.items()))


def divide(recipe: Recipe) -> Division:
    """Read a recipe's data sets and divide them by patient.

    Args:
        recipe: The recipe.

    Returns:
        The division.

    Raises:
        LabelError: A data set is missing or not as its reader wants it.
        TrainingError: A file is missing, a patient is in two parts, or a finding has no positive
            or no negative where one is needed.
    """
    records, seeds = {}, {}
    for source in recipe.data:
        if source.dataset == "phantom":
            seeds = {
                part: range(_FIRST_SEED[part], _FIRST_SEED[part] + count)
                for part, count in zip(PARTS, source.count, strict=True)
            }
        else:
            records[source.dataset] = _parts_of(source, recipe.seed)
    division = Division(records, seeds)
    _require_classes(division, recipe)
    return division


def _parts_of(source: Source, seed: int) -> dict[Part, list[ImageRecord]]:
    records = read_dataset(source.dataset, source.root or Path())
    _require_files(source.dataset, records)
    named = {record.split for record in records}
    shares: dict[str, float] = dict(zip(PARTS, source.shares, strict=True))
    if named <= {""}:
        by_name = split_by_patient(records, shares, seed)
        return {part: by_name[part] for part in PARTS}
    if wrong := sorted(named - set(PARTS)):
        raise TrainingError(
            f"{source.dataset}: the part of an image is '{wrong[0]}'; wanted are "
            f"{', '.join(PARTS)}. Correct the column 'split', or take it out."
        )
    parts: dict[Part, list[ImageRecord]] = {
        part: [record for record in records if record.split == part] for part in PARTS
    }
    if not parts["validation"] and shares["validation"]:
        # Many official splits have a training and a test part alone.
        kept = shares["train"] + shares["validation"]
        within = {"train": shares["train"] / kept, "validation": shares["validation"] / kept}
        by_name = split_by_patient(parts["train"], within, seed)
        parts |= {"train": by_name["train"], "validation": by_name["validation"]}
    _require_apart(source.dataset, parts)
    return parts


def _require_apart(dataset: str, parts: Mapping[Part, Sequence[ImageRecord]]) -> None:
    patients = {part: {record.patient_id for record in parts[part]} for part in PARTS}
    for index, part in enumerate(PARTS):
        for other in PARTS[index + 1 :]:
            if shared := patients[part] & patients[other]:
                raise TrainingError(
                    f"{dataset}: {len(shared)} patient(s) are both in {part} and in {other}; keep "
                    "each patient in one part, or take the column 'split' out."
                )


def _require_files(dataset: str, records: Sequence[ImageRecord]) -> None:
    if missing := [record.path for record in records if not record.path.is_file()]:
        raise TrainingError(
            f"{dataset}: {len(missing)} of {len(records)} image files are missing, first "
            f"{missing[0].name}; complete the copy, or take their rows out of the table."
        )


def _require_classes(division: Division, recipe: Recipe) -> None:
    """Refuse a finding that cannot be learned, or shipped without being calibrated."""
    model = recipe.model
    wanted: tuple[tuple[Part, Sequence[str]], ...] = (
        ("train", model.findings),
        ("validation", model.shipped),
    )
    whose, setting = ("patients", "shares") if division.records else ("phantoms", "count")
    for part, findings in wanted:
        rows = list(_labels(division, part))
        for finding in findings:
            if lacking := {0, 1} - {row[finding] for row in rows if finding in row}:
                lacks = "no label" if len(lacking) > 1 else f"no label {lacking.pop()}"
                raise TrainingError(
                    f"{finding} has {lacks} among the {part} {whose}; take it out of "
                    f"model.findings, or give it more {whose} (data, {setting})."
                )


def _labels(division: Division, part: Part) -> Iterator[Mapping[str, float]]:
    for parts in division.records.values():
        yield from (record.labels for record in parts[part])
    # Where there are patients, it is they that a model is calibrated on, and not phantoms.
    if part == "train" or not division.records:
        yield from (phantom_labels(random_lesions(seed)) for seed in division.seeds.get(part, ()))
