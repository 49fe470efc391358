"""`medllm train`: from a recipe to a checkpoint."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import TYPE_CHECKING, Annotated, Any

import typer

if TYPE_CHECKING:
    from rich.console import Console

    from medllm.train.loop import Progress
    from medllm.train.stages import Watch


def train(
    recipe: Annotated[
        str,
        typer.Argument(
            metavar="RECIPE",
            help="Recipe, a YAML file; or `reference`, the bundled model's own.",
            show_default=False,
        ),
    ],
    settings: Annotated[
        list[str] | None,
        typer.Argument(
            metavar="[KEY=VALUE]...",
            help="Settings that go over the recipe's, such as finetune.epochs=3.",
            show_default=False,
        ),
    ] = None,
) -> None:
    """Train or fine-tune a model; goes on where it was when it is started again."""
    from rich.console import Console

    from medllm.train.recipe_file import read_recipe
    from medllm.train.run import train as run

    read = read_recipe(recipe, settings or ())
    model = run(read, watch=_watch(Console(stderr=True)))
    typer.echo(f"{read.out / 'checkpoint'}  {model.card.name} {model.card.version}")
    for question in model.card.questions:
        for figures in (one for one in question.measurements if not one.subgroup):
            area = figures.auroc
            told = f"{area.value:.3f} ({area.low:.3f} to {area.high:.3f})"
            images = f"{figures.test_set} (n {figures.n}, {figures.n_positive} positive)"
            typer.echo(f"  {question.finding}: AUROC {told}, {images}")


def _watch(console: Console) -> Watch:
    """Show progress on stderr: bars on a terminal, one line per epoch in a log."""
    from rich.progress import BarColumn, MofNCompleteColumn, TextColumn, TimeRemainingColumn
    from rich.progress import Progress as Bars

    from medllm.train.stages import Watch

    columns = (
        TextColumn("{task.description}"),
        BarColumn(),
        MofNCompleteColumn(),
        TimeRemainingColumn(),
        TextColumn("{task.fields[told]}"),
    )
    bars = Bars(*columns, console=console, disable=not console.is_terminal, transient=True)

    class Shown(Watch):
        def __init__(self) -> None:
            self.name, self.bar = "", bars.add_task("", visible=False, told="")

        def stage(self, name: str) -> None:
            self.name = name
            console.print(name)

        def track(self, numbers: Iterable[int]) -> Iterable[int]:
            listed = list(numbers)
            bar = bars.add_task("preparing images", total=len(listed), told="")
            with bars:
                for number in listed:
                    yield number
                    bars.advance(bar)
            bars.remove_task(bar)

        def step(self, progress: Progress) -> None:
            bars.start()
            bars.update(
                self.bar,
                visible=True,
                description=self.name,
                completed=progress.step,
                total=progress.steps,
                told=f"loss {progress.loss:.3f}",
            )
            if progress.step == progress.steps:
                bars.stop()

        def figures(self, figures: Mapping[str, Any]) -> None:
            told = ", ".join(f"{name} {value:.3f}" for name, value in figures.items())
            console.print(f"validation AUROC: {told}", soft_wrap=True, highlight=False)

    return Shown()
