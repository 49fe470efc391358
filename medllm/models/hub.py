"""Model folders: on the disk, in the Hugging Face cache, or fetched from the hub."""

from __future__ import annotations

from collections.abc import Collection, Iterator
from contextlib import contextmanager
from pathlib import Path

from transformers.utils import logging as transformers_logging
from transformers.utils.logging import is_progress_bar_enabled

from medllm.errors import CheckpointError

# What a model is made of, at the top of its repository: never a pickle and never code.
_PATTERNS = ["*.json", "*.safetensors"]
_ELSEWHERE = ["*/*"]


def find_folder(source: str | Path, *, remedy: str = "check the spelling") -> Path:
    """Find a model's folder, fetching it from the hub where it is not yet cached.

    Args:
        source: A folder, `owner/name` or `owner/name@revision`.
        remedy: What to do when it is neither, for the message.

    Returns:
        The folder.

    Raises:
        CheckpointError: There is no such folder, and no such name on the hub or in its cache.
    """
    folder = Path(source)
    if folder.is_dir():
        return folder
    name, _, revision = str(source).partition("@")
    if name.count("/") != 1 or name.startswith((".", "/", "~")):
        raise CheckpointError(
            f"{source} is neither a folder nor a hub name (owner/name); {remedy}."
        )
    return _fetch(name, revision or None)


def _fetch(name: str, revision: str | None) -> Path:
    from huggingface_hub import snapshot_download
    from huggingface_hub.errors import HfHubHTTPError, LocalEntryNotFoundError

    try:
        return Path(
            snapshot_download(
                name, revision=revision, allow_patterns=_PATTERNS, ignore_patterns=_ELSEWHERE
            )
        )
    except (HfHubHTTPError, LocalEntryNotFoundError, OSError, ValueError) as error:
        raise CheckpointError(
            f"'{name}' is not in the local Hugging Face cache and could not be fetched: "
            f"{str(error).splitlines()[0]}"
        ) from error


@contextmanager
def quiet_transformers() -> Iterator[None]:
    """Keep transformers' bars and tables off stderr; what they would say is checked here."""
    verbosity, bars = transformers_logging.get_verbosity(), is_progress_bar_enabled()
    transformers_logging.set_verbosity_error()
    transformers_logging.disable_progress_bar()
    try:
        yield
    finally:
        transformers_logging.set_verbosity(verbosity)
        if bars:
            transformers_logging.enable_progress_bar()


def some_of(names: Collection[str]) -> str:
    """Name the first three of many tensors, for a message of one line."""
    listed = ", ".join(sorted(names)[:3]) or "none"
    return listed + (f" and {len(names) - 3} more" if len(names) > 3 else "")
