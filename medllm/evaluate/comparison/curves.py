"""The curves of several models on the images that all of them scored."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np

from medllm.evaluate.answers import Answers
from medllm.evaluate.curves import reliability_of, roc_of
from medllm.evaluate.document import Bin, Curve
from medllm.evaluate.section import Figure, Section
from medllm.evaluate.table import Predictions
from medllm.metrics import sensitivity, specificity


class ModelCurves(Section):
    """One model on the images of a comparison.

    Attributes:
        roc: False positive share against sensitivity.
        reliability: Probability against frequency.
        sensitivity: At the model's own threshold; null where nothing was called.
        specificity: The same.
    """

    roc: Curve
    reliability: tuple[Bin, ...]
    sensitivity: Figure
    specificity: Figure


class ComparedCurves(Section):
    """One finding.

    Attributes:
        n: Images with a label that all models scored.
        n_positive: Those with the finding.
        n_patients: Their patients.
        models: Curves by the name of the results; of those that answer for the finding.
    """

    n: int
    n_positive: int
    n_patients: int
    models: dict[str, ModelCurves]


def curves_of_models(results: Mapping[str, Predictions]) -> dict[str, ComparedCurves]:
    """Give the curves of models on the same images.

    Args:
        results: Predictions by name.

    Returns:
        The curves by finding, of the findings that the first model and another one answer for;
        without those of which no image, or none of a class, was scored by all.
    """
    first, *others = results.values()
    curves = {}
    for finding in first.findings:
        if not any(finding in one.findings for one in others):
            continue
        told = {name: one for name, one in results.items() if finding in one.findings}
        own = {name: Answers.of(one, finding) for name, one in told.items()}
        shared = on_shared_images(told, own)
        one = next(iter(shared.values()))
        if one.both:
            curves[finding] = ComparedCurves(
                n=len(one.labels),
                n_positive=int(one.labels.sum()),
                n_patients=len(set(one.patients)),
                models={name: _curves(answers) for name, answers in shared.items()},
            )
    return curves


def on_shared_images(
    results: Mapping[str, Predictions], answers: Mapping[str, Answers]
) -> dict[str, Answers]:
    """Take the answers of several models on the images that all of them scored.

    Args:
        results: Predictions by name; at least one.
        answers: Those of one finding by the same names.

    Returns:
        The answers by name, all in the order of the first ones' images.
    """
    paths = {name: [results[name].paths[at] for at in one.at] for name, one in answers.items()}
    in_all = set.intersection(*map(set, paths.values()))
    places = {name: {path: at for at, path in enumerate(told)} for name, told in paths.items()}
    order = [path for path in next(iter(paths.values())) if path in in_all]
    return {
        name: one.chosen(np.array([places[name][path] for path in order], dtype=int))
        for name, one in answers.items()
    }


def _curves(answers: Answers) -> ModelCurves:
    called, labels = answers.called, answers.labels
    return ModelCurves(
        roc=roc_of(answers),
        reliability=reliability_of(answers),
        sensitivity=sensitivity(called, labels) if answers.decided else None,
        specificity=specificity(called, labels) if answers.decided else None,
    )
