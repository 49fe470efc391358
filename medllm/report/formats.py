"""The formats a report can be written in, and the writing of them."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from functools import cache, partial
from pathlib import Path

from medllm.errors import ReportError
from medllm.files import replace_file
from medllm.report import dicom, fhir, html, json, pdf
from medllm.report.document import Report

# From the report and its PDF to each file's content, by its path within the report's folder.
Encode = Callable[[Report, pdf.Printed], Mapping[str, bytes]]

FORMATS: dict[str, Encode] = {
    "html": lambda report, _: {"report.html": html.encode(report)},
    "json": lambda report, _: {"report.json": json.encode(report)},
    "pdf": lambda _, printed: {"report.pdf": printed("A4")},
    "pdf-letter": lambda _, printed: {"report-letter.pdf": printed("Letter")},
    "dicom": dicom.encode,
    "fhir": fhir.encode,
}


def write(report: Report, out_dir: Path, formats: Sequence[str]) -> dict[str, tuple[Path, ...]]:
    """Write a report; nothing is written where one of the formats cannot be encoded.

    Args:
        report: The report.
        out_dir: Folder to write to; made where it is missing.
        formats: Keys of `FORMATS`.

    Returns:
        The files written for each format.

    Raises:
        ReportError: A format is unknown or cannot hold this report, or the folder cannot be
            written to.
    """
    for name in formats:
        if name not in FORMATS:
            raise ReportError(
                f"'{name}' is not a report format; use one of: {', '.join(FORMATS)}.",
                code="unknown-format",
            )
    # Seconds to set, and the same pages in three formats: set when first asked for, and then kept.
    printed = cache(partial(pdf.encode, report))
    encoded = {name: FORMATS[name](report, printed) for name in formats}
    try:
        return {
            name: tuple(_written(out_dir / file, content) for file, content in files.items())
            for name, files in encoded.items()
        }
    except OSError as error:
        raise ReportError(
            f"{out_dir} cannot be written to ({error.strerror}); choose another folder.",
            code="unwritable-folder",
        ) from error


def _written(path: Path, content: bytes) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    replace_file(path, content)
    return path
