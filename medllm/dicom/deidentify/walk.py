"""Through a data set, at any depth: each attribute is removed, replaced or kept."""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

from pydicom.datadict import dictionary_description, dictionary_VR, keyword_for_tag
from pydicom.dataelem import DataElement, RawDataElement
from pydicom.dataset import Dataset
from pydicom.sequence import Sequence
from pydicom.tag import BaseTag

from medllm.dicom.deidentify.dates import is_time, shift_date, shift_date_time
from medllm.dicom.deidentify.elements import items_of, stored_element, values_of, vr_of
from medllm.dicom.deidentify.key import Key
from medllm.dicom.deidentify.profile import (
    Action,
    action_on,
    is_registered,
    removable,
    shows_pixels,
)
from medllm.dicom.deidentify.residue import Place, Taken
from medllm.errors import DicomError

# Everybody over 89 is one group: HIPAA 45 CFR 164.514(b)(2)(i)(C).
_OLDEST_AGE_YEARS = 90
_REPLACEMENT = "REMOVED"
_NUMBERS = re.compile(r"[\d+\-.eE \0\\]*")


@dataclass
class Walk:
    """One walk over one file's data set.

    Attributes:
        key: What makes pseudonyms and UIDs.
        patient: The patient's pseudonym.
        days: By how many days dates go back.
        also_removed: Attributes that the caller wants out as well.
        taken: What was taken out.
        made: Where values stand that were made here and hold nothing of the old ones.
        actions: What was done with which attributes.
    """

    key: Key
    patient: str
    days: int
    also_removed: frozenset[BaseTag] = frozenset()
    taken: Taken = field(default_factory=Taken)
    made: set[Place] = field(default_factory=set)
    actions: set[tuple[BaseTag, Action]] = field(default_factory=set)

    def over(self, dataset: Dataset, place: Place = ()) -> None:
        """Change a data set and all that is in its sequences.

        Args:
            dataset: The data set; it is changed in place.
            place: Where it stands in the file's data set.
        """
        for tag in list(dataset.keys()):
            at = _Element(dataset, tag, vr_of(dataset, tag), (*place, int(tag)))
            if tag in self.also_removed:
                done = _remove(self, at)
            else:
                done = _DO[action_on(tag, at.vr)](self, at)
                _require_shown_alike(at, done)
            self.actions.add((tag, done))

    def take(self, dataset: Dataset, tag: BaseTag, vr: str) -> None:
        """Remember what an attribute, or all that is in a sequence, held.

        Args:
            dataset: Where it stands.
            tag: The attribute.
            vr: Its Value Representation.
        """
        if vr != "SQ":
            self.taken.add(tag, vr, values_of(dataset, tag))
        for item in items_of(dataset, tag) or () if vr == "SQ" else ():
            for inner in list(item.keys()):
                self.take(item, inner, vr_of(item, inner))


@dataclass(frozen=True)
class _Element:
    dataset: Dataset
    tag: BaseTag
    vr: str
    place: Place

    def values(self) -> list[str]:
        return values_of(self.dataset, self.tag)

    def put(self, walk: Walk, value: Any) -> None:
        self.dataset[self.tag] = DataElement(self.tag, self.vr, value)
        walk.made.add(self.place)


def _remove(walk: Walk, at: _Element) -> Action:
    walk.take(at.dataset, at.tag, at.vr)
    del at.dataset[at.tag]
    return "removed"


def _empty(walk: Walk, at: _Element) -> Action:
    walk.take(at.dataset, at.tag, at.vr)
    at.put(walk, Sequence() if at.vr == "SQ" else None)
    return "emptied"


def _replace(walk: Walk, at: _Element) -> Action:
    walk.take(at.dataset, at.tag, at.vr)
    at.put(walk, _REPLACEMENT)
    return "replaced"


def _new_uid(walk: Walk, at: _Element) -> Action:
    old = at.values()
    new = [uid if is_registered(uid) else walk.key.uid(uid) for uid in old]
    walk.taken.add(
        at.tag, at.vr, [before for before, uid in zip(old, new, strict=True) if before != uid]
    )
    at.put(walk, new)
    return "new UID" if not all(map(is_registered, new)) else "kept"


def _pseudonym(walk: Walk, at: _Element) -> Action:
    old = at.values()
    own = keyword_for_tag(at.tag) == "PatientID" and old
    new = walk.key.pseudonym(old[0]) if own else walk.patient
    new += "^" if at.vr == "PN" else ""  # a name without its sign is a form long retired
    walk.taken.add(at.tag, at.vr, [value for value in old if value != new])
    at.put(walk, new)
    return "pseudonym"


def _age(walk: Walk, at: _Element) -> Action:
    # Some files leave the unit out; it is years then.
    match = re.fullmatch(r"(\d{1,3})([DWMY]?)", "\\".join(at.values()))
    if match is None:
        return _remove(walk, at)
    if match[2] in ("Y", "") and int(match[1]) >= _OLDEST_AGE_YEARS:
        at.put(walk, f"{_OLDEST_AGE_YEARS:03d}Y")
        return "age"
    walk.made.add(at.place)
    return "kept"


def _shift(walk: Walk, at: _Element) -> Action:
    old = at.values()
    if at.vr == "TM":
        if not all(map(is_time, old)):
            return _empty(walk, at)
        walk.made.add(at.place)
        return "kept"
    shift = shift_date if at.vr == "DA" else shift_date_time
    new = [shift(value, walk.days) for value in old]
    if None in new:
        return _empty(walk, at)
    walk.taken.add(at.tag, at.vr, old if walk.days else ())
    at.put(walk, new)
    return "date shifted"


def _keep(walk: Walk, at: _Element) -> Action:
    if at.vr == "SQ":
        items = items_of(at.dataset, at.tag)
        if items is None:
            return _remove(walk, at)
        for number, item in enumerate(items):
            walk.over(item, (*at.place, number))
    elif at.vr in ("DS", "IS") and not _NUMBERS.fullmatch(_raw(at)):
        return _remove(walk, at)
    return "kept"


def _require_shown_alike(at: _Element, done: Action) -> None:
    if done == "removed" and shows_pixels(at.tag):
        keyword = keyword_for_tag(at.tag)
        remedy = f", or take it out with --remove {keyword}" if removable(keyword) else ""
        raise DicomError(
            f"{dictionary_description(at.tag)} {at.tag}, by which the pixels are shown, is stored "
            f"as {at.vr}, wanted is a sound {dictionary_VR(at.tag)}; such a value is taken out, "
            f"and another image would be shown: correct the header{remedy}.",
            code="bad-header",
        )


def _raw(at: _Element) -> str:
    element = stored_element(at.dataset, at.tag)
    if isinstance(element, RawDataElement):
        return (element.value or b"").decode("latin-1")
    return "\\".join(at.values())


_DO: dict[Action, Callable[[Walk, _Element], Action]] = {
    "removed": _remove,
    "emptied": _empty,
    "replaced": _replace,
    "new UID": _new_uid,
    "pseudonym": _pseudonym,
    "age": _age,
    "date shifted": _shift,
    "kept": _keep,
}
