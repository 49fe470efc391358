"""A second look: whether anything that was taken out of a header still stands elsewhere in it."""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Callable, Collection, Iterable, Iterator
from dataclasses import dataclass, field

from pydicom.datadict import dictionary_description, keyword_for_tag
from pydicom.dataset import Dataset
from pydicom.tag import BaseTag, Tag
from pydicom.valuerep import STR_VR

from medllm.dicom.codestream import comments_of
from medllm.dicom.deidentify.dates import notations, parse_date
from medllm.dicom.deidentify.elements import items_of, stored_element, values_of, vr_of
from medllm.dicom.deidentify.ordinary_words import ORDINARY_WORDS
from medllm.dicom.deidentify.profile import is_registered
from medllm.errors import DicomError

_PLACE = re.compile(
    "Institution|Address|Residence|Location|Department|Organization|ClinicalTrialSite"
)
_IDENTIFIER = re.compile("(ID|IDs|Numbers?|Identifier|Locator|TelecomInformation)$|Telephone")
_TEXTS = frozenset({"LO", "LT", "SH", "ST", "UC", "UT"})

# Below these lengths words and numbers meet by chance in half of all headers.
_SHORTEST_NAME, _SHORTEST_PLACE, _SHORTEST_IDENTIFIER = 3, 4, 4
# From this length on, a name or number is also found within a longer one.
_LONG = 6
_SHORTEST_UID = 10
# Written without spaces and in few signs: two of them are a name.
_IDEOGRAPHS = re.compile(r"[\u3040-\u30ff\u3400-\u9fff\uac00-\ud7af]{2,}")
# Tags and item numbers, from the file's data set to an element.
Place = tuple[int, ...]


@dataclass
class Taken:
    """What was taken out of one file, as it could be met again.

    Attributes:
        words: Names and places, one word each; those of up to five letters are looked for as
            whole words only.
        strings: Names, identifiers and dates without what stands between their signs.
        spelled: Dates with two digits for the year, as they are written.
        uids: Unique identifiers.
    """

    words: set[str] = field(default_factory=set, repr=False)
    strings: set[str] = field(default_factory=set, repr=False)
    spelled: set[str] = field(default_factory=set, repr=False)
    uids: set[str] = field(default_factory=set, repr=False)

    def add(self, tag: BaseTag, vr: str, values: Iterable[str]) -> None:
        """Remember the values of an attribute that names somebody, a place or a day.

        Free text is not remembered: it shares its words with any header.

        Args:
            tag: The attribute.
            vr: Its Value Representation.
            values: What it held.
        """
        if tag.is_private and vr != "PN":
            # Private attributes repeat what the device says in public ones that stay.
            return
        add = self._way_to_add(keyword_for_tag(tag), vr)
        if add is not None:
            for value in values:
                add(value)

    def is_in(self, text: str, *, number: bool = False) -> bool:
        """Look for what was taken out.

        Args:
            text: One value that stays.
            number: The value is one of VR DS or IS, where only long numbers tell anything.

        Returns:
            Whether any of it stands there.
        """
        if any(uid in text for uid in self.uids):
            return True
        folded = _folded(text)
        squeezed = _squeezed(folded)
        if number:
            return any(len(string) >= _LONG and string in squeezed for string in self.strings)
        runs = set(re.findall(r"[^\W\d_]+|\d+", folded)) | {squeezed}
        return any(_meets(string, squeezed, runs) for string in self.words | self.strings) or any(
            spelled in folded for spelled in self.spelled
        )

    def _way_to_add(self, keyword: str, vr: str) -> Callable[[str], None] | None:
        if vr in _TEXTS and _PLACE.search(keyword):
            return self._add_place
        if vr in _TEXTS and _IDENTIFIER.search(keyword):
            return self._add_identifier
        by_vr = {
            "PN": self._add_name,
            "DA": self._add_date,
            "DT": self._add_date,
            "UI": self._add_uid,
        }
        return by_vr.get(vr)

    def _add_uid(self, value: str) -> None:
        if len(value) >= _SHORTEST_UID and not is_registered(value):
            self.uids.add(value)

    def _add_place(self, value: str) -> None:
        self._add_words(value, _SHORTEST_PLACE)

    def _add_name(self, value: str) -> None:
        for group in value.split("="):  # alphabetic, ideographic, phonetic
            parts = [_squeezed(_folded(part)) for part in group.split("^")]
            family, given = [*parts, "", ""][:2]
            for whole in (family + given, given + family):
                self.strings |= {whole} if len(whole) >= _LONG and whole.isalpha() else set()
            self._add_words(group, _SHORTEST_NAME)

    def _add_words(self, value: str, shortest: int) -> None:
        folded = _folded(value)
        for word in re.findall(r"[^\W\d_]+", folded):
            if len(word) >= shortest or _IDEOGRAPHS.fullmatch(word):
                self.words.add(word)
        self.words -= ORDINARY_WORDS

    def _add_identifier(self, value: str) -> None:
        string = _squeezed(_folded(value))
        if len(string) >= _SHORTEST_IDENTIFIER and string not in ORDINARY_WORDS:
            self.strings.add(string)
            # A number is written with leading zeros and without, a telephone's with and
            # without the codes of country and town.
            shorter = {string.lstrip("0"), string[-_LONG - 1 :] if string.isdigit() else ""}
            self.strings |= {each for each in shorter if len(each) >= _LONG}

    def _add_date(self, value: str) -> None:
        found = parse_date(value) or parse_date(value[:8])
        for written in notations(found) if found else ():
            (self.strings if written.isalnum() else self.spelled).add(written)


