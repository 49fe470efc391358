"""Outlines in COCO's run lengths, as lists of numbers or packed into a string."""

from __future__ import annotations

from typing import Any

import numpy as np

from medllm.datasets.masks import RunLengthMask
from medllm.errors import LabelError

# A character is 48 and six bits: five of the number, lowest first, and whether more follow.
_FIRST, _LAST, _BITS = 48, 48 + 63, 5
_DIGIT, _SIGN, _MORE = 0x1F, 0x10, 0x20
# So many characters hold more pixels than an image has, and still fit 64 bits.
_LONGEST = 8


def read_coco_mask(where: str, outline: Any) -> RunLengthMask:
    """Read an outline, `{"size": [rows, columns], "counts": ...}`.

    Args:
        where: File and place in it, for the message.
        outline: The object as JSON gives it; its counts are a list of runs, or a string.

    Returns:
        The outline; where it covers nothing, `runs` is one number.

    Raises:
        LabelError: It is not such an object, or its runs do not fill the image.

    Source:
        cocodataset/cocoapi, common/maskApi.c: rleFrString, rleDecode.

    Example:
        >>> read_coco_mask("", {"size": [2, 3], "counts": "1210"}).runs
        (1, 2, 1, 2)
    """
    try:
        rows, columns = (int(number) for number in outline["size"])
        counts = outline["counts"]
        runs = _unpack(counts) if isinstance(counts, str) else tuple(int(run) for run in counts)
    except (TypeError, KeyError, ValueError, OverflowError) as error:
        raise LabelError(
            f"{where}: the outline cannot be read ({type(error).__name__}); wanted is size, rows "
            "and columns, and counts, a list or a string. Get the file again."
        ) from None
    if min(rows, columns, *runs) < 0 or sum(runs) != rows * columns or not runs:
        raise LabelError(
            f"{where}: the outline's runs do not fill its image of {rows} x {columns}; get the "
            "file again."
        )
    return RunLengthMask(runs, rows, columns)


def _unpack(counts: str) -> tuple[int, ...]:
    if not counts:
        return ()
    codes = np.frombuffer(counts.encode("ascii"), np.uint8).astype(np.int64)
    ends = np.flatnonzero((codes - _FIRST) & _MORE == 0)
    if codes.min() < _FIRST or codes.max() > _LAST or ends[-1:].tolist() != [len(codes) - 1]:
        raise ValueError("characters that stand for no number")
    codes -= _FIRST
    starts = np.concatenate([[0], ends[:-1] + 1])
    lengths = ends - starts + 1
    if lengths.max() > _LONGEST:
        raise ValueError("a number that no image has pixels for")
    places = np.arange(len(codes)) - np.repeat(starts, lengths)
    runs = np.add.reduceat((codes & _DIGIT) << (_BITS * places), starts)
    runs -= np.where(codes[ends] & _SIGN, 1 << (_BITS * lengths), 0)
    # From the fourth on, each is written as its difference from the one before the last.
    runs[1::2] = np.cumsum(runs[1::2])
    runs[2::2] = np.cumsum(runs[2::2])
    return tuple(runs.tolist())
