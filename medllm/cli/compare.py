"""`medllm compare`: models on the same images, in pairs."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from medllm.cli.inputs import AsJson

if TYPE_CHECKING:
    from medllm.evaluate import Comparison


def compare(
    results: Annotated[
        list[Path],
        typer.Argument(
            metavar="DIR DIR...",
            help="Folders that medllm evaluate wrote, on one data set; the first is what the "
            "others are compared with.",
            show_default=False,
        ),
    ],
    as_json: AsJson = False,
) -> None:
    """Compare results of models, or of a model and a peer, on the images that both scored.

    Differences of AUROC, of sensitivity and specificity at each model's own threshold and of the
    Brier score, with intervals by patient; p-values by resampling patients and by DeLong, the
    former corrected over the findings by Holm.
    """
    from medllm.evaluate import compare as compare_predictions

    if len(results) < 2:
        raise typer.BadParameter("name two folders or more", param_hint="DIR DIR...")
    comparison = compare_predictions(results)
    if as_json:
        typer.echo(comparison.model_dump_json())
        return
    for line in _table(comparison):
        typer.echo(line)


def _table(comparison: Comparison) -> Iterator[str]:
    for name, rows in comparison.others.items():
        yield f"{name} against {comparison.first}; {comparison.use}"
        if comparison.unpaired[name]:
            yield f"  {comparison.unpaired[name]} images were scored by one of them alone"
        yield f"{'finding':<28}{'positive':<14}{'AUROC':<16}{'difference (95%)':<28}p (Holm)"
        for row in rows:
            areas = f"{row.first_auroc.value:.3f} > {row.second_auroc.value:.3f}"
            gap = row.auroc_difference
            words = f"{gap.value:+.3f} ({gap.low:+.3f} to {gap.high:+.3f})"
            counts = f"{row.n_positive} of {row.n}"
            yield f"{row.finding:<28}{counts:<14}{areas:<16}{words:<28}{row.p_value_holm:.3f}"
        yield ""
