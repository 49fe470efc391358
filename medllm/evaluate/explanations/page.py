"""The page of an evaluation of explanations: one HTML file, no network, no script."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from markupsafe import Markup

from medllm.evaluate.explanations.cascade_plot import draw_cascade
from medllm.evaluate.explanations.controls import MEAN_MAP
from medllm.evaluate.explanations.document import ExplanationEvaluation
from medllm.evaluate.explanations.outlined import OutlinedSet
from medllm.evaluate.explanations.pictures import Place, pictures_of
from medllm.evaluate.forest import Compared, draw_differences
from medllm.evaluate.page import data_uri, fill
from medllm.evaluate.results import folder_from, write_results
from medllm.evaluate.section import Interval
from medllm.findings import finding
from medllm.report.wording import title

# What the plot of differences shows, by the figure's name in the document.
_PLOTTED = {
    "pixel_auroc": "pixel AUROC",
    "hit_rate": "hit rate",
    "miou_tuned": "mIoU, tuned",
    "relevance_mass": "relevance mass",
}


def write(evaluation: ExplanationEvaluation, outlined: OutlinedSet, out: str | Path) -> None:
    """Write `metrics.json` and `report.html` beside `explanations.parquet`.

    Args:
        evaluation: The figures.
        outlined: For the pictures.
        out: Folder.

    Raises:
        MedllmError: It cannot be written.
    """
    out = Path(out)
    drawn = pictures_of(evaluation, outlined, out / "explanations.parquet")
    folder = None if outlined.root is None else folder_from(out, outlined.root)
    write_results(evaluation, render(evaluation, drawn, folder=folder), out)


def render(
    evaluation: ExplanationEvaluation,
    pictures: Mapping[Place, bytes],
    *,
    folder: str | None = None,
) -> bytes:
    """Render the page.

    Args:
        evaluation: The figures; the page computes none of its own.
        pictures: PNG or JPEG files by path, finding and method.
        folder: The data set's folder as seen from the page's; None where images are no files.

    Returns:
        UTF-8; the same bytes for the same arguments.

    Raises:
        LabelError: A finding's key is not known.
        ValueError: A picture is neither PNG nor JPEG.
    """
    keys = list(evaluation.n_outlined)
    return fill(
        "explanations.html.j2",
        evaluation=evaluation,
        keys=[key for key in keys if key in evaluation.cases],
        names={key: title(finding(key)) for key in _named(evaluation)},
        cascades=_cascades(evaluation),
        differences={key: _differences(evaluation, key) for key in evaluation.cases},
        confirmed={key: _confirmed(evaluation, key) for key in evaluation.cases},
        pictures={place: data_uri(content) for place, content in pictures.items()},
        folder=folder,
    )


def _named(evaluation: ExplanationEvaluation) -> list[str]:
    """List the findings that are asked for or outlined, once."""
    outlined = [own for found in evaluation.n_outlined.values() for own in found]
    return list(dict.fromkeys([*evaluation.n_outlined, *outlined]))


def _cascades(evaluation: ExplanationEvaluation) -> dict[str, Markup]:
    """Draw what is left of each method's map when the model is scrambled."""
    if evaluation.sanity is None:
        return {}
    methods = evaluation.sanity.methods
    return {name: draw_cascade(name, evaluation.sanity) for name in methods if methods[name].n}


def _confirmed(evaluation: ExplanationEvaluation, key: str) -> list[str]:
    """List the methods of which it is known whether hiding regions names the same region."""
    return [
        method
        for method in evaluation.methods
        if key in evaluation.localisation[method]
        and evaluation.localisation[method][key].region_confirmed.value is not None
    ]


def _differences(evaluation: ExplanationEvaluation, key: str) -> dict[str, Markup]:
    """Draw each figure's differences from the mean map, by the figure's name in words."""
    plots = {}
    for figure, words in _PLOTTED.items():
        rows = [
            Compared(method, gap, method in evaluation.controls)
            for method, findings in evaluation.localisation.items()
            if method != MEAN_MAP and key in findings
            if isinstance(gap := findings[key].differences.get(figure), Interval)
        ]
        if rows:
            plots[words] = draw_differences(f"{title(finding(key))}, {words}", rows)
    return plots
