"""Which images look alike, whatever was done to their bytes, size and grey curve."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
from jaxtyping import Bool, Float16, Float32, Int
from PIL import Image
from scipy.fft import dctn
from scipy.ndimage import gaussian_filter
from scipy.stats import rankdata

from medllm.datasets.each_image import Progress
from medllm.datasets.record import ImageRecord
from medllm.dicom import ACCEPTABLE
from medllm.errors import DicomError

_SIDE = 32
# Two images are compared whose hashes differ in at most this many of 64 bits. Of copies of
# radiographs of two public sets all that were written as JPEG of quality 20, scaled to 28 pixels,
# or given another contrast are within, .995 of those cropped by 2% and .9 of those by 4%. So is
# one pair of 180 of different children, which is why the hash alone decides nothing.
HASH_DISTANCE = 12
# ... and are alike from this correlation on: .99 of the above, and .98 of the cropped ones. Of 13.6
# million pairs of 5,216 radiographs of children none of two patients reaches it; the highest, .916,
# may be one child, the next, .880, is two. Two exposures of one patient reach .89. Of 130,000 pairs
# of adults the highest is .878. Millions of times as many pairs have not been looked at by eye.
CORRELATION = 0.92
# Correlation after one step of the alignment below which a pair is dropped: .98 of the copies
# cropped by 4% are above .84, three in four of the other candidates below .66.
_LIKELY = 0.7

# In pixels of the thumbnail; coarser structure is the same in every chest.
_FINE = 2
# A frame may differ by this share of half its side, scale and shift, each way: a crop of 4% by .04.
_MAX_MOVE = 0.1
_STEPS = 6
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


def grey_ranks(pixels: Float32[np.ndarray, "rows columns"]) -> Float32[np.ndarray, "side side"]:
    """Shrink an image and put the rank of each pixel in place of its value.

    Ranks are the same for every window and curve that keeps the order of grey, such as those
    between a DICOM file and the PNG made of it.

    Args:
        pixels: Display values.

    Returns:
        Ranks from 1, 32 x 32; equal values share their mean rank.
    """
    image = Image.fromarray(pixels).resize((_SIDE, _SIDE), Image.Resampling.LANCZOS)
    ranks: np.ndarray = rankdata(np.asarray(image), axis=None).reshape(_SIDE, _SIDE)
    return ranks.astype(np.float32)


def perceptual_hash(ranks: Float32[np.ndarray, "side side"]) -> int:
    """Hash the coarse structure of an image.

    Args:
        ranks: As of `grey_ranks`.

    Returns:
        64 bits: whether each of 8 x 8 low frequencies of the cosine transform, without the
        lowest of each direction, is above their median. That of the inverted image has each
        bit the other way.
    """
    frequencies = dctn(ranks, norm="ortho")[1:9, 1:9].ravel()
    bits = np.packbits(frequencies > np.median(frequencies))
    return int.from_bytes(bits.tobytes())


def fine_structure(ranks: Float32[np.ndarray, "side side"]) -> Float32[np.ndarray, "side side"]:
    """Take away what all chests have in common, and scale to mean 0 and length 1.

    Args:
        ranks: As of `grey_ranks`.

    Returns:
        Ranks less their surroundings'.
    """
    fine = ranks - gaussian_filter(ranks, _FINE, mode="nearest")
    scaled: np.ndarray = _unit(fine[None])[0]
    return scaled


def correlation_aligned(
    first: Float32[np.ndarray, "n side side"], second: Float32[np.ndarray, "n side side"]
) -> Float32[np.ndarray, " n"]:
    """Correlate images pairwise after moving each onto the other's frame.

    Args:
        first: As of `fine_structure`.
        second: Likewise.

    Returns:
        Pearson's correlation, the higher of either moved onto the other: of an image and its crop
        only the whole one can be.
    """
    ways = _correlation_moved(first, second, _STEPS), _correlation_moved(second, first, _STEPS)
    higher: np.ndarray = np.maximum(*ways)
    return higher


def _correlation_moved(
    still: Float32[np.ndarray, "n side side"], moved: Float32[np.ndarray, "n side side"], steps: int
) -> Float32[np.ndarray, " n"]:
    """Move by scale and shift in both directions, to the least squared difference."""
    x = np.linspace(-1, 1, _SIDE, dtype=np.float32)
    down, right = np.gradient(still, 2 / (_SIDE - 1), axis=(1, 2))
    slopes = np.stack([down * x[:, None], down, right * x, right], 1).reshape(
        len(still), 4, _SIDE**2
    )
    # A blank direction has no slope; the small diagonal keeps it where it is.
    squares = slopes @ slopes.transpose(0, 2, 1) + 1e-6 * np.eye(4, dtype=np.float32)
    solved = np.linalg.solve(squares, slopes)
    move = np.zeros((len(still), 4), np.float32)
    best: np.ndarray = np.full(len(still), -1, np.float32)
    for _ in range(steps + 1):
        rows, columns = _sampling(move[:, 0], move[:, 1]), _sampling(move[:, 2], move[:, 3])
        placed = _unit(rows @ moved @ columns.transpose(0, 2, 1))
        best = np.maximum(best, (still * placed).sum((1, 2)))
        step = (solved @ (still - placed).reshape(len(still), _SIDE**2, 1))[..., 0]
        move = np.clip(move + step, -_MAX_MOVE, _MAX_MOVE)
    return best


def _sampling(
    scale: Float32[np.ndarray, " n"], shift: Float32[np.ndarray, " n"]
) -> Float32[np.ndarray, "n side side"]:
    """Make the matrices that take values at scaled and shifted places, linearly between pixels."""
    x = np.linspace(-1, 1, _SIDE, dtype=np.float32)
    place = (x * (1 + scale[:, None]) + shift[:, None] + 1) * (_SIDE - 1) / 2
    distance = np.clip(place, 0, _SIDE - 1)[..., None] - np.arange(_SIDE, dtype=np.float32)
    weights: np.ndarray = np.maximum(0, 1 - np.abs(distance)).astype(np.float32)
    return weights


def _unit(values: Float32[np.ndarray, "n side side"]) -> Float32[np.ndarray, "n side side"]:
    values = values - values.mean((1, 2), keepdims=True)
    length = np.sqrt((values**2).sum((1, 2), keepdims=True))
    scaled: np.ndarray = values / np.maximum(length, 1e-9)
    return scaled


def same_image(
    first: Float32[np.ndarray, "n side side"], second: Float32[np.ndarray, "n side side"]
) -> Bool[np.ndarray, " n"]:
    """Say of pairs whose hashes are near whether they are one image.

    Args:
        first: As of `fine_structure`.
        second: Likewise.

    Returns:
        Whether they correlate, aligned, from `CORRELATION` on.
    """
    same: np.ndarray = _correlation_moved(first, second, 1) >= _LIKELY
    same[same] = correlation_aligned(first[same], second[same]) >= CORRELATION
    return same
