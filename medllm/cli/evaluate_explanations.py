"""`medllm evaluate-explanations`: attribution methods against outlined findings."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

import typer

from medllm.cli.inputs import (
    METHOD_NAMES,
    Accept,
    AsJson,
    Findings,
    ModelSource,
    Polarity,
    Split,
    SplitFile,
    check_accept,
    chosen_names,
)
from medllm.cli.progress import watched
from medllm.cli.training_data import training_data_lines

if TYPE_CHECKING:
    from medllm.evaluate import ExplanationEvaluation
    from medllm.evaluate.explanations.document import Sanity
    from medllm.evaluate.section import Interval


def evaluate_explanations(
    dataset: Annotated[
        str,
        typer.Argument(
            metavar="DATASET",
            help="A reader's name, see 'medllm datasets list'; csv for a table of one's own with "
            "boxes.csv beside it; phantom for synthetic radiographs.",
            show_default=False,
        ),
    ],
    root: Annotated[
        Path | None,
        typer.Option(
            metavar="DIR", help="Folder of the data set; none for phantom.", show_default=False
        ),
    ] = None,
    model: ModelSource = None,
    method: Annotated[
        str,
        typer.Option(
            metavar="NAMES",
            help="Methods, separated by commas, or 'all' that can serve the model; of: "
            f"{METHOD_NAMES}.",
        ),
    ] = "all",
    finding: Findings = None,
    split: Split = None,
    split_file: SplitFile = None,
    limit: Annotated[
        int | None,
        typer.Option(
            min=1,
            help="Number of images, drawn by chance and on every run the same; all when left out, "
            "and 200 phantoms, of which it takes the first.",
            show_default=False,
        ),
    ] = None,
    checks: Annotated[
        Literal["default", "all", "none"],
        typer.Option(
            help="Whose explanations are checked: the default method's, or the first one's where "
            "that is not asked for; all; or none."
        ),
    ] = "default",
    sanity: Annotated[
        int,
        typer.Option(
            min=0,
            metavar="N",
            help="Images on which the methods themselves are tested; each costs as much as eleven "
            "others.",
        ),
    ] = 8,
    heatmaps: Annotated[
        bool,
        typer.Option(
            "--heatmaps",
            help="Write the maps as files that CheXlocalize's published evaluation reads; for "
            "chexlocalize alone.",
        ),
    ] = False,
    keep: Annotated[
        bool,
        typer.Option(
            "--keep",
            help="Keep the essence beside the checkpoint's weights, for its card and reports.",
        ),
    ] = False,
    out: Annotated[
        Path, typer.Option(metavar="DIR", file_okay=False, help="Folder of the results.")
    ] = Path("out/evaluate-explanations"),
    partial: Annotated[
        bool, typer.Option("--partial", help="Leave out, and count, files this copy lacks.")
    ] = False,
    accept: Accept = None,
    polarity: Polarity = "auto",
    as_json: AsJson = False,
) -> None:
    """Measure attribution methods where findings are outlined, beside controls without a model.

    Writes explanations.parquet, metrics.json and report.html; killed, it goes on when the same
    command is given again. An image that cannot be explained is a row with its error, and the
    exit status is then 1. A method that cannot serve the model is left out of 'all' and told.
    """
    from medllm.evaluate import evaluate_explanations as evaluate
    from medllm.evaluate import (
        open_study,
        outlined_phantoms,
        outlined_records,
        write_explanations,
    )
    from medllm.evaluate.explanations.chexlocalize import write_heatmaps
    from medllm.evaluate.explanations.kept import essence_of
    from medllm.explanation import METHODS
    from medllm.models import load_model
    from medllm.models.card_file import write_page
    from medllm.models.checkpoint import resolve
    from medllm.models.measured import keep_measured, require_keepable

    check_accept(accept)
    names = chosen_names(method, ("all", *METHODS), "--method")
    _check_root(dataset, root, split, split_file)
    _check_heatmaps(dataset, heatmaps)
    study = (
        None
        if root is None
        else open_study(dataset, root, split=split, split_file=split_file, partial=partial)
    )
    folder = resolve(model)
    if keep:
        require_keepable(folder)
    loaded = load_model(folder)
    outlined = (
        outlined_phantoms(loaded, finding, limit=limit)
        if study is None
        else outlined_records(
            study, loaded, finding, limit=limit, accept=accept or (), polarity=polarity
        )
    )
    evaluation = evaluate(
        outlined,
        loaded,
        out,
        None if "all" in names else names,
        checked=checks,
        sanity=sanity,
        watch=watched,
    )
    for name, reason in evaluation.refusals.items():
        typer.echo(f"{name} is left out: {reason}", err=True)
    write_explanations(evaluation, outlined, out)
    if heatmaps:
        write_heatmaps(evaluation, outlined, out)
    if keep:
        keep_measured(folder, loaded.sha256, essence_of(evaluation))
        write_page(folder)
    if as_json:
        typer.echo(evaluation.model_dump_json())
    else:
        for line in _table(evaluation):
            typer.echo(line)
        typer.echo(f"\n{out / 'report.html'}")
    if evaluation.errors or any(cost.failed for cost in evaluation.costs.values()):
        raise typer.Exit(1)


def _check_root(
    dataset: str, root: Path | None, split: str | None, split_file: Path | None
) -> None:
    if dataset != "phantom" and root is None:
        raise typer.BadParameter(
            "name the data set's folder; only 'phantom' has none", param_hint="--root"
        )
    if dataset == "phantom":
        options = ((root, "--root"), (split, "--split"), (split_file, "--split-file"))
        for given, option in options:
            if given is not None:
                raise typer.BadParameter("phantoms are drawn, not read", param_hint=option)


def _check_heatmaps(dataset: str, heatmaps: bool) -> None:
    if heatmaps and dataset != "chexlocalize":
        raise typer.BadParameter(
            "their form is that of one data set; give it with chexlocalize alone",
            param_hint="--heatmaps",
        )


def _table(evaluation: ExplanationEvaluation) -> Iterator[str]:
    failed = sum(evaluation.errors.values())
    yield (
        f"{evaluation.dataset} ({evaluation.split}): {evaluation.n_images} images of "
        f"{evaluation.n_patients} patients, {failed} not read; {evaluation.model}. "
        f"{evaluation.use}"
    )
    for reason, count in {**evaluation.left_out, **evaluation.errors}.items():
        yield f"  {reason}: {count}"
    for caveat in evaluation.caveats:
        yield f"  {caveat}"
    yield from training_data_lines(evaluation.training_data)
    for finding in evaluation.cases:
        yield ""
        yield (
            f"{finding:<32}{'n':<6}{'pixel AUROC (95%)':<26}{'over mean map':<26}{'hit':<7}"
            f"{'mIoU':<7}{'mass':<7}{'side':<7}region"
        )
        for method, findings in evaluation.localisation.items():
            one = findings[finding]
            short = (one.hit_rate, one.miou_tuned, one.relevance_mass, one.side_accuracy)
            cells = "".join(f"{_number(figure):<7}" for figure in (*short, one.region_rate))
            yield (
                f"  {method:<30}{one.n:<6}{_interval(one.pixel_auroc):<26}"
                f"{_interval(one.over_mean_map):<26}{cells}"
            ).rstrip()
    verdicts = ", ".join(f"{count} {verdict}" for verdict, count in evaluation.verdicts.items())
    judged = any(evaluation.verdicts.values())
    yield f"\n{evaluation.default_method}: {verdicts if judged else 'no explanation was checked'}"
    if evaluation.sanity is not None:
        yield from _sanity(evaluation.sanity)
    for method, cost in evaluation.costs.items():
        for code, count in cost.failed.items():
            yield f"  {method}, {code}: {count}"


def _sanity(sanity: Sanity) -> Iterator[str]:
    yield ""
    yield (
        f"{'all weights scrambled':<32}{'n':<6}{'rank correlation (95%)':<26}"
        f"{'without sign':<26}{'SSIM':<7}{'infidelity':<12}sensitivity"
    )
    for method, one in sanity.methods.items():
        signed, absolute = one.rank_correlation[-1], one.rank_correlation_absolute[-1]
        numbers = (
            f"{_number(one.ssim[-1]):<7}{_number(one.infidelity, 3):<12}"
            f"{_number(one.max_sensitivity)}"
        )
        survives = "  survives: does not depend on the model" if one.survives else ""
        yield (
            f"  {method:<30}{one.n:<6}{_interval(signed):<26}{_interval(absolute):<26}"
            f"{numbers}{survives}"
        )
        for code, count in one.failed.items():
            yield f"    {code}: {count}"


def _number(figure: Interval | None, digits: int = 2) -> str:
    return "-" if figure is None or figure.value is None else f"{figure.value:.{digits}f}"


def _interval(figure: Interval | None) -> str:
    if figure is None or figure.value is None or figure.low is None or figure.high is None:
        return "-"
    return f"{figure.value:.2f} ({figure.low:.2f} to {figure.high:.2f})"
