"""One line an event of the node, for the operator: what happened, never to whom."""

from __future__ import annotations

import json
import logging
import re
import traceback

from medllm.errors import MedllmError

_log = logging.getLogger(__name__)
_PLAIN = re.compile(r"[\w.:/+-]+")


def tell(event: str, **fields: object) -> None:
    """Log an event as `event key=value key="two words"`.

    Args:
        event: What happened, such as `taken`.
        **fields: Its circumstances; no header value that can identify a person.
    """
    _log.info(" ".join([event, *(f"{key}={_quoted(value)}" for key, value in fields.items())]))


def cause(error: BaseException) -> str:
    """Say why something failed.

    Args:
        error: What was raised.

    Returns:
        medllm's own message, which is free of identity. Of another error its kind and place
        alone: its words may quote a header.
    """
    if isinstance(error, MedllmError):
        return str(error)
    if isinstance(error, OSError) and error.strerror:
        return f"{type(error).__name__}: {error.strerror}"
    frames = traceback.extract_tb(error.__traceback__)
    place = f" at {frames[-1].name}:{frames[-1].lineno}" if frames else ""
    return f"{type(error).__name__}{place}"


def _quoted(value: object) -> str:
    text = str(value)
    return text if _PLAIN.fullmatch(text) else json.dumps(text)
