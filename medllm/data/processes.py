"""A function of many items in processes of its own, in the items' order."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from typing import TypeVar

import torch

from medllm.errors import MedllmError

Item = TypeVar("Item")
Result = TypeVar("Result")

# Items that wait for each process; enough to keep it busy, few enough to keep memory flat.
_WAITING = 4


def in_processes(
    function: Callable[[Item], Result], items: Iterable[Item], workers: int, *, remedy: str
) -> Iterator[Result]:
    """Apply a function to items, a few ahead of what is asked for.

    Args:
        function: What is done; of a module, so that processes find it.
        items: Any number.
        workers: Processes, each computing with one thread; 0 stays in this one.
        remedy: What to do where a process dies, mostly for want of memory.

    Yields:
        Result: What comes of each, in order.

    Raises:
        MedllmError: A process died.
    """
    if not workers:
        yield from map(function, items)
        return
    # Not spawned, as `each_image` does it: each process would import torch anew, 8 s of work.
    with ProcessPoolExecutor(workers, initializer=torch.set_num_threads, initargs=(1,)) as pool:
        waiting: deque[Future[Result]] = deque()
        try:
            for item in items:
                waiting.append(pool.submit(function, item))
                if len(waiting) >= workers * _WAITING:
                    yield waiting.popleft().result()
            while waiting:
                yield waiting.popleft().result()
        except BrokenProcessPool:
            raise MedllmError(
                "a process that reads images was ended from outside, mostly for want of memory; "
                f"{remedy}.",
                code="worker-died",
            ) from None
        finally:
            for one in waiting:
                one.cancel()
