"""Every attribution method over a data set in which findings are outlined."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Literal

from medllm import __version__
from medllm.errors import AttributionError, LabelError
from medllm.evaluate.answers import resamples_for
from medllm.evaluate.explanations.cascade import cascade_steps
from medllm.evaluate.explanations.cases import choose_cases
from medllm.evaluate.explanations.controls import CONTROLS
from medllm.evaluate.explanations.document import ExplanationEvaluation
from medllm.evaluate.explanations.explained import ExplainedImage, explain_image
from medllm.evaluate.explanations.figures import (
    agreement_of,
    by_verdict,
    checks_of,
    costs_of,
    localisation_of,
)
from medllm.evaluate.explanations.measured import Table, read_table
from medllm.evaluate.explanations.outlined import OutlinedImage, OutlinedSet
from medllm.evaluate.explanations.sanity_figures import sanity_of
from medllm.evaluate.explanations.table import PART_SCHEMA, Row, finish, mended_rows
from medllm.evaluate.resumable import of_images, of_model, write_in_parts
from medllm.evaluate.study import write_drawn
from medllm.evaluate.table import write_rows
from medllm.explanation import DEFAULT_METHOD, METHODS
from medllm.explanation.methods import refusals
from medllm.models import Model

# An image takes seconds, so that few are lost when a run is killed.
PART = 4
# Images on which the methods themselves are tested: each costs as much as about eleven others.
SANITY_IMAGES = 8

Checked = Literal["default", "all", "none"]
Watch = Callable[[Iterable[ExplainedImage], int], Iterable[ExplainedImage]]


def evaluate_explanations(
    outlined: OutlinedSet,
    model: Model,
    out: str | Path,
    methods: Sequence[str] | None = None,
    *,
    checked: Checked = "default",
    sanity: int = SANITY_IMAGES,
    watch: Watch = lambda explained, total: explained,
) -> ExplanationEvaluation:
    """Explain a data set by every method and measure the maps, going on from what `out` holds.

    An image that could not be read before is tried again, and one whose file has changed since is
    explained anew.

    Args:
        outlined: The images.
        model: The model.
        out: Folder; `explanations.parquet` is written there, and the parts that it was joined of.
        methods: Keys of `METHODS`; all that can serve the model when None.
        checked: Whose explanations are checked whole, as a report would have them: the default
            method's, or the first one's where that is not among them; each method's; or none.
        sanity: Images on which the methods themselves are tested: the first of each patient,
            until there are so many.
        watch: Passes on what was explained, to show progress; it is told how many there are.

    Returns:
        Every figure.

    Raises:
        AttributionError: A method that is named cannot serve the model.
        LabelError: No image could be read.
        MedllmError: `out` holds another run or cannot be written.
        ValueError: There is no such method.
    """
    out = Path(out)
    findings = list(dict.fromkeys(key for image in outlined.images for key in image.outlined_as))
    names, refused = _chosen(model, findings, methods)
    whole = {"all": names, "default": (_shown(names),), "none": ()}[checked]

    tried = _first_of_patients(outlined.images, sanity)

    def work(missing: Sequence[OutlinedImage]) -> Iterable[Sequence[Row]]:
        explained = (
            explain_image(model, image, names, whole, sanity=image.path in tried)
            for image in missing
        )
        return (one.rows for one in watch(explained, len(missing)))

    path = out / "explanations.parquet"

    def mend(part: Path, own: Sequence[OutlinedImage]) -> None:
        changed = mended_rows(part, own, work)
        if changed is not None:
            path.unlink(missing_ok=True)
            write_rows(changed, part, PART_SCHEMA)

    told = {
        "methods": list(names),
        "checked": list(whole),
        "sanity": len(tried),
        "dataset": outlined.dataset,
        **outlined.read_by,
    }
    write_in_parts(
        path,
        outlined.images,
        work,
        {**told, **of_model(model, findings), **of_images(one.known for one in outlined.images)},
        schema=PART_SCHEMA,
        part_size=PART,
        finish=lambda parts: finish(parts, path),
        mend=mend,
        keep_parts=True,
    )
    write_drawn(outlined.drawn, out)
    return _document(outlined, model, names, refused, read_table(path), len(tried))


def _chosen(
    model: Model, findings: Sequence[str], methods: Sequence[str] | None
) -> tuple[tuple[str, ...], dict[str, str]]:
    """Choose the methods that are tried, and say why those that nobody named are not."""
    names = tuple(METHODS if methods is None else dict.fromkeys(methods))
    if unknown := [name for name in names if name not in METHODS]:
        raise ValueError(f"'{unknown[0]}' is not a method; use one of: {', '.join(METHODS)}.")
    refused = refusals(model, findings, names)
    if methods is not None and refused:
        name, error = next(iter(refused.items()))
        raise AttributionError(f"the method '{name}' cannot be tried: {error}", code=error.code)
    served = tuple(name for name in names if name not in refused)
    return served, {name: str(error) for name, error in refused.items()}


def _first_of_patients(images: Sequence[OutlinedImage], n: int) -> set[str]:
    """Name the first image of each patient, until there are enough."""
    first: dict[str, str] = {}
    for image in images:
        if len(first) < n:
            first.setdefault(image.patient_id, image.path)
    return set(first.values())


def _shown(names: Sequence[str]) -> str:
    """Choose the method that a reader sees first: the default, or the first that was asked for."""
    return DEFAULT_METHOD if DEFAULT_METHOD in names else names[0]


def _document(
    outlined: OutlinedSet,
    model: Model,
    names: Sequence[str],
    refused: Mapping[str, str],
    table: Table,
    n_tried: int,
) -> ExplanationEvaluation:
    measured = {key: methods for key, methods in table.measured.items() if methods[names[0]].rows}
    if not measured:
        codes = ", ".join(sorted(set(table.unread.values())))
        raise LabelError(
            f"none of the {len(outlined.images)} outlined images could be read ({codes}); check "
            "that the data set's files are there.",
            code="nothing-read",
        )
    shown = _shown(names)
    verdicts = by_verdict(measured, shown)
    return ExplanationEvaluation.model_validate(
        {
            "medllm_version": __version__,
            "dataset": outlined.dataset,
            "split": outlined.split,
            "model": f"{model.card.name} {model.card.version}",
            "model_sha256": model.sha256,
            "training_data": model.card.training_data,
            "default_method": shown,
            "methods": names,
            "refusals": dict(refused),
            "controls": CONTROLS,
            "n_images": len(outlined.images),
            "n_patients": len({image.patient_id for image in outlined.images}),
            "n_outlined": _counted(outlined),
            "left_out": dict(outlined.left_out),
            "errors": dict(sorted(Counter(table.unread.values()).items())),
            "caveats": tuple(outlined.caveats),
            "n_resamples": resamples_for(len(outlined.images)),
            "localisation": localisation_of(measured),
            "checks": checks_of(measured),
            "verdicts": {verdict: one.n for verdict, one in verdicts.items()},
            "by_verdict": verdicts,
            "sanity": sanity_of(measured, cascade_steps(model), n_tried) if n_tried else None,
            "agreement": agreement_of(measured, names),
            "costs": costs_of(measured, names),
            "peak_memory_mib": table.peak_memory_mib,
            "cases": {
                finding: choose_cases(methods, names, shown)
                for finding, methods in measured.items()
            },
        }
    )


def _counted(outlined: OutlinedSet) -> dict[str, dict[str, int]]:
    counts: dict[str, Counter[str]] = {}
    for image in outlined.images:
        for finding, own in image.outlined_as.items():
            counts.setdefault(finding, Counter())[own] += 1
    return {finding: dict(found) for finding, found in counts.items()}
