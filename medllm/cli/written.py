"""What `medllm explain` says of what it wrote."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import typer

from medllm.cli.inputs import tell_error
from medllm.errors import AttributionError, MedllmError

if TYPE_CHECKING:
    from medllm.report.formats import Written


def tell_written(
    path: Path, folder: Path, written: Written, reasons: Sequence[AttributionError]
) -> bool:
    """Say what was written of a radiograph and what was not.

    Args:
        path: The radiograph's file.
        folder: Folder of its report.
        written: What became of the formats.
        reasons: Why explanations were refused.

    Returns:
        Whether it was all that was asked for.
    """
    from medllm.report.formats import told_names

    if written.removed:
        gone = told_names(written.removed, folder)
        typer.echo(f"{path}: removed from {folder}, of another report: {gone}", err=True)
    # Several formats can fail for one cause, such as a library that is not there.
    causes = {str(cause): cause for cause in (*reasons, *written.refused.values())}
    for cause in causes.values():
        tell_error(path, cause)
    if files := every_file(written.files):
        typer.echo(f"{path}  {'  '.join(map(str, files))}")
    return not causes


def tell_overview(out: Path) -> bool:
    """Write the overview of all reports in a folder.

    Args:
        out: The folder.

    Returns:
        Whether it could be written, or none was needed.
    """
    from medllm.report import write_overview
    from medllm.report.formats import told_names

    try:
        made = write_overview(out)
    except MedllmError as error:
        tell_error(out, error)
        return False
    if made.removed:
        gone = told_names(made.removed, out)
        typer.echo(f"{out}: removed, of reports that are no longer there: {gone}", err=True)
    if made.files:
        if made.skipped:
            told, more = told_names(made.skipped[:3], out), ", ..." * (len(made.skipped) > 3)
            typer.echo(
                f"{out}: files from which no report could be read, and left out of the overview: "
                f"{len(made.skipped)} ({told}{more})",
                err=True,
            )
        typer.echo(f"{made.n_reports} reports  {'  '.join(map(str, reversed(made.files)))}")
    return True


def tell_refused(verdicts: Counter[str], methods: Sequence[str]) -> None:
    """Say how many maps are not drawn, and what may explain those answers.

    Args:
        verdicts: Number of explanations by verdict.
        methods: Attribution methods that were asked for.
    """
    if refused := verdicts["do not use"]:
        other = "patch-shapley"
        remedy = f"; another method beside: --method {','.join([*methods, other])}"
        typer.echo(
            f"maps not drawn, since a check failed: {refused} of {verdicts.total()} (the reports "
            f"say which){'' if other in methods else remedy}",
            err=True,
        )


def every_file(files: Mapping[str, Sequence[Path]]) -> list[Path]:
    """List the files of all formats.

    Args:
        files: By format.

    Returns:
        All of them, in the order of the formats.
    """
    return [file for each in files.values() for file in each]
