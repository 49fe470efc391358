"""What a compressed image states of itself, read before anything is decoded."""

from __future__ import annotations

import struct
from collections.abc import Iterator

# Start-of-frame markers of JPEG, and of JPEG-LS (F7); C4, C8 and CC are other segments.
_START_OF_FRAME = frozenset({*range(0xC0, 0xD0), 0xF7} - {0xC4, 0xC8, 0xCC})
# COM of JPEG 2000; COM and APPn of JPEG.
_COMMENTS = frozenset({0x64, 0xFE, *range(0xE0, 0xF0)})
# Start of scan of JPEG, start of tile part of JPEG 2000.
_IMAGE_BEGINS = frozenset({0xDA, 0x90})


def codestream_size(codestream: bytes) -> tuple[int, int] | None:
    """Read rows and columns from a JPEG, JPEG-LS or JPEG 2000 codestream.

    A decoder makes room for what the codestream states, not for what the header states: a
    small file may claim a gigapixel here.

    Args:
        codestream: One frame, without its encapsulation.

    Returns:
        Rows and columns; None where no size is found, as in RLE.

    Source:
        ITU-T T.81 B.2.2, T.87 C.2.2 (start of frame); T.800 A.5.1 (SIZ).
    """
    try:
        if codestream.startswith(b"\xff\x4f\xff\x51"):
            width, height, left, top = struct.unpack_from(">4L", codestream, 8)
            return height - top, width - left
        if codestream.startswith(b"\xff\xd8"):
            return _jpeg_size(codestream)
    except struct.error:
        pass  # cut off before its size: the decoder refuses it
    return None


def is_cut_off(codestream: bytes) -> bool:
    """Tell whether a JPEG, JPEG-LS or JPEG 2000 codestream lacks its end.

    Some decoders spend seconds on such a stream before they refuse it.

    Args:
        codestream: One frame, without its encapsulation.

    Returns:
        True where no end marker stands within the last bytes, padding allowed for; False for
        a codestream without markers, as RLE.

    Source:
        ITU-T T.81 B.1.1.3 (EOI), T.800 A.4.4 (EOC).
    """
    has_markers = codestream.startswith((b"\xff\xd8", b"\xff\x4f"))
    return has_markers and b"\xff\xd9" not in codestream[-16:]


def comments(codestream: bytes) -> Iterator[bytes]:
    """Read the segments of a JPEG, JPEG-LS or JPEG 2000 codestream that hold no image.

    Args:
        codestream: One frame, without its encapsulation.

    Yields:
        What stands in each comment and application segment before the image's own bytes.

    Source:
        ITU-T T.81 B.2.4.5 and B.2.4.6 (COM, APPn), T.800 A.9.2 (COM).
    """
    position = 2
    while codestream[position : position + 1] == b"\xff":
        try:
            marker, length = struct.unpack_from(">BH", codestream, position + 1)
        except struct.error:
            return
        if marker in _IMAGE_BEGINS:
            return
        if marker in _COMMENTS:
            yield codestream[position + 4 : position + 2 + length]
        position += 2 + length


def _jpeg_size(codestream: bytes) -> tuple[int, int] | None:
    position = 2
    while True:
        prefix, marker, length = struct.unpack_from(">BBH", codestream, position)
        if prefix != 0xFF:
            return None
        if marker == 0xFF:  # fill byte
            position += 1
            continue
        if marker in _START_OF_FRAME:
            rows, columns = struct.unpack_from(">HH", codestream, position + 5)
            return rows, columns
        position += 2 + length
