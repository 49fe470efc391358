"""Images inside NumPy archives, one at a time."""

from __future__ import annotations

import functools
import os
import weakref
import zipfile
import zlib
from pathlib import Path
from typing import IO

import numpy as np
from jaxtyping import UInt8

from medllm.errors import DicomError

_DAMAGE = (OSError, KeyError, ValueError, IndexError, EOFError, zipfile.BadZipFile, zlib.error)


class _Stack:
    """A compressed array of images that is read from front to back.

    Archives of 78,000 images of 224 pixels take 4 GB when they are read whole, and a compressed
    array cannot be entered in the middle. Images are mostly asked for in order, so the reading
    goes on where it stopped, and begins anew only for an earlier image.
    """

    def __init__(self, path: Path, array: str) -> None:
        self._array = array
        file = path.open("rb")
        weakref.finalize(self, file.close)
        self._archive = zipfile.ZipFile(file)
        self._open()

    def _open(self) -> None:
        self._stream: IO[bytes] = self._archive.open(f"{self._array}.npy")
        version = np.lib.format.read_magic(self._stream)
        read = {
            (1, 0): np.lib.format.read_array_header_1_0,
            (2, 0): np.lib.format.read_array_header_2_0,
        }[version]
        shape, fortran, dtype = read(self._stream)
        if len(shape) != 3 or fortran or dtype != np.uint8:
            raise ValueError(f"{dtype} of shape {shape}")
        self.count, self._rows, self._columns = shape
        self._next = 0

    def image(self, index: int) -> UInt8[np.ndarray, "rows columns"]:
        if not 0 <= index < self.count:
            raise IndexError(index)
        if index < self._next:
            self._stream.close()
            self._open()
        size = self._rows * self._columns
        skipped = index - self._next
        # Where reading breaks off, nobody knows the place any more: the next image opens anew.
        self._next = self.count
        for _ in range(skipped):
            self._stream.read(size)
        image = np.frombuffer(self._stream.read(size), np.uint8).reshape(self._rows, self._columns)
        self._next = index + 1
        return image


@functools.lru_cache(maxsize=4)
def _stack(path: Path, array: str, changed: float, process: int) -> _Stack:
    # A process that was forked shares its parent's place in the file, so it opens its own.
    return _Stack(path, array)


def _find_stack(path: Path, array: str) -> _Stack:
    return _stack(path, array, path.stat().st_mtime, os.getpid())


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
        return _find_stack(path, array).image(int(index))
    except FileNotFoundError:
        raise DicomError(
            f"{path}: the file is not there; check the path.", code="file-not-found"
        ) from None
    except _DAMAGE as error:
        raise _unreadable(path, member, error) from None


def count_archived(path: Path, array: str) -> int:
    """Count the images of a NumPy archive (`.npz`) by its header, without reading them.

    Args:
        path: The archive.
        array: Name of the array; of unsigned bytes, images x rows x columns.

    Returns:
        The number of images.

    Raises:
        DicomError: The archive is damaged, or has no such array.
    """
    try:
        return int(_find_stack(path, array).count)
    except _DAMAGE as error:
        raise _unreadable(path, array, error) from None


def _unreadable(path: Path, member: str, error: Exception) -> DicomError:
    return DicomError(
        f"{path}: {member} cannot be read from the archive ({type(error).__name__}); get the "
        "file again.",
        code="truncated",
    )
