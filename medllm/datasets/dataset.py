"""What medllm knows of a data set beside its images."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path

from medllm.datasets.policy import LabelPolicy
from medllm.datasets.record import ImageRecord
from medllm.errors import LabelError

Reader = Callable[[Path, LabelPolicy], list[ImageRecord]]


@dataclass(frozen=True)
class Published:
    """Counts that a data set, or one layout of it, was published with.

    Attributes:
        images: Images, all views.
        patients: Patients; None where the set does not tell them apart.
        positive: Images with the finding, a key, by the default policy.
    """

    images: int
    patients: int | None = None
    positive: Mapping[str, int] = field(default_factory=dict)


@dataclass(frozen=True)
class DataSet:
    """A public data set, or a folder's own layout.

    Attributes:
        name: What commands and recipes call it.
        title: What it calls itself.
        terms: Under what terms it may be used, in a line.
        citation: What to cite, in a line.
        reader: From the folder of a copy, and the label policy, to a record an image, all views,
            in the table's order. Files are not opened; they may be missing from a partial copy.
            It raises `LabelError` where a table or a column is missing or a label is none.
            `read` calls it.
        policy: The default label policy; a choice that the set does not leave is None.
        published: Counts of all of it; None where none can be compared.
        counts: From the folder of a copy to the counts of its layout, where the set was published
            in several; None where `published` holds for each copy.
        descends: Data sets whose images it has, with what is known of it.
        pseudonyms: Name of the data set whose pseudonyms its patients go by; blank for its own.
            Ids of any two other sets are never compared: patient 17 of one hospital is not
            patient 17 of the next.
        caveats: From the folder of a copy to what its figures must be read with, a sentence a
            code. `patients-unknown` says that each image counts as a patient of its own, so that
            parts may share patients and intervals are too narrow; `patients-in-parts`, that
            parts do share patients.
    """

    name: str
    title: str
    terms: str
    citation: str
    reader: Reader
    policy: LabelPolicy = field(default_factory=LabelPolicy)
    published: Published | None = None
    counts: Callable[[Path], Published] | None = None
    descends: Mapping[str, str] = field(default_factory=dict)
    pseudonyms: str = ""
    caveats: Callable[[Path], Mapping[str, str]] = lambda root: {}

    @property
    def patients_of(self) -> str:
        """Name of the data set whose pseudonyms its patients go by, its own included."""
        return self.pseudonyms or self.name

    def read(self, root: str | Path, policy: LabelPolicy | None = None) -> list[ImageRecord]:
        """Read a copy.

        Args:
            root: Folder of the copy.
            policy: Label policy; the data set's own when None.

        Returns:
            A record an image, in the table's order.

        Raises:
            LabelError: The copy is not as the reader wants it, or an image is in it twice.
        """
        records = self.reader(Path(root), policy or self.policy)
        numbers: dict[tuple[Path, str], int] = {}
        for number, record in enumerate(records, 1):
            first = numbers.setdefault((record.path, record.member), number)
            if first != number:
                raise LabelError(
                    f"{self.name}: images {first} and {number} in {root}, in the order of its "
                    "tables, are one and the same; leave one row, with the image's labels."
                )
        return records

    def published_in(self, root: str | Path) -> Published | None:
        """Give the counts to compare a copy with.

        Args:
            root: Folder of the copy.

        Returns:
            Those of its layout; None where none can be compared.
        """
        return self.counts(Path(root)) if self.counts else self.published


def without_policy(read: Callable[[Path], list[ImageRecord]]) -> Reader:
    """Give a reader whose labels leave no choice the form of the others.

    Args:
        read: From the folder of a copy to its records.

    Returns:
        The same, which takes a policy and passes it over.
    """
    return lambda root, policy: read(root)


def patients_unknown(root: Path) -> Mapping[str, str]:
    """Give the caveat of a data set that tells no patients apart.

    Args:
        root: Folder of the copy; it holds for each.

    Returns:
        The caveat by its code.
    """
    del root
    return {
        "patients-unknown": "The data set does not tell which images are of one patient, so each "
        "counts as a patient of its own: parts may share patients, and intervals are too narrow."
    }


def patients_in_parts(held: Iterable[tuple[str, str]]) -> Mapping[str, str]:
    """Give the caveat of a split that has a patient in several of its parts.

    Args:
        held: Patient and part of each image; an image of a blank part is in none.

    Returns:
        The caveat by its code; none where each patient is in one part. It names no patient.
    """
    parts: defaultdict[str, set[str]] = defaultdict(set)
    for patient, part in held:
        if part:
            parts[patient].add(part)
    torn = Counter(" and ".join(sorted(found)) for found in parts.values() if len(found) > 1)
    if not torn:
        return {}
    count = torn.total()
    patients = "1 patient is" if count == 1 else f"{count:,} patients are"
    where = "; ".join(f"{names}: {number:,}" for names, number in torn.most_common())
    return {
        "patients-in-parts": f"{patients} in more than one part of the split ({where}), so that "
        "figures on one part are too good for what was trained, calibrated or chosen on the "
        "other. Give each patient one part; medllm datasets leakage names images of them."
    }
