"""Files that a reader finds whole, whatever happens while they are written."""

from __future__ import annotations

from pathlib import Path
from uuid import uuid4


def replace_file(path: Path, content: str | bytes) -> None:
    """Write a file beside its place and move it there: a reader meets the old one or the new one.

    This holds when the process is killed, when the disk is full, and when several processes write
    the same file. It is not waited for the disk (fsync), which would cost more than the writing: a
    power cut can lose the file, as it can lose the weights and images that lie beside it, which
    their libraries do not wait for either.

    Args:
        path: The file; its folder is there.
        content: Text is written as UTF-8, with its line ends as they are.

    Raises:
        OSError: It cannot be written; what was there is as it was, and nothing lies beside it.

    Example:
        >>> import tempfile
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     replace_file(Path(folder) / "note.txt", "read twice")
        ...     (Path(folder) / "note.txt").read_text()
        'read twice'
    """
    draft = path.with_name(f".{path.name}.{uuid4().hex}")
    try:
        draft.write_bytes(content.encode() if isinstance(content, str) else content)
        draft.replace(path)
    finally:
        draft.unlink(missing_ok=True)
