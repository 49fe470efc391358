"""The page of a comparison: one HTML file, no network, no script."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from markupsafe import Markup

from medllm import __version__
from medllm.evaluate.comparison.compare import FIGURES, Comparison, PairedFigures
from medllm.evaluate.comparison.plots import compared_reliability, compared_roc
from medllm.evaluate.forest import Compared, draw_differences
from medllm.evaluate.page import fill
from medllm.evaluate.results import write_results
from medllm.findings import finding
from medllm.report.wording import title


def write(comparison: Comparison, out: str | Path) -> None:
    """Write `metrics.json` and `report.html`.

    Args:
        comparison: The figures.
        out: Folder.

    Raises:
        MedllmError: It cannot be written.
    """
    write_results(comparison, render(comparison), Path(out))


def render(comparison: Comparison) -> bytes:
    """Render the page.

    Args:
        comparison: The figures; the page computes none of its own.

    Returns:
        UTF-8; the same bytes for the same arguments.

    Raises:
        LabelError: A finding's key is not known.
    """
    keys = _shared(comparison)
    return fill(
        "comparison.html.j2",
        comparison=comparison,
        version=__version__,
        names={key: title(finding(key)) for key in _named(comparison)},
        pairs={key: _pairs(comparison, key) for key in keys},
        firsts={key: _firsts(_pairs(comparison, key)) for key in keys},
        plots={key: _plots(comparison, key) for key in keys if key in comparison.curves},
        differences={key: _differences(comparison, key) for key in keys},
    )


def _shared(comparison: Comparison) -> list[str]:
    """List the findings of which a pair was compared, once."""
    return list(dict.fromkeys(row.finding for rows in comparison.others.values() for row in rows))


def _named(comparison: Comparison) -> list[str]:
    explained = [
        key
        for model in comparison.models.values()
        for one in model.explanations
        for key in one.findings
    ]
    return list(dict.fromkeys([*_shared(comparison), *explained]))


def _pairs(comparison: Comparison, key: str) -> Mapping[str, PairedFigures]:
    """Give the rows of one finding, by the name of the other results."""
    return {
        name: row for name, rows in comparison.others.items() for row in rows if row.finding == key
    }


def _firsts(pairs: Mapping[str, PairedFigures]) -> set[str]:
    """Name the rows that the first model's own stands above: once, unless other images change it.

    Args:
        pairs: Rows of one finding, by the name of the other results.

    Returns:
        Names among those.
    """
    told = [
        row.model_dump(include={"n", "n_positive", *(f"first_{key}" for key in FIGURES)})
        for row in pairs.values()
    ]
    return {
        name
        for name, own, above in zip(pairs, told, [None, *told[:-1]], strict=True)
        if own != above
    }


def _plots(comparison: Comparison, key: str) -> tuple[Markup, Markup]:
    """Draw the ROC curves and the reliability of all models."""
    name, curves = title(finding(key)), comparison.curves[key]
    return compared_roc(name, curves), compared_reliability(name, curves)


def _differences(comparison: Comparison, key: str) -> Markup:
    """Draw each other model's AUROC minus that of the first."""
    rows = [Compared(name, row.auroc_difference) for name, row in _pairs(comparison, key).items()]
    return draw_differences(f"{title(finding(key))}, AUROC", rows, against=comparison.first)
