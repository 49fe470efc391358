"""From a checked data set to stored values, whatever the transfer syntax."""

from __future__ import annotations

from importlib.util import find_spec
from typing import Any

import numpy as np
from jaxtyping import Integer
from pydicom.dataset import Dataset
from pydicom.encaps import get_frame
from pydicom.pixels.decoders.base import get_decoder
from pydicom.uid import UID, JPEGExtended12Bit, JPEGLossless, JPEGLosslessSV1

from medllm.dicom.codestream import codestream_bits, codestream_size, is_cut_off
from medllm.dicom.dataset import transfer_syntax_uid
from medllm.dicom.quoting import quoted_uid
from medllm.errors import DicomError

_EXTRAS = {
    JPEGLossless: "pip install 'medllm[gdcm]' or pip install 'medllm[libjpeg]'",
    JPEGLosslessSV1: "pip install 'medllm[gdcm]' or pip install 'medllm[libjpeg]'",
    JPEGExtended12Bit: "pip install 'medllm[libjpeg]'",
}


def stored_values(
    dataset: Dataset, *, all_bits: bool = False
) -> Integer[np.ndarray, "rows columns"]:
    """Decode the pixel data of a single-frame grey image.

    Args:
        dataset: A data set that passed `medllm.dicom.encoding_gates.ENCODING_GATES`.
        all_bits: Leave the bits above Bits Stored (0028,0101) as they are.

    Returns:
        Stored values; bits above Bits Stored (0028,0101), such as old overlays, are removed.

    Raises:
        DicomError: No decoder is installed, or the pixel data is cut off (`truncated`) or
            damaged (`damaged-pixels`).
    """
    transfer_syntax = transfer_syntax_uid(dataset)
    try:
        decoder = get_decoder(transfer_syntax)
    except NotImplementedError:
        raise DicomError(
            f"Transfer Syntax UID (0002,0010) is {_name(transfer_syntax)}, which no decoder "
            "reads; convert the file with dcmconv or gdcmconv.",
            code="unsupported-transfer-syntax",
        ) from None
    if not decoder.is_available or _needs_12_bit_jpeg(dataset, transfer_syntax):
        raise _decoder_missing(transfer_syntax)
    try:
        if transfer_syntax.is_encapsulated:
            _require_sound_codestream(dataset)
        else:
            _require_all_bytes(dataset)
        options: Any = {"bits_stored": int(dataset.BitsAllocated)} if all_bits else {}
        values, _ = decoder.as_array(dataset, raw=True, index=0, **options)
    except DicomError:
        raise
    except Exception as error:  # noqa: BLE001  turned into one kind, never passed over
        raise DicomError(
            f"Pixel Data (7FE0,0010) in {_name(transfer_syntax)} is cut off or damaged "
            f"({type(error).__name__}); copy or export the file again.",
            code="damaged-pixels",
        ) from None
    return values.reshape(int(dataset.Rows), int(dataset.Columns))


def _require_sound_codestream(dataset: Dataset) -> None:
    codestream = get_frame(dataset.PixelData, 0, number_of_frames=1)
    size = codestream_size(codestream)
    if size is not None and size != (dataset.Rows, dataset.Columns):
        raise DicomError(
            f"the compressed image states {size[0]} x {size[1]} pixels, the header "
            f"{dataset.Rows} x {dataset.Columns}; export the image again.",
            code="bad-header",
        )
    bits = codestream_bits(codestream)
    if bits is not None and bits > dataset.BitsAllocated:
        raise DicomError(
            f"the compressed image states {bits} bits a pixel, Bits Allocated (0028,0100) "
            f"{dataset.BitsAllocated}; export the image again.",
            code="bad-header",
        )
    if is_cut_off(codestream):
        raise DicomError(
            "the compressed image in Pixel Data (7FE0,0010) has no end; copy or export the file "
            "again.",
            code="truncated",
        )


def _require_all_bytes(dataset: Dataset) -> None:
    wanted = dataset.Rows * dataset.Columns * (-(-dataset.BitsAllocated // 8))
    found = len(dataset.PixelData)
    if found < wanted:
        raise DicomError(
            f"Pixel Data (7FE0,0010) holds {found} bytes, {dataset.Rows} x {dataset.Columns} "
            f"pixels need {wanted}; copy or export the file again.",
            code="truncated",
        )


def _needs_12_bit_jpeg(dataset: Dataset, transfer_syntax: UID) -> bool:
    # Pillow counts as a decoder of JPEG Extended, but reads only its 8-bit form.
    return (
        transfer_syntax == JPEGExtended12Bit
        and int(dataset.BitsStored) > 8
        and find_spec("libjpeg") is None
    )


def _decoder_missing(transfer_syntax: UID) -> DicomError:
    remedy = _EXTRAS.get(transfer_syntax, "pip install medllm again with its dependencies")
    return DicomError(
        f"Transfer Syntax UID (0002,0010) is {_name(transfer_syntax)}, whose decoder is not "
        f"installed; {remedy}.",
        code="decoder-missing",
    )


def _name(transfer_syntax: UID) -> str:
    name = quoted_uid(transfer_syntax)
    return f"{name} ({transfer_syntax})" if transfer_syntax.type else name
