"""Model folders: on the disk, in the Hugging Face cache, or fetched from the hub."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Collection, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from transformers import AutoConfig, PreTrainedConfig, PreTrainedModel
from transformers.utils import logging as transformers_logging
from transformers.utils.logging import is_progress_bar_enabled

from medllm.errors import CheckpointError

# What a model is made of, at the top of its repository: never a pickle and never code.
_PATTERNS = ["*.json", "*.jinja", "*.safetensors"]
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


def read_config(folder: Path) -> PreTrainedConfig:
    """Read a model's configuration.

    Args:
        folder: Its folder.

    Returns:
        The configuration.

    Raises:
        CheckpointError: There is none, or transformers does not know its kind.
    """
    try:
        return AutoConfig.from_pretrained(folder, local_files_only=True, trust_remote_code=False)
    except (OSError, ValueError, KeyError) as error:
        raise CheckpointError(
            f"{folder} has no config.json that transformers knows: {str(error).splitlines()[0]}"
        ) from error


def load_weights(
    factory: Any, folder: Path, *, dtype: torch.dtype | str = torch.float32, **options: Any
) -> tuple[PreTrainedModel, dict[str, Any]]:
    """Load a network from safetensors, and nothing else.

    Args:
        factory: One of transformers' Auto classes.
        folder: The model's folder.
        dtype: Precision; `auto` is that of the file.
        **options: More arguments of `from_pretrained`.

    Returns:
        The network, and what transformers says of the loading.

    Raises:
        CheckpointError: The weights are missing, damaged, or of another shape.
    """
    try:
        with quiet_transformers():
            model, info = factory.from_pretrained(
                folder,
                dtype=dtype,
                local_files_only=True,
                use_safetensors=True,
                trust_remote_code=False,
                output_loading_info=True,
                **options,
            )
    except (OSError, RuntimeError, ValueError, ImportError) as error:
        reason = str(error).splitlines()[0]
        raise CheckpointError(
            f"the weights of {folder} do not load: {reason} Wanted is safetensors, whole."
        ) from error
    return model, info


def refuse_missing(folder: Path, missing: Collection[str]) -> None:
    """Refuse weights that are not whole: transformers leaves a missing tensor random, silently.

    Args:
        folder: The model's folder.
        missing: Names of the tensors that were not found.

    Raises:
        CheckpointError: There is one.
    """
    if missing:
        raise CheckpointError(
            f"the weights of {folder} lack {some_of(missing)}; they are no whole model. Fetch it "
            "again, or name the model they were taken from."
        )


def sha256_of_files(folder: Path) -> str:
    """Give one hash over all files that a model of another's making is loaded from.

    Args:
        folder: Its folder. In the hub's cache a large file is stored under its own hash, which is
            then taken.

    Returns:
        The hash; it does not depend on the folder's name.
    """
    whole = hashlib.sha256()
    for file in sorted(folder.iterdir()):
        if file.suffix in (".json", ".jinja", ".safetensors") and file.name != "medllm.json":
            whole.update(f"{file.name} {_sha256(file)}\n".encode())
    return whole.hexdigest()


def _sha256(file: Path) -> str:
    blob = file.resolve()
    if blob.parent.name == "blobs" and re.fullmatch(r"[0-9a-f]{64}", blob.name):
        return blob.name
    with file.open("rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()
