"""From a file's bytes to a pydicom data set, in bounded memory and with one kind of error."""

from __future__ import annotations

import zlib
from io import BytesIO

import pydicom
from pydicom.filereader import _read_file_meta_info, read_preamble
from pydicom.uid import (
    UID,
    DeflatedExplicitVRLittleEndian,
    ExplicitVRBigEndian,
    ExplicitVRLittleEndian,
    ImplicitVRLittleEndian,
)

from medllm.dicom.attributes import text
from medllm.dicom.files import MAX_FILE_BYTES
from medllm.dicom.silence import heard_in_silence
from medllm.errors import DicomError


def parse_dataset(data: bytes, *, force: bool) -> pydicom.Dataset:
    """Parse a DICOM file's bytes.

    Args:
        data: All bytes of the file.
        force: Read without preamble; only for bytes that look like elements.

    Returns:
        The data set.

    Raises:
        DicomError: The bytes cannot be parsed, end too early, or inflate beyond
            `MAX_FILE_BYTES`.
    """
    try:
        with heard_in_silence() as warnings:
            _bound_inflated_size(data, force=force)
            dataset = pydicom.dcmread(BytesIO(data), force=force)
        # pydicom drops pixel data whose end is missing, with a warning only.
        if any(one.startswith("End of file reached before delimiter") for one in warnings):
            raise EOFError
        return dataset
    except DicomError:
        raise
    except (zlib.error, EOFError):
        raise DicomError(
            "the file ends before its pixel data does; copy or export it again.", code="truncated"
        ) from None
    except Exception as error:  # noqa: BLE001  turned into one kind, never passed over
        # pydicom's own words can quote a value of the header, so only the type is passed on.
        raise DicomError(
            f"the DICOM elements cannot be parsed ({type(error).__name__}); "
            "check the file with dciodvfy, or export it again."
        ) from None


def transfer_syntax_uid(dataset: pydicom.Dataset) -> UID:
    """Name the encoding of a data set.

    Args:
        dataset: What `parse_dataset` returned.

    Returns:
        Transfer Syntax UID (0002,0010) or, where the file lacks it, the uncompressed
        encoding that its elements were found in.
    """
    stated = text(dataset.file_meta, "TransferSyntaxUID")
    if stated:
        return UID(stated)
    implicit, little_endian = dataset.original_encoding
    if implicit:
        return ImplicitVRLittleEndian
    return ExplicitVRLittleEndian if little_endian else ExplicitVRBigEndian


def _bound_inflated_size(data: bytes, *, force: bool) -> None:
    stream = BytesIO(data)
    read_preamble(stream, force)
    # The same call that dcmread makes: it leaves the stream where the deflated part begins.
    meta = _read_file_meta_info(stream)
    if meta.get("TransferSyntaxUID") != DeflatedExplicitVRLittleEndian:
        return
    inflater = zlib.decompressobj(-zlib.MAX_WBITS)
    deflated, size = stream.read(), 0
    while deflated and size <= MAX_FILE_BYTES:
        size += len(inflater.decompress(deflated, 2**24))
        deflated = inflater.unconsumed_tail
    if size > MAX_FILE_BYTES:
        raise DicomError(
            f"the deflated data set inflates beyond {MAX_FILE_BYTES} bytes, "
            "which no radiograph needs; check where the file comes from.",
            code="too-large",
        )
