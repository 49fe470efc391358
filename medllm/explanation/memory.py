"""Chunks of a computation that fit the memory at hand."""

from __future__ import annotations

from collections.abc import Callable
from typing import TypeVar

import torch

from medllm.errors import AttributionError
from medllm.explanation.case import BATCH_SIZE

T = TypeVar("T")


def halve_on_out_of_memory(run: Callable[[int], T], batch_size: int = BATCH_SIZE) -> T:
    """Run a computation in chunks, and in half as large ones whenever memory runs out.

    Args:
        run: Given the number of images a chunk. What it had done when memory ran out is done
            again.
        batch_size: Images a chunk to begin with.

    Returns:
        What it returns.

    Raises:
        AttributionError: Not even one image at a time fits.
    """
    while True:
        try:
            return run(batch_size)
        except RuntimeError as error:
            if not _is_out_of_memory(error):
                raise
            if batch_size == 1:
                raise AttributionError(
                    "there is not enough memory for one image at a time; use a smaller model or "
                    "a machine with more memory.",
                    code="out-of-memory",
                ) from error
        # Outside the handler, which keeps the failed chunk's tensors alive.
        batch_size //= 2
        if torch.cuda.is_available():
            torch.cuda.empty_cache()


def _is_out_of_memory(error: RuntimeError) -> bool:
    # On a CPU torch raises a plain RuntimeError.
    return isinstance(error, torch.OutOfMemoryError) or "can't allocate memory" in str(error)
