"""From a path to the bytes of an image file, with a clear refusal of anything else."""

from __future__ import annotations

from pathlib import Path

from medllm.dicom.content import HEAD_BYTES, FileKind, file_kind
from medllm.errors import DicomError

# Four times the largest radiographs: stitched spines, 16 bit, stay below 64 MiB.
MAX_FILE_BYTES = 2**28


def read_image_file(path: Path) -> tuple[bytes, FileKind]:
    """Read a file that looks like a DICOM, PNG or JPEG image.

    Args:
        path: The file.

    Returns:
        Its bytes, and what its first bytes say that it is.

    Raises:
        DicomError: The path is missing, a folder or not readable, or the file is empty, too
            large or of another kind.
    """
    try:
        if path.is_dir():
            raise DicomError(
                "is a folder, wanted is a file; find_images lists the images in it.",
                code="is-a-folder",
            )
        size = path.stat().st_size
        if size > MAX_FILE_BYTES:
            raise DicomError(
                f"the file has {size} bytes, medllm reads up to {MAX_FILE_BYTES}; give one "
                "radiograph a file.",
                code="too-large",
            )
        data = path.read_bytes()
    except FileNotFoundError:
        raise DicomError("no such file; check the path.", code="file-not-found") from None
    except OSError as error:
        raise DicomError(
            f"the file cannot be opened ({error.strerror}); check its permissions and the disk.",
            code="unreadable-file",
        ) from None
    return data, _require_image(data)


def _require_image(data: bytes) -> FileKind:
    if not data:
        raise DicomError("the file is empty; copy or export it again.", code="empty-file")
    kind = file_kind(data[:HEAD_BYTES])
    if kind is None:
        raise DicomError(
            "the content is neither DICOM nor PNG nor JPEG, whatever the name says; give the "
            "image itself.",
            code="not-an-image-file",
        )
    return kind
