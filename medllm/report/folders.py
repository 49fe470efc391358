"""In which folder the report of a radiograph goes, among those of others."""

from __future__ import annotations

from pathlib import Path

from medllm.dicom.radiograph import Radiograph
from medllm.errors import ReportError
from medllm.files import replace_file

# These state the hash of their image. Where neither is written, the last is: it holds nothing else.
_TELLING = ("report.json", "report.html", "image.sha256")


def folder_for(scan: Radiograph, out: Path) -> tuple[Path, str]:
    """Name a report's folder after its file, with its hash where another's report has that name.

    Args:
        scan: The radiograph.
        out: Folder of the reports.

    Returns:
        The folder, and why it has the hash; nothing where it has none.
    """
    plain = out / scan.path.stem
    if not any(True for pattern in ("report*", "dicom/*") for _ in plain.glob(pattern)):
        return plain, ""
    telling = [file for name in _TELLING if (file := plain / name).is_file()]
    # They differ where one was written over by another's.
    if telling and all(scan.sha256.encode() in file.read_bytes() for file in telling):
        return plain, ""
    why = "holds the report of another image" if telling else "holds a report that names no image"
    return plain.with_name(f"{plain.name}-{scan.sha256[:8]}"), f"{plain} {why}"


def note_image(scan: Radiograph, folder: Path) -> None:
    """Leave the hash of the image beside reports of which none states it, for the next run."""
    if any((folder / name).is_file() for name in _TELLING[:-1]):
        return
    try:
        replace_file(folder / _TELLING[-1], f"{scan.sha256}\n")
    except OSError as error:
        raise ReportError(
            f"{folder} cannot be written to ({error.strerror}); choose another folder.",
            code="unwritable-folder",
        ) from error
