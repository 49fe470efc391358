"""Elements of a data set, read so that a malformed one stops nothing."""

from __future__ import annotations

from typing import cast

from pydicom.datadict import dictionary_has_tag, dictionary_VR
from pydicom.dataelem import DataElement, RawDataElement
from pydicom.dataset import Dataset
from pydicom.multival import MultiValue
from pydicom.sequence import Sequence
from pydicom.tag import BaseTag


def stored_element(dataset: Dataset, tag: BaseTag) -> DataElement | RawDataElement:
    """Get an element as it was read: its bytes, unless something has asked for its value.

    Args:
        dataset: Where it stands.
        tag: The attribute.

    Returns:
        The element.
    """
    # pydicom declares the one type and returns either.
    return cast(DataElement | RawDataElement, dataset.get_item(tag))


def vr_of(dataset: Dataset, tag: BaseTag) -> str:
    """Tell how an element is stored, without reading its value.

    Args:
        dataset: Where it stands.
        tag: The attribute.

    Returns:
        The Value Representation that the file states or, in an implicit encoding and where it
        states `UN`, that of the dictionary, by which readers take the value; it may be a choice
        such as `US or SS`. `UN` where neither says it.

    Source:
        DICOM PS3.5 6.2.2, Unknown (UN) Value Representation.
    """
    stated = stored_element(dataset, tag).VR
    if stated not in (None, "UN"):
        return str(stated)
    return dictionary_VR(tag) if dictionary_has_tag(tag) else "UN"


def values_of(dataset: Dataset, tag: BaseTag) -> list[str]:
    """Read the values of an element as text.

    Args:
        dataset: Where it stands.
        tag: The attribute; not a sequence.

    Returns:
        Its values, empty ones left out; bytes and what pydicom cannot read as Latin-1.
    """
    try:
        value = dataset[tag].value
    except Exception:  # noqa: BLE001  whatever pydicom raises, the bytes are there
        value = stored_element(dataset, tag).value
    if isinstance(value, bytes):
        value = value.decode("latin-1")
    values = value if isinstance(value, (MultiValue, list)) else [value]
    return [text for each in values if (text := "" if each is None else str(each).strip(" \0"))]


def items_of(dataset: Dataset, tag: BaseTag) -> Sequence | None:
    """Read the items of a sequence.

    Args:
        dataset: Where it stands.
        tag: The sequence.

    Returns:
        Its items; None where they cannot be read.
    """
    try:
        value = dataset[tag].value
    except Exception:  # noqa: BLE001  whatever pydicom raises, it is no sequence
        return None
    return value if isinstance(value, Sequence) else None
