"""What the inbox needs of a disk: files that stay after a power cut, a folder held by one."""

from __future__ import annotations

import json
import os
import sys
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from pathlib import Path

from medllm.errors import MedllmError
from medllm.files import replace_file


@dataclass(frozen=True)
class Outcome:
    """What became of an image.

    Attributes:
        outcome: `explained`, `passed-over` (no radiograph that is explained) or `rejected`.
        code: Cause, as in `medllm classify --json`; None where it was explained.
        message: The cause in a sentence, without identity; None where it was explained.
        tries: How often it was tried to explain it.
    """

    outcome: str
    code: str | None = None
    message: str | None = None
    tries: int = 0


def write_outcome(path: Path, outcome: Outcome) -> None:
    """Write down what became of an image, and when.

    Args:
        path: The JSON file.
        outcome: What became of it.

    Raises:
        OSError: The disk is full or fails.
    """
    record = {**asdict(outcome), "at": datetime.now(UTC).isoformat(timespec="seconds")}
    replace_file(path, json.dumps(record, indent=1) + "\n")
    sync(path)


def sync(path: Path) -> None:
    """Wait until a file's content, or a folder's entries, are on the disk.

    Args:
        path: The file or folder.

    Raises:
        OSError: The disk is full or fails.
    """
    file = os.open(path, os.O_RDONLY)
    try:
        os.fsync(file)
    finally:
        os.close(file)


def hold(path: Path) -> int:
    """Lock a file until the process ends, however it ends.

    Args:
        path: The file, in the folder that it stands for.

    Returns:
        Descriptor, to be closed when the folder is let go.

    Raises:
        MedllmError: Another process holds it (`inbox-in-use`), or the system has no such locks
            (`unsupported-system`).
        OSError: It cannot be made.
    """
    try:
        import fcntl  # there is none on Windows, where nothing else of medllm needs it
    except ImportError:
        raise MedllmError(
            f"the inbox {path.parent} cannot be locked: {sys.platform} has no fcntl; wanted is "
            "Linux or macOS. On Windows, run medllm listen under WSL.",
            code="unsupported-system",
        ) from None
    file = os.open(path, os.O_RDWR | os.O_CREAT, 0o600)
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        os.close(file)
        raise MedllmError(
            f"another medllm listen has the inbox {path.parent} open; stop it, or choose another "
            "--inbox.",
            code="inbox-in-use",
        ) from None
    return file
