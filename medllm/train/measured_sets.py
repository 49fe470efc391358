"""What a finding is measured on: sets of images whose label is known, and their subgroups."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from jaxtyping import Int

from medllm.train.image_set import ADULT_YEARS, ImageSet, years_of
from medllm.train.recipe import MeasuredSet

# Fewer cases of a class give no figure worth printing.
FEWEST = 5
_OLD_YEARS = 60.0


@dataclass(frozen=True, eq=False)
class Chosen:
    """Images that one finding is measured on.

    Attributes:
        name: What they are, in words.
        source: Source they are of.
        rows: Numbers of the images in their source.
        labels: 1 or 0 of each.
        patients: Patient of each.
        subgroup: Which part of what was wanted, such as `women`; empty for the whole.
    """

    name: str
    source: str
    rows: Int[np.ndarray, " chosen"]
    labels: Int[np.ndarray, " chosen"]
    patients: Sequence[str]
    subgroup: str = ""

    @property
    def measurable(self) -> bool:
        """Whether there are enough cases of both classes."""
        return bool(min(self.labels.sum(), (1 - self.labels).sum()) >= FEWEST)


def patients_of(sets: Mapping[str, ImageSet]) -> Mapping[str, ImageSet]:
    """Leave phantoms out where there are patients.

    Args:
        sets: Images by source.

    Returns:
        Those of patients; phantoms where there are no others.
    """
    return {name: images for name, images in sets.items() if name != "phantom"} or sets


def choose(images: ImageSet, finding: str, name: str, where: Mapping[str, Sequence[str]]) -> Chosen:
    """Choose the images of a source whose label is known.

    Args:
        images: The source.
        finding: Key of the finding.
        name: What they are, in words.
        where: Values an attribute may have, by attribute.

    Returns:
        The chosen.
    """
    rows = np.array(
        [
            row
            for row, (labels, attributes) in enumerate(
                zip(images.labels, images.attributes, strict=True)
            )
            if labels.get(finding) in (0, 1)
            and all(attributes.get(key) in allowed for key, allowed in where.items())
        ],
        dtype=np.int64,
    )
    return Chosen(
        name,
        images.source,
        rows,
        np.array([images.labels[row][finding] for row in rows], dtype=np.int64),
        [images.patients[row] for row in rows],
    )


def measured_sets(
    sets: Mapping[str, ImageSet], wanted: Sequence[MeasuredSet], finding: str
) -> list[Chosen]:
    """Choose what a finding is measured on, subgroups of age, sex and view included.

    Args:
        sets: Images by source.
        wanted: What the recipe names; each source whole when it names none.
        finding: Key of the finding.

    Returns:
        The sets that have enough cases of both classes.
    """
    named = list(wanted) or [
        MeasuredSet(name=name, dataset=name) for name in sets if name != "phantom"
    ]
    if all(entry.dataset != "phantom" for entry in named):
        named.append(MeasuredSet(name="phantoms of unseen seeds", dataset="phantom"))
    chosen = []
    for entry in named:
        if entry.dataset not in sets:
            continue
        images = sets[entry.dataset]
        whole = choose(images, finding, entry.name, entry.where)
        chosen.append(whole)
        if entry.dataset != "phantom":
            chosen += _subgroups(whole, images)
    return [one for one in chosen if one.measurable]


def _subgroups(whole: Chosen, images: ImageSet) -> list[Chosen]:
    groups = [_groups_of(images.attributes[row]) for row in whole.rows]
    names = sorted({name for group in groups for name in group})
    parts = []
    for name in names:
        inside = np.array([name in group for group in groups])
        if inside.all():
            continue
        parts.append(
            Chosen(
                whole.name,
                whole.source,
                whole.rows[inside],
                whole.labels[inside],
                [patient for patient, is_in in zip(whole.patients, inside, strict=True) if is_in],
                name,
            )
        )
    return parts


def _groups_of(attributes: Mapping[str, str]) -> set[str]:
    groups = set()
    if attributes.get("sex") in ("F", "M"):
        groups.add({"F": "women", "M": "men"}[attributes["sex"]])
    if attributes.get("view_position") in ("AP", "PA"):
        groups.add(f"view {attributes['view_position']}")
    if (years := years_of(attributes)) is not None:
        groups.add(_age_group(years))
    return groups


def _age_group(years: float) -> str:
    if years < ADULT_YEARS:
        return "under 18"
    return "18 to 59" if years < _OLD_YEARS else "60 and older"
