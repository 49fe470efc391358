"""From a recipe's sources to training, validation and test images, checked before they are used."""

from __future__ import annotations

import hashlib
import itertools
import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from medllm.data import Preprocessing
from medllm.datasets import (
    ImageRecord,
    patient_name,
    read_dataset,
    split_by_patient,
    write_split,
)
from medllm.errors import TrainingError
from medllm.phantom.lesions import random_lesions
from medllm.train.image_set import ImageSet, Track, phantom_labels
from medllm.train.measured_sets import FEWEST
from medllm.train.questions import with_auxiliary_labels
from medllm.train.recipe import Recipe, Source

Part = Literal["train", "validation", "test"]
PARTS: tuple[Part, ...] = ("train", "validation", "test")
# Seeds of phantoms; far apart, so that no part can grow into another.
_FIRST_SEED = {"train": 1_000_000, "validation": 2_000_000, "test": 3_000_000}

# Values of an attribute that a message lists.
_NAMED = 8

_Parts = dict[Part, list[ImageRecord]]


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

    A data set without a split of its own has its patients in the parts that another data set of
    the recipe has them in, as RSNA's are NIH's; the others follow from the seed.

    Args:
        recipe: The recipe.

    Returns:
        The division.

    Raises:
        LabelError: A data set is missing or not as its reader wants it.
        TrainingError: A file is missing, a patient is in two parts, or a finding has no positive
            or no negative where one is needed.
    """
    sources, seeds = [], {}
    for source in recipe.data:
        if source.dataset == "phantom":
            seeds = {
                part: range(_FIRST_SEED[part], _FIRST_SEED[part] + count)
                for part, count in zip(PARTS, source.count, strict=True)
            }
        else:
            sources.append(source)
    division = Division(_divided(sources, recipe.seed), seeds)
    _require_apart(division)
    _require_classes(division, recipe)
    _require_measured(division, recipe)
    return division


def _divided(sources: Sequence[Source], seed: int) -> dict[str, _Parts]:
    """Divide the data sets, those with a split of their own first: the others follow them."""
    read = {source.dataset: _records_of(source) for source in sources}
    divided: dict[str, _Parts] = {}
    known: dict[str, str] = {}
    for source in sorted(sources, key=lambda source: not _has_split(read[source.dataset])):
        records = read[source.dataset]
        shares: dict[str, float] = dict(zip(PARTS, source.shares, strict=True))
        if _has_split(records):
            parts = _official_parts(source.dataset, records, shares, seed)
        else:
            by_name = split_by_patient(records, shares, seed, known=known)
            parts = {part: by_name[part] for part in PARTS}
        divided[source.dataset] = parts
        known |= {_patient(record): part for part in PARTS for record in parts[part]}
    return {source.dataset: divided[source.dataset] for source in sources}


def _records_of(source: Source) -> list[ImageRecord]:
    records = read_dataset(source.dataset, source.root or Path())
    _require_files(source.dataset, records)
    return records


def _has_split(records: Sequence[ImageRecord]) -> bool:
    return any(record.split for record in records)


def _patient(record: ImageRecord) -> str:
    return patient_name(record.dataset, record.patient_id)


def _official_parts(
    dataset: str, records: Sequence[ImageRecord], shares: Mapping[str, float], seed: int
) -> _Parts:
    if wrong := sorted({record.split for record in records} - set(PARTS)):
        raise TrainingError(
            f"{dataset}: the part of an image is '{wrong[0]}'; wanted are "
            f"{', '.join(PARTS)}. Correct the column 'split', or take it out."
        )
    parts: _Parts = {part: [record for record in records if record.split == part] for part in PARTS}
    if not parts["validation"] and shares["validation"]:
        # Many official splits have a training and a test part alone.
        kept = shares["train"] + shares["validation"]
        within = {"train": shares["train"] / kept, "validation": shares["validation"] / kept}
        by_name = split_by_patient(parts["train"], within, seed)
        parts |= {"train": by_name["train"], "validation": by_name["validation"]}
    return parts


def _require_apart(division: Division) -> None:
    """Refuse a patient in two parts, of one data set or of two with the same pseudonyms."""
    owners = {
        part: {
            _patient(record): name for name, of in division.records.items() for record in of[part]
        }
        for part in PARTS
    }
    for part, other in itertools.combinations(PARTS, 2):
        if shared := owners[part].keys() & owners[other].keys():
            whose = {owners[at][patient] for at in (part, other) for patient in shared}
            raise TrainingError(
                f"{' and '.join(sorted(whose))}: {len(shared)} patient(s) are both in {part} and "
                f"in {other}; keep each patient in one part, or take the column 'split' (or the "
                "official lists of parts) out."
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
    wanted: tuple[tuple[Part, Sequence[str], int], ...] = (
        ("train", model.findings, 1),
        ("validation", model.shipped, FEWEST),
    )
    whose, setting = ("patients", "shares") if division.records else ("phantoms", "count")
    for part, findings, fewest in wanted:
        rows = list(_labels(division, part))
        for finding in findings:
            counts = {label: sum(row.get(finding) == label for row in rows) for label in (1, 0)}
            if lacking := [label for label, count in counts.items() if count < fewest]:
                lacks = _told_lack(lacking, counts, fewest)
                raise TrainingError(
                    f"{finding} has {lacks} among the {part} {whose}; take it out of "
                    f"model.findings, or give it more {whose} (data, {setting})."
                )


def _require_measured(division: Division, recipe: Recipe) -> None:
    """Refuse figures of images that are not there, of which nothing would be said in the end."""
    for measured in recipe.measure:
        parts = division.records.get(measured.dataset, {})
        known = [record.attributes for records in parts.values() for record in records]
        if not known:  # phantoms, which no table describes
            continue
        for name, wanted in measured.where.items():
            has = sorted({attributes[name] for attributes in known if name in attributes})
            if not has:
                columns = sorted({column for attributes in known for column in attributes})
                raise TrainingError(
                    f"measure '{measured.name}': no image of {measured.dataset} has '{name}'; "
                    f"where may name {', '.join(columns) or 'nothing there'}."
                )
            if lacking := [value for value in wanted if value not in has]:
                more = ", ..." * (len(has) > _NAMED)
                raise TrainingError(
                    f"measure '{measured.name}': {name} of no image of {measured.dataset} is "
                    f"'{lacking[0]}'; it is {', '.join(map(repr, has[:_NAMED]))}{more}."
                )


def _told_lack(lacking: Sequence[int], counts: Mapping[int, int], fewest: int) -> str:
    if not any(counts.values()):
        return "no label"
    label = min(lacking, key=lambda label: counts[label])
    if not counts[label]:
        return f"no label {label}"
    return f"{counts[label]} image(s) with label {label}, and {fewest} are the fewest,"


def _labels(division: Division, part: Part) -> Iterator[Mapping[str, float]]:
    for parts in division.records.values():
        yield from (record.labels for record in parts[part])
    # Where there are patients, it is they that a model is calibrated on, and not phantoms.
    if part == "train" or not division.records:
        yield from (phantom_labels(random_lesions(seed)) for seed in division.seeds.get(part, ()))
