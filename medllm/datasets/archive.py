"""Images inside NumPy archives, one at a time."""

from __future__ import annotations

import functools
import zipfile
from pathlib import Path
from typing import IO

import numpy as np
from jaxtyping import UInt8

from medllm.errors import DicomError


class _Stack:
    """A compressed array of images that is read from front to back.

    Archives of 78,000 images of 224 pixels take 4 GB when they are read whole, and a compressed
    array cannot be entered in the middle. Images are mostly asked for in order, so the reading
    goes on where it stopped, and begins anew only for an earlier image.
    """

    def __init__(self, path: Path, array: str) -> None:
        self._path, self._array = path, array
        self._archive = zipfile.ZipFile(path)
        self._open()

    def _open(self) -> None:
        self._stream: IO[bytes] = self._archive.open(f"{self._array}.npy")
        version = np.lib.format.read_magic(self._stream)
        read = {
            (1, 0): np.lib.format.read_array_header_1_0,
            (2, 0): np.lib.format.read_array_header_2_0,
        }[version]
        self.shape, fortran, dtype = read(self._stream)
        if len(self.shape) != 3 or fortran or dtype != np.uint8:
            raise ValueError(f"{dtype} of shape {self.shape}")
        self._next = 0

    def image(self, index: int) -> UInt8[np.ndarray, "rows columns"]:
        if index < self._next:
            self._stream.close()
            self._open()
        count, rows, columns = self.shape
        if index >= count:
            raise IndexError(index)
        size = rows * columns
        for _ in range(index - self._next):
            self._stream.read(size)
        data = self._stream.read(size)
        self._next = index + 1
        return np.frombuffer(data, np.uint8).reshape(rows, columns)


@functools.lru_cache(maxsize=4)
def _stack(path: Path, array: str, changed: float) -> _Stack:
    return _Stack(path, array)


def archived_image(path: Path, member: str) -> UInt8[np.ndarray, "rows columns"]:
    """Read one image of a NumPy archive (`.npz`).

    Args:
        path: The archive.
        member: `ARRAY/INDEX`; the array is of unsigned bytes, images x rows x columns.

    Returns:
        The stored values.

    Raises:
        DicomError: The archive is missing or damaged, or has no such image.
    """
    array, _, index = member.rpartition("/")
    try:
        return _stack(path, array, path.stat().st_mtime).image(int(index))
    except FileNotFoundError:
        raise DicomError(
            f"{path}: the file is not there; check the path.", code="file-not-found"
        ) from None
    except (OSError, KeyError, ValueError, IndexError, zipfile.BadZipFile, EOFError) as error:
        raise DicomError(
            f"{path}: {member} cannot be read from the archive ({type(error).__name__}); get the "
            "file again.",
            code="truncated",
        ) from None
