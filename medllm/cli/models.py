"""`medllm models`: the bundled and the cached checkpoints."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

import typer

from medllm.cli.inputs import AsJson, Findings
from medllm.errors import CheckpointError

if TYPE_CHECKING:
    from medllm.models import Model, ModelCard
    from medllm.models.measured import MeasuredMethod

models = typer.Typer(
    help="Show and check the bundled and the cached checkpoints.", no_args_is_help=True
)
Source = Annotated[
    str | None,
    typer.Argument(
        metavar="[M]",
        help="Checkpoint folder or hub name; the bundled reference when left out.",
        show_default=False,
    ),
]


@models.command("list")
def list_models() -> None:
    """List the bundled checkpoint and those in the local Hugging Face cache.

    Models of another's making are among them where medllm knows their kind.
    """
    from medllm.models.card_file import read_card
    from medllm.models.checkpoint import cached_checkpoints
    from medllm.models.foreign import cached_foreign

    for name, folder in cached_checkpoints().items():
        try:
            card = read_card(folder)
        except CheckpointError as error:  # of another medllm's making; the others are listed
            typer.echo(f"{name:<32}{error}")
            continue
        typer.echo(_entry(name, card.version, folder, ", ".join(card.findings)))
    for name, (folder, kind) in cached_foreign().items():
        typer.echo(_entry(name, "", folder, f"{kind}, of another's making"))


def _entry(name: str, version: str, folder: Path, said: str) -> str:
    size = sum(file.stat().st_size for file in folder.rglob("*") if file.is_file()) / 1e6
    return f"{name:<32}{version:<8}{size:>8.1f} MB  {said}"


@models.command("show")
def show(source: Source = None, as_json: AsJson = False) -> None:
    """Show what a checkpoint says of itself: questions, figures with intervals, limits."""
    from medllm.models import load_model
    from medllm.models.card_file import read_card
    from medllm.models.checkpoint import is_foreign, resolve

    folder = resolve(source)
    if is_foreign(folder):
        model = load_model(source)
        typer.echo(json.dumps(dataclasses.asdict(model.card)) if as_json else _reading(model))
        return
    card = read_card(folder)
    typer.echo(json.dumps(dataclasses.asdict(card)) if as_json else _page(card))


@models.command("card")
def card(source: Source = None) -> None:
    """Print a checkpoint's card as a page for the Hugging Face hub (Markdown)."""
    from medllm.models.card_file import read_card
    from medllm.models.card_page import card_page, front_matter
    from medllm.models.checkpoint import is_foreign, resolve

    folder = resolve(source)
    if is_foreign(folder):
        raise CheckpointError(
            f"{source} is a model of another's making, and its card is on its own page. 'medllm "
            f"models show {source}' says how medllm reads it; what 'medllm models configure' and "
            "'medllm calibrate' make of it has a card.",
            code="no-card",
        )
    read = read_card(folder)
    typer.echo(f"{front_matter(read)}\n{card_page(read)}", nl=False)


@models.command("verify")
def verify(source: Source = None) -> None:
    """Check a checkpoint's files, hashes, tensors and self-test."""
    from medllm.models import load_model

    model = load_model(source)
    typer.echo(f"{model.card.name} {model.card.version}  sha256 {model.sha256}  verified")
    typer.echo(_reading(model))


@models.command("configure")
def configure(
    source: Annotated[
        str,
        typer.Argument(
            metavar="M", help="A model as published: folder or hub name.", show_default=False
        ),
    ],
    out: Annotated[
        Path,
        typer.Option(metavar="DIR", file_okay=False, help="Folder to write.", show_default=False),
    ],
    finding: Findings = None,
    prompts: Annotated[
        Path | None,
        typer.Option(
            metavar="FILE",
            help="YAML of own words: wording, questions, yes_words, no_words, reasoning, "
            "conclusion; for, against; and what a classifier's labels mean: labels.",
            show_default=False,
        ),
    ] = None,
    paraphrases: Annotated[
        bool,
        typer.Option(
            "--paraphrases", help="Ask in several words, and take the mean of the log-odds."
        ),
    ] = False,
    reasoning: Annotated[
        int,
        typer.Option(
            metavar="N",
            min=0,
            help="Let the model write up to N tokens before it answers, about each finding.",
        ),
    ] = 0,
    tiles: Annotated[
        int,
        typer.Option(
            metavar="N",
            min=1,
            help="Cut the image into N x N tiles, shown beside the whole (Idefics3, SmolVLM, "
            "InternVL).",
        ),
    ] = 1,
    bits: Annotated[
        Literal["16", "8", "4"] | None,
        typer.Option(
            help="Bits a weight: 16 is bfloat16, half of the memory on a CPU; to 8 and 4 the LLM "
            "is quantized by bitsandbytes.",
            show_default=False,
        ),
    ] = None,
) -> None:
    """Write a folder by which a model of another's making is asked and run otherwise.

    It holds no weights; give it to every command's --model, and to medllm calibrate.
    """
    from medllm.models.configured import configure as write

    model = write(
        source,
        out,
        findings=finding,
        prompts=prompts,
        paraphrased=paraphrases,
        reasoning_tokens=reasoning,
        tiles=tiles,
        bits=None if bits is None else int(bits),
    )
    typer.echo(f"{out}  {model.card.name} {model.card.version}  sha256 {model.sha256}")
    typer.echo(_reading(model))


