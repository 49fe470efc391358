"""`medllm compare`: models on the same images, in pairs."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from medllm.cli.inputs import AsJson
from medllm.cli.training_data import training_data_lines

if TYPE_CHECKING:
    from medllm.evaluate import Comparison
    from medllm.evaluate.comparison.compare import PairedFigures
    from medllm.evaluate.comparison.models import FindingCalibration


def compare(
    results: Annotated[
        list[Path],
        typer.Argument(
            metavar="DIR DIR...",
            help="Folders that medllm evaluate wrote, on one data set; the first is what the "
            "others are compared with. Beside them folders of medllm evaluate-explanations of the "
            "same models.",
            show_default=False,
        ),
    ],
    out: Annotated[
        Path | None,
        typer.Option(
            metavar="DIR", file_okay=False, help="Folder for report.html and metrics.json."
        ),
    ] = None,
    as_json: AsJson = False,
) -> None:
    """Compare results of models, or of a model and a peer, on the images that both scored.

    Differences of AUROC, of sensitivity and specificity at each model's own threshold and of the
    Brier score, with intervals by patient; p-values by resampling patients and by DeLong, the
    former corrected over the findings by Holm. Then each model by itself: ECE of its raw log-odds
    and of the probability that it reports, time and memory, and what its explanations are worth.
    The terminal tells the main figures; --out and --json give all. Results whose files share
    names and are of different images are refused.
    """
    from medllm.evaluate import compare as compare_predictions
    from medllm.evaluate import write_comparison

    if len(results) < 2:
        raise typer.BadParameter("name two folders or more", param_hint="DIR DIR...")
    comparison = compare_predictions(results)
    if out is not None:
        write_comparison(comparison, out)
    if as_json:
        typer.echo(comparison.model_dump_json())
        return
    for line in (*comparison.caveats, *_table(comparison), *_models(comparison)):
        typer.echo(line)
    if out is not None:
        typer.echo(f"\nreport    {out / 'report.html'}")


def _table(comparison: Comparison) -> Iterator[str]:
    from medllm.evaluate.wording import p_value

    for name, rows in comparison.others.items():
        yield f"{name} against {comparison.first}; {comparison.use}"
        if comparison.unpaired[name]:
            yield f"  {comparison.unpaired[name]} images were scored by one of them alone"
        yield f"{'finding':<28}{'positive':<14}{'AUROC':<16}{'difference (95%)':<28}p (Holm)"
        for row in rows:
            areas = f"{row.first_auroc.value:.3f} to {row.second_auroc.value:.3f}"
            gap = row.auroc_difference
            words = f"{gap.value:+.3f} ({gap.low:+.3f} to {gap.high:+.3f})"
            counts = f"{row.n_positive} of {row.n}"
            yield f"{row.finding:<28}{counts:<14}{areas:<16}{words:<28}{p_value(row.p_value_holm)}"
            if called := _called(row):
                yield f"  at each one's own threshold: {called}"
            if row.unpaired:
                yield f"  {row.unpaired} with a label were scored by one of them alone"
        yield ""


def _called(row: PairedFigures) -> str:
    """Say what the calls of both are worth; nothing where neither called anything."""
    from medllm.evaluate.wording import number

    shares = (
        ("sensitivity", row.first_sensitivity.value, row.second_sensitivity.value),
        ("specificity", row.first_specificity.value, row.second_specificity.value),
    )
    return ", ".join(
        f"{what} {number(ours)} to {number(theirs)}"
        for what, ours, theirs in shares
        if (ours, theirs) != (None, None)
    )


def _models(comparison: Comparison) -> Iterator[str]:
    """Tell of each model by itself what a line can hold; the page has the rest."""
    for name, one in comparison.models.items():
        told = []
        if one.cost is not None:
            told.append(
                f"{1000 * one.cost.seconds_median:.1f} ms per radiograph on {one.cost.machine}"
            )
        told += [
            f"ECE of {key} {_ece(figures)}"
            for key, figures in one.findings.items()
            if figures.ece.value is not None
        ]
        told += [
            f"explanations on {of.dataset} kept {of.n_kept} of {of.n_judged}"
            for of in one.explanations
            if of.n_judged
        ]
        yield f"{name}: {', '.join(told) or 'nothing more is known'}"
        if one.model_sha256:  # predictions that were given come without a card
            yield from training_data_lines(one.training_data)


def _ece(figures: FindingCalibration) -> str:
    """Say it once where no calibration moved it, as of predictions that were given."""
    from medllm.evaluate.wording import number

    raw, reported = number(figures.ece_before.value), number(figures.ece.value)
    return reported if raw == reported else f"{raw} by raw log-odds and {reported} as reported"
