"""What is trained in a folder: written down before the work, checked when it is gone on with."""

from __future__ import annotations

import importlib.metadata
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from medllm.errors import TrainingError
from medllm.files import replace_file
from medllm.train.image_set import ImageSet
from medllm.train.parts import Division, Part
from medllm.train.recipe import Recipe
from medllm.train.states import disk_errors

CLAIM_FILE = "training.json"
# What may differ between a training and its continuation.
_FREE = {"out", "compute", "open_test", "measure", "card", "baselines"}


def claim(recipe: Recipe, division: Division) -> None:
    """Write down what is trained in a folder, or check that it is the same as before.

    Args:
        recipe: The recipe.
        division: Its data.

    Raises:
        TrainingError: The folder holds another training, or cannot be written.
    """
    told = {
        "recipe": recipe.model_dump(mode="json", exclude=_FREE),
        "data": division.content(),
    }
    path = recipe.out / CLAIM_FILE
    if path.exists():
        _require_same(_read(path), told, recipe.out)
        return
    versions = {name: importlib.metadata.version(name) for name in ("torch", "transformers")}
    with disk_errors(recipe.out):
        recipe.out.mkdir(parents=True, exist_ok=True)
        division.write(recipe.out / "split.csv")
        _write(path, {**told, "versions": versions})


def claim_images(out: Path, parts: Mapping[Part, Mapping[str, ImageSet]]) -> None:
    """Add what the images are to what is written down, or check that they are the same as before.

    Each process checks: on several machines each reads its own copy of the data sets.

    Args:
        out: Folder that was claimed. Where it holds no images' hashes, no step was done in it.
        parts: Images a part and source.

    Raises:
        TrainingError: Images are others than before, or the folder cannot be written.
    """
    now = {
        part: {name: images.content for name, images in sets.items()}
        for part, sets in parts.items()
    }
    path = out / CLAIM_FILE
    told = _read(path)
    if "images" not in told:
        with disk_errors(out):
            _write(path, {**told, "images": now})
        return
    changed = [
        f"{name} ({part})"
        for part, sets in now.items()
        for name, content in sets.items()
        if told["images"].get(part, {}).get(name) != content
    ]
    if changed:
        raise TrainingError(
            f"the images of {', '.join(changed)} are not those that {out} was begun with, though "
            "their names and labels are; bring those back, name another out, or delete that folder."
        )


def _require_same(before: Mapping[str, Any], now: Mapping[str, Any], out: Path) -> None:
    if before["recipe"] != now["recipe"]:
        changed = [key for key in now["recipe"] if before["recipe"].get(key) != now["recipe"][key]]
        raise TrainingError(
            f"{out} holds a training by another recipe, which differs in {', '.join(changed)}; "
            "name another out, or delete that folder."
        )
    if before["data"] != now["data"]:
        raise TrainingError(
            f"the data sets are not those that {out} was begun with; name another out, or delete "
            "that folder."
        )


def _read(path: Path) -> dict[str, Any]:
    told: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
    return told


def _write(path: Path, told: Mapping[str, Any]) -> None:
    replace_file(path, json.dumps(told, indent=1) + "\n")
