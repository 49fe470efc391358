"""Write the pages that follow from the code: the command line, and the reference model's card."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import typer
from typer.main import get_command

from medllm.cli import app
from medllm.models import ModelCard, Question
from medllm.models.checkpoint import BUNDLED, read_card

REFERENCE = Path(__file__).parent / "reference"
BASELINE = REFERENCE / "reference-model-baseline.json"


def pages() -> dict[Path, str]:
    """Give each page's text by its path."""
    card = read_card(BUNDLED)
    baseline = json.loads(BASELINE.read_text(encoding="utf-8"))
    return {
        REFERENCE / "command-line.md": "\n".join(_command_line()),
        REFERENCE / "reference-model.md": "\n".join(_model_card(card, baseline)) + "\n",
    }


def _command_line() -> Iterator[str]:
    root = get_command(app)
    yield (
        "# Command line\n\nMade from `--help` by `make docs`.\n\n"
        "Results go to stdout, progress and errors to stderr. Exit status 0: done; 1: an input "
        "was bad, the others are done; 2: wrong usage.\n"
    )
    yield from _help_of(root, typer.Context(root, info_name="medllm"))


def _help_of(command: Any, context: Any) -> Iterator[str]:
    # A fixed width, whatever the terminal this runs in.
    context.terminal_width = context.max_content_width = 100
    yield f"## `{context.command_path}`\n\n```text\n{command.get_help(context)}\n```\n"
    for name, child in getattr(command, "commands", {}).items():
        yield from _help_of(child, typer.Context(child, info_name=name, parent=context))


def _model_card(card: ModelCard, baseline: list[dict[str, Any]]) -> Iterator[str]:
    yield f"# The reference model's card\n\n{card.description} Version {card.version}.\n"
    yield "Made from `medllm.json` by `make docs`. Intervals are 95%, by resampling patients.\n"
    yield f"## Intended use\n\n{card.intended_use}\n"
    yield "## Trained on\n"
    yield from (f"- {sentence}" for sentence in card.training_data)
    yield "\n## Figures on patients that no weight was fitted on\n"
    for question in card.questions:
        yield from _figures(question)
    yield "## Beside a baseline\n"
    yield (
        "Logistic regression on thumbnails of 32 x 32 pixels, trained on the same training "
        "patients and measured on the same patients. The difference is resampled in pairs.\n"
    )
    yield "| finding | test set | baseline trained on | model | thumbnails | difference |"
    yield "| --- | --- | --- | --- | --- | --- |"
    for row in baseline:
        areas = " | ".join(
            _interval(**row[name]) for name in ("model_auroc", "thumbnails_auroc", "difference")
        )
        yield f"| {row['finding']} | {row['test_set']} | {row['baseline']} | {areas} |"
    yield "\n## What its explanations find\n"
    found = card.explanation_measurements or ("Not measured for this version.",)
    yield from (f"- {sentence}" for sentence in found)
    yield "\n## Limits\n"
    yield from (f"- {sentence}" for sentence in card.limitations)


def _figures(question: Question) -> Iterator[str]:
    fitted = question.calibration
    yield f"### {question.finding}: *{question.text}*\n"
    yield (
        f"Negative below {fitted.low:.3f}, positive from {fitted.high:.3f}; sensitivity and "
        f"specificity are at the latter. Calibrated on {fitted.fitted_on}.\n"
    )
    yield "| test set | images, positive | AUROC | sensitivity | specificity | Brier | ECE |"
    yield "| --- | --- | --- | --- | --- | --- | --- |"
    for one in question.measurements:
        figures = (one.auroc, one.sensitivity, one.specificity, one.brier, one.ece)
        cells = " | ".join(_interval(f.value, f.low, f.high) for f in figures)
        yield f"| {one.test_set} | {one.n}, {one.n_positive} | {cells} |"
    yield ""


def _interval(value: float, low: float, high: float) -> str:
    return f"{value:.3f} ({low:.3f} to {high:.3f})"


if __name__ == "__main__":
    for path, text in pages().items():
        path.write_text(text, encoding="utf-8")
