"""What a checkpoint says of the images behind its weights, those of earlier trainings included."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence

from medllm.datasets import find_dataset
from medllm.models import Model
from medllm.train.image_set import ImageSet


def named(start: Model) -> str:
    """Name what a training goes on from.

    Args:
        start: A checkpoint, or pretrained halves just joined.

    Returns:
        Its name, with version and the beginning of its hash where it was saved; no folder.
    """
    card = start.card
    return f"{card.name} {card.version} (sha256 {start.sha256[:12]})" if start.sha256 else card.name


def trained_before(start: Model, sources: Sequence[str]) -> tuple[str, ...]:
    """Say what the weights were trained on before.

    Args:
        start: What the training goes on from.
        sources: Names of the data sets that it goes on with.

    Returns:
        Sentences of the start's card, and one that says whose they are.
    """
    said, name, now = start.card.training_data, named(start), " and ".join(sources)
    if not said:
        return (
            f"What {name} was trained on is not stated; this training went on from it, with {now}.",
        )
    return (
        *said,
        f"Up to here the training data of {name}, from which this training went on, with {now}.",
    )


def limited_before(start: Model) -> tuple[str, ...]:
    """Say what the weights could not do before, which a further training may not have mended.

    Args:
        start: The checkpoint that the training goes on from.

    Returns:
        Sentences of the start's card, and one that says whose they are.
    """
    if not start.card.limitations:
        return ()
    whose = f"Up to here said of {named(start)}, from which this training went on."
    return (*start.card.limitations, whose)


def trained_on(sets: Mapping[str, ImageSet]) -> Iterator[str]:
    """Say of each source what it is and how much of it was trained on.

    Args:
        sets: The training images by source.

    Yields:
        A sentence a source.
    """
    for name, images in sets.items():
        if name == "phantom":
            yield f"Synthetic radiographs of medllm.phantom: {len(images)} images."
        else:
            n_patients = len(set(images.patients))
            title = find_dataset(name).title
            yield f"{title} ({name}): {len(images)} images of {n_patients} patients."
