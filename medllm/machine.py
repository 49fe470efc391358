"""What a computation runs on, and what a process takes of it."""

from __future__ import annotations

import ctypes
import platform
import re
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TypeVar

import torch

from medllm.errors import MedllmError

T = TypeVar("T")


def machine_of(device: torch.device, processes: int = 1) -> str:
    """Name what is computed on.

    Args:
        device: A process's device.
        processes: Processes that compute together.

    Returns:
        Such as `2 threads of a x86_64 CPU` or `1 x NVIDIA A100`.
    """
    if device.type == "cuda":
        return f"{processes} x {torch.cuda.get_device_name(device)}"
    threads = processes * torch.get_num_threads()
    return f"{threads} {'thread' if threads == 1 else 'threads'} of a {platform.machine()} CPU"


def peak_memory_mib() -> float | None:
    """Give the most memory that this process has held; None where the system does not tell."""
    try:
        import resource
    except ImportError:  # Windows
        return None
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    mib = peak / 2**20 if sys.platform == "darwin" else peak / 2**10
    return max(mib, _Forgotten.peak_mib)


class _Forgotten:
    """The peak that the system no longer knows, since the watch below had it count anew."""

    peak_mib = 0.0


_STATUS, _CLEAR = Path("/proc/self/status"), Path("/proc/self/clear_refs")


def watch_memory(device: torch.device) -> Callable[[], float | None]:
    """Watch how much more memory a computation takes than was held before it.

    Args:
        device: What it computes on: a GPU's own memory is watched, else the process's.

    Returns:
        A call that gives the most so far, in MiB; it gives None where the system does not count
        anew. Linux with glibc does (proc(5), `clear_refs`).
    """
    if device.type == "cuda":
        torch.cuda.reset_peak_memory_stats(device)
        held = torch.cuda.memory_allocated(device)
        return lambda: (torch.cuda.max_memory_allocated(device) - held) / 2**20
    try:
        _Forgotten.peak_mib = peak_memory_mib() or 0.0
        # What was freed and not given back would be taken again unseen.
        ctypes.CDLL(None).malloc_trim(0)
        _CLEAR.write_text("5")
    except (OSError, AttributeError, TypeError):
        return lambda: None
    before = _resident_mib("VmRSS")

    def taken() -> float | None:
        most = _resident_mib("VmHWM")
        return None if before is None or most is None else max(0.0, most - before)

    return taken


def _resident_mib(entry: str) -> float | None:
    found = re.search(rf"^{entry}:\s+(\d+) kB$", _STATUS.read_text(), flags=re.MULTILINE)
    return None if found is None else int(found[1]) / 2**10


def halve_on_out_of_memory(
    run: Callable[[int], T], batch_size: int, *, error: type[MedllmError] = MedllmError
) -> T:
    """Run a computation in chunks, and in half as large ones whenever memory runs out.

    Args:
        run: Given the number of images a chunk. What it had done when memory ran out is done
            again.
        batch_size: Images a chunk to begin with.
        error: What is raised.

    Returns:
        What it returns.

    Raises:
        MedllmError: Not even one image at a time fits.
    """
    while batch_size > 1:
        try:
            return run(batch_size)
        except RuntimeError as failed:
            if not is_out_of_memory(failed):
                raise
        # Outside the handler, which keeps the failed chunk's tensors alive.
        batch_size //= 2
        if torch.cuda.is_available():
            torch.cuda.empty_cache()
    with out_of_memory_told(error):
        return run(1)


@contextmanager
def out_of_memory_told(error: type[MedllmError] = MedllmError) -> Iterator[None]:
    """Tell in words that memory ran out, around what cannot be taken in smaller pieces.

    Args:
        error: What is raised, with the code `out-of-memory`.
    """
    try:
        yield
    except RuntimeError as failed:
        if not is_out_of_memory(failed):
            raise
        raise error(
            "there is not enough memory for one image at a time; use a smaller model or a machine "
            "with more memory.",
            code="out-of-memory",
        ) from failed


def is_out_of_memory(error: Exception) -> bool:
    """Say whether torch raised an error for want of memory."""
    # On a CPU torch raises a plain RuntimeError.
    return isinstance(error, torch.OutOfMemoryError) or "can't allocate memory" in str(error)
