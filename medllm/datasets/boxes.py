"""Boxes as tables write them."""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Iterable, Mapping

from medllm.datasets.record import Box
from medllm.errors import LabelError


def read_box(where: str, x: str, y: str, width: str, height: str) -> Box:
    """Read a box that a table gives by its corner and its size.

    Args:
        where: File and line, for the message.
        x: Left edge in pixels of the file.
        y: Upper edge.
        width: Width; above 0.
        height: Height; above 0.

    Returns:
        x, y, width, height.

    Raises:
        LabelError: One of them is no number, or the box is empty.

    Example:
        >>> read_box("boxes.csv, line 2", "1", "2.5", "30", "40")
        (1.0, 2.5, 30.0, 40.0)
    """
    left, top = _number(where, "x", x), _number(where, "y", y)
    wide, high = _number(where, "width", width), _number(where, "height", height)
    return _whole(where, (left, top, wide, high))


def read_corners(where: str, x_min: str, y_min: str, x_max: str, y_max: str) -> Box:
    """Read a box that a table gives by two corners.

    Args:
        where: File and line, for the message.
        x_min: Left edge in pixels of the file.
        y_min: Upper edge.
        x_max: Right edge; beyond the left one.
        y_max: Lower edge; beyond the upper one.

    Returns:
        x, y, width, height.

    Raises:
        LabelError: One of them is no number, or the box is empty.

    Example:
        >>> read_corners("train.csv, line 2", "1", "2", "31", "42")
        (1.0, 2.0, 30.0, 40.0)
    """
    left, top = _number(where, "x_min", x_min), _number(where, "y_min", y_min)
    right, bottom = _number(where, "x_max", x_max), _number(where, "y_max", y_max)
    return _whole(where, (left, top, right - left, bottom - top))


def group_boxes(boxes: Iterable[tuple[str, Box]]) -> dict[str, tuple[Box, ...]]:
    """Put an image's boxes together by finding, in their order.

    Args:
        boxes: Key of a finding, and a box of it.

    Returns:
        Boxes a finding's key.
    """
    found: defaultdict[str, tuple[Box, ...]] = defaultdict(tuple)
    for key, box in boxes:
        found[key] += (box,)
    return dict(found)


def boxes_of_positives(
    boxes: Iterable[tuple[str, Box]], labels: Mapping[str, float]
) -> dict[str, tuple[Box, ...]]:
    """Put an image's boxes together, of the findings alone that it is labelled with.

    Args:
        boxes: Key of a finding, and a box of it.
        labels: The image's labels; a later reading of it may have refuted a box.

    Returns:
        Boxes a finding's key.
    """
    return group_boxes((key, box) for key, box in boxes if labels.get(key) == 1)


def _whole(where: str, box: Box) -> Box:
    if box[2] <= 0 or box[3] <= 0:
        raise LabelError(
            f"{where}: the box is {box[2]:g} wide and {box[3]:g} high; both must be above 0, in "
            "pixels of the file."
        )
    return box


def _number(where: str, name: str, text: str) -> float:
    try:
        value = float(text)
    except ValueError:
        value = math.nan
    if not math.isfinite(value):
        raise LabelError(f"{where}: {name} is '{text}'; wanted is a number of pixels of the file.")
    return value
