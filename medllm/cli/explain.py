"""`medllm explain`: a report a radiograph."""

from __future__ import annotations

from collections import Counter
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from medllm.cli.inputs import (
    Accept,
    Findings,
    Inputs,
    ModelSource,
    Polarity,
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
    method: Annotated[
        str, typer.Option(metavar="NAME", help="Attribution method.")
    ] = "integrated-gradients",
    formats: Annotated[
        str, typer.Option("--format", help="Encodings, separated by commas.")
    ] = "html,json",
    out: Annotated[Path, typer.Option(metavar="DIR", help="Folder of the reports.")] = Path("out"),
    accept: Accept = None,
    polarity: Polarity = "auto",
    with_identity: Annotated[
        bool, typer.Option("--with-identity", help="Put the patient's name and id in.")
    ] = False,
) -> None:
    """Write a report a radiograph: DIR/NAME/report.html and report.json.

    Findings called positive or indeterminate are explained; where there is none, the most
    probable one. --finding chooses others.
    """
    from medllm.explanation import METHODS
    from medllm.models import load_model
    from medllm.report.formats import FORMATS

    names = [name.strip() for name in formats.split(",") if name.strip()]
    for given, known, option in ((names, FORMATS, "--format"), ([method], METHODS, "--method")):
        if unknown := [name for name in given if name not in known]:
            raise typer.BadParameter(
                f"'{unknown[0]}' is not one of: {', '.join(known)}.", param_hint=option
            )
    loaded = load_model(model)
    loaded.questions(finding)
    failed = False
    taken: Counter[str] = Counter()
    for path, read in read_each(inputs, accept, polarity):
        try:
            scan = read()
            name = _folder_name(scan, taken)
            written, refused = write_report(
                loaded, scan, out / name, names, finding, method, with_identity=with_identity
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


def write_report(
    model: Model,
    scan: Radiograph,
    folder: Path,
    formats: list[str],
    findings: list[str] | None = None,
    method: str = "integrated-gradients",
    *,
    with_identity: bool = False,
) -> tuple[list[Path], list[AttributionError]]:
    """Predict, explain and write the report of one radiograph.

    Args:
        model: The model.
        scan: The radiograph.
        folder: Where the report goes.
        formats: Encodings.
        findings: Findings to explain; chosen from the calls when None.
        method: Attribution method.
        with_identity: Put the identifying header in.

    Returns:
        The files written, and the explanations that were refused as incomplete.
    """
    from medllm.dicom import read_identity
    from medllm.explanation import explain as explain_finding
    from medllm.report import build_report

    prediction = model.predict([scan])[0]
    explanations, refused = [], []
    for key in findings or _worth_explaining(prediction):
        try:
            explanations.append(explain_finding(model, scan, key, method=method))
        except AttributionError as error:
            refused.append(error)
    identity = read_identity(scan.path) if with_identity else None
    report = build_report(scan, prediction, explanations, identity=identity)
    return list(report.write(folder, formats=formats).values()), refused


def _worth_explaining(prediction: Prediction) -> list[str]:
    called = [answer.finding for answer in prediction.findings if answer.call != "negative"]
    return called or [max(prediction.findings, key=lambda answer: answer.probability).finding]


def _folder_name(scan: Radiograph, taken: Counter[str]) -> str:
    """Name a report's folder after its file; a second file of that name adds its hash."""
    stem = scan.path.stem
    taken[stem] += 1
    return stem if taken[stem] == 1 else f"{stem}-{scan.sha256[:8]}"