def require_no_residue(dataset: Dataset, taken: Taken, made: Collection[Place]) -> None:
    """Look through all text of a file for what was taken out of it.

    Args:
        dataset: The new file, as anybody would read it.
        taken: What was taken out.
        made: Where values stand that were made and hold nothing of the old ones; with a
            sequence goes all that is in it.

    Raises:
        DicomError: It stands there still (`residue`); the message names the attribute and not
            what it holds.
    """
    for where, values, is_number in (*_texts(dataset.file_meta), *_texts(dataset)):
        if where in made or where[:1] in made:
            continue
        if any(taken.is_in(value, number=is_number) for value in values):
            raise _residue(where)
    for comment in comments_of(dataset):
        if taken.is_in(comment.decode("latin-1")):
            raise DicomError(
                "a comment within the compressed Pixel Data (7FE0,0010) holds what was taken "
                "out of the header; decompress the file first, with dcmdjpeg or gdcmconv.",
                code="residue",
            )


def _texts(dataset: Dataset, place: Place = ()) -> Iterator[tuple[Place, list[str], bool]]:
    for tag in list(dataset.keys()):
        vr, where = vr_of(dataset, tag), (*place, int(tag))
        if vr == "SQ":
            for number, item in enumerate(items_of(dataset, tag) or ()):
                yield from _texts(item, (*where, number))
        elif vr in {*STR_VR, "UN"}:
            yield where, _readings(dataset, tag), vr in ("DS", "IS")


def _readings(dataset: Dataset, tag: BaseTag) -> list[str]:
    """Read an element in its stated character set and in those that it may be in."""
    raw = stored_element(dataset, tag).value
    readings = values_of(dataset, tag)
    if isinstance(raw, bytes):
        codecs = ("utf-8", "latin-1", *(("utf-16-le", "utf-16-be") if b"\0" in raw[:-1] else ()))
        readings += [part for codec in codecs for part in raw.decode(codec, "ignore").split("\\")]
    return readings


def _residue(where: Place) -> DicomError:
    tags = [Tag(number) for number in where[::2]]
    names = " > ".join(f"{dictionary_description(tag)} {tag}" for tag in tags)
    return DicomError(
        f"{names}, which the profile keeps, holds something that was taken out elsewhere; look "
        "at it there, and have it taken out as well with --remove and its keyword.",
        code="residue",
    )


def _meets(string: str, squeezed: str, runs: set[str]) -> bool:
    within = len(string) >= _LONG or _IDEOGRAPHS.fullmatch(string)
    return string in squeezed if within else string in runs


def _folded(text: str) -> str:
    """Leave case and accents out; one name is written in several ways in one header."""
    parts = unicodedata.normalize("NFKD", text)
    bare = "".join(sign for sign in parts if not unicodedata.combining(sign))
    return unicodedata.normalize("NFC", bare).casefold()  # Hangul comes together again


def _squeezed(folded: str) -> str:
    return re.sub(r"[\W_]+", "", folded)
