"""One function over many images, in several processes."""

from __future__ import annotations

import dataclasses
import math
import multiprocessing
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from typing import TypeVar

from medllm.datasets.record import ImageRecord
from medllm.errors import MedllmError

Seen = TypeVar("Seen")
# What is done, how many images are done, of how many.
Progress = Callable[[str, int, int], None]

# Starting a process and importing the readers takes as long as reading this many thumbnails.
_IMAGES_A_PROCESS = 256
# Images that go to a process at once: few enough for an even progress.
_CHUNK = 16


def each_image(
    look: Callable[[ImageRecord], Seen],
    records: Sequence[ImageRecord],
    *,
    workers: int = 1,
    progress: Progress | None = None,
) -> Iterator[Seen]:
    """Look at images, in several processes if there are many.

    Processes, not threads: an archive is read by a place in it that threads would share, and
    Python's warnings are caught for all threads at once. They are started anew (`spawn`), since
    forking a process that has threads can lock it.

    Args:
        look: What is done with an image: a function of a module, so that processes find it. It
            gets the record without labels, boxes, masks and attributes.
        records: The images.
        workers: Processes at most; 1 stays in this one.
        progress: Told after each image.

    Yields:
        Seen: What `look` returned, in the order of the records.

    Raises:
        MedllmError: A process was ended from outside.
    """
    bare = [
        dataclasses.replace(r, labels={}, attributes={}, boxes={}, masks={}, other_labels={})
        for r in records
    ]
    for done, seen in enumerate(_map(look, bare, workers), 1):
        if progress:
            progress("reading images", done, len(bare))
        yield seen


def _map(
    look: Callable[[ImageRecord], Seen], records: Sequence[ImageRecord], workers: int
) -> Iterator[Seen]:
    workers = min(workers, math.ceil(len(records) / _IMAGES_A_PROCESS))
    if workers <= 1:
        yield from map(look, records)
        return
    context = multiprocessing.get_context("spawn")
    try:
        with ProcessPoolExecutor(workers, context) as pool:
            yield from pool.map(look, records, chunksize=_CHUNK)
    except BrokenProcessPool:
        raise MedllmError(
            f"one of {workers} processes that read images was ended, perhaps for want of memory; "
            "use fewer workers.",
            code="process-ended",
        ) from None
