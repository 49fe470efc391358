"""What a computation runs on, and what a process takes of it."""

from __future__ import annotations

import platform
import sys

import torch


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
    return peak / 2**20 if sys.platform == "darwin" else peak / 2**10
