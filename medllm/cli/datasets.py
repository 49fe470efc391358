"""`medllm datasets`: the known data sets, a copy checked, and what copies have in common."""

from __future__ import annotations

import dataclasses
import json
import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Annotated

import typer

from medllm.cli.dataset_pages import (
    facts_of,
    facts_page,
    leakage_lines,
    leakage_page,
    number,
    verification_page,
)
from medllm.cli.inputs import Accept, AsJson, check_accept

datasets = typer.Typer(
    help="List the known data sets, check a copy of one, and find what copies have in common.",
    no_args_is_help=True,
)
Name = Annotated[
    str,
    typer.Argument(
        metavar="NAME", help="Name of the data set, as `list` prints it.", show_default=False
    ),
]
Workers = Annotated[
    int | None,
    typer.Option(
        metavar="N", min=1, help="Processes that read; one a CPU if left out.", show_default=False
    ),
]


@datasets.command("list")
def list_datasets(as_json: AsJson = False) -> None:
    """List the data sets that medllm reads: name, title, published images and patients, terms."""
    from medllm.datasets import DATASETS

    for dataset in DATASETS.values():
        counts = dataset.published
        images = number(counts.images) if counts else "-"
        patients = number(counts.patients) if counts and counts.patients else "-"
        row = f"{dataset.name:<17}{dataset.title:<51}{images:>9}{patients:>9}  {dataset.terms}"
        typer.echo(json.dumps(facts_of(dataset)) if as_json else row)


@datasets.command("show")
def show(name: Name, as_json: AsJson = False) -> None:
    """Show what is known of a data set: terms, citation, label policy, counts, descent."""
    from medllm.datasets import find_dataset

    facts = facts_of(find_dataset(name))
    typer.echo(json.dumps(facts) if as_json else "\n".join(facts_page(facts)))


@datasets.command("verify")
def verify(
    name: Name,
    root: Annotated[
        Path, typer.Option(metavar="DIR", help="Folder of the copy.", show_default=False)
    ],
    accept: Accept = None,
    workers: Workers = None,
    as_json: AsJson = False,
) -> None:
    """Check a copy: its tables, counts, files, labels, duplicates, polarity.

    Each file that is there is opened. Exit status 1: labels or a file cannot be read, no file is
    there at all, or a patient is in two official parts. A missing file is no fault, since a copy
    may be partial; neither is any other count.
    """
    from medllm.datasets.verify import verify as examine

    check_accept(accept)
    with _progress() as progress:
        found = examine(
            name, root, accept=accept or (), workers=_processes(workers), progress=progress
        )
    if as_json:
        typer.echo(json.dumps(dataclasses.asdict(found)))
    else:
        typer.echo("\n".join(verification_page(found)))
    if found.unreadable or found.faults:
        raise typer.Exit(1)


@datasets.command("leakage")
def leakage(
    copies: Annotated[
        list[str],
        typer.Argument(
            metavar="NAME:DIR...",
            help="Data sets, each by its name and the folder of its copy.",
            show_default=False,
        ),
    ],
    workers: Workers = None,
    as_json: AsJson = False,
) -> None:
    """Find patients and images that data sets, or the parts of one, have in common.

    Exit status 1: a patient or an image is in two sets or in two official parts, so that a script
    stops before it trains on the one and tests on the other; or an image cannot be read. Equal
    file names, images under two patients' names, and a descent that is known are told, and leave
    it at 0.
    """
    from medllm.datasets.leakage import find_leakage

    sets = [_copy(text) for text in copies]
    with _progress() as progress:
        found = find_leakage(sets, workers=_processes(workers), progress=progress)
    if as_json:
        for line in leakage_lines(found):
            typer.echo(json.dumps(line))
    else:
        typer.echo("\n".join(leakage_page(found)))
    if any(one.leaks for one in found.shared) or any(one.unreadable for one in found.sets):
        raise typer.Exit(1)


def _copy(text: str) -> tuple[str, str]:
    name, _, folder = text.partition(":")
    if not name or not folder:
        raise typer.BadParameter(
            f"'{text}' is not NAME:DIR, such as nih:data/nih.", param_hint="NAME:DIR..."
        )
    return name, folder


def _processes(workers: int | None) -> int:
    return workers or os.cpu_count() or 1


@contextmanager
def _progress() -> Iterator[Callable[[str, int, int], None]]:
    """Show a bar a stage on stderr, on a terminal."""
    from rich.console import Console
    from rich.progress import (
        BarColumn,
        MofNCompleteColumn,
        Progress,
        TaskID,
        TextColumn,
        TimeRemainingColumn,
    )

    console = Console(stderr=True)
    columns = (
        TextColumn("{task.description}"),
        BarColumn(),
        MofNCompleteColumn(),
        TimeRemainingColumn(),
    )
    stages: dict[str, TaskID] = {}
    with Progress(
        *columns, console=console, disable=not console.is_terminal, transient=True
    ) as bars:

        def tell(stage: str, done: int, total: int) -> None:
            if stage not in stages:
                stages[stage] = bars.add_task(stage, total=total)
            bars.update(stages[stage], completed=done)

        yield tell
