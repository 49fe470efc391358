"""Model folders: on the disk, in the Hugging Face cache, or fetched from the hub."""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from fnmatch import fnmatchcase
from pathlib import Path
from typing import Any

from huggingface_hub.errors import StrictDataclassError
from transformers import (
    CONFIG_MAPPING,
    AutoConfig,
    PreTrainedConfig,
)
from transformers import __version__ as transformers_version
from transformers.quantizers.auto import AUTO_QUANTIZATION_CONFIG_MAPPING
from transformers.utils import logging as transformers_logging
from transformers.utils.logging import is_progress_bar_enabled

from medllm.errors import CheckpointError, first_line

# What a model is made of, at the top of its repository: never a pickle and never code.
_PATTERNS = ["*.json", "*.jinja", "*.safetensors"]
_ELSEWHERE = ["*/*"]
# What peft says of an adapter; transformers would follow it to a base that nobody named.
ADAPTER_FILE = "adapter_config.json"
# What NVIDIA's ModelOpt says of a quantization; transformers does not read it.
_MODELOPT_FILE = "hf_quant_config.json"
# What may be written beside it later, and is no part of it: a card and what was measured of it, and
# what transformers' Trainer says of a run (train_results.json, eval_results.json, ...).
_NO_PART = ("medllm.json", "explanations.json", "trainer_state.json", "*_results.json")


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
    neither = f"{source} is neither a folder nor a hub name (owner/name); {remedy}."
    if name.count("/") != 1 or name.startswith((".", "/", "~")):
        raise CheckpointError(neither)
    return _fetch(name, revision or None, neither)


def _fetch(name: str, revision: str | None, misnamed: str) -> Path:
    from huggingface_hub import errors, snapshot_download

    # The hub's own errors are OSErrors, but a connection that breaks is told by the HTTP client
    # beneath. Which client that is differs by version: the hub's errors descend from its own.
    broken: type[Exception] = errors.HfHubHTTPError.__bases__[0]
    try:
        return Path(
            snapshot_download(
                name, revision=revision, allow_patterns=_PATTERNS, ignore_patterns=_ELSEWHERE
            )
        )
    except errors.HFValidationError as error:
        raise CheckpointError(misnamed) from error
    except (OSError, ValueError, broken) as error:
        wanted = f"{name}@{revision}" if revision else name
        raise CheckpointError(
            f"'{wanted}' is not in the local Hugging Face cache and could not be fetched: "
            f"{_why_not_fetched(name, revision, error)}",
            code="not-fetched",
        ) from error


def _why_not_fetched(name: str, revision: str | None, error: Exception) -> str:
    from huggingface_hub import constants, errors

    if not isinstance(error, OSError | ValueError):
        return (
            f"the connection to {constants.ENDPOINT} broke. Give the same command again; it goes "
            "on where it stopped."
        )
    # The hub's library says only that the cache lacks it; why it could not ask is the cause.
    cause = error.__cause__ if isinstance(error, errors.LocalEntryNotFoundError) else error
    match cause:
        case errors.GatedRepoError():
            return (
                f"it is gated. Accept its terms at {constants.ENDPOINT}/{name}, then log in with "
                "'hf auth login' or set HF_TOKEN."
            )
        case errors.RevisionNotFoundError():
            return f"it has no revision '{revision}'; its page lists its branches and commits."
        case errors.RepositoryNotFoundError():
            return (
                "the hub knows no such model. Check the spelling; if it is private, log in with "
                "'hf auth login' or set HF_TOKEN."
            )
        case errors.HfHubHTTPError() | ValueError():
            return first_line(cause)
        case OSError(errno=int()):  # a full disk, a cache that may not be written
            return f"{cause.strerror}: {cause.filename or constants.HF_HUB_CACHE}."
        case _:
            return _without_the_hub(name, revision)


def _without_the_hub(name: str, revision: str | None) -> str:
    from huggingface_hub import constants

    offline = constants.HF_HUB_OFFLINE
    why = "HF_HUB_OFFLINE is set" if offline else f"{constants.ENDPOINT} is not reached"
    cached = Path(constants.HF_HUB_CACHE, f"models--{name.replace('/', '--')}")
    # Branches and tags; a commit that was fetched as such has no name.
    named = sorted(one.name for one in cached.glob("refs/*") if one.is_file())
    there = named or sorted(one.name for one in cached.glob("snapshots/*"))
    has = f" The cache has {', '.join(there)} of it: name that behind the @." if there else ""
    asked = f"{name} --revision {revision}" if revision else name
    return (
        f"{why}.{has} Run 'hf download {asked}' where the hub is reached, and pass the folder, or "
        f"copy the cache{'' if offline else ' and set HF_HUB_OFFLINE=1'}."
    )


def cached_folders(wanted: Callable[[Path], bool]) -> dict[str, Path]:
    """Find models in the local Hugging Face cache.

    Args:
        wanted: Says of the folder of a revision whether it is one.

    Returns:
        The folder a name, by name. Of several revisions it is the one that `main` points to, else
        the newest.
    """
    from huggingface_hub import constants, scan_cache_dir
    from huggingface_hub.errors import CacheNotFound

    try:
        repositories = scan_cache_dir(constants.HF_HUB_CACHE).repos
    except CacheNotFound:
        return {}
    found = {}
    for repository in sorted(repositories, key=lambda entry: entry.repo_id):
        if revisions := [one for one in repository.revisions if wanted(one.snapshot_path)]:
            shown = max(revisions, key=lambda one: ("main" in one.refs, one.last_modified))
            found[repository.repo_id] = shown.snapshot_path
    return found


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


