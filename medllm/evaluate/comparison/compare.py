"""Two models on the same images, in pairs."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np

from medllm.errors import LabelError
from medllm.evaluate.answers import (
    UNDEFINED,
    Answers,
    Resampled,
    area_interval,
    difference,
    exact_interval,
    intervals,
    resamples_for,
)
from medllm.evaluate.comparison.curves import ComparedCurves, curves_of_models, on_shared_images
from medllm.evaluate.comparison.images import require_same_images
from medllm.evaluate.comparison.models import (
    EXPLANATIONS,
    ModelFigures,
    figures_of_models,
    metrics_of,
)
from medllm.evaluate.section import RESEARCH_USE, Figure, Interval, Section
from medllm.evaluate.table import Predictions, read_predictions
from medllm.metrics import (
    auroc,
    brier,
    clustered_difference,
    delong_difference,
    holm,
    sensitivity,
    specificity,
)

# Of each model by itself, and as a difference.
FIGURES = ("auroc", "sensitivity", "specificity", "brier")


class PairedFigures(Section):
    """One finding, two models, the same images; differences are second minus first.

    Attributes:
        finding: Its key.
        n: Images with a label that both scored.
        n_positive: Those with the finding.
        n_patients: Their patients.
        unpaired: Images with a label that only one of the two has scored for it.
        first_auroc: Area under the ROC curve of the first model.
        second_auroc: Of the second.
        first_sensitivity: Of the first model at its own threshold; null where it called nothing.
        second_sensitivity: Of the second, likewise.
        first_specificity: Of the first, likewise.
        second_specificity: Of the second, likewise.
        first_brier: Brier score of the first model's reported probability.
        second_brier: Of the second's.
        auroc_difference: With the interval of resampled patients.
        p_value: That the difference is chance: by resampling patients; where all resamples agree
            in its sign, by a normal distribution as wide as they are.
        p_value_delong: DeLong's, as if each image were a patient.
        p_value_holm: The former, corrected over the findings of this comparison.
        sensitivity_difference: Null where one called nothing.
        specificity_difference: The same.
        brier_difference: Below 0 the second is better.
    """

    finding: str
    n: int
    n_positive: int
    n_patients: int
    unpaired: int
    first_auroc: Interval
    second_auroc: Interval
    first_sensitivity: Interval
    second_sensitivity: Interval
    first_specificity: Interval
    second_specificity: Interval
    first_brier: Interval
    second_brier: Interval
    auroc_difference: Interval
    p_value: Figure
    p_value_delong: Figure
    p_value_holm: Figure
    sensitivity_difference: Interval
    specificity_difference: Interval
    brier_difference: Interval


class Comparison(Section):
    """Models compared in pairs with the first of them.

    Attributes:
        use: What it may be used for.
        first: Name of the first model's results.
        models: Each by itself, by the name of its results, the first one first.
        others: The others' figures, by the name of their results.
        unpaired: Images that only one of the two has scored for a finding of both, by the same
            name.
        curves: Of all models that answer for a finding, on the images that all of them scored, by
            finding.
    """

    use: str = RESEARCH_USE
    first: str
    models: dict[str, ModelFigures]
    others: dict[str, tuple[PairedFigures, ...]]
    unpaired: dict[str, int]
    curves: dict[str, ComparedCurves]

    @property
    def caveats(self) -> tuple[str, ...]:
        """What the figures must be read with, each sentence once."""
        return tuple(
            dict.fromkeys(text for model in self.models.values() for text in model.caveats)
        )

    @property
    def datasets(self) -> tuple[str, ...]:
        """The data sets with their parts, each once: one, unless results of several parts meet."""
        told = (f"{one.dataset} ({one.split})" for one in self.models.values() if one.dataset)
        return tuple(dict.fromkeys(told))


def compare(paths: Sequence[str | Path]) -> Comparison:
    """Compare predictions with the first ones, on the images that both scored.

    Args:
        paths: Folders that `medllm evaluate` wrote, or their `predictions.parquet`; two or more,
            on the same data set. Among them may stand folders that `medllm evaluate-explanations`
            wrote of the same models.

    Returns:
        The comparison.

    Raises:
        LabelError: A file is missing or named twice, there are fewer than two, two have no image
            or finding in common, equal paths are of different images, their labels differ, or
            explanations are of another model.
    """
    places = [Path(path) for path in paths]
    explained = [path for path in places if (path / EXPLANATIONS).is_file()]
    scored = [path for path in places if path not in explained]
    files = [path / "predictions.parquet" if path.is_dir() else path for path in scored]
    for file in files:
        if not file.is_file():
            raise LabelError(f"{file} is not there; name a folder that medllm evaluate wrote.")
    real = [file.resolve() for file in files]
    if twice := [file for at, file in enumerate(files) if real[at] in real[:at]]:
        raise LabelError(f"{twice[0]} is named twice; compare two that differ.")
    if len(files) < 2:
        raise LabelError(
            f"{len(files)} of the folders holds predictions; name two or more that medllm evaluate "
            "wrote."
        )
    results = {
        name: (file, read_predictions(file))
        for name, file in zip(_names(scored), files, strict=True)
    }
    (name, (_, first)), *others = results.items()
    predictions = {key: told for key, (_, told) in results.items()}
    require_same_images(
        predictions,
        {
            key: str(metrics_of(file.parent).get("dataset", ""))
            for key, (file, _) in results.items()
        },
    )
    return Comparison(
        first=name,
        curves=curves_of_models(predictions),
        models=figures_of_models(results, explained),
        others={other: _paired(first, told, other) for other, (_, told) in others},
        unpaired={other: _unpaired(first, told) for other, (_, told) in others},
    )


def _unpaired(first: Predictions, second: Predictions) -> int:
    shared = set(first.findings) & set(second.findings)
    alone = (_scored(first, finding) ^ _scored(second, finding) for finding in shared)
    return len(set().union(*alone))


def _scored(predictions: Predictions, finding: str) -> set[str]:
    errors = predictions.errors[:, predictions.findings.index(finding)]
    return {path for path, error in zip(predictions.paths, errors, strict=True) if not error}


def _names(paths: Sequence[Path]) -> list[str]:
    """Name results by their folder; by the whole path where two folders have one name."""
    short = [(path if path.is_dir() else path.parent).resolve().name for path in paths]
    return short if len(set(short)) == len(short) else [str(path) for path in paths]


def _paired(first: Predictions, second: Predictions, name: str) -> tuple[PairedFigures, ...]:
    shared = [key for key in first.findings if key in second.findings]
    both = {"first": first, "second": second}
    rows: list[PairedFigures] = []
    for finding in shared:
        own = {which: Answers.of(one, finding) for which, one in both.items()}
        ours, theirs = on_shared_images(both, own).values()
        n_unpaired = sum(len(one.labels) for one in own.values()) - 2 * len(ours.labels)
        if len(ours.labels):
            # On fewer images a model may by chance have called none.
            calls = {which: one.decided for which, one in own.items()}
            figures = _figures(ours, theirs, n_unpaired, name, calls)
            rows += [] if figures is None else [figures]
    if not rows:
        raise LabelError(
            f"{name} and the first have no finding in common on the same images with both labels; "
            "compare results on one data set."
        )
    corrected = holm(np.array([row.p_value for row in rows], dtype=float)).tolist()
    return tuple(
        row.model_copy(update={"p_value_holm": value})
        for row, value in zip(rows, corrected, strict=True)
    )


def _figures(
    first: Answers, second: Answers, n_unpaired: int, name: str, calls: Mapping[str, bool]
) -> PairedFigures | None:
    labels, patients = first.labels, first.patients
    if n_differing := int((labels != second.labels).sum()):
        raise LabelError(
            f"{name}: the labels of {first.finding} differ from the first's on {n_differing:,} of "
            f"{len(labels):,} images with the same path. Either they are of another data set, or "
            "another version of its table, whose files share names: evaluate both on one. Or they "
            "were labelled by another policy: give both the same --uncertain, --readers and "
            "--blank."
        )
    if len(np.unique(labels)) < 2:
        return None
    sides = {"first": first, "second": second}
    own = {which: _resampled(one, has_calls=calls[which]) for which, one in sides.items()}
    n_resamples = resamples_for(len(labels))
    told = {f"{which}_{key}": figure for which, one in own.items() for key, figure in one.items()}
    told |= {
        f"{key}_difference": difference(own["second"][key], own["first"][key])
        for key in FIGURES
        # That of the AUROC comes with its p-value.
        if key != "auroc" and key in own["first"] and key in own["second"]
    }
    every = (f"{which}_{key}" for which in sides for key in FIGURES)
    undefined = dict.fromkeys((*every, *(f"{key}_difference" for key in FIGURES)), UNDEFINED)
    measured = undefined | intervals(told, patients, n_resamples)
    for which in sides:
        measured[f"{which}_auroc"] = area_interval(measured[f"{which}_auroc"], labels, patients)
        for key, label in (("sensitivity", 1), ("specificity", 0)):
            share = measured[f"{which}_{key}"]
            measured[f"{which}_{key}"] = exact_interval(share, labels == label, patients)
    of_areas = clustered_difference(
        own["second"]["auroc"], own["first"]["auroc"], patients, n_resamples=n_resamples
    )
    figures: Mapping[str, object] = {
        **measured,
        "finding": first.finding,
        "unpaired": n_unpaired,
        "n": len(labels),
        "n_positive": int(labels.sum()),
        "n_patients": len(set(patients)),
        "auroc_difference": Interval.of(of_areas.difference),
        "p_value": of_areas.p_value,
        "p_value_delong": delong_difference(
            second.probabilities, first.probabilities, labels
        ).p_value,
        "p_value_holm": of_areas.p_value,
    }
    return PairedFigures.model_validate(figures)


def _resampled(answers: Answers, *, has_calls: bool) -> dict[str, Resampled]:
    """Give what is measured of one model, by name; of its calls only where it made any."""
    labels, probabilities, called = answers.labels, answers.probabilities, answers.called
    told: dict[str, Resampled] = {
        "auroc": lambda at: auroc(probabilities[at], labels[at]),
        "brier": lambda at: brier(probabilities[at], labels[at]),
    }
    if has_calls:
        told["sensitivity"] = lambda at: sensitivity(called[at], labels[at])
        told["specificity"] = lambda at: specificity(called[at], labels[at])
    return told
