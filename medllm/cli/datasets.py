"""`medllm datasets`: the known data sets, a copy checked, and what copies have in common."""

from __future__ import annotations

import dataclasses
import itertools
import json
import os
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, get_args

import typer

from medllm.cli.inputs import Accept, AsJson, check_accept

if TYPE_CHECKING:
    from medllm.datasets.dataset import DataSet
    from medllm.datasets.leakage import Leakage, Shared
    from medllm.datasets.verify import Verification

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

_KINDS = {
    "patients": "patients",
    "identical": "images, identical to the byte",
    "alike": "images that look alike",
    "names": "equal file names, a hint only",
}
_RELATIONS = {
    "sets": "between sets",
    "parts": "between the parts of a set",
    "patients": "under the names of two patients",
}


@datasets.command("list")
def list_datasets(as_json: AsJson = False) -> None:
    """List the data sets that medllm reads: name, title, published images and patients, terms."""
    from medllm.datasets import DATASETS

    for dataset in DATASETS.values():
        counts = dataset.published
        images = _number(counts.images) if counts else "-"
        patients = _number(counts.patients) if counts and counts.patients else "-"
        row = f"{dataset.name:<17}{dataset.title:<51}{images:>9}{patients:>9}  {dataset.terms}"
        typer.echo(json.dumps(_facts(dataset)) if as_json else row)


@datasets.command("show")
def show(name: Name, as_json: AsJson = False) -> None:
    """Show what is known of a data set: terms, citation, label policy, counts, descent."""
    from medllm.datasets import find_dataset

    facts = _facts(find_dataset(name))
    typer.echo(json.dumps(facts) if as_json else "\n".join(_facts_page(facts)))


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

    Each file that is there is opened. Exit status 1: labels or a file cannot be read. A missing
    file is no fault, since a copy may be partial; neither is any other count.
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
        typer.echo("\n".join(_verification_page(found)))
    if found.unreadable:
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
        for line in _leakage_lines(found):
            typer.echo(json.dumps(line))
    else:
        typer.echo("\n".join(_leakage_page(found)))
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


def _number(count: int) -> str:
    return f"{count:,}"


def _row(name: str, text: str) -> str:
    return f"  {name:<13}{text}"


def _counts(counts: Mapping[str, int]) -> str:
    return "; ".join(f"{name}: {_number(count)}" for name, count in counts.items())


def _facts(dataset: DataSet) -> dict[str, Any]:
    from medllm.datasets.policy import Blank, Readers, Uncertain

    choices = {"uncertain": Uncertain, "readers": Readers, "blank": Blank}
    policy = dataclasses.asdict(dataset.policy)
    return {
        "name": dataset.name,
        "title": dataset.title,
        "terms": dataset.terms,
        "citation": dataset.citation,
        "policy": {
            name: {"default": policy[name], "choices": list(get_args(words))}
            for name, words in choices.items()
            if policy[name]
        },
        "published": dataclasses.asdict(dataset.published) if dataset.published else None,
        "descends": dict(dataset.descends),
        "card": None if dataset.name == "csv" else f"datasets/{dataset.name}.md",
    }


def _facts_page(facts: Mapping[str, Any]) -> Iterator[str]:
    yield f"{facts['name']}: {facts['title']}"
    yield _row("terms", facts["terms"])
    if facts["citation"]:
        yield _row("cite", facts["citation"])
    for name, policy in facts["policy"].items():
        others = ", ".join(word for word in policy["choices"] if word != policy["default"])
        yield _row("policy", f"{name}: {policy['default']}, or {others}")
    if not facts["policy"]:
        yield _row("policy", "the labels leave no choice")
    published = facts["published"]
    if published:
        patients = published["patients"]
        told = f", {_number(patients)} patients" if patients else ""
        yield _row("published", f"{_number(published['images'])} images{told}")
        for finding, count in published["positive"].items():
            yield _row("", f"{finding}: {_number(count)} images with it")
    for parent, words in facts["descends"].items():
        yield _row("made of", f"{parent}: {words}")
    card = facts["card"]
    where = f"{card} in medllm's repository" if card else "docs/how-to/recalibrate-for-your-site.md"
    yield _row("card" if card else "layout", where)


