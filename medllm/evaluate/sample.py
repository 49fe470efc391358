"""Which images are taken where not all shall be."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Generic, TypeVar

from medllm.datasets.splits import place_of

Image = TypeVar("Image")


@dataclass(frozen=True)
class Sample(Generic[Image]):
    """The images that are taken.

    Attributes:
        images: In their given order.
        left_out: Images that were not chosen, by the reason in words; no reason without an image.
        caveats: That they are a sample, in a sentence; none where all were taken.
    """

    images: Sequence[Image]
    left_out: Mapping[str, int]
    caveats: Sequence[str]


def draw_sample(
    images: Sequence[Image],
    limit: int | None,
    name: Callable[[Image], str],
    left_out: Mapping[str, int],
) -> Sample[Image]:
    """Draw images by chance: the first ones of a table that is sorted by label are not like it.

    A hash of its name gives each image its place, the same on every machine and whatever the order
    of the table. So a run can be resumed, two models are shown the same images, and a sample is
    part of each larger one of the same table.

    Args:
        images: All that were chosen.
        limit: How many to take; all when None.
        name: The name of an image.
        left_out: Images that were not chosen before, by the reason in words.

    Returns:
        The sample.

    Example:
        >>> draw_sample(["a", "b", "c", "d"], 2, str, {}).images
        ['b', 'c']
    """
    counted = {reason: count for reason, count in left_out.items() if count}
    if limit is None or limit >= len(images):
        return Sample(images, counted, ())
    # Another hash than that by which the audits choose: they would take the sample whole.
    places = [place_of(f"sample/{name(image)}") for image in images]
    taken = sorted(sorted(range(len(images)), key=places.__getitem__)[:limit])
    told = (
        f"These are {limit:,} of {len(images):,} images, drawn by chance: on every run the same, "
        "and all among those of a larger --limit."
    )
    counted["beyond the limit"] = len(images) - limit
    return Sample([images[at] for at in taken], counted, (told,))
