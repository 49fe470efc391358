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
    former corrected over the findings by Holm. Then each model by itself: calibration before and
    after, time and memory, and what its explanations are worth.
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
            if row.unpaired:
                yield f"  {row.unpaired} with a label were scored by one of them alone"
        yield ""


def _models(comparison: Comparison) -> Iterator[str]:
    """Tell of each model by itself what a line can hold; the page has the rest."""
    for name, one in comparison.models.items():
        told = []
        if one.cost is not None:
            told.append(
                f"{1000 * one.cost.seconds_median:.1f} ms per radiograph on {one.cost.machine}"
            )
        told += [
            f"ECE of {key} {figures.ece_before.value:.3f} to {figures.ece.value:.3f}"
            for key, figures in one.findings.items()
            if figures.ece_before.value is not None and figures.ece.value is not None
        ]
        told += [
            f"explanations on {of.dataset} kept {of.n_kept} of {of.n_judged}"
            for of in one.explanations
            if of.n_judged
        ]
        yield f"{name}: {', '.join(told) or 'nothing more is known'}"
        if one.model_sha256:  # predictions that were given come without a card
            yield from training_data_lines(one.training_data)
