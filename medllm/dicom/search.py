"""From what a user names on a command line to image files."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

from medllm.dicom.content import HEAD_BYTES, FileKind, file_kind
from medllm.errors import DicomError

# A file with such a name is somebody's image even if its content is broken: it is listed, so
# that reading it says what is wrong with it.
_DICOM_SUFFIXES = frozenset({".dcm", ".dicom", ".dic"})
IMAGE_SUFFIXES = _DICOM_SUFFIXES | {".png", ".jpg", ".jpeg"}

_May = Callable[[Path], bool]


def find_images(inputs: Sequence[str | Path]) -> Iterator[Path]:
    """List the image files that inputs name.

    Args:
        inputs: Files, listed as they are, and folders, searched with all below them. Within
            a folder a file is listed if its content looks like DICOM, PNG or JPEG, or if its
            name says so; hidden files and folders and DICOMDIR are passed over.

    Yields:
        Path: In the order of `inputs`, sorted within a folder; none twice for one input.

    Raises:
        DicomError: An input does not exist, or a folder below it cannot be listed.
    """
    yield from _find(inputs, _may_be_image)


def find_dicom(inputs: Sequence[str | Path]) -> Iterator[Path]:
    """List the DICOM files that inputs name, whatever objects they hold.

    Args:
        inputs: As for `find_images`; PNG and JPEG files within a folder are passed over.

    Yields:
        Path: As `find_images` does.

    Raises:
        DicomError: An input does not exist, or a folder below it cannot be listed.
    """
    yield from _find(inputs, _may_be_dicom)


def _find(inputs: Sequence[str | Path], may_be_meant: _May) -> Iterator[Path]:
    for given in inputs:
        path = Path(given)
        if path.is_dir():
            yield from _in_folder(path, (), may_be_meant)
        elif path.exists():
            yield path
        else:
            raise DicomError(f"{path}: no such file or folder; check it.", code="file-not-found")


def _in_folder(folder: Path, above: tuple[Path, ...], may_be_meant: _May) -> Iterator[Path]:
    real = folder.resolve()
    if real in above:  # a link back up
        return
    try:
        entries = sorted(os.scandir(folder), key=lambda entry: entry.name)
    except OSError as error:
        raise DicomError(
            f"{folder}: the folder cannot be listed ({error.strerror}); check its permissions.",
            code="unreadable-file",
        ) from None
    for entry in entries:
        if entry.name.startswith(".") or entry.name.upper() == "DICOMDIR":
            continue
        path = folder / entry.name
        try:
            is_folder, is_file = entry.is_dir(), entry.is_file()
        except OSError:  # a link to itself, or to where nobody may look: no file
            continue
        if is_folder:
            yield from _in_folder(path, (*above, real), may_be_meant)
        elif is_file and may_be_meant(path):
            yield path


def _may_be_image(path: Path) -> bool:
    return path.suffix.lower() in IMAGE_SUFFIXES or _kind(path) is not None


def _may_be_dicom(path: Path) -> bool:
    kinds = ("dicom", "dicom-without-preamble")
    return path.suffix.lower() in _DICOM_SUFFIXES or _kind(path) in kinds


def _kind(path: Path) -> FileKind | None:
    try:
        with path.open("rb") as file:
            return file_kind(file.read(HEAD_BYTES))
    except OSError:
        return None
