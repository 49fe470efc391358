"""What is set for the whole process while any thread needs it so."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, ExitStack, contextmanager
from threading import RLock


class ProcessSetting:
    """A setting of the whole process, which threads hold together.

    The first that comes sets it, and the last that leaves sets it back: where each did so for
    itself, one would undo the other's, and what was there before could be lost.
    """

    def __init__(self, change: Callable[[], AbstractContextManager[None]]) -> None:
        """Take what sets it and sets it back."""
        self._change = change
        self._lock = RLock()
        self._n_holders = 0
        self._changed = ExitStack()

    @contextmanager
    def held(self) -> Iterator[None]:
        """Hold it; it is set until nobody holds it any more."""
        with self._lock:
            if not self._n_holders:
                self._changed.enter_context(self._change())
            self._n_holders += 1
        try:
            yield
        finally:
            with self._lock:
                self._n_holders -= 1
                if not self._n_holders:
                    self._changed.close()
