"""What a compressed image states of itself, read before anything is decoded."""

from __future__ import annotations

import re
import struct
from collections.abc import Iterator

from pydicom.dataset import Dataset
from pydicom.encaps import generate_frames

from medllm.dicom.dataset import transfer_syntax_uid

# Start-of-frame markers of JPEG, and of JPEG-LS (F7); C4, C8 and CC are other segments.
_START_OF_FRAME = frozenset({*range(0xC0, 0xD0), 0xF7} - {0xC4, 0xC8, 0xCC})
_SIZE = 0x51  # SIZ of JPEG 2000
_END = 0xD9
_FILL = 0xFF  # a byte before a marker, as many times as an encoder likes
_STRAY = 0x00  # no marker: it stands here for bytes where a segment should begin
# COM of JPEG 2000; COM and APPn of JPEG; and what is no part of the codestream.
_COMMENTS = frozenset({0x64, 0xFE, *range(0xE0, 0xF0), _END, _STRAY})
# Where a codestream of JPEG 2000 begins within the boxes of a JP2 file, which decoders read too.
_WITHIN_BOXES = b"\xff\x4f\xff\x51"
_RLE_HEADER = struct.Struct("<16L")
# These have no length: TEM, RSTn and SOI of JPEG, SOD and the reserved ones of JPEG 2000.
_BARE = frozenset({_FILL, 0x01, 0x93, *range(0xD0, 0xD9), *range(0x30, 0x40)})
# After SOS of JPEG and SOD of JPEG 2000 comes the image, up to a marker that cannot be part of it.
_AFTER_IMAGE = {
    0xDA: re.compile(rb"\xff[\x80-\xcf\xd8-\xfe]"),
    0x93: re.compile(rb"\xff[\x90\xd9]"),
}


def codestreams(dataset: Dataset) -> Iterator[bytes]:
    """Take the frames out of compressed Pixel Data.

    Args:
        dataset: A data set.

    Yields:
        Each frame, without its encapsulation; nothing where Pixel Data is not compressed.
    """
    if transfer_syntax_uid(dataset).is_encapsulated and dataset.get("PixelData"):
        n_frames = int(dataset.get("NumberOfFrames") or 1)
        yield from generate_frames(dataset.PixelData, number_of_frames=n_frames)


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
    header = _frame_header(codestream)
    return header[:2] if header is not None else None


def codestream_bits(codestream: bytes) -> int | None:
    """Read the bits of a sample from a JPEG, JPEG-LS or JPEG 2000 codestream.

    Args:
        codestream: One frame, without its encapsulation.

    Returns:
        Bits; None where they are not found, as in RLE.

    Source:
        As for `codestream_size`.
    """
    header = _frame_header(codestream)
    return header[2] if header is not None else None


def is_cut_off(codestream: bytes) -> bool:
    """Tell whether a JPEG, JPEG-LS or JPEG 2000 codestream lacks its end.

    Some decoders spend seconds on such a stream before they refuse it.

    Args:
        codestream: One frame, without its encapsulation.

    Returns:
        True where no end marker stands within the last bytes, before what zeros pad; False
        for a codestream without markers, as RLE.

    Source:
        ITU-T T.81 B.1.1.3 (EOI), T.800 A.4.4 (EOC).
    """
    is_marked = _start(codestream) < len(codestream)
    return is_marked and b"\xff\xd9" not in codestream.rstrip(b"\0")[-16:]


def comments_of(dataset: Dataset) -> Iterator[bytes]:
    """Read what JPEG, JPEG-LS or JPEG 2000 codestreams hold beside the image.

    Args:
        dataset: A data set.

    Yields:
        What stands in each comment and application segment, and behind the image's end; the
        rest as a whole from where no segment begins, though one should.

    Source:
        ITU-T T.81 B.2.4.5 and B.2.4.6 (COM, APPn), T.800 A.9.2 (COM).
    """
    for codestream in codestreams(dataset):
        for marker, content in _segments(codestream):
            if marker in _COMMENTS:
                yield content


def rle_holds_more(codestream: bytes, n_pixels: int) -> bool:
    """Tell whether an RLE frame holds bytes that no pixel comes from.

    Args:
        codestream: One frame, without its encapsulation.
        n_pixels: Pixels of the frame; each segment holds a byte of each.

    Returns:
        True where more than zeros follow a segment, or fill the header's unused places.

    Source:
        PS3.5 G.3 to G.5.
    """
    if len(codestream) < _RLE_HEADER.size:
        return False  # cut off: the decoder refuses it
    n_segments, *offsets = _RLE_HEADER.unpack_from(codestream)
    if any(offsets[n_segments:]):
        return True
    ends = [*offsets[1:n_segments], len(codestream)]
    starts = [_RLE_HEADER.size, *offsets[1:n_segments]]
    return any(
        any(codestream[_end_of_rle(codestream, start, n_pixels) : end])
        for start, end in zip(starts, ends, strict=True)
    )


def _end_of_rle(codestream: bytes, position: int, n_bytes: int) -> int:
    """Find where a segment ends that holds so many bytes."""
    while n_bytes > 0 and position < len(codestream):
        head = codestream[position]
        n_bytes -= head + 1 if head < 128 else 257 - head if head > 128 else 0
        position += head + 2 if head < 128 else 2 if head > 128 else 1
    return position


def _frame_header(codestream: bytes) -> tuple[int, int, int] | None:
    """Read rows, columns and the bits of a sample."""
    try:
        for marker, content in _segments(codestream):
            if marker == _SIZE:
                width, height, left, top = struct.unpack_from(">4L", content, 2)
                # The first component's bits less one, below a bit that says whether it is signed.
                return height - top, width - left, (content[36] & 0x7F) + 1
            if marker in _START_OF_FRAME:
                bits, rows, columns = struct.unpack_from(">BHH", content)
                return rows, columns, bits
    except (struct.error, IndexError):
        pass  # cut off before its size: the decoder refuses it
    return None


def _start(codestream: bytes) -> int:
    """Find the first marker; the length where there is none, as in RLE."""
    if codestream.startswith((b"\xff\xd8", b"\xff\x4f")):
        return 0
    found = -1 if _is_rle(codestream) else codestream.find(_WITHIN_BOXES)
    return len(codestream) if found < 0 else found


def _is_rle(codestream: bytes) -> bool:
    """Tell RLE by the number of its segments, which no other codestream begins with."""
    return 0 < int.from_bytes(codestream[:4], "little") < _RLE_HEADER.size // 4


def _segments(codestream: bytes) -> Iterator[tuple[int, bytes]]:
    """Walk over the segments, with what follows the end; the image itself is passed over.

    Source:
        ITU-T T.81 B.1.1, T.87 A.1, T.800 A.1.
    """
    position = _start(codestream)
    if position and not _is_rle(codestream):
        yield _STRAY, codestream[:position]
    position += 2
    while position + 1 < len(codestream):
        prefix, marker = codestream[position : position + 2]
        if prefix != 0xFF:
            yield _STRAY, codestream[position:]
            return
        position += 1 if marker == _FILL else 2
        if marker == _END:
            yield marker, codestream[position:]
            return
        if marker not in _BARE:
            length = int.from_bytes(codestream[position : position + 2])
            yield marker, codestream[position + 2 : position + length]
            position += length
        if marker in _AFTER_IMAGE:
            found = _AFTER_IMAGE[marker].search(codestream, position)
            position = found.start() if found else len(codestream)
