"""What remains of the answer when the image is taken away."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
import torch
from jaxtyping import Float, Int

from medllm.data.blur import coarse
from medllm.metrics import auroc
from medllm.models import ImageUse, Model
from medllm.train.image_set import ImageSet
from medllm.train.measured_sets import Chosen, measured_sets, patients_of
from medllm.train.recipe import MeasuredSet

_GREY = 128 / 255


def image_use(
    model: Model, sets: Mapping[str, ImageSet], wanted: Sequence[MeasuredSet]
) -> tuple[ImageUse, ...]:
    """Measure what remains of the answer when the image is taken away.

    Args:
        model: The finished model.
        sets: Images that no weight was fitted on, by source.
        wanted: Which of them.

    Returns:
        A row a finding, set of patients and image shown: itself, a blank one, one blurred to
        4 x 4 pixels, and another patient's.
    """
    patients = patients_of(sets)
    scores = {name: _scores(model, images) for name, images in patients.items()}
    rows = []
    for column, finding in enumerate(model.card.findings):
        for one in measured_sets(patients, wanted, finding):
            if one.subgroup:
                continue
            shown = {name: at[one.rows, column] for name, at in scores[one.source].items()}
            shown["another patient's"] = shown["image"][of_other_patients(one.patients)]
            rows += [_row(finding, one, name, values) for name, values in shown.items()]
    return tuple(rows)


def of_other_patients(patients: Sequence[str]) -> Int[np.ndarray, " images"]:
    """Give each image another patient's, drawn at random and the same at each call.

    Patients are put in a random order, each with the images that they have, also in a random one;
    then all images move on by as many places as one patient has at most. A table is often in the
    order of the patients or of the classes, which would otherwise decide who is given whose.

    Args:
        patients: Patient of each image; none has more than half of the images.

    Returns:
        Number of the image that stands for each; every image once.
    """
    _, numbers, counts = np.unique(patients, return_inverse=True, return_counts=True)
    generator = np.random.default_rng(0)
    places = generator.permutation(len(counts))[numbers]
    order = np.lexsort((generator.random(len(numbers)), places))
    others = np.empty_like(order)
    others[order] = np.roll(order, -counts.max())
    return others


def _scores(model: Model, images: ImageSet) -> dict[str, Float[np.ndarray, "images findings"]]:
    """Score a source's images as they are, blank and blurred, for all findings at once."""
    contract = model.card.preprocessing
    blank = contract.pixel_values(torch.full((1, contract.size, contract.size), _GREY))
    with torch.inference_mode():
        answers = model.log_odds(blank).cpu().double().numpy()
    return {
        "image": images.scores(model, model.card.findings),
        "blank": np.repeat(answers, len(images), axis=0),
        "blurred": images.apply(model.log_odds, contract, shown=coarse),
    }


def _row(finding: str, one: Chosen, shown: str, values: Float[np.ndarray, " chosen"]) -> ImageUse:
    return ImageUse(
        finding,
        one.name,
        shown,
        auroc(values, one.labels),
        float(values[one.labels == 1].mean()),
        float(values[one.labels == 0].mean()),
    )
