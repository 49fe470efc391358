"""Leakage: patients and images that data sets, or the parts of one, have in common."""

from __future__ import annotations

import itertools
from collections import Counter, defaultdict
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

from medllm.datasets.each_image import Progress, each_image
from medllm.datasets.lookalikes import Item, alike, look, readable
from medllm.datasets.registry import find_dataset
from medllm.errors import LabelError

Kind = Literal["patients", "identical", "alike", "names"]
Relation = Literal["sets", "parts", "patients"]

_EXAMPLES = 3


@dataclass(frozen=True)
class AuditedSet:
    """A copy that was compared.

    Attributes:
        name: Name of the data set, with its folder where the name was given twice.
        images: Images that its tables name.
        compared: Images that were read.
        missing: Images whose file is not there; their patients and names were compared.
        unreadable: Images that cannot be read, by the gate's code; likewise.
        pseudonyms: Whose pseudonyms its patients go by: the data set's own, or another's. Only
            patients of sets that agree in it are compared. Blank where its tables do not tell
            patients apart, so that no comparison is possible.
    """

    name: str
    images: int
    compared: int
    missing: int
    unreadable: Mapping[str, int]
    pseudonyms: str


@dataclass(frozen=True)
class Shared:
    """What two places, each a data set or a part of one, have in common.

    Attributes:
        kind: `patients`; images that are `identical` to the byte; images that look `alike`, with
            other bytes; or files of equal `names`, endings aside, which is a hint only.
        relation: Between `sets`; between official `parts` of one; or between `patients` of one
            part, which a split by patient would tear apart.
        first: Name of the set, with `/PART` where there is one.
        second: Likewise; the same as `first` for `patients`.
        n_first: Patients or images of `first` that have their like in `second`.
        n_second: The same the other way round.
        examples: File names of the first few pairs.
        paths: The same pairs by their paths in the copies, which may hold a patient's pseudonym.
    """

    kind: Kind
    relation: Relation
    first: str
    second: str
    n_first: int
    n_second: int
    examples: tuple[tuple[str, str], ...]
    paths: tuple[tuple[str, str], ...]

    @property
    def leaks(self) -> bool:
        """Whether a test on the one after training on the other would be no test."""
        return self.kind != "names" and self.relation != "patients"


@dataclass(frozen=True)
class Leakage:
    """The audit of some data sets.

    Attributes:
        sets: What was compared.
        descent: What is known of which set was made of which, in sentences, whether or not
            something was found.
        shared: What was found.
    """

    sets: tuple[AuditedSet, ...]
    descent: tuple[str, ...]
    shared: tuple[Shared, ...]


@dataclass
class _Tally:
    """Members in common, by kind, relation and both places."""

    found: dict[tuple[Kind, Relation, str, str], tuple[set[object], set[object], list[int]]] = (
        field(default_factory=dict)
    )

    def add(self, kind: Kind, items: Sequence[Item], group: Sequence[int]) -> None:
        """Count a group of images that have something in common."""
        by_place: defaultdict[str, list[int]] = defaultdict(list)
        for index in group:
            by_place[items[index].place].append(index)
        places = sorted(by_place, key=lambda place: (items[by_place[place][0]].set, place))
        for first, second in itertools.combinations_with_replacement(places, 2):
            ours, theirs = by_place[first], by_place[second]
            relation = _relation(items, ours, theirs)
            if relation is None:
                continue
            if relation == "patients" and kind in ("patients", "names"):
                continue
            pair = self.found.setdefault((kind, relation, first, second), (set(), set(), []))
            for side, members in zip(pair[:2], (ours, theirs), strict=True):
                side.update(items[i].patient if kind == "patients" else i for i in members)
            if len(pair[2]) < 2 * _EXAMPLES:
                pair[2].extend((ours[0], theirs[-1]))


