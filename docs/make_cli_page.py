"""Write `docs/reference/command-line.md` from the commands' own help."""

from __future__ import annotations

from pathlib import Path

import typer
from typer.main import get_command

from medllm.cli import app

PAGE = Path(__file__).parent / "reference" / "command-line.md"


def page() -> str:
    """Give the page's text: the help of each command, in the order of `medllm --help`."""
    root = get_command(app)
    parts = [
        "# Command line\n\nMade from `--help` by `make docs`.\n\n"
        "Results go to stdout, progress and errors to stderr. Exit status 0: done; 1: an input "
        "was bad, the others are done; 2: wrong usage.\n"
    ]
    parts += _help_of(root, typer.Context(root, info_name="medllm"))
    return "\n".join(parts)


def _help_of(command, context) -> list[str]:
    text = context.get_help()
    parts = [f"## `{context.command_path}`\n\n```text\n{text}\n```\n"]
    for name, child in getattr(command, "commands", {}).items():
        parts += _help_of(child, typer.Context(child, info_name=name, parent=context))
    return parts


if __name__ == "__main__":
    PAGE.write_text(page(), encoding="utf-8")
