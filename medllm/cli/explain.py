"""`medllm explain`: a report a radiograph."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from medllm.cli.inputs import (
    Accept,
    Findings,
    Inputs,
    ModelSource,
    Polarity,
    Prevalence,
    chosen_names,
    load_for,
    read_each,
    tell_error,
)
from medllm.errors import AttributionError, MedllmError

if TYPE_CHECKING:
    from medllm.dicom import Radiograph
    from medllm.models import Model, Prediction


def explain(
    inputs: Inputs,
    model: ModelSource = None,
    finding: Findings = None,
    against: Annotated[
        str | None,
        typer.Option(
            metavar="F",
            help="Explain why the one --finding rather than this one: the difference of their "
            "log-odds.",
            show_default=False,
        ),
    ] = None,
    method: Annotated[
        str,
        typer.Option(
            metavar="NAME",
            help="Attribution method. Several, separated by commas, or 'all': the first explains, "
            "the others stand beside it.",
        ),
    ] = "integrated-gradients",
    formats: Annotated[
        str, typer.Option("--format", help="Encodings, separated by commas.")
    ] = "html,json",
    out: Annotated[Path, typer.Option(metavar="DIR", help="Folder of the reports.")] = Path("out"),
    accept: Accept = None,
    polarity: Polarity = "auto",
    prevalence: Prevalence = None,
    with_identity: Annotated[
        bool, typer.Option("--with-identity", help="Put the patient's name and id in.")
    ] = False,
) -> None:
    """Write a report a radiograph: DIR/NAME/report.html and report.json.

    Findings called positive or indeterminate are explained; where there is none, the most
    probable one. --finding chooses others.
    """
    from medllm.explanation import DEFAULT_METHOD, METHODS
    from medllm.report.formats import FORMATS

    names = chosen_names(formats, FORMATS, "--format")
    every = ",".join(sorted(METHODS, key=lambda name: name != DEFAULT_METHOD))
    methods = chosen_names(every if method == "all" else method, METHODS, "--method")
    _check_contrast(finding, against)
    loaded = load_for(model, prevalence)
    require_findings(loaded, [*(finding or []), *([against] if against else [])])
    failed = False
    taken: Counter[str] = Counter()
    for path, read in read_each(inputs, accept, polarity):
        try:
            scan = read()
            name = _folder_name(scan, taken)
            written, refused = write_report(
                loaded,
                scan,
                out / name,
                names,
                finding,
                methods,
                against=against,
                with_identity=with_identity,
            )
        except MedllmError as error:
            failed = True
            tell_error(path, error)
            continue
        for reason in refused:
            failed = True
            tell_error(path, reason)
        typer.echo(f"{path}  {'  '.join(str(file) for file in written)}")
    if failed:
        raise typer.Exit(1)


def require_findings(model: Model, asked: Sequence[str]) -> None:
    """Refuse what a model cannot be asked, and to choose for one that calls nothing.

    Args:
        model: The model.
        asked: Findings to explain; none leaves the choice to its calls.

    Raises:
        LabelError: The model does not answer for a finding.
        typer.BadParameter: None is named, and the model is not calibrated.
    """
    model.questions(asked)
    if not asked and model.card.calls_nothing:
        raise typer.BadParameter(
            f"{model.card.name} is not calibrated and calls nothing; name what to explain.",
            param_hint="--finding",
        )


def _check_contrast(findings: Sequence[str] | None, against: str | None) -> None:
    if against is None:
        return
    if len(findings or ()) != 1:
        raise typer.BadParameter(
            f"it needs one --finding, and {len(findings or ())} are given.", param_hint="--against"
        )
    if findings == [against]:
        raise typer.BadParameter(
            f"'{against}' is the --finding itself; name another.", param_hint="--against"
        )


def write_report(
    model: Model,
    scan: Radiograph,
    folder: Path,
    formats: list[str],
    findings: list[str] | None,
    methods: Sequence[str],
    *,
    against: str | None = None,
    with_identity: bool = False,
) -> tuple[list[Path], list[AttributionError]]:
    """Predict, explain and write the report of one radiograph.

    Args:
        model: The model.
        scan: The radiograph.
        folder: Where the report goes.
        formats: Encodings.
        findings: Findings to explain; chosen from the calls when None.
        methods: Attribution methods; the first explains, the others stand beside it.
        against: Finding that the others are explained against.
        with_identity: Put the identifying header in.

    Returns:
        The files written, and the explanations that were refused as incomplete.
    """
    from medllm.dicom import read_identity
    from medllm.explanation import explain as explain_finding
    from medllm.report import build_report

    # An answer that was never calibrated says nothing by itself: only what was asked for is told.
    asked = list(dict.fromkeys([*(findings or []), *([against] if against else [])]))
    told = asked if asked and model.card.calls_nothing else None
    prediction = model.predict([scan], told)[0]
    explanations, refused = [], []
    for key in findings or _worth_explaining(prediction):
        try:
            explanations.append(
                explain_finding(
                    model, scan, key, method=methods[0], against=against, others=methods[1:]
                )
            )
        except AttributionError as error:
            refused.append(error)
    identity = read_identity(scan.path) if with_identity else None
    report = build_report(scan, prediction, explanations, identity=identity)
    files = report.write(folder, formats=formats).values()
    return [file for each in files for file in each], refused


def _worth_explaining(prediction: Prediction) -> list[str]:
    called = [answer.finding for answer in prediction.findings if answer.call != "negative"]
    return called or [max(prediction.findings, key=lambda answer: answer.probability).finding]


def _folder_name(scan: Radiograph, taken: Counter[str]) -> str:
    """Name a report's folder after its file; a second file of that name adds its hash."""
    stem = scan.path.stem
    taken[stem] += 1
    return stem if taken[stem] == 1 else f"{stem}-{scan.sha256[:8]}"
