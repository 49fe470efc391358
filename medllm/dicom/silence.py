"""Keeping pydicom quiet where its words could name a patient."""

from __future__ import annotations

import logging
import warnings
from collections.abc import Iterator
from contextlib import contextmanager

# While the whole process is silent: then nothing is left to be set, or to be set back.
_of_the_process = False


@contextmanager
def in_silence() -> Iterator[None]:
    """Keep back the warnings and log lines of pydicom, which quote values of the header.

    Both are settings of the whole process: where threads read beside others, hold
    `process_in_silence` around them, for they would undo each other's.
    """
    if _of_the_process:
        yield
        return
    # Disabled and not set to a level: pydicom sets its own when it is first imported.
    log = logging.getLogger("pydicom")
    was_disabled, log.disabled = log.disabled, True
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        log.disabled = was_disabled


@contextmanager
def process_in_silence() -> Iterator[None]:
    """Keep them back for all threads that run within, once; `in_silence` then changes nothing."""
    global _of_the_process
    with in_silence():
        was, _of_the_process = _of_the_process, True
        try:
            yield
        finally:
            _of_the_process = was
