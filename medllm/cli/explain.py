"""`medllm explain`: one report per radiograph."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from medllm.cli.inputs import (
    FORMAT_NAMES,
    METHOD_NAMES,
    Accept,
    Context,
    Findings,
    Inputs,
    ModelSource,
    Polarity,
    Prevalence,
    as_key,
    check_accept,
    chosen_names,
    find_each,
    load_for,
    refuse_identity,
    tell_error,
)
from medllm.cli.progress import steps
from medllm.cli.written import every_file, tell_overview, tell_refused, tell_written
from medllm.errors import AttributionError, MedllmError

if TYPE_CHECKING:
    from medllm.dicom import Radiograph
    from medllm.explanation import Explanation
    from medllm.explanation.composition import Watch
    from medllm.models import Model, Prediction
    from medllm.report import Report


def explain(
    inputs: Inputs,
    model: ModelSource = None,
    finding: Findings = None,
    against: Annotated[
        str | None,
        typer.Option(
            metavar="F",
            parser=as_key,
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
            f"the others stand beside it. Of: {METHOD_NAMES}.",
        ),
    ] = "integrated-gradients",
    formats: Annotated[
        str,
        typer.Option(
            "--format", metavar="NAMES", help=f"Encodings, separated by commas, of: {FORMAT_NAMES}."
        ),
    ] = "html,json",
    out: Annotated[
        Path, typer.Option(metavar="DIR", file_okay=False, help="Folder of the reports.")
    ] = Path("out"),
    accept: Accept = None,
    polarity: Polarity = "auto",
    prevalence: Prevalence = None,
    context: Context = None,
    with_identity: Annotated[
        bool, typer.Option("--with-identity", help="Put the patient's name and id in.")
    ] = False,
) -> None:
    """Write one report per radiograph: DIR/NAME/report.html and report.json.

    Where DIR then holds report.json of two radiographs or more, DIR/index.html lists them all, and
    DIR/explanations.parquet has a row a report, finding and method.

    Findings called positive or indeterminate are explained; where there is none, the most
    probable one. --finding chooses others. Where DIR/NAME holds the report of another image, a
    report goes to DIR/NAME-HASH; files there of another model, or of other questions, are
    removed. A bad input, or a format that cannot hold a report, is told and the others are done;
    the exit status is then 1.
    """
    from medllm.dicom import find_images, read_radiograph
    from medllm.explanation import DEFAULT_METHOD, METHODS
    from medllm.report.folders import folder_for, note_image
    from medllm.report.formats import FORMATS, write_possible

    names = chosen_names(formats, FORMATS, "--format")
    every = ",".join(sorted(METHODS, key=lambda name: name != DEFAULT_METHOD))
    methods = chosen_names(every if method == "all" else method, METHODS, "--method")
    _check_contrast(finding, against)
    loaded = load_for(model, prevalence, context)
    require_findings(loaded, [*(finding or []), *([against] if against else [])])
    check_accept(accept)
    found = find_each(inputs, find_images, "DICOM, PNG or JPEG")
    failed = False
    verdicts: Counter[str] = Counter()
    try:
        for number, (path, error) in enumerate(found, 1):
            try:
                if error is not None:
                    raise error
                with steps(f"radiograph {number} of {len(found)}") as watch:
                    scan = read_radiograph(path, accept=accept or (), polarity=polarity)
                    if context and not with_identity:
                        refuse_identity(scan, context)
                    folder, elsewhere = folder_for(scan, out)
                    report, reasons = _made(
                        *(loaded, scan, finding, methods, against),
                        with_identity=with_identity,
                        watch=watch,
                    )
                    written = write_possible(report, folder, names)
                    if written.files:
                        note_image(scan, folder)
                    verdicts.update(
                        entry.explanation.verdict for entry in report.explained if entry.explanation
                    )
            except MedllmError as refused:
                failed = True
                tell_error(path, refused)
                continue
            if elsewhere and written.files:
                typer.echo(f"{path}: {elsewhere}; written to {folder}", err=True)
            failed |= not tell_written(path, folder, written, reasons)
    finally:
        # Also of what a Ctrl-C left: the page to start from tells of all reports that are there.
        failed |= not tell_overview(out)
        tell_refused(verdicts, methods)
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
) -> tuple[list[Path], list[AttributionError]]:
    """Predict, explain and write the report of one radiograph.

    Args:
        model: The model.
        scan: The radiograph.
        folder: Where the report goes.
        formats: Encodings; nothing is written where one of them cannot hold the report.
        findings: Findings to explain; chosen from the calls when None.
        methods: Attribution methods; the first explains, the others stand beside it.

    Returns:
        The files written, and why explanations were refused.
    """
    from medllm.report.folders import note_image

    report, refused = _made(model, scan, findings, methods)
    files = report.write(folder, formats=formats)
    note_image(scan, folder)
    return every_file(files), refused


def _made(
    model: Model,
    scan: Radiograph,
    findings: list[str] | None,
    methods: Sequence[str],
    against: str | None = None,
    *,
    with_identity: bool = False,
    watch: Watch = lambda methods: methods,
) -> tuple[Report, list[AttributionError]]:
    """Make the report of one radiograph; say why explanations were refused."""
    from medllm.dicom import read_identity
    from medllm.explanation import explain_findings
    from medllm.report import build_report

    # An answer that was never calibrated says nothing by itself: only what was asked for is told.
    asked = list(dict.fromkeys([*(findings or []), *([against] if against else [])]))
    told = asked if asked and model.card.calls_nothing else None
    prediction = model.predict([scan], told)[0]
    run = partial(
        explain_findings,
        *(model, scan),
        method=methods[0],
        against=against,
        others=methods[1:],
        watch=watch,
    )
    keys = list(dict.fromkeys(findings or _worth_explaining(prediction)))
    explanations, refused = _explained(run, keys)
    identity = read_identity(scan.path) if with_identity else None
    why_not = {key: str(error) for key, error in refused.items()}
    report = build_report(scan, prediction, explanations, refused=why_not, identity=identity)
    return report, list(refused.values())


def _explained(
    run: Callable[[Sequence[str]], Sequence[Explanation]], keys: Sequence[str]
) -> tuple[list[Explanation], dict[str, AttributionError]]:
    """Explain findings together, for they share much; where one of them is refused, each alone."""
    try:
        return list(run(keys)), {}
    except AttributionError as error:
        if len(keys) == 1:
            return [], {keys[0]: error}
    each = [_explained(run, [key]) for key in keys]
    refused = {key: error for _, errors in each for key, error in errors.items()}
    return [explanation for found, _ in each for explanation in found], refused


def _worth_explaining(prediction: Prediction) -> list[str]:
    called = [answer.finding for answer in prediction.findings if answer.call != "negative"]
    return called or [max(prediction.findings, key=lambda answer: answer.probability).finding]
