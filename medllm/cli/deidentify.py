"""`medllm deidentify`: radiographs without their patient."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from medllm.cli.inputs import find_each, tell_error

if TYPE_CHECKING:
    from pydicom.tag import BaseTag

    from medllm.dicom.deidentify import Key, Outcome


def deidentify(
    inputs: Annotated[
        list[Path],
        typer.Argument(
            metavar="INPUT...",
            help="DICOM files, or folders, searched through by content.",
            show_default=False,
        ),
    ],
    out: Annotated[
        Path,
        typer.Option(
            metavar="DIR", file_okay=False, help="Folder of the new files.", show_default=False
        ),
    ],
    key: Annotated[
        Path,
        typer.Option(
            metavar="FILE",
            help="Secret that pseudonyms, UIDs and date shifts are made from; made where there "
            "is none. Keep it, and keep it apart from the new files.",
            show_default=False,
        ),
    ],
    accept: Annotated[
        list[str] | None,
        typer.Option(
            metavar="CODE",
            help="Take an image in spite of this gate, such as secondary-capture, after a look "
            "at it; may be repeated.",
            show_default=False,
        ),
    ] = None,
    remove: Annotated[
        list[str] | None,
        typer.Option(
            metavar="KEYWORD",
            help="Take this attribute out as well, such as StationName; may be repeated.",
            show_default=False,
        ),
    ] = None,
) -> None:
    """Take the patient out of DICOM radiographs, by PS3.15 Annex E.

    Writes DIR/PSEUDONYM/SOP-INSTANCE-UID.dcm; DIR/deidentification.json says what was done. Age,
    sex, device and shifted dates stay. Pixels are not changed: look for names in them.
    """
    from medllm.dicom import find_images
    from medllm.dicom.deidentify import Outcome, deidentify_files, open_key, write_record

    _check_accept(accept)
    also = _tags(remove)
    _check_apart(key, out)
    found = find_each(inputs, find_images, "DICOM")
    outcomes = [Outcome(path, error=error) for path, error in found if error is not None]
    for outcome in outcomes:
        _tell(outcome)
    sources = [path for path, error in found if error is None]
    if not sources:
        raise typer.Exit(1)
    secret, made = open_key(key)
    if made:
        typer.echo(
            f"{key}: new key {secret.fingerprint}; who has it can link the new files to the "
            "patients, and without it none can be added to them.",
            err=True,
        )
    for outcome in deidentify_files(
        _watched(sources), out, secret, accept=accept or (), remove=also
    ):
        _tell(outcome)
        outcomes.append(outcome)
    record = write_record(outcomes, out, secret)
    typer.echo("\n".join(_summary(outcomes, secret, record)))
    if any(outcome.error is not None for outcome in outcomes):
        raise typer.Exit(1)


def _check_accept(accept: Sequence[str] | None) -> None:
    from medllm.dicom.deidentify import ACCEPTABLE

    if unknown := [code for code in accept or () if code not in ACCEPTABLE]:
        raise typer.BadParameter(
            f"'{unknown[0]}' is not one of: {', '.join(sorted(ACCEPTABLE))}.", param_hint="--accept"
        )


def _tags(keywords: Sequence[str] | None) -> list[BaseTag]:
    from medllm.dicom.deidentify import removable

    tags = []
    for keyword in keywords or ():
        tag = removable(keyword)
        if tag is None:
            raise typer.BadParameter(
                f"'{keyword}' is not the keyword of an attribute of text or of a sequence, such "
                "as StationName.",
                param_hint="--remove",
            )
        tags.append(tag)
    return tags


def _check_apart(key: Path, out: Path) -> None:
    if out.resolve() in key.resolve().parents:
        raise typer.BadParameter(
            f"{key} lies within {out}: who gets the new files would get the key; name another "
            "place.",
            param_hint="--key",
        )


def _tell(outcome: Outcome) -> None:
    if outcome.error is not None:
        tell_error(outcome.source, outcome.error)


def _watched(paths: Sequence[Path]) -> Iterable[Path]:
    from rich.console import Console
    from rich.progress import track

    console = Console(stderr=True)
    shown = len(paths) > 1 and console.is_terminal
    return track(paths, "radiographs", console=console, disable=not shown, transient=True)


def _summary(outcomes: Sequence[Outcome], key: Key, record: Path) -> list[str]:
    done = [outcome for outcome in outcomes if outcome.error is None]
    n_patients = len({outcome.patient for outcome in done})
    warnings = Counter(code for outcome in done for code in outcome.warnings)
    lines = [
        f"{len(done)} of {len(outcomes)} files de-identified; patients: {n_patients}; "
        f"key: {key.fingerprint}; record: {record}"
    ]
    if warnings:
        counts = ", ".join(f"{code} {n_files}" for code, n_files in sorted(warnings.items()))
        lines.append(f"warnings, in so many files: {counts}")
    if done:
        lines.append("The pixels are as they were: look at each image before you pass it on.")
    return lines
