"""`metrics.json` and `report.html`: what every evaluation leaves in its folder."""

from __future__ import annotations

import json
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from pydantic import BaseModel

from medllm.errors import MedllmError
from medllm.files import replace_file


def write_results(document: BaseModel, page: bytes, out: Path) -> None:
    """Write `metrics.json` and `report.html`.

    Args:
        document: The figures.
        page: Their page.
        out: Folder; it is made.

    Raises:
        MedllmError: It cannot be written.
    """
    values: dict[str, Any] = document.model_dump(mode="json")
    with writing(out):
        out.mkdir(parents=True, exist_ok=True)
        replace_file(out / "metrics.json", json.dumps(values, indent=1, allow_nan=False) + "\n")
        replace_file(out / "report.html", page)


@contextmanager
def writing(out: Path) -> Iterator[None]:
    """Tell an error of the disk in one line.

    Args:
        out: Folder that is written to.

    Yields:
        Nothing.

    Raises:
        MedllmError: It cannot be written.
    """
    try:
        yield
    except OSError as error:
        raise MedllmError(
            f"{out} cannot be written ({error.strerror}); name another --out.", code="not-written"
        ) from error


def folder_from(out: Path, root: Path) -> str:
    """Say where a data set's folder lies, as seen from a page.

    Args:
        out: Folder of the page.
        root: Folder of the data set.

    Returns:
        Such as `../nih`.
    """
    return Path(os.path.relpath(root, out)).as_posix()
