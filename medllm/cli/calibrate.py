"""`medllm calibrate`: calibration and thresholds fitted again on a site's own images."""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from medllm.cli.inputs import (
    Accept,
    AsJson,
    Findings,
    ModelSource,
    Polarity,
    Split,
    SplitFile,
    Views,
    check_accept,
)
from medllm.cli.progress import watched
from medllm.cli.training_data import training_data_lines

if TYPE_CHECKING:
    from medllm.evaluate import Recalibration, Refitted


def calibrate(
    dataset: Annotated[
        str,
        typer.Argument(
            metavar="DATASET",
            help="A reader's name: csv for a table of one's own (labels.csv), kermany, nih.",
            show_default=False,
        ),
    ],
    root: Annotated[
        Path, typer.Option(metavar="DIR", help="Folder of the data set.", show_default=False)
    ],
    out: Annotated[
        Path,
        typer.Option(
            metavar="DIR", file_okay=False, help="Folder of the new checkpoint.", show_default=False
        ),
    ],
    model: ModelSource = None,
    finding: Findings = None,
    name: Annotated[
        str | None,
        typer.Option(
            metavar="TEXT",
            help="What the card shall call the data, such as 'Site A, 2024'; DATASET if left out.",
            show_default=False,
        ),
    ] = None,
    split: Split = None,
    split_file: SplitFile = None,
    view: Views = None,
    accept: Accept = None,
    polarity: Polarity = "auto",
    as_json: AsJson = False,
) -> None:
    """Fit calibration and thresholds on a site's own labelled images, and write a new checkpoint.

    The weights stay as they are. Beside the checkpoint: calibration.json and reliability.svg,
    before and after, measured by cross-fitting over patients. A finding that --finding does not
    name keeps its calibration, and so does one with fewer than 20 patients with it, or without it.
    """
    from medllm.datasets import FRONTAL, find_dataset, read_dataset, select
    from medllm.evaluate import (
        Decoder,
        default_workers,
        findings_to_fit,
        recalibrate,
        require_destination,
        score_records,
        stored_precision,
        write_recalibrated,
    )
    from medllm.evaluate.study import with_parts
    from medllm.models import load_model
    from medllm.models.checkpoint import resolve

    check_accept(accept)
    folder = resolve(model)
    require_destination(out, folder)
    parted, _ = with_parts(read_dataset(dataset, root), split, split_file)
    selection = select(parted, views=view or FRONTAL, split=split)
    records = selection.records
    loaded = load_model(model)
    findings, kept = findings_to_fit(loaded, records, finding)
    labelled = [record for record in records if not record.labels.keys().isdisjoint(findings)]
    decoder = Decoder(loaded.card.preprocessing, tuple(accept or ()), polarity)
    scored = score_records(
        loaded, labelled, findings, decoder=decoder, workers=default_workers(len(labelled))
    )
    data = name or (f"{dataset}, {split}" if split else dataset)
    result = recalibrate(loaded, watched(scored, len(labelled)), data, kept=kept)
    saved = write_recalibrated(result, out, stored_precision(folder))
    caveats = find_dataset(dataset).caveats(root).values()
    for line in _json_lines(result) if as_json else _table(result, selection.left_out, caveats):
        typer.echo(line)
    if not as_json:
        typer.echo(f"\n{out}  {saved.card.name} {saved.card.version}  sha256 {saved.sha256}")
    if result.errors:
        raise typer.Exit(1)


def _json_lines(result: Recalibration) -> Iterator[str]:
    from medllm.evaluate import figures_of

    for finding, figures in figures_of(result)["findings"].items():
        yield json.dumps({"finding": finding, **figures})


def _table(
    result: Recalibration, left_out: Mapping[str, int], caveats: Iterable[str]
) -> Iterator[str]:
    from medllm.evaluate import NO_LABEL, NOT_ASKED

    yield (
        f"{result.dataset}: {result.n_images} images of {result.n_patients} patients"
        + (f", {sum(result.errors.values())} more could not be scored" if result.errors else "")
        + "; before -> after, cross-fitted over patients"
    )
    for reason, count in left_out.items():
        yield f"  left out, {reason}: {count}"
    yield from (f"  {caveat}" for caveat in caveats)
    yield from training_data_lines(result.source.card.training_data)
    yield ""
    heads = "".join(f"{name:<15}" for name in ("Brier", "ECE", "slope", "intercept"))
    yield f"{'finding':<28}{'positive':<14}{heads}".rstrip()
    for one in result.refitted:
        yield from _rows(one)
    unlabelled = 0
    for kept in result.kept:
        if kept.finding in result.model.card.findings:
            yield f"{kept.finding:<28}keeps its calibration: {kept.reason}"
        elif kept.reason == NO_LABEL:
            unlabelled += 1
        elif kept.reason != NOT_ASKED:
            yield f"{kept.finding:<28}left out: {kept.reason}"
    if unlabelled:
        yield f"{unlabelled} more of the model's findings have no label and are left out"


def _rows(one: Refitted) -> Iterator[str]:
    cells = "".join(
        f"{_pair(getattr(one.before, name).value, getattr(one.after, name).value):<15}"
        for name in ("brier", "ece", "slope", "intercept")
    )
    yield f"{one.finding:<28}{f'{one.n_positive} of {one.n}':<14}{cells}".rstrip()
    change = one.brier_change
    words = "better" if change.high < 0 else "worse" if change.low > 0 else "no gain shown"
    yield (
        f"  Brier score {change.value:+.3f} ({change.low:+.3f} to {change.high:+.3f}): {words}; "
        f"AUROC {one.auroc.value:.3f}, unchanged"
    )
    old, new = one.before.calibration, one.after.calibration
    yield f"  negative below {_pair(old.low, new.low)}, positive from {_pair(old.high, new.high)}"
    yield (
        f"  temperature {_pair(old.temperature, new.temperature)}, bias {_pair(old.bias, new.bias)}"
    )


def _pair(before: float, after: float) -> str:
    # Adding 0 turns a rounded -0 into 0.
    return f"{round(before, 2) + 0:.2f} -> {round(after, 2) + 0:.2f}"
