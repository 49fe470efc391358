"""Outlines of findings, decoded when they are asked for."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np
from jaxtyping import Bool
from PIL import Image

from medllm.errors import LabelError


@dataclass(frozen=True)
class RunLengthMask:
    """An outline as lengths of runs, outside and inside in turn, down the columns.

    Attributes:
        runs: Lengths in pixels; the first is outside.
        rows: Pixel rows of the image file.
        columns: Pixel columns.
    """

    runs: tuple[int, ...]
    rows: int
    columns: int

    def decode(self) -> Bool[np.ndarray, "rows columns"]:
        """Give the pixels that it covers.

        Returns:
            True inside; what no run reaches is outside.

        Raises:
            LabelError: The runs are longer than the image.
        """
        inside = np.arange(len(self.runs)) % 2 == 1
        flat = np.repeat(inside, self.runs)
        if len(flat) > self.rows * self.columns:
            raise LabelError(
                f"a mask has runs over {len(flat)} pixels; its image has {self.rows} x "
                f"{self.columns}. Get the file of masks again."
            )
        flat = np.pad(flat, (0, self.rows * self.columns - len(flat)))
        return flat.reshape(self.columns, self.rows).T


@dataclass(frozen=True)
class PictureMask:
    """An outline as pictures, not black where it lies; several are joined.

    Attributes:
        paths: Pictures of one size.
    """

    paths: tuple[Path, ...]

    def decode(self) -> Bool[np.ndarray, "rows columns"]:
        """Give the pixels that it covers.

        Returns:
            True where at least one picture is not black.

        Raises:
            LabelError: A picture is missing or unreadable.
        """
        covered = []
        for path in self.paths:
            try:
                with Image.open(path) as picture:
                    covered.append(np.asarray(picture.convert("L")) > 0)
            except OSError as error:
                raise LabelError(
                    f"the mask {path.name} cannot be read ({type(error).__name__}); get it again."
                ) from None
        joined: np.ndarray = np.logical_or.reduce(covered)
        return joined


Mask = RunLengthMask | PictureMask
