"""Progress over many images or files, and over the steps of one, on stderr."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from typing import Protocol, TypeVar, runtime_checkable


@runtime_checkable
class Told(Protocol):
    """What was made of one image: an error's code, None without; and the cause in one line."""

    @property
    def error(self) -> str | None:
        """Code of the cause; None where the image was done."""

    @property
    def message(self) -> str:
        """The cause in one line."""


Row = TypeVar("Row", bound=Told)


def watched(rows: Iterable[Row], total: int, what: str = "radiographs") -> Iterator[Row]:
    """Show progress with rate and time left, and say why an image was not done.

    Args:
        rows: What was made of each image.
        total: How many there will be.
        what: What they are.

    Yields:
        The rows.
    """
    from rich.console import Console
    from rich.progress import (
        BarColumn,
        MofNCompleteColumn,
        Progress,
        TextColumn,
        TimeRemainingColumn,
    )

    console = Console(stderr=True)
    with Progress(
        TextColumn(what),
        BarColumn(),
        MofNCompleteColumn(),
        TextColumn("{task.fields[rate]}"),
        TimeRemainingColumn(),
        console=console,
        disable=not console.is_terminal,
        transient=True,
    ) as progress:
        task = progress.add_task("", total=total, rate="")
        for row in rows:
            if row.error is not None:
                progress.console.print(row.message, markup=False, highlight=False, soft_wrap=True)
            speed = progress.tasks[0].speed
            progress.update(task, advance=1, rate="" if speed is None else f"{speed:.1f}/s")
            yield row


@contextmanager
def steps(what: str) -> Iterator[Callable[[Sequence[str]], Iterator[str]]]:
    """Show which step of a piece of work is at work, and for how long the whole has been.

    It is gone when the block is left, so that results are printed on lines of their own.

    Args:
        what: The piece, such as `radiograph 2 of 3`.

    Yields:
        A function that passes the names of steps on and shows each while it is at work.
    """
    from rich.console import Console
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn

    console = Console(stderr=True)
    with Progress(
        TextColumn("{task.description}", markup=False),
        BarColumn(),
        MofNCompleteColumn(),
        TimeElapsedColumn(),
        console=console,
        disable=not console.is_terminal,
        transient=True,
    ) as progress:
        task = progress.add_task(what, total=None)

        def watch(names: Sequence[str]) -> Iterator[str]:
            for done, name in enumerate(names):
                at = f"{what}, {name}"
                progress.update(
                    task, description=at, completed=done, total=len(names), refresh=True
                )
                yield name
            progress.update(task, description=what, completed=len(names))

        yield watch
