"""Write what follows from the code: the command line, the reference model's card, a schema."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import typer
from pydantic import BaseModel
from typer.main import get_command

from medllm.cli import app
from medllm.evaluate import Comparison, Evaluation, ExplanationEvaluation
from medllm.models.card_file import read_card
from medllm.models.card_page import card_page
from medllm.models.checkpoint import BUNDLED

REFERENCE = Path(__file__).parent / "reference"


def pages() -> dict[Path, str]:
    """Give each page's text by its path."""
    return {
        REFERENCE / "command-line.md": "\n".join(_command_line()),
        REFERENCE / "reference-model.md": card_page(read_card(BUNDLED)),
        REFERENCE / "metrics.schema.json": _schema(Evaluation),
        REFERENCE / "comparison.schema.json": _schema(Comparison),
        REFERENCE / "explanation-metrics.schema.json": _schema(ExplanationEvaluation),
    }


def _schema(document: type[BaseModel]) -> str:
    return json.dumps(document.model_json_schema(), indent=1) + "\n"


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


if __name__ == "__main__":
    for path, text in pages().items():
        path.write_text(text, encoding="utf-8")
