"""DICOM objects on their way: named by their headers, then read one at a time."""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pydicom
from pydicom.dataelem import RawDataElement
from pydicom.filereader import read_file_meta_info
from pydicom.tag import BaseTag
from pydicom.uid import UID, MediaStorageDirectoryStorage

from medllm.dicom.attributes import text
from medllm.dicom.content import HEAD_BYTES, file_kind
from medllm.dicom.dataset import parse_dataset, transfer_syntax_uid
from medllm.dicom.decode import stored_values
from medllm.dicom.encoding_gates import ENCODING_GATES, is_lossy
from medllm.dicom.files import read_image_file
from medllm.dicom.gates import enforce
from medllm.dicom.silence import in_silence
from medllm.errors import DicomError

_PIXELS = ("PixelData", "FloatPixelData", "DoubleFloatPixelData", "PixelDataProviderURL")
_UNDEFINED_LENGTH = 0xFFFFFFFF
# Digits and dots, PS3.5 9.1. Leading zeros, which it forbids, are met and harm nobody; anything
# else must not become the name of a file or a part of an address.
_UID = re.compile(r"(?=.{1,64}\Z)[0-9]+(\.[0-9]+)*\Z")


@dataclass(frozen=True)
class DicomObject:
    """What a file holds, as far as its transfer is concerned.

    Attributes:
        path: The file.
        sop_class_uid: Which kind of object it is.
        sop_instance_uid: Which object it is.
        transfer_syntax_uid: How it is encoded.
    """

    path: Path
    sop_class_uid: UID
    sop_instance_uid: UID
    transfer_syntax_uid: UID


def is_uid(value: str | None) -> bool:
    """Tell whether a value has the form of a UID, so that it can name a file."""
    return value is not None and _UID.match(value) is not None


def read_object(path: Path) -> DicomObject:
    """Read what a file holds; of most files the first bytes only.

    Args:
        path: The file.

    Returns:
        The object.

    Raises:
        DicomError: The file is missing, no DICOM, or does not say which object it holds.
    """
    found = _from_file_meta(path) or _described(path, load(path))
    if found.sop_class_uid == MediaStorageDirectoryStorage:
        raise DicomError(
            "the file is a DICOMDIR, a table of contents; give the folder it lies in.",
            code="not-an-image-file",
        )
    return found


def load(path: Path) -> pydicom.Dataset:
    """Read a DICOM file whole.

    Args:
        path: The file.

    Returns:
        The data set; its file meta information says how it is encoded.

    Raises:
        DicomError: It cannot be read, or is no DICOM.
    """
    data, kind = read_image_file(path)
    if kind in ("png", "jpeg"):
        raise DicomError(
            f"the file is a {kind.upper()} image; a PACS takes DICOM objects only.",
            code="not-dicom",
        )
    dataset = parse_dataset(data, force=kind != "dicom")
    if not is_whole(dataset):
        raise DicomError(
            "the file ends before its data set does; copy or export it again.", code="truncated"
        )
    dataset.file_meta.TransferSyntaxUID = transfer_syntax_uid(dataset)
    return dataset


def is_whole(dataset: pydicom.Dataset) -> bool:
    """Tell whether a data set was read to its end; pydicom passes over a value that is cut off.

    Args:
        dataset: As it was read: its last element is not converted yet.

    Returns:
        False where the last value is shorter than it says, or an image has no pixels.
    """
    last: Any = dataset.get_item(max(dataset.keys(), default=BaseTag(0)))
    if (
        isinstance(last, RawDataElement)
        and last.length != _UNDEFINED_LENGTH
        and len(last.value or b"") < last.length
    ):
        return False
    return "Rows" not in dataset or has_pixels(dataset)


def has_pixels(dataset: pydicom.Dataset) -> bool:
    """Tell whether a data set holds pixels, or says where they are."""
    return any(keyword in dataset for keyword in _PIXELS)


def uid_of(dataset: pydicom.Dataset, keyword: str) -> str:
    """Read a UID from its bytes: pydicom's conversion can warn, and quote what it read.

    Args:
        dataset: As it was read.
        keyword: Keyword of the attribute.

    Returns:
        The UID, unchecked; empty where it is absent.
    """
    element = dataset.get_item(keyword)
    value = element.value if element is not None else b""
    text = value.decode("ascii", "replace") if isinstance(value, bytes) else str(value or "")
    return text.strip("\0 ")


def load_object(item: DicomObject) -> pydicom.Dataset:
    """Read an object whole, and check that it is still the one that was named.

    Args:
        item: What `read_object` found.

    Returns:
        The data set.

    Raises:
        DicomError: It cannot be read, or its header contradicts its file meta information.
    """
    dataset = load(item.path)
    if _described(item.path, dataset) != item:
        raise DicomError(
            "File Meta Information (0002,xxxx) and the data set name different objects, or the "
            "file has changed; export it again.",
            code="bad-header",
        )
    return dataset


def decompress(dataset: pydicom.Dataset) -> None:
    """Store the pixels of a grey image of one frame without compression, values unchanged.

    It stays the same object, under the same UID: nothing is lost that was there. What the
    encoding alone told of an earlier loss is written into the header.

    Args:
        dataset: The image, changed in place.

    Raises:
        DicomError: It is none, cannot be decoded, or has no decoder installed.

    Source:
        DICOM PS3.3 C.7.6.1.1.5, Lossy Image Compression.
    """
    enforce((check(dataset) for check in ENCODING_GATES), ())
    values = stored_values(dataset)
    if is_lossy(dataset):
        dataset.LossyImageCompression = "01"
    dataset.set_pixel_data(
        values,
        dataset.PhotometricInterpretation,
        int(dataset.BitsStored),
        generate_instance_uid=False,
    )


def _from_file_meta(path: Path) -> DicomObject | None:
    """Read the object from the file's first group; None where it does not say all."""
    try:
        with path.open("rb") as file:
            if file_kind(file.read(HEAD_BYTES)) != "dicom":
                return None
        with in_silence():
            meta = read_file_meta_info(path)
            keywords = ("MediaStorageSOPClassUID", "MediaStorageSOPInstanceUID")
            uids = [text(meta, keyword) or "" for keyword in (*keywords, "TransferSyntaxUID")]
    except Exception:  # noqa: BLE001  the whole file is read then, and says what is wrong
        return None
    sop_class, sop_instance, transfer_syntax = map(UID, uids)
    return (
        DicomObject(path, sop_class, sop_instance, transfer_syntax)
        if all(map(is_uid, uids))
        else None
    )


def _described(path: Path, dataset: pydicom.Dataset) -> DicomObject:
    return DicomObject(
        path,
        _uid(dataset, "SOPClassUID", "SOP Class UID (0008,0016)"),
        _uid(dataset, "SOPInstanceUID", "SOP Instance UID (0008,0018)"),
        transfer_syntax_uid(dataset),
    )


def _uid(dataset: pydicom.Dataset, keyword: str, name: str) -> UID:
    value = text(dataset, keyword)
    if not is_uid(value):
        raise DicomError(
            f"{name} is absent or no UID, so that a PACS could not file the object; correct the "
            "header, or export it again.",
            code="bad-header",
        )
    return UID(str(value))
