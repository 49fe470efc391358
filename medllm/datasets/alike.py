"""Which images of several data sets look alike."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
from jaxtyping import Float16, Int

from medllm.datasets.each_image import Progress
from medllm.datasets.likeness import (
    HASH_DISTANCE,
    fine_structure,
    grey_ranks,
    perceptual_hash,
    same_image,
)
from medllm.datasets.record import ImageRecord
from medllm.dicom import ACCEPTABLE
from medllm.errors import DicomError

# Whether an image should be scored is no matter here, but a flat one is like every other.
_ACCEPTED = tuple(sorted(ACCEPTABLE - {"flat-image"}))

# Rows of the table of distances at once, and pairs that are aligned at once: tens of MB.
_ROWS, _PAIRS = 64, 512


@dataclass(frozen=True)
class Seen:
    """What is kept of an image; `error` is the gate's code, and then the rest is blank."""

    error: str = ""
    sha256: str = ""
    hash: int = 0
    fine: Float16[np.ndarray, "side side"] | None = None


@dataclass(frozen=True)
class Item:
    """One image among those of all sets."""

    record: ImageRecord
    set: int
    place: str
    patient: tuple[str, str]
    seen: Seen | None


def look(record: ImageRecord) -> Seen:
    """Keep of an image what it is compared by, or why it cannot be read."""
    try:
        scan = record.radiograph(accept=_ACCEPTED)
    except DicomError as error:
        return Seen(error=error.code)
    ranks = grey_ranks(scan.pixels)
    fine = fine_structure(ranks).astype(np.float16)
    return Seen(sha256=scan.sha256, hash=perceptual_hash(ranks), fine=fine)


def alike(items: Sequence[Item], progress: Progress | None) -> Iterator[tuple[int, int]]:
    """Find the pairs that look alike, of different places or patients, with other bytes."""
    read = readable(items)
    if not read:
        return
    index = np.array([i for i, _ in read])
    hashes = np.array([one.hash for _, one in read], np.uint64)
    fine = np.stack([one.fine for _, one in read if one.fine is not None])
    content = _coded([one.sha256 for _, one in read])
    place, patient = (
        _coded([getattr(items[i], name) for i in index]) for name in ("place", "patient")
    )
    for start in range(0, len(read), _ROWS):
        distance = np.bitwise_count(hashes[start : start + _ROWS, None] ^ hashes[start:])
        near = np.argwhere((distance <= HASH_DISTANCE) | (distance >= 64 - HASH_DISTANCE))
        sign = np.where(distance[*near.T] > 32, -1, 1)
        first, second = near.T + start
        apart = (place[first] != place[second]) | (patient[first] != patient[second])
        kept = np.flatnonzero((first < second) & apart & (content[first] != content[second]))
        for part in np.split(kept, range(_PAIRS, len(kept), _PAIRS)):
            ours = fine[first[part]].astype(np.float32)
            theirs = fine[second[part]].astype(np.float32) * sign[part, None, None]
            for pair in part[same_image(ours, theirs.astype(np.float32))]:
                yield int(index[first[pair]]), int(index[second[pair]])
        if progress:
            progress("comparing images", min(start + _ROWS, len(read)), len(read))


def _coded(values: Sequence[object]) -> Int[np.ndarray, " n"]:
    numbers: dict[object, int] = {}
    return np.array([numbers.setdefault(value, len(numbers)) for value in values])


def readable(items: Sequence[Item]) -> list[tuple[int, Seen]]:
    """Give the images that could be read, each with its number."""
    return [(i, item.seen) for i, item in enumerate(items) if item.seen and not item.seen.error]
