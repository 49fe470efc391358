"""The formats a report can be written in, and the writing of them."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from medllm.errors import ReportError
from medllm.files import replace_file
from medllm.report import html, json
from medllm.report.document import Report


@dataclass(frozen=True)
class Format:
    """One encoding.

    Attributes:
        file_name: Name of the file it is written to.
        encode: From the report to the file's bytes.
    """

    file_name: str
    encode: Callable[[Report], bytes]


FORMATS: dict[str, Format] = {
    "html": Format("report.html", html.encode),
    "json": Format("report.json", json.encode),
}


def write(report: Report, out_dir: Path, formats: Sequence[str]) -> dict[str, Path]:
    """Write a report; nothing is written where one of the formats cannot be encoded.

    Args:
        report: The report.
        out_dir: Folder to write to; made where it is missing.
        formats: Keys of `FORMATS`.

    Returns:
        The file written for each format.

    Raises:
        ReportError: A format is unknown, or the folder cannot be written to.
    """
    for name in formats:
        if name not in FORMATS:
            raise ReportError(
                f"'{name}' is not a report format; use one of: {', '.join(FORMATS)}.",
                code="unknown-format",
            )
    encoded = {name: FORMATS[name].encode(report) for name in formats}
    paths = {name: out_dir / FORMATS[name].file_name for name in formats}
    try:
        out_dir.mkdir(parents=True, exist_ok=True)
        for name, path in paths.items():
            replace_file(path, encoded[name])
    except OSError as error:
        raise ReportError(
            f"{out_dir} cannot be written to ({error.strerror}); choose another folder.",
            code="unwritable-folder",
        ) from error
    return paths
