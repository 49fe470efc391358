"""The errors a caller can meet.

A message says what was found, what is wanted and the remedy, in one line, and never
holds a header value that can identify a person.
"""

from __future__ import annotations

import difflib
from collections.abc import Iterable


class MedllmError(Exception):
    """Root of all errors that medllm raises for bad input; the command line exits with 1.

    Attributes:
        code: Stable lower-case name of the cause, such as `not-a-radiograph`; it is what
            `medllm classify --json` prints and what a program should test.
    """

    code = "medllm-error"

    def __init__(self, message: str, *, code: str | None = None) -> None:
        """Keep the one-line message.

        Args:
            message: What was found, what is wanted, the remedy.
            code: Cause; the class's own code when None.
        """
        super().__init__(message)
        if code is not None:
            self.code = code


class DicomError(MedllmError):
    """An image file cannot be read, or may not be scored."""

    code = "unreadable-image"


class LabelError(MedllmError):
    """A data set's labels, columns or findings are not what is wanted."""

    code = "bad-labels"


class CheckpointError(MedllmError):
    """A model folder is incomplete, altered, or not of the wanted form."""

    code = "bad-checkpoint"


class TrainingError(MedllmError):
    """A recipe cannot be trained, or a training cannot go on; what was saved is whole."""

    code = "bad-training"


class AttributionError(MedllmError):
    """An explanation cannot be computed, or misses its bound."""

    code = "bad-attribution"


class ReportError(MedllmError):
    """A report cannot be built or written."""

    code = "bad-report"


class NetworkError(MedllmError):
    """A PACS cannot be reached, refuses, or does not finish; what was transferred is whole."""

    code = "network"


def first_line(error: BaseException) -> str:
    r"""Give the first line of another library's message, to be told in one of medllm's.

    Args:
        error: What was raised.

    Returns:
        The line; the class's name where there is no message.

    Example:
        >>> first_line(ImportError("\nno such tokenizer\nat all")), first_line(MemoryError())
        ('no such tokenizer', 'MemoryError')
    """
    return (str(error).strip().splitlines() or [type(error).__name__])[0]


def did_you_mean(given: str, known: Iterable[str]) -> str:
    """Ask whether a name that is near to an unknown one was meant.

    Args:
        given: The unknown name.
        known: Names that there are.

    Returns:
        A question to end a message with; empty where none is near.

    Example:
        >>> did_you_mean("Pnuemonia", ["pneumonia", "nodule"]), did_you_mean("gout", ["nodule"])
        (" Did you mean 'pneumonia'?", '')
    """
    near = difflib.get_close_matches(given.casefold(), known, n=1)
    return f" Did you mean '{near[0]}'?" if near else ""
