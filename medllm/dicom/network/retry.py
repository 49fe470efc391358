"""Trying again where a fault may pass, with growing pauses and an end."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import TypeVar

from medllm.errors import NetworkError

# Codes of faults that may pass by themselves; a refusal does not.
TRANSIENT = frozenset({"peer-away", "peer-busy", "connection-lost"})

T = TypeVar("T")


@dataclass(frozen=True)
class Patience:
    """How long a peer is waited for.

    Attributes:
        tries: Tries in a row without success before it is given up.
        pause_s: Pause after the first failure, in seconds; each further one is twice as long.
        answer_s: Longest wait for one answer, in seconds.
    """

    tries: int = 4
    pause_s: float = 1.0
    answer_s: float = 60.0

    def wait(self, n_failed: int) -> None:
        """Pause before the next try.

        Args:
            n_failed: Tries that failed in a row, at least 1.
        """
        time.sleep(self.pause_s * 2 ** (n_failed - 1))


PATIENCE = Patience()


def patiently(attempt: Callable[[], T], patience: Patience) -> T:
    """Do something that a passing fault may stop.

    Args:
        attempt: What is done.
        patience: How often, and how far apart.

    Returns:
        What it gives.

    Raises:
        NetworkError: The last try failed, or one failed of what does not pass by itself.
    """
    n_failed = 0
    while True:
        try:
            return attempt()
        except NetworkError as error:
            n_failed += 1
            if error.code not in TRANSIENT or n_failed >= patience.tries:
                raise
        patience.wait(n_failed)
