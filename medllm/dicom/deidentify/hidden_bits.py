"""What Pixel Data holds beside the image: bits and bytes where old devices keep overlays."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
from jaxtyping import UInt
from pydicom.datadict import keyword_for_tag
from pydicom.dataset import Dataset
from pydicom.encaps import parse_fragments
from pydicom.uid import RLELossless

from medllm.dicom.attributes import numbers
from medllm.dicom.codestream import codestream_bits, codestreams, rle_holds_more
from medllm.dicom.dataset import transfer_syntax_uid
from medllm.dicom.decode import stored_values
from medllm.dicom.encoding_gates import ENCODING_GATES
from medllm.dicom.gates import enforce, make_gate
from medllm.dicom.radiograph import Gate
from medllm.errors import DicomError

_IMAGE = ("Rows", "Columns", "SamplesPerPixel", "BitsAllocated")


def hidden_bits_gate(dataset: Dataset) -> Gate:
    """Look for more in Pixel Data than the image.

    Args:
        dataset: A radiograph.

    Returns:
        An error where there is more. A warning where the pixels would have to be decoded for it,
        and cannot be.
    """
    try:
        more = _overlay_in_pixels(dataset) or _bytes_behind(dataset) or _bits_above(dataset)
    except DicomError:
        return Gate(
            "hidden-bits-not-looked-for",
            "warning",
            False,
            "bits above Bits Stored (0028,0101), where old devices keep overlays with written "
            "names, were not looked for, since the pixels cannot be decoded here; convert the "
            "file without compression first.",
        )
    return make_gate(
        "hidden-bits",
        "error",
        not more,
        "the pixel data holds the image alone",
        "Pixel Data (7FE0,0010) holds bits above Bits Stored (0028,0101) or bytes behind the "
        "image, where old devices keep overlays with written names; convert the file without "
        "them, or look at them and accept 'hidden-bits'.",
    )


def image_bytes(dataset: Dataset) -> int | None:
    """Work out how long Pixel Data is.

    Args:
        dataset: An image.

    Returns:
        Bytes; None where it is compressed or not described.
    """
    described = [_number(dataset, keyword) for keyword in _IMAGE]
    if transfer_syntax_uid(dataset).is_encapsulated or None in described:
        return None
    n_frames = _number(dataset, "NumberOfFrames") or 1
    return int(n_frames * math.prod(number or 0 for number in described)) // 8


def _overlay_in_pixels(dataset: Dataset) -> bool:
    # An overlay of its own has one bit allocated, at position 0; PS3.3 C.9.2.
    own = {"OverlayBitsAllocated": 1.0, "OverlayBitPosition": 0.0}
    for tag in list(dataset.keys()):
        keyword = keyword_for_tag(tag) if tag.group >> 8 == 0x60 else ""
        if keyword in own and dataset[tag].value not in (None, "", own[keyword]):
            return True
    return False


def _bytes_behind(dataset: Dataset) -> bool:
    if transfer_syntax_uid(dataset) == RLELossless:
        return _bytes_behind_rle(dataset)
    size = image_bytes(dataset)
    return size is not None and any((dataset.get("PixelData") or b"")[size:])


def _bytes_behind_rle(dataset: Dataset) -> bool:
    """Look for more fragments than frames, and behind the segments of each; PS3.5 A.4.2."""
    n_frames = int(_number(dataset, "NumberOfFrames") or 1)
    n_pixels = math.prod(int(_number(dataset, name) or 0) for name in ("Rows", "Columns"))
    # The first item is the offset table.
    more_fragments = parse_fragments(dataset.get("PixelData") or b"")[0] - 1 > n_frames
    frames = () if more_fragments else codestreams(dataset)
    return more_fragments or any(rle_holds_more(frame, n_pixels) for frame in frames)


def _bits_above(dataset: Dataset) -> bool:
    """Look above Bits Stored for more than zeros or, in signed values, than their sign."""
    stored, allocated = (_number(dataset, name) or 16 for name in ("BitsStored", "BitsAllocated"))
    if stored >= allocated:
        return False
    compressed = [codestream_bits(frame) for frame in codestreams(dataset)]
    if compressed and all(bits is not None and bits <= stored for bits in compressed):
        return False  # there is no room for more
    values = _decoded(dataset) if compressed else _native(dataset, int(allocated))
    if int(values.max(initial=0)) < 2**stored:
        return False
    signed = values.view(f"i{values.itemsize}")
    half = 2 ** (stored - 1)
    is_sign = -half <= int(signed.min()) and int(signed.max()) < half
    return _number(dataset, "PixelRepresentation") == 0 or not is_sign


def _decoded(dataset: Dataset) -> UInt[np.ndarray, "rows columns"]:
    enforce((check(dataset) for check in ENCODING_GATES), ())
    values = stored_values(dataset, all_bits=True)
    return values.view(f"u{values.itemsize}")


def _native(dataset: Dataset, allocated: int) -> UInt[np.ndarray, " values"]:
    if allocated not in (8, 16, 32):
        raise DicomError("Bits Allocated (0028,0100) is none of 8, 16 and 32.", code="bad-header")
    order = "<" if transfer_syntax_uid(dataset).is_little_endian else ">"
    data = (dataset.get("PixelData") or b"")[: image_bytes(dataset)]
    whole = len(data) - len(data) % (allocated // 8)
    values = np.frombuffer(data[:whole], f"{order}u{allocated // 8}")
    return values.astype(values.dtype.newbyteorder("="), copy=False)


def _number(dataset: Dataset, keyword: str) -> Any:
    return next(iter(numbers(dataset, keyword)), None)
