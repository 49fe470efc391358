"""The overview of many reports: a page to start from, and a table."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from medllm.errors import ReportError
from medllm.files import replace_file
from medllm.report.overview import page
from medllm.report.overview.page import Entry
from medllm.report.overview.rows import Row, rows_of
from medllm.report.overview.stored import read_reports

PAGE, TABLE = "index.html", "explanations.parquet"

# One report is its own overview.
_LEAST = 2


@dataclass(frozen=True)
class Overview:
    """What became of an overview of reports.

    Attributes:
        n_reports: Reports that were read.
        files: `explanations.parquet` and `index.html`; none where there are fewer than two reports.
        skipped: Each `report.json` from which no report of medllm could be read.
        removed: An earlier overview's files, of which too few reports are left.
    """

    n_reports: int
    files: tuple[Path, ...] = ()
    skipped: tuple[Path, ...] = ()
    removed: tuple[Path, ...] = ()


def write_overview(out_dir: str | Path) -> Overview:
    """Write an overview of all reports in a folder: a page to start from, and a table.

    `index.html` has a row a radiograph, the positive ones first, with a link to its report.
    `explanations.parquet` has a row a report, finding and attribution method. Both say what each
    `report.json` says, without the patient's identity even where a report has it. Each is there
    whole or not at all. Fewer than two reports need no overview: an earlier one is removed.

    Args:
        out_dir: Folder with a folder a report, as `medllm explain` leaves it. A `report.json` there
            that is not of medllm, of a later schema or not whole is left out.

    Returns:
        The files, and what was left out.

    Raises:
        ReportError: A file of one of the two names is there that is no overview, or the folder
            cannot be written to. The reports are as they were.
    """
    out = Path(out_dir)
    rows: list[Row] = []
    entries: list[Entry] = []
    skipped = []
    for path, report in read_reports(out):
        if report is None:
            skipped.append(path)
            continue
        rows += rows_of(page.told_name(path.parent), report)
        entries.append(page.entry_of(path.parent, report))
    few = len(entries) < _LEAST
    try:
        removed = _removed(out) if few else ()
        files = () if few else _written(out, rows, page.render(entries, len(skipped)))
    except OSError as error:
        raise ReportError(
            f"{out} cannot be written to ({error.strerror}); choose another folder.",
            code="unwritable-folder",
        ) from error
    return Overview(len(entries), files, tuple(skipped), removed)


def _written(out: Path, rows: list[Row], page: bytes) -> tuple[Path, ...]:
    from medllm.report.overview.table import encode

    paths = (out / TABLE, out / PAGE)
    for path in paths:
        if path.exists() and not _is_ours(path):
            raise ReportError(
                f"{path} is not an overview of reports that medllm wrote, and is left as it is; "
                "for an overview, move it, or give the reports a folder of their own.",
                code="foreign-file",
            )
    for path, content in zip(paths, (encode(rows), page), strict=True):
        replace_file(path, content)
    return paths


def _removed(out: Path) -> tuple[Path, ...]:
    """Take away an earlier overview: it would tell of reports that are gone."""
    ours = tuple(path for name in (TABLE, PAGE) if (path := out / name).is_file() if _is_ours(path))
    for path in ours:
        path.unlink()
    return ours


def _is_ours(path: Path) -> bool:
    if path.is_dir():
        return False
    if path.name == PAGE:
        return page.is_ours(path)
    # Imported here, for one report alone has no table and needs no pyarrow.
    from medllm.report.overview.table import is_ours

    return is_ours(path)
