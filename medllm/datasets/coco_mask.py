"""Outlines in COCO's run lengths, as lists of numbers or packed into a string."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from jaxtyping import Bool

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


def coco_mask(mask: Bool[np.ndarray, "rows columns"]) -> dict[str, Any]:
    """Write an outline as `read_coco_mask` reads it.

    Args:
        mask: True inside.

    Returns:
        `size`, rows and columns, and `counts`, the runs packed into a string.

    Source:
        cocodataset/cocoapi, common/maskApi.c: rleEncode, rleToString.

    Example:
        >>> coco_mask(np.array([[False, True, True], [True, False, True]]))
        {'size': [2, 3], 'counts': '1210'}
    """
    down = np.pad(mask.T.ravel(), 1)  # outside before and behind
    ends = np.flatnonzero(down[1:] != down[:-1])
    runs = np.diff(ends, prepend=0, append=mask.size)
    # All inside to the end: nothing is outside behind the last run.
    runs = runs if runs[-1] or len(runs) == 1 else runs[:-1]
    return {"size": list(mask.shape), "counts": _pack(runs.tolist())}


def _pack(runs: Sequence[int]) -> str:
    packed = ""
    for at, run in enumerate(runs):
        number = run - runs[at - 2] if at > 2 else run
        more = True
        while more:
            digit, number = number & _DIGIT, number >> _BITS
            # What is left is the sign alone once the digit's highest bit says the same.
            more = number != (-1 if digit & _SIGN else 0)
            packed += chr(_FIRST + (digit | (_MORE if more else 0)))
    return packed


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
