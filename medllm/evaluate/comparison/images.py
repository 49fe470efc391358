"""Whether results that share paths are of the same images."""

from __future__ import annotations

from collections.abc import Mapping
from itertools import combinations

from medllm.errors import LabelError
from medllm.evaluate.table import Predictions

_REMEDY = (
    "Evaluate both on one data set, by one version of its table; only the folder that it lies in "
    "may be another."
)


def require_same_images(results: Mapping[str, Predictions], datasets: Mapping[str, str]) -> None:
    """Refuse results whose images share no more than the names of their files.

    Where a data set lies tells nothing, since results on a copy of it are of the same images.

    Args:
        results: Predictions by name.
        datasets: Name of the data set's reader by the same names; blank where not told.

    Raises:
        LabelError: Two are of data sets of different names, or of images that have one path, and
            are of another patient or size.
    """
    # Each with each: of a first one that does not tell sizes, two others may still differ.
    for one, other in combinations(results, 2):
        names = datasets[one], datasets[other]
        if all(names) and names[0] != names[1]:
            raise LabelError(
                f"{other} is of the data set '{names[1]}' and {one} of '{names[0]}', so that equal "
                f"paths are not known to be the same images. {_REMEDY}"
            )
        _require_pair(one, results[one], other, results[other])


def _require_pair(one: str, first: Predictions, other: str, second: Predictions) -> None:
    """Count what differs; neither a patient nor a path, which may hold one, is named."""
    places = {path: at for at, path in enumerate(first.paths)}
    pairs = [(places[path], at) for at, path in enumerate(second.paths) if path in places]
    counts = {
        "another patient_id": sum(
            _patient(first, ours) != _patient(second, theirs)
            for ours, theirs in pairs
            if _patient(first, ours) and _patient(second, theirs)
        ),
        "other rows or columns": sum(
            bool((first.shapes[ours] != second.shapes[theirs]).any())
            for ours, theirs in pairs
            # Of an image that was not read, and of predictions that were given, both are 0.
            if first.shapes[ours].all() and second.shapes[theirs].all()
        ),
    }
    if told := [f"{count:,} of them with {what}" for what, count in counts.items() if count]:
        raise LabelError(
            f"{other} has {len(pairs):,} paths in common with {one}, {' and '.join(told)}: they "
            "are images of different data sets whose files share names, or of different versions "
            f"of one. {_REMEDY}"
        )


def _patient(predictions: Predictions, at: int) -> str:
    """Give the patient of an image; blank where a table gave none and the path stands for it."""
    patient = predictions.patients[at]
    return "" if patient == predictions.paths[at] else patient
