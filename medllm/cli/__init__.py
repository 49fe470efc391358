"""The command line: one module a command, joined here."""

from __future__ import annotations

import logging
import sys
import warnings
from typing import Annotated

import typer

from medllm import __version__
from medllm.cli.calibrate import calibrate
from medllm.cli.classify import classify
from medllm.cli.compare import compare
from medllm.cli.datasets import datasets
from medllm.cli.deidentify import deidentify
from medllm.cli.demo import demo
from medllm.cli.evaluate import evaluate
from medllm.cli.evaluate_explanations import evaluate_explanations
from medllm.cli.explain import explain
from medllm.cli.fetch import fetch
from medllm.cli.inspect import inspect
from medllm.cli.listen import listen
from medllm.cli.models import models
from medllm.cli.send import send
from medllm.cli.train import train
from medllm.errors import MedllmError, first_line

app = typer.Typer(
    name="medllm",
    help=(
        "Chest radiographs in, explained findings out: a calibrated probability per finding, "
        "a checked explanation, a report. Research use only, never a diagnosis."
    ),
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
)
# Libraries that log and warn of values that break the standard, a patient's name among them. They
# are told apart where their words come out: on import, pydicom sets the level of its log itself.
_QUOTING = ("pydicom", "highdicom")
# What Typer makes of a Ctrl-C.
_STOPPED = 130

app.command()(demo)
app.command()(inspect)
app.command()(classify)
app.command()(explain)
app.command()(evaluate)
app.command()(evaluate_explanations)
app.command()(compare)
app.command()(train)
app.command()(calibrate)
app.command()(deidentify)
app.command()(fetch)
app.command()(send)
app.command()(listen)
app.add_typer(datasets, name="datasets")
app.add_typer(models, name="models")


def _show_version(wanted: bool) -> bool:
    if wanted:
        typer.echo(__version__)
        raise typer.Exit
    return wanted


@app.callback()
def _root(
    _version: Annotated[
        bool,
        typer.Option("--version", help="Print the version.", callback=_show_version, is_eager=True),
    ] = False,
    verbose: Annotated[bool, typer.Option("--verbose", help="Log what is done to stderr.")] = False,
) -> None:
    handler = logging.StreamHandler(sys.stderr)
    handler.addFilter(lambda record: record.name.partition(".")[0] not in _QUOTING)
    logging.basicConfig(
        level=logging.INFO if verbose else logging.ERROR,
        format="%(levelname)s %(name)s: %(message)s",
        handlers=[handler],
    )
    if verbose:
        warnings.filterwarnings("ignore", module="|".join(_QUOTING))
    else:
        warnings.simplefilter("ignore")


def _torchvision_of_another_torch(error: BaseException | None) -> str | None:
    """Find why torchvision does not open; transformers, which tries to, hides it in a cause."""
    while error is not None:
        if isinstance(error, RuntimeError | OSError) and "torchvision" in str(error):
            return first_line(error).rstrip(".")
        error = error.__cause__ or error.__context__
    return None


def main() -> None:
    """Run the command line; exits 0 when done, 1 on a `MedllmError`, 2 on usage, 130 on Ctrl-C."""
    try:
        app()
    except MedllmError as error:
        typer.echo(f"medllm: {error}", err=True)
        sys.exit(1)
    except (ImportError, RuntimeError) as error:
        reason = _torchvision_of_another_torch(error)
        if reason is None:
            raise
        typer.echo(
            f"medllm: the torchvision that is installed is of another build than torch ({reason}). "
            "Uninstall it (pip uninstall torchvision; medllm needs none), or install the one of "
            "your torch.",
            err=True,
        )
        sys.exit(1)
    except SystemExit as ended:
        if ended.code == _STOPPED:
            typer.echo("medllm: stopped; what was written is whole.", err=True)
        raise
    except BrokenPipeError:
        # The reader of our output, such as `head`, has seen enough.
        sys.stderr.close()
        sys.exit(0)
