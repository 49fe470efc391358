"""A checkpoint's card as a page, in the form of the Hugging Face hub."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import yaml

from medllm.metrics import Estimate
from medllm.models.card import Calibration, Comparison, ImageUse, ModelCard, Question
from medllm.models.measured import MeasuredExplanations

# What a card says whose weights are in no file.
LIVES_IN_MEMORY = (
    "Its network lives in memory: make and wrap it in Python as it was then, and open this folder "
    "there by medllm.load_model(folder, base=...)."
)
_LIBRARY = "medllm"
# transformers' name of what a LLaVA does.
_TASK = "image-text-to-text"


# By whether a map survives the scrambling of all weights.
_DEPENDS = {True: "no: the map survives", False: "yes", None: "too few images"}


def front_matter(card: ModelCard) -> str:
    """Write the block that the hub reads: library, task, license, tags, figures.

    Args:
        card: The card.

    Returns:
        YAML between two lines of dashes.

    Source:
        https://huggingface.co/docs/hub/model-cards, model card metadata.
    """
    results = [
        {
            "task": {"type": "image-classification", "name": question.text},
            "dataset": {"type": "radiographs", "name": one.test_set},
            "metrics": [{"type": "roc_auc", "name": "AUROC", "value": round(one.auroc.value, 4)}],
        }
        for question in card.questions
        for one in question.measurements
        if not one.subgroup
    ]
    values = {
        "library_name": _LIBRARY,
        "pipeline_tag": _TASK,
        **({"license": card.license} if card.license else {}),
        "tags": ["radiology", "chest-x-ray", "research-only", *card.findings],
        "model-index": [{"name": card.name, "results": results}],
    }
    return f"---\n{yaml.safe_dump(values, sort_keys=False, allow_unicode=True)}---\n"


def card_page(card: ModelCard) -> str:
    """Write the card for a reader.

    Args:
        card: The card.

    Returns:
        Markdown: use, data, figures with intervals, baselines, image use, limits, cost.
    """
    return "\n".join(_lines(card)) + "\n"


def _lines(card: ModelCard) -> Iterator[str]:
    yield f"# {card.name} {card.version}\n\n{card.description}\n"
    if card.lives_in_memory:
        yield f"{LIVES_IN_MEMORY}\n"
    yield "**Research use only. Not a medical device, never a diagnosis.**\n"
    yield "Intervals are 95%, by resampling patients.\n"
    yield f"## Intended use\n\n{card.intended_use}\n"
    yield from _list("Trained on", card.training_data)
    yield from _measured(card)
    if card.comparisons:
        yield from _comparisons(card.comparisons)
    if card.image_use:
        yield from _image_use(card.image_use)
    yield from _explanations(card)
    yield from _list("Limits", card.limitations)
    if card.training_cost:
        yield f"## Cost of the training\n\n{card.training_cost}"


def _list(title: str, sentences: Sequence[str]) -> Iterator[str]:
    if sentences:
        yield f"## {title}\n"
        yield from (f"- {sentence}" for sentence in sentences)
        yield ""


def _measured(card: ModelCard) -> Iterator[str]:
    """Write figures by finding, those of a recalibration under their own heading."""
    again = [one for one in card.questions if one.is_recalibrated]
    if kept := [one for one in card.questions if one not in again]:
        # Whose images the weights saw before this training is nowhere written down.
        yield (
            "## Figures on images that this training fitted no weight on; whether an earlier one "
            "did is not known\n"
            if card.started_from
            else "## Figures on images that no weight was fitted on\n"
        )
        for question in kept:
            yield from _figures(question)
    if again:
        yield (
            "## Figures at recalibration; whether a weight was fitted on these images is not "
            "known\n"
        )
        for question in again:
            yield from _figures(question)


def _figures(question: Question) -> Iterator[str]:
    fitted = question.calibration
    yield f"### {question.finding}: *{question.text}*\n"
    yield (
        f"Negative below {fitted.low:.3f}, positive from {fitted.high:.3f}; sensitivity and "
        f"specificity are at the latter. Calibrated on {fitted.fitted_on}. {_supposed(fitted)}\n"
    )
    figures = "AUROC | sensitivity | specificity | Brier | ECE"
    yield from _table(f"test set | images, positive | {figures}")
    for one in question.measurements:
        cells = (one.auroc, one.sensitivity, one.specificity, one.brier, one.ece)
        name = f"{one.test_set}: {one.subgroup}" if one.subgroup else one.test_set
        yield _row(name, f"{one.n}, {one.n_positive}", *map(_interval, cells))
    yield ""


def _supposed(fitted: Calibration) -> str:
    """Say how frequent the probability supposes the finding to be."""
    if fitted.prevalence is None:
        return "Which share of positives the probabilities suppose is not known."
    return (
        f"The probability supposes {fitted.prevalence:.0%} of images with the finding (another: "
        "`--prevalence`); Brier score and ECE are of each set's own share."
    )


def _comparisons(rows: Sequence[Comparison]) -> Iterator[str]:
    yield "## Beside baselines\n"
    yield (
        "Trained on the same training patients and measured on the same patients; AUROC. The "
        "difference is the model's minus the baseline's, resampled in pairs. `thumbnails` is "
        "logistic regression on 32 x 32 pixels.\n"
    )
    yield from _table("finding | test set | baseline | model | baseline's | difference")
    for row in rows:
        areas = map(_interval, (row.model_auroc, row.baseline_auroc, row.difference))
        yield _row(row.finding, row.test_set, row.baseline, *areas)
    yield ""


def _image_use(rows: Sequence[ImageUse]) -> Iterator[str]:
    yield "## Without the image\n"
    yield (
        "AUROC, and mean log-odds before calibration of the images with and without the finding, "
        "when something else is shown. A model that answers without looking keeps its AUROC.\n"
    )
    yield from _table("finding | test set | shown | AUROC | with | without")
    for row in rows:
        means = (f"{value:.2f}" for value in (row.positives, row.negatives))
        yield _row(row.finding, row.test_set, row.shown, f"{row.auroc:.3f}", *means)
    yield ""


def _explanations(card: ModelCard) -> Iterator[str]:
    if not card.explanations:
        said = card.explanation_measurements or ("Not measured for this version.",)
        yield from _list("What its explanations find", said)
        return
    yield "## What its explanations find\n"
    yield (
        "Where findings are outlined, by method. Controls, which owe nothing to the model, are "
        "mean-map (the mean outline of the other patients), best-point (where most of these lie), "
        "edges and random. Hit rate: the map's highest point lies in the outline. Over the mean "
        "map: difference in pixel AUROC. In the lungs: pixel AUROC there. Side: the half with the "
        "outline holds more of the map. Named region: the map's strongest region, which the words "
        "name first, holds most of a lesion. A dash: not defined, or not measured.\n"
    )
    for one in card.explanations:
        yield f"### On {one.name}: {one.n_images} images of {one.n_patients} patients\n"
        yield from _table(
            "method | finding | n | hit rate | mIoU | pixel AUROC | over the mean map | in the "
            "lungs | side | named region"
        )
        for method, measured in one.methods.items():
            for key, found in measured.findings.items():
                figures = (
                    *(found.hit_rate, found.miou, found.pixel_auroc, found.over_mean_map),
                    *(found.pixel_auroc_lungs, found.side_accuracy, found.region_rate),
                )
                cells = ("-" if one is None else interval_or_none(one) for one in figures)
                yield _row(method, key, str(found.n), *cells)
        yield ""
        yield from _confirmed(one)
        yield from _of_methods(one)
    if card.explanation_measurements:
        yield from (f"- {sentence}" for sentence in card.explanation_measurements)
        yield ""


def _confirmed(one: MeasuredExplanations) -> Iterator[str]:
    """Write what a named region is worth by whether the hiding of regions names it, too."""
    known = {
        (name, key): found
        for name, method in one.methods.items()
        for key, found in method.findings.items()
        if found.tells_of_regions
    }
    if not known:
        return
    yield (
        "Whether hiding whole regions (`zone-shapley`) names the same region as the map, and how "
        "often the map's holds most of a lesion then.\n"
    )
    yield from _table("method | finding | same region | named region, same | another")
    for (name, key), found in known.items():
        rates = (found.region_rate_confirmed, found.region_rate_contradicted)
        cells = ("-" if rate is None else interval_or_none(rate) for rate in rates)
        yield _row(name, key, interval_or_none(found.region_confirmed), *cells)
    yield ""


def _of_methods(one: MeasuredExplanations) -> Iterator[str]:
    """Write what was measured of the methods whatever the finding."""
    tested = {name: method for name, method in one.methods.items() if method.n_tested}
    if tested:
        yield (
            "With all weights scrambled a map must change: rank correlation with the model's own "
            "map, with the sign of the attributions and without. Infidelity, in squared log-odds, "
            "and sensitivity to faint noise: lower is better.\n"
        )
        figures = "rank correlation | without sign | SSIM | infidelity | max-sensitivity"
        yield from _table(f"method | n | depends on the model | {figures}")
        for name, method in tested.items():
            cells = (
                *(method.rank_correlation, method.rank_correlation_absolute, method.ssim),
                *(method.infidelity, method.max_sensitivity),
            )
            depends = _DEPENDS[method.survives]
            yield _row(name, str(method.n_tested), depends, *map(interval_or_none, cells))
        yield ""
    for name, method in one.methods.items():
        if total := sum(method.verdicts.values()):
            shares = (f"{verdict} {n / total:.0%}" for verdict, n in method.verdicts.items())
            yield f"Verdicts on {total} explanations by {name}: {', '.join(shares)}.\n"


def _table(columns: str) -> Iterator[str]:
    yield f"| {columns} |"
    yield "|" + " --- |" * (columns.count("|") + 1)


def _row(*cells: str) -> str:
    return f"| {' | '.join(cells)} |"


def interval_or_none(figure: Estimate | None) -> str:
    """Write a figure with its interval; in words where it is not defined."""
    return "not defined" if figure is None else _interval(figure)


def _interval(figure: Estimate) -> str:
    return f"{figure.value:.3f} ({figure.low:.3f} to {figure.high:.3f})"
