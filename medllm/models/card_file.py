"""`medllm.json`: what a checkpoint says of itself, read and checked, and written as a page."""

from __future__ import annotations

import dataclasses
import hashlib
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from medllm.data.preprocessing import Preprocessing
from medllm.errors import CheckpointError
from medllm.files import replace_file
from medllm.metrics import Estimate
from medllm.models.card import (
    SCHEMA_VERSION,
    Calibration,
    Comparison,
    ImageUse,
    Measurement,
    ModelCard,
    Question,
    SelfTest,
)
from medllm.models.card_page import card_page, front_matter
from medllm.models.measured import read_measured

CARD_FILE = "medllm.json"
_WANTED = (CARD_FILE, "config.json", "model.safetensors", "tokenizer.json", "tokenizer_config.json")


def has_card(folder: Path) -> bool:
    """Say whether a folder holds a checkpoint of medllm's own form.

    Args:
        folder: Any folder.

    Returns:
        Whether `medllm.json` is in it.
    """
    return (folder / CARD_FILE).is_file()


def read_card(folder: Path) -> ModelCard:
    """Read and check `medllm.json`, without the weights.

    Args:
        folder: A checkpoint folder.

    Returns:
        The card.

    Raises:
        CheckpointError: A file is missing, or the card is not of this version's form.
    """
    _refuse_lack(folder, _WANTED[:1])
    try:
        values = json.loads((folder / CARD_FILE).read_text(encoding="utf-8"))
    except ValueError as error:
        raise CheckpointError(f"{folder / CARD_FILE} is not JSON: {error}.") from error
    version = values.get("schema_version") if isinstance(values, dict) else None
    if version != SCHEMA_VERSION:
        raise CheckpointError(
            f"{folder / CARD_FILE} has schema version {version}; this medllm reads "
            f"{SCHEMA_VERSION}. Install the medllm that wrote it."
        )
    values.pop("files", None)
    try:
        card = _card(values)
    except (TypeError, KeyError, AttributeError, ValueError) as error:
        raise CheckpointError(f"{folder / CARD_FILE} is not a model card: {error}.") from error
    if not card.base:
        _refuse_lack(folder, _WANTED)
    return dataclasses.replace(card, explanations=read_measured(folder, sha256_of(folder)))


def _refuse_lack(folder: Path, wanted: Sequence[str]) -> None:
    missing = [name for name in wanted if not (folder / name).is_file()]
    if missing:
        raise CheckpointError(
            f"{folder} lacks {', '.join(missing)}; a medllm checkpoint is a Hugging Face LLaVA "
            f"folder with {CARD_FILE} beside it."
        )


def sha256_of(folder: Path) -> str:
    """Give the hash that a checkpoint is known by, which is that of its `medllm.json`.

    Args:
        folder: A checkpoint folder.

    Returns:
        The hash; it holds those of the other files.
    """
    return file_sha256(folder / CARD_FILE)


def _card(values: dict[str, Any]) -> ModelCard:
    questions = tuple(_question(entry) for entry in values.pop("questions"))
    preprocessing = values.pop("preprocessing")
    for name in ("mean", "std", "source_range"):
        preprocessing[name] = tuple(preprocessing[name])
    self_test = values.pop("self_test")
    lists = ("limitations", "training_data", "explanation_measurements")
    sentences: dict[str, Any] = {name: tuple(values.pop(name)) for name in lists}
    compared = tuple(Comparison(**_estimated(row)) for row in values.pop("comparisons", ()))
    used = tuple(ImageUse(**row) for row in values.pop("image_use", ()))
    return ModelCard(
        questions=questions,
        preprocessing=Preprocessing(**preprocessing),
        self_test=SelfTest(**self_test) if self_test else None,
        comparisons=compared,
        image_use=used,
        **sentences,
        **values,
    )


def _question(entry: dict[str, Any]) -> Question:
    return Question(
        finding=entry["finding"],
        text=entry["text"],
        yes=tuple(entry["yes"]),
        no=tuple(entry["no"]),
        calibration=Calibration(**entry["calibration"]),
        measurements=tuple(Measurement(**_estimated(row)) for row in entry["measurements"]),
        paraphrases=tuple(entry.get("paraphrases", ())),
    )


def _estimated(row: dict[str, Any]) -> dict[str, Any]:
    """Turn each figure of a row that has an interval into one."""
    return {
        name: Estimate(**value) if isinstance(value, dict) else value for name, value in row.items()
    }


def file_sha256(file: Path) -> str:
    """Give the hash of a file's content.

    Args:
        file: The file.

    Returns:
        Its SHA-256 in hexadecimal digits.
    """
    with file.open("rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()


def write_page(folder: Path) -> None:
    """Write the card as a page, `README.md`, with what is kept of the checkpoint's explanations.

    It is for readers alone, who may edit it, and so has no hash.

    Args:
        folder: A checkpoint folder.

    Raises:
        CheckpointError: The card cannot be read.
        OSError: The disk is full.
    """
    card = read_card(folder)
    replace_file(folder / "README.md", f"{front_matter(card)}\n{card_page(card)}")