def _verification_page(found: Verification) -> Iterator[str]:
    published = found.published
    yield f"{found.dataset}: {found.title}"
    images = f"{_number(found.images)} in the tables{_against(found.images, published, 'images')}"
    yield _row("images", images)
    patients = f"{_number(found.patients)}{_against(found.patients, published, 'patients')}"
    yield _row("patients", patients)
    partial = "" if found.present == found.images else ", a partial copy; not here: "
    missing = _few(found.missing, found.images - found.present)
    yield _row("files", f"{_number(found.present)} of {_number(found.images)}{partial}{missing}")
    yield _row("views", _counts(found.views))
    yield _row("parts", _counts(found.splits) or "no official split")
    yield from _label_rows(found)
    if found.boxes:
        outside = f"; {_number(found.boxes_outside)} leave their image" * bool(found.boxes_outside)
        yield _row("boxes", f"{_number(found.boxes)}{outside}")
    yield _row("sizes", _counts(found.sizes) or "no file was read")
    yield _row("stored as", _counts(found.stored) or "no file was read")
    polarity = f"{_number(found.inverted)} of {_number(found.frontal)} frontal images look inverted"
    told = _few(found.inverted_names, found.inverted)
    yield _row("polarity", f"{polarity}{': ' * bool(told)}{told}")
    again = sum(len(group) - 1 for group in found.duplicates)
    groups = f", in {_number(len(found.duplicates))} groups: " if again else ""
    alike = _few([" = ".join(names[:3]) for names in found.duplicates[:3]], len(found.duplicates))
    yield _row("duplicates", f"{_number(again)} files have the bytes of another{groups}{alike}")
    if found.warnings:
        yield _row("warnings", _counts(found.warnings))
    for words in found.caveats.values():
        yield _row("caveat", words)
    for code, count in found.unreadable.items():
        named = _few(found.unreadable_names[code], count)
        yield _row("UNREADABLE", f"{code}: {_number(count)}: {named}")


def _label_rows(found: Verification) -> Iterator[str]:
    published = found.published.positive if found.published else {}
    heads = ("positive", "negative", "soft", "unknown", "published")
    yield _row("labels", f"{'':<28}" + "".join(f"{head:>10}" for head in heads))
    for finding, count in found.labels.items():
        numbers = [count.positive, count.negative, count.soft, count.unknown]
        cells = [
            *map(_number, numbers),
            _number(published[finding]) if finding in published else "",
        ]
        yield _row("", f"{finding:<28}" + "".join(f"{cell:>10}" for cell in cells)).rstrip()


def _against(count: int, published: Any, what: str) -> str:
    """Compare a count with the published one, if there is one."""
    wanted = getattr(published, what, None)
    if not wanted:
        return ""
    word = "as" if count == wanted else "fewer than" if count < wanted else "MORE than"
    return f", {word} published" + ("" if count == wanted else f" ({_number(wanted)})")


def _few(names: Any, count: int) -> str:
    """Name the first few of many."""
    more = count - len(names)
    return ", ".join(names) + (f" and {_number(more)} more" if more > 0 else "")


def _leakage_lines(found: Leakage) -> Iterator[dict[str, Any]]:
    yield from ({"set": dataclasses.asdict(one)} for one in found.sets)
    yield from ({"descent": words} for words in found.descent)
    yield from ({"shared": {**dataclasses.asdict(one), "leaks": one.leaks}} for one in found.shared)


def _leakage_page(found: Leakage) -> Iterator[str]:
    for one in found.sets:
        parts = [f"{_number(one.compared)} of {_number(one.images)} images compared"]
        if one.missing:
            parts.append(f"{_number(one.missing)} files not here")
        if one.unreadable:
            parts.append(f"UNREADABLE: {_counts(one.unreadable)}")
        yield f"{one.name}: {', '.join(parts)}"
    for words in found.descent:
        yield f"known: {words}"
    yield from (f"not compared: patients of {words}" for words in _not_compared(found))
    for relation, title in _RELATIONS.items():
        rows = [one for one in found.shared if one.relation == relation]
        if rows:
            yield f"\n{title}"
            yield from (line for one in rows for line in _shared_rows(one))
    n_leaks = sum(one.leaks for one in found.shared)
    yield f"\n{'LEAKAGE' if n_leaks else 'no leakage found between sets or official parts'}"


def _not_compared(found: Leakage) -> Iterator[str]:
    for one, other in itertools.combinations(found.sets, 2):
        unknown = [side.name for side in (one, other) if not side.pseudonyms]
        if unknown:
            yield f"{one.name} and {other.name}, which {unknown[0]} does not tell apart"
        elif one.pseudonyms != other.pseudonyms:
            yield f"{one.name} and {other.name}, whose pseudonyms are not known to be the same"
    for one in found.sets:
        if not one.pseudonyms:
            yield f"{one.name} between its parts, which it does not tell apart"


def _shared_rows(one: Shared) -> Iterator[str]:
    count = _number(one.n_first)
    if one.n_second != one.n_first:
        count += f" and {_number(one.n_second)}"
    where = one.first if one.first == one.second else f"{one.first} and {one.second}"
    yield f"  {where}: {count} {_KINDS[one.kind]}"
    for ours, theirs in one.examples:
        yield f"    {ours} = {theirs}" if one.kind != "patients" else f"    {ours}, {theirs}"
