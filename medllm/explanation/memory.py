"""Chunks of a computation that fit the memory at hand."""

from __future__ import annotations

from collections.abc import Callable
from typing import TypeVar

from medllm.errors import AttributionError
from medllm.machine import halve_on_out_of_memory

T = TypeVar("T")

# Copies of an image a forward; more gain nothing on a CPU.
_BATCH_SIZE = 16


def in_chunks(run: Callable[[int], T]) -> T:
    """Run a computation over copies of an image, in smaller chunks where memory runs out.

    Args:
        run: Given the number of copies a chunk, as for `halve_on_out_of_memory`.

    Returns:
        What it returns.

    Raises:
        AttributionError: Not even one image at a time fits.
    """
    return halve_on_out_of_memory(run, _BATCH_SIZE, error=AttributionError)
