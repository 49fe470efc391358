"""The files of another report in a folder that a report was written to."""

from __future__ import annotations

import contextlib
import re
from collections.abc import Collection
from pathlib import Path

from medllm.report.dicom.source import MANUFACTURER, series_uids
from medllm.report.document import Report
from medllm.report.fhir.context import report_name
from medllm.report.origin import digest

# All that the files of a report are called.
NAMES = (
    *("report.html", "report.json", "report.pdf", "report-letter.pdf", "report.fhir-r*.json"),
    *("dicom/sr.dcm", "dicom/seg.dcm", "dicom/sc-*.dcm", "dicom/gsps-*.dcm", "dicom/pdf.dcm"),
)
# Others name files so, too, and `medllm evaluate` writes a report.html: a report states its id.
_REPORT_ID = re.compile(rb"R-[0-9a-f]{12}")


def remove_leftovers(report: Report, folder: Path, written: Collection[Path]) -> tuple[Path, ...]:
    """Remove what is left of another report, which would contradict the one just written.

    What was written earlier of the same image, model and questions says the same, and stays, but
    for pages that name the patient beside others that do not; so does every file that is not of a
    report of medllm.

    Args:
        report: The report that was written.
        folder: Where to.
        written: Its files.

    Returns:
        The files that were removed.

    Raises:
        OSError: One cannot be read or removed.
    """
    removed = []
    for path in sorted(path for name in NAMES for path in folder.glob(name) if path.is_file()):
        if path in written:
            continue
        content = path.read_bytes()
        signs = _signs(report, path)
        if _is_ours(path, content) and not any(sign.encode() in content for sign in signs):
            path.unlink()
            removed.append(path)
    with contextlib.suppress(OSError):  # there is none, or it holds something
        (folder / "dicom").rmdir()
    return tuple(removed)


def _signs(report: Report, path: Path) -> tuple[str, ...]:
    """Give what such a file of a report states, one or another, in plain bytes."""
    if path.suffix == ".dcm" and path.stem != "pdf":  # these name nobody
        return series_uids(report)
    return (digest(report), report_name(report))


def _is_ours(path: Path, content: bytes) -> bool:
    if path.suffix == ".dcm":
        return MANUFACTURER.encode() in content
    return _REPORT_ID.search(content) is not None
