"""`medllm evaluate`: a model, or a peer's predictions, over a data set."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

import typer

from medllm.cli.inputs import (
    Accept,
    AsJson,
    Findings,
    ModelSource,
    Polarity,
    Prevalence,
    Split,
    SplitFile,
    Views,
    check_accept,
    load_for,
)
from medllm.cli.progress import watched
from medllm.cli.training_data import training_data_lines

if TYPE_CHECKING:
    from medllm.evaluate import Evaluation
    from medllm.evaluate.document import FindingFigures

DataSetName = Annotated[
    str,
    typer.Argument(
        metavar="DATASET",
        help="A reader's name, see 'medllm datasets list'; csv for a table of one's own.",
        show_default=False,
    ),
]
Root = Annotated[
    Path, typer.Option(metavar="DIR", help="Folder of the data set.", show_default=False)
]


def evaluate(
    dataset: DataSetName,
    root: Root,
    model: ModelSource = None,
    out: Annotated[
        Path, typer.Option(metavar="DIR", file_okay=False, help="Folder of the results.")
    ] = Path("out/evaluate"),
    finding: Findings = None,
    split: Split = None,
    split_file: SplitFile = None,
    view: Views = None,
    uncertain: Annotated[
        Literal["unknown", "negative", "positive"] | None,
        typer.Option(help="What an uncertain label is.", show_default=False),
    ] = None,
    readers: Annotated[
        Literal["any", "majority", "consensus"] | None,
        typer.Option(help="How many of several readers make a 1.", show_default=False),
    ] = None,
    blank: Annotated[
        Literal["unknown", "negative"] | None,
        typer.Option(help="What a finding is that is not mentioned.", show_default=False),
    ] = None,
    limit: Annotated[
        int | None,
        typer.Option(
            min=1,
            help="Number of images, drawn by chance and on every run the same, to try something "
            "out; all when left out.",
            show_default=False,
        ),
    ] = None,
    group: Annotated[
        list[str] | None,
        typer.Option(
            metavar="COLUMN",
            help="Attribute to make subgroups of, beside age, sex, view, source and support "
            "devices; may be repeated.",
            show_default=False,
        ),
    ] = None,
    partial: Annotated[
        bool, typer.Option("--partial", help="Leave out, and count, files this copy lacks.")
    ] = False,
    predictions: Annotated[
        Path | None,
        typer.Option(
            metavar="FILE",
            help="Another classifier's predictions instead of a model: CSV or Parquet of path, "
            "finding, probability, and threshold or call where it has them.",
            show_default=False,
        ),
    ] = None,
    thresholds: Annotated[
        Path | None,
        typer.Option(
            metavar="FILE",
            help="metrics.json of the same model on other patients, whose thresholds are tried "
            "here too.",
            show_default=False,
        ),
    ] = None,
    at: Annotated[
        str | None,
        typer.Option(
            metavar="RULE",
            help="How they are chosen on those patients: youden, sensitivity=S or specificity=S "
            "with S as 0.9; youden when left out.",
            show_default=False,
        ),
    ] = None,
    accept: Accept = None,
    polarity: Polarity = "auto",
    prevalence: Prevalence = None,
    workers: Annotated[
        int | None,
        typer.Option(
            min=0,
            help="Processes that read images; by the cores when left out.",
            show_default=False,
        ),
    ] = None,
    cache: Annotated[
        Path | None,
        typer.Option(
            metavar="DIR",
            help="Folder to keep prepared images in, for the next model.",
            show_default=False,
        ),
    ] = None,
    as_json: AsJson = False,
) -> None:
    """Measure a model on a data set: figures with intervals, subgroups, audits, and their page.

    Writes predictions.parquet, metrics.json and report.html, and split.csv where it draws a
    split; killed, it goes on when the same command is given again. An image that cannot be scored
    is a row with its error, and the exit status is then 1.
    """
    from medllm.datasets import FRONTAL, find_dataset
    from medllm.evaluate import evaluate_model, evaluate_predictions, open_study, write_evaluation

    check_accept(accept)
    if predictions is not None:
        _refuse_beside_predictions(
            model=model,
            prevalence=prevalence,
            accept=accept,
            polarity=None if polarity == "auto" else polarity,
            workers=workers,
            cache=cache,
        )
    if at is not None and thresholds is None:
        raise typer.BadParameter(
            "a threshold is chosen on other patients than these; name the metrics.json of their "
            "evaluation by --thresholds.",
            param_hint="--at",
        )
    policy = find_dataset(dataset).policy.changed(
        dataset, uncertain=uncertain, readers=readers, blank=blank
    )
    study = open_study(
        dataset,
        root,
        policy=policy,
        views=view or FRONTAL,
        split=split,
        split_file=split_file,
        partial=partial,
        columns=group or (),
        thresholds=thresholds,
        at=at or "youden",
        limit=limit,
    )
    if predictions is not None:
        evaluation = evaluate_predictions(study, predictions, out, finding)
    else:
        evaluation = evaluate_model(
            study,
            load_for(model, prevalence),
            out,
            finding,
            accept=accept or (),
            polarity=polarity,
            prevalence=prevalence,
            workers=workers,
            cache=cache,
            watch=watched,
        )
    write_evaluation(evaluation, study, out, accept=accept or (), polarity=polarity)
    if as_json:
        typer.echo(evaluation.model_dump_json())
    else:
        for line in _table(evaluation, limit):
            typer.echo(line)
        typer.echo(f"\n{out / 'report.html'}")
    if evaluation.errors:
        raise typer.Exit(1)


def _refuse_beside_predictions(**options: object) -> None:
    """Refuse what says how a model scores: predictions are taken as they are."""
    if idle := [name for name, value in options.items() if value is not None]:
        raise typer.BadParameter(
            f"predictions are taken as they are; leave out --{idle[0]}.",
            param_hint="--predictions",
        )


def _table(evaluation: Evaluation, limit: int | None) -> Iterator[str]:
    from medllm.evaluate.audits.wording import alarms

    left_out = sum(evaluation.left_out.values())
    failed = sum(evaluation.errors.values())
    yield (
        f"{evaluation.dataset} ({evaluation.split}): {evaluation.n_images} images of "
        f"{evaluation.n_patients} patients; {left_out} left out, {failed} not scored; "
        f"{evaluation.model}. {evaluation.use}"
    )
    for reason, count in {**evaluation.left_out, **evaluation.errors}.items():
        yield f"  {reason}: {count}"
    for caveat in evaluation.caveats:
        yield f"  {caveat}"
    if evaluation.model_sha256:  # predictions that were given come without a card
        yield from training_data_lines(evaluation.training_data)
    yield ""
    yield (
        f"{'finding':<28}{'positive':<14}{'AUROC (95%)':<24}{'AUPRC':<8}{'sens.':<8}{'spec.':<8}"
        f"{'Brier':<8}{'ECE':<8}"
    ).rstrip()
    for finding, one in evaluation.findings.items():
        figures = (one.auprc, one.sensitivity, one.specificity, one.brier, one.ece)
        cells = "".join(f"{_number(figure.value):<8}" for figure in figures)
        area = f"{_number(one.auroc.value)} ({_number(one.auroc.low)} to {_number(one.auroc.high)})"
        yield f"{finding:<28}{f'{one.n_positive} of {one.n}':<14}{area:<24}{cells}".rstrip()
        yield from _calls(one)
        if one.n_positive in (0, one.n):
            yield _one_class(finding, limit, none=not one.n_positive)
    flagged = [row for row in evaluation.subgroups if row.larger_than_noise]
    for row in flagged:
        gap = row.auroc_difference
        yield (
            f"  {row.finding}, {row.attribute} {row.group}: AUROC {gap.value if gap else 0:+.3f} "
            "against the others, more than noise"
        )
    for title, findings in alarms(evaluation.audits).items():
        yield f"  alarming: {title} ({', '.join(findings)})"


def _calls(one: FindingFigures) -> Iterator[str]:
    """Say what the two thresholds leave open and rule out, or why nothing is called."""
    if one.true_positive is None:
        yield f"  no calls: {one.threshold_source}"
    if (three := one.three_way) is not None:
        found = three.lower_threshold.sensitivity
        n_open = three.indeterminate.with_finding + three.indeterminate.without_finding
        yield (
            f"  indeterminate: {n_open} of {one.n}; called negative: "
            f"{three.negative.with_finding} of {one.n_positive} with it; sensitivity at the lower "
            f"threshold {_number(found.value)} ({_number(found.low)} to {_number(found.high)})"
        )


def _one_class(finding: str, limit: int | None, *, none: bool) -> str:
    """Say why figures of a finding are missing that all images have, or none."""
    found = "none of these images has it" if none else "all of these images have it"
    remedy = (
        "choose another --split or --view, or add images"
        if limit is None
        else "--limit takes a part of the images, name a larger one or leave it out"
    )
    lost = "sensitivity" if none else "specificity"
    return f"  {finding}: {found}, so AUROC and {lost} are not defined; {remedy}"


def _number(value: float | None) -> str:
    return "-" if value is None else f"{value:.3f}"