def _reading(model: Model) -> str:
    """Say how a model's own files were understood: what it is shown, asked, and read by."""
    card, question = model.card, model.card.questions[0]
    rows, columns = model.grid
    shown = card.preprocessing
    lines = [
        f"kind         {type(model.network).__name__}",
        f"input        {shown.size} x {shown.size} pixels, {shown.channels} channel(s), "
        f"{shown.aspect}, {shown.interpolation}, {shown.normalization} normalization",
        f"map          {rows} x {columns} patches",
        *_sharing(model),
        f"asked        {model.prompt(question)!r}",
        *(f"             {text!r}" for text in question.paraphrases),
        f"yes          {_words(model, question.yes)}",
        f"no           {_words(model, question.no) or 'each label is for itself'}",
        f"findings     {', '.join(card.findings)}",
        f"calibrated   {'yes' if card.is_calibrated else 'no: medllm calibrate'}",
    ]
    return "\n".join(lines)


def _sharing(model: Model) -> Iterator[str]:
    """Say of a model that is asked in words how often it reads an image, which decides its cost."""
    from medllm.models.architectures import VisionLanguage

    if isinstance(model.architecture, VisionLanguage):
        shared = "read once, whatever is asked"
        anew = "encoded once, and read by the LLM anew for each question"
        yield f"image        {shared if model.architecture.shares_prefix else anew}"


def _words(model: Model, words: Sequence[str]) -> str:
    """Name answer words with the ids of their tokens, where they have some."""
    from medllm.models.architectures import VisionLanguage
    from medllm.models.tokenizer import answer_ids

    if not isinstance(model.architecture, VisionLanguage):
        return ", ".join(words)
    ids = answer_ids(model.tokenizer, words)
    return ", ".join(
        f"{word!r} ({' + '.join(str(one) for one in pieces)})"
        for word, pieces in zip(words, ids, strict=True)
    )


def _method(name: str, method: MeasuredMethod) -> Iterator[str]:
    from medllm.models.card_page import interval_or_none as figure

    for key, found in method.findings.items():
        yield (
            f"    {name}, {key} (n {found.n}): hit rate {figure(found.hit_rate)}, of a fixed map "
            f"{figure(found.fixed_hit_rate)}; pixel AUROC {figure(found.pixel_auroc)}, over the "
            f"fixed map {figure(found.over_mean_map)}; named region {figure(found.region_rate)}"
        )
    if total := sum(method.verdicts.values()):
        shares = (f"{verdict} {n / total:.0%}" for verdict, n in method.verdicts.items())
        yield f"      verdicts: {', '.join(shares)} of {total}"
    if method.n_tested:
        survives = "; it survives: it does not depend on the model" if method.survives else ""
        yield (
            f"      all weights scrambled (n {method.n_tested}): rank correlation "
            f"{figure(method.rank_correlation)}, without sign "
            f"{figure(method.rank_correlation_absolute)}{survives}"
        )
        yield (
            f"      infidelity {figure(method.infidelity)}, max-sensitivity "
            f"{figure(method.max_sensitivity)}"
        )


def _page(card: ModelCard) -> str:
    from medllm.models.card_page import LIVES_IN_MEMORY

    lines = [f"{card.name} {card.version}", card.description, f"Use: {card.intended_use}"]
    if card.lives_in_memory:
        lines.append(LIVES_IN_MEMORY)
    for question in card.questions:
        fitted = question.calibration
        lines += [
            "",
            f"{question.finding}: {question.text}",
            f"  negative below {fitted.low:.2f}, positive from {fitted.high:.2f}; "
            f"calibrated on {fitted.fitted_on}",
            *(
                [f"  supposes {fitted.prevalence:.0%} positive; brier and ece at each set's own"]
                if fitted.prevalence
                else []
            ),
        ]
        for figures in question.measurements:
            name = f"{figures.test_set}: {figures.subgroup}".removesuffix(": ")
            lines.append(f"  {name} (n {figures.n}, {figures.n_positive} positive)")
            for name in ("auroc", "sensitivity", "specificity", "brier", "ece"):
                figure = getattr(figures, name)
                lines.append(
                    f"    {name:<12}{figure.value:.3f}  ({figure.low:.3f} to {figure.high:.3f})"
                )
    for title, sentences in (
        ("Trained on", card.training_data),
        ("Limits", card.limitations),
        ("Explanations", card.explanation_measurements),
    ):
        lines += ["", title, *(f"  - {sentence}" for sentence in sentences)]
    for one in card.explanations:
        lines += [f"  On {one.name}, {one.n_images} images of {one.n_patients} patients"]
        lines += [line for name, method in one.methods.items() for line in _method(name, method)]
    return "\n".join(lines)
