"""What a file is, judged by its first bytes and never by its name."""

from __future__ import annotations

import struct
from typing import Literal

from pydicom.valuerep import VR

FileKind = Literal["dicom", "dicom-without-preamble", "png", "jpeg"]

# 128 bytes of preamble, `DICM`, and the first element's tag, VR and length.
HEAD_BYTES = 144

_VALUE_REPRESENTATIONS = frozenset(vr.value.encode() for vr in VR if len(vr.value) == 2)
# A data set begins with File Meta Information (0002) or Identification (0008).
_FIRST_GROUPS = (0x0002, 0x0008)
# The first element's value is a group length, a UID or an image type: it is short.
_LONGEST_FIRST_VALUE = 1024


def file_kind(head: bytes) -> FileKind | None:
    """Recognise the files that medllm reads.

    Args:
        head: The first `HEAD_BYTES` bytes of a file, or all of a shorter one.

    Returns:
        The kind; None for anything else. `dicom-without-preamble` says only that the bytes
        look like DICOM elements.

    Source:
        DICOM PS3.10 7.1 (preamble), PS3.5 7.1 (elements); PNG and JPEG signatures.

    Example:
        >>> file_kind(bytes(128) + b"DICM")
        'dicom'
        >>> file_kind(b"just text") is None
        True
    """
    if head[128:132] == b"DICM":
        return "dicom"
    if head.startswith(b"\x89PNG\r\n\x1a\n"):
        return "png"
    if head.startswith(b"\xff\xd8\xff"):
        return "jpeg"
    if any(_looks_like_element(head, order) for order in "<>"):
        return "dicom-without-preamble"
    return None


def _looks_like_element(head: bytes, byte_order: str) -> bool:
    if len(head) < 8:
        return False
    group, element, length = struct.unpack(f"{byte_order}HHL", head[:8])
    if group not in _FIRST_GROUPS or element > 0x0100:
        return False
    return head[4:6] in _VALUE_REPRESENTATIONS or length <= _LONGEST_FIRST_VALUE