def find_leakage(
    sets: Sequence[tuple[str, Path | str]],
    *,
    workers: int = 1,
    progress: Progress | None = None,
) -> Leakage:
    """Look for what data sets, and the official parts of each, have in common.

    Patients are compared between the parts of a set, and between sets whose pseudonyms are known
    to be the same. Images are compared by their bytes, and by what they show: a 64-bit hash of
    the low frequencies finds candidates, and a correlation after alignment decides on each. It
    finds copies that were written again, scaled, given another grey scale (a DICOM file and its
    PNG), inverted, or cropped by up to 4%.

    The hashes of all pairs are compared, in blocks of NumPy. Bands of equal bits or a tree would
    save little: a distance of 12 asks for 13 bands of 5 bits, and chests agree in many bits. At
    100,000 images the distances take half a minute of a CPU, and the alignment of one pair in a
    thousand, as of adults, a quarter of an hour: less than reading the files.

    Args:
        sets: Name and folder of each copy.
        workers: Processes that read at the same time.
        progress: Told after each image.

    Returns:
        What was found.

    Raises:
        LabelError: No data set has this name, its labels cannot be read, or the same copy is
            given twice.

    Source:
        Zauner, Implementation and benchmarking of perceptual image hash functions, 2010, for the
        hash; Lucas and Kanade, IJCAI 1981, for the alignment.
    """
    places = [(name, Path(root).resolve()) for name, root in sets]
    if twice := [
        name for index, (name, root) in enumerate(places) if (name, root) in places[:index]
    ]:
        raise LabelError(
            f"'{twice[0]}' is given twice with the same folder; give each copy once.",
            code="same-copy",
        )
    items, audited = _collect(sets, workers, progress)
    tally = _Tally()
    known = {number for number, one in enumerate(audited) if one.pseudonyms}
    for group in _groups((item.patient, i) for i, item in enumerate(items) if item.set in known):
        tally.add("patients", items, group)
    for group in _name_groups(items):
        tally.add("names", items, group)
    for group in _groups((s.sha256, i) for i, s in readable(items)):
        tally.add("identical", items, group)
    for pair in alike(items, progress):
        tally.add("alike", items, pair)
    return Leakage(
        sets=tuple(audited),
        descent=tuple(_descent(sorted({name for name, _ in sets}))),
        shared=tuple(
            Shared(
                *place,
                len(ours),
                len(theirs),
                examples=_pairs([items[index].record.name for index in shown]),
                paths=_pairs([items[i].record.place(Path(sets[items[i].set][1])) for i in shown]),
            )
            for place, (ours, theirs, shown) in tally.found.items()
        ),
    )


def _collect(
    sets: Sequence[tuple[str, Path | str]], workers: int, progress: Progress | None
) -> tuple[list[Item], list[AuditedSet]]:
    """Read all images of all sets."""
    copies = []
    names = Counter(name for name, _ in sets)
    for name, root in sets:
        dataset = find_dataset(name)
        records = dataset.read(Path(root))
        known = "patients-unknown" not in dataset.caveats(Path(root))
        label = f"{name}:{root}" if names[name] > 1 else name
        # A table of one's own has pseudonyms of its own, and so has another such table.
        copies.append((label, label if name == "csv" else dataset.patients_of, records, known))
    present = [r for _, _, records, _ in copies for r in records if r.path.is_file()]
    seen = iter(list(each_image(look, present, workers=workers, progress=progress)))
    there = set(map(id, present))
    items: list[Item] = []
    audited: list[AuditedSet] = []
    for label, owner, records, known in copies:
        found = [
            Item(
                record,
                len(audited),
                f"{label}/{record.split}" if record.split else label,
                (owner, record.patient_id),
                next(seen) if id(record) in there else None,
            )
            for record in records
        ]
        looks = [item.seen for item in found if item.seen]
        errors = Counter(one.error for one in looks if one.error)
        audited.append(
            AuditedSet(
                name=label,
                images=len(found),
                compared=len(looks) - errors.total(),
                missing=len(found) - len(looks),
                unreadable=dict(errors),
                pseudonyms=owner if known else "",
            )
        )
        items += found
    return items, audited


def _groups(keyed: Iterator[tuple[object, int]]) -> Iterator[list[int]]:
    """Group images by their key; an image alone is no group."""
    groups: defaultdict[object, list[int]] = defaultdict(list)
    for key, index in keyed:
        groups[key].append(index)
    return (group for group in groups.values() if len(group) > 1)


def _name_groups(items: Sequence[Item]) -> Iterator[list[int]]:
    """Group images by name, endings aside; a name that comes twice in one place names nothing."""
    named = [(item.place, item.record.path.stem.casefold()) for item in items]
    times = Counter(named)
    return _groups(
        (named[i][1], i)
        for i, item in enumerate(items)
        if times[named[i]] == 1 and not item.record.member
    )


def _relation(items: Sequence[Item], ours: Sequence[int], theirs: Sequence[int]) -> Relation | None:
    """Say how two places' images of one group stand to each other; None where it is no matter."""
    one, other = items[ours[0]], items[theirs[0]]
    if one.set != other.set:
        return "sets"
    if one.place != other.place and one.record.split and other.record.split:
        return "parts"
    patients = {items[index].patient for index in (*ours, *theirs)}
    return "patients" if len(patients) > 1 else None


def _pairs(names: Sequence[str]) -> tuple[tuple[str, str], ...]:
    return tuple(zip(names[::2], names[1::2], strict=True))


def _descent(names: Collection[str]) -> Iterator[str]:
    """Say which set was made of which, and which were made of the same."""
    for first, second in itertools.combinations(names, 2):
        ours, theirs = find_dataset(first).descends, find_dataset(second).descends
        if second in ours:
            yield f"{first} was made of {second}: {ours[second]}"
        if first in theirs:
            yield f"{second} was made of {first}: {theirs[first]}"
        for common in sorted(ours.keys() & theirs.keys()):
            yield f"{first} and {second} were both made of {common}"
