"""Keeping pydicom quiet where its words could name a patient."""

from __future__ import annotations

import logging
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar

from medllm.dicom.process_setting import ProcessSetting

# Who counts the warnings of this thread; each hears those that are given within.
_listening: ContextVar[tuple[list[str], ...]] = ContextVar("listening", default=())


@contextmanager
def in_silence() -> Iterator[None]:
    """Keep back the warnings and log lines of pydicom, which quote values of the header.

    Both are settings of the whole process, and come back when no thread needs silence any more.
    Around several threads that read it keeps what they say between two files back, too.
    """
    with _SILENCE.held():
        yield


@contextmanager
def heard_in_silence() -> Iterator[list[str]]:
    """Keep them back, and collect the warnings that this thread gives.

    Yields:
        list: The warnings so far; they can name a patient.
    """
    heard: list[str] = []
    token = _listening.set((*_listening.get(), heard))
    try:
        with in_silence():
            yield heard
    finally:
        _listening.reset(token)


@contextmanager
def _quiet() -> Iterator[None]:
    # Disabled and not set to a level: pydicom sets its own when it is first imported.
    log = logging.getLogger("pydicom")
    was_disabled, log.disabled = log.disabled, True
    try:
        with warnings.catch_warnings():
            # Each of them, however often it was given: they are counted, a file's own alone.
            warnings.simplefilter("always")
            warnings.showwarning = _hear
            yield
    finally:
        log.disabled = was_disabled


def _hear(message: Warning | str, *_: object, **__: object) -> None:
    for heard in _listening.get():
        heard.append(str(message))


_SILENCE = ProcessSetting(_quiet)
