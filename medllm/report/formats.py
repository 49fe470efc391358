"""The formats a report can be written in, and the writing of them."""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import cache, partial
from pathlib import Path

from medllm.errors import ReportError
from medllm.files import replace_file
from medllm.report import dicom, fhir, html, json, pdf
from medllm.report.document import Report
from medllm.report.leftovers import remove_leftovers

_LOG = logging.getLogger(__name__)

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


@dataclass(frozen=True)
class Written:
    """What became of the formats that a report was to be written in.

    Attributes:
        files: The files of each format that was written.
        refused: Why the others were not.
        removed: Files of another report that were removed.
    """

    files: Mapping[str, tuple[Path, ...]]
    refused: Mapping[str, ReportError]
    removed: tuple[Path, ...]


def write(report: Report, out_dir: Path, formats: Sequence[str]) -> dict[str, tuple[Path, ...]]:
    """Write a report; nothing is written where one of the formats cannot be encoded.

    Args:
        report: The report.
        out_dir: Folder to write to; made where it is missing. Files of another report are removed
            from it, and a warning logged.
        formats: Keys of `FORMATS`.

    Returns:
        The files written for each format.

    Raises:
        ReportError: A format is unknown or cannot hold this report, or the folder cannot be
            written to.
    """
    encoded, refused = _encoded(report, formats)
    for error in refused.values():
        raise error
    files, removed = _put(report, out_dir, encoded)
    if removed:
        told = told_names(removed, out_dir)
        _LOG.warning("removed from the report's folder, of another report: %s", told)
    return files


def write_possible(report: Report, out_dir: Path, formats: Sequence[str]) -> Written:
    """Write a report in those of some formats that can hold it.

    Args:
        report: The report.
        out_dir: As of `write`; left as it is where no format can hold the report.
        formats: Keys of `FORMATS`.

    Returns:
        What was written, and what was not.

    Raises:
        ReportError: A format is unknown, or the folder cannot be written to.
    """
    encoded, refused = _encoded(report, formats)
    files, removed = _put(report, out_dir, encoded) if encoded else ({}, ())
    return Written(files, refused, removed)


def told_names(paths: Sequence[Path], out_dir: Path) -> str:
    """Name files by their paths within a report's folder."""
    return ", ".join(path.relative_to(out_dir).as_posix() for path in paths)


def _encoded(
    report: Report, formats: Sequence[str]
) -> tuple[dict[str, Mapping[str, bytes]], dict[str, ReportError]]:
    """Encode a report in each format; say why where one cannot hold it."""
    for name in formats:
        if name not in FORMATS:
            raise ReportError(
                f"'{name}' is not a report format; use one of: {', '.join(FORMATS)}.",
                code="unknown-format",
            )
    # Seconds to set, and the same pages in three formats: set when first asked for, and then kept.
    printed = cache(partial(pdf.encode, report))
    encoded: dict[str, Mapping[str, bytes]] = {}
    refused: dict[str, ReportError] = {}
    for name in formats:
        try:
            encoded[name] = FORMATS[name](report, printed)
        except ReportError as error:
            refused[name] = error
    return encoded, refused


def _put(
    report: Report, out_dir: Path, encoded: Mapping[str, Mapping[str, bytes]]
) -> tuple[dict[str, tuple[Path, ...]], tuple[Path, ...]]:
    """Put the files in place, and only then take away those of another report."""
    try:
        written = {
            name: tuple(_written(out_dir / file, content) for file, content in files.items())
            for name, files in encoded.items()
        }
        every = {path for paths in written.values() for path in paths}
        return written, remove_leftovers(report, out_dir, every)
    except OSError as error:
        raise ReportError(
            f"{out_dir} cannot be written to ({error.strerror}); choose another folder.",
            code="unwritable-folder",
        ) from error


def _written(path: Path, content: bytes) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    replace_file(path, content)
    return path