def read_config(folder: Path) -> PreTrainedConfig:
    """Read a model's configuration.

    Args:
        folder: Its folder.

    Returns:
        The configuration.

    Raises:
        CheckpointError: There is none, it is that of an adapter or of LLaVA's own code, or
            transformers does not know its kind, that of a part, or its quantization.
    """
    values = _values_of(folder)
    _refuse_adapter(folder)
    _refuse_original_llava(folder, values)
    _refuse_quantization(folder, values)
    try:
        with quiet_transformers():
            return AutoConfig.from_pretrained(
                folder, local_files_only=True, trust_remote_code=False
            )
    # Each kind's configuration is a program, which fails as it likes on a value that it rejects.
    except Exception as error:
        if unknown := _unknown_kind(values):
            raise CheckpointError(
                f"{folder} {unknown}, which transformers {transformers_version} does not "
                "know. If a newer one does, install it with 'pip install --upgrade transformers'; "
                "code that a model brings along is never run.",
                code="unknown-architecture",
            ) from error
        # Of a value of another type the first line names the field alone, and its cause the value.
        cause = error.__cause__ if isinstance(error, StrictDataclassError) else None
        raise CheckpointError(
            f"{folder} has no config.json that transformers knows: {first_line(cause or error)}"
        ) from error


def _values_of(folder: Path) -> dict[str, Any]:
    try:
        values = json.loads((folder / "config.json").read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return {}
    return values if isinstance(values, dict) else {}


def _refuse_adapter(folder: Path) -> None:
    if (folder / ADAPTER_FILE).is_file():
        raise CheckpointError(
            f"{folder} holds an adapter of peft ({ADAPTER_FILE}), which is no whole model. Merge "
            "it in Python and open what is saved: peft.PeftModel.from_pretrained(base, adapter)"
            ".merge_and_unload().save_pretrained(folder), with the base's tokenizer and processor "
            "beside it.",
            code="adapter",
        )


def _refuse_original_llava(folder: Path, values: dict[str, Any]) -> None:
    """Refuse weights of LLaVA's own code: some call themselves `llava`, as transformers' do."""
    kind = values.get("model_type")
    named = isinstance(kind, str) and kind.startswith("llava_") and kind not in CONFIG_MAPPING
    # LLaVA's own configurations name their encoder so, of whichever LLM; transformers' hold it.
    if named or "mm_vision_tower" in values:
        raise CheckpointError(
            f"{folder} is of type '{kind}' in the form of LLaVA's own code, which no transformers "
            "opens. Take its conversion to transformers' 'llava', which many have on the hub "
            "(their names often end in -hf), or convert it with convert_llava_weights_to_hf.py of "
            "transformers 4.",
            code="unknown-architecture",
        )


def _refuse_quantization(folder: Path, values: dict[str, Any]) -> None:
    """Refuse weights that transformers would read as they are stored, without their scales."""
    text = values.get("text_config")
    for part in (values, text if isinstance(text, dict) else {}):
        published = part.get("quantization_config")
        method = published.get("quant_method") if isinstance(published, dict) else None
        # It has bitsandbytes by its bits, which older folders name alone.
        if method not in (None, "bitsandbytes", *AUTO_QUANTIZATION_CONFIG_MAPPING):
            raise CheckpointError(
                f"{folder} is quantized by '{method}', which transformers {transformers_version} "
                "does not know. Name the model that it was made of, or dequantize it and take "
                "quantization_config out of its config.json.",
                code="unknown-quantization",
            )
    if (folder / _MODELOPT_FILE).is_file():
        raise CheckpointError(
            f"{folder} is quantized by ModelOpt ({_MODELOPT_FILE}), which transformers does not "
            "open. Name the model that it was made of, or dequantize it and delete that file.",
            code="unknown-quantization",
        )


def _unknown_kind(values: dict[str, Any]) -> str | None:
    """Say of a configuration or of a part of it that transformers does not know its type."""
    parts = [(f"has a {name}", part) for name, part in values.items() if name.endswith("_config")]
    for said, part in [("is", values), *parts]:
        kind = part.get("model_type") if isinstance(part, dict) else None
        if isinstance(kind, str) and kind not in CONFIG_MAPPING:
            return f"{said} of type '{kind}'"
    return None


def sha256_of_files(folder: Path) -> str:
    """Give one hash over all files that a model of another's making is loaded from.

    Args:
        folder: Its folder. In the hub's cache a large file is stored under its own hash, which is
            then taken.

    Returns:
        The hash; it does not depend on the folder's name, nor on what was measured of the model
        or written of its training.
    """
    whole = hashlib.sha256()
    for file in sorted(folder.iterdir()):
        is_part = not any(fnmatchcase(file.name, pattern) for pattern in _NO_PART)
        if file.suffix in (".json", ".jinja", ".safetensors") and is_part:
            whole.update(f"{file.name} {_sha256(file)}\n".encode())
    return whole.hexdigest()


def _sha256(file: Path) -> str:
    blob = file.resolve()
    if blob.parent.name == "blobs" and re.fullmatch(r"[0-9a-f]{64}", blob.name):
        return blob.name
    with file.open("rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()
