"""What is trained in a folder: written down before the work, checked when it is gone on with."""

from __future__ import annotations

import importlib.metadata
import itertools
import json
import logging
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from medllm.errors import TrainingError
from medllm.files import replace_file
from medllm.train.image_set import ImageSet
from medllm.train.network import hashes_of_starts
from medllm.train.parts import Division, Part
from medllm.train.recipe import Recipe
from medllm.train.states import disk_errors

CLAIM_FILE = "training.json"
# What may differ between a training and its continuation.
_FREE = {"out", "compute", "open_test", "measure", "card", "baselines"}
# What is in a stage's folder once it is finished, in the order of the stages.
_RESULTS = {"pretrain": "encoder", "align": "network", "finetune": "network"}
_WEIGHTS = "weights.safetensors"
# Between the name of a stage and a number, where what it had done before is kept.
_BEFORE = ".before"
_LOG = logging.getLogger(__name__)


def claim(recipe: Recipe, division: Division) -> None:
    """Write down what is trained in a folder, or check that it is the same as before.

    Anything may differ while no stage has begun. The settings of a stage may while neither it nor a
    later one is finished: it begins anew.

    Args:
        recipe: The recipe.
        division: Its data.

    Raises:
        TrainingError: The folder holds another training, or cannot be written.
    """
    told: dict[str, Any] = {
        "recipe": recipe.model_dump(mode="json", exclude=_FREE),
        "data": division.content(),
    }
    path = recipe.out / CLAIM_FILE
    versions = {name: importlib.metadata.version(name) for name in ("torch", "transformers")}
    if path.exists() and any(_stages_in(recipe.out)):
        before = _read(path)
        changed = [name for name in _RESULTS if before["recipe"].get(name) != told["recipe"][name]]
        anew = _anew(recipe.out, changed)
        _require_same(before, told, recipe.out, changed if anew is not None else ())
        if not changed:
            return
        told = {**before, **told}
    else:
        # Nothing was trained yet: what failed before its first step may be mended.
        anew, told = [], {**told, "versions": versions}
    with disk_errors(recipe.out):
        recipe.out.mkdir(parents=True, exist_ok=True)
        for folder in anew or ():
            _set_aside(folder)
        division.write(recipe.out / "split.csv")
        _write(path, told)


def _stages_in(out: Path) -> Iterator[Path]:
    """List the folders of stages, in the order in which they are trained."""
    yield from (out / name for name in _RESULTS if (out / name).exists())
    yield from sorted(path for path in out.glob("baseline-*") if _BEFORE not in path.name)


def _anew(out: Path, changed: Sequence[str]) -> list[Path] | None:
    """List what is trained anew when stages change; None where one of it is finished."""
    if not changed:
        return []
    kept = list(_RESULTS)[: list(_RESULTS).index(changed[0])]
    folders = [folder for folder in _stages_in(out) if folder.name not in kept]
    finished = any((folder / _RESULTS.get(folder.name, _WEIGHTS)).exists() for folder in folders)
    return None if finished else folders


def _set_aside(folder: Path) -> None:
    """Let a stage begin anew, without deleting what may have taken days."""
    names = (f"{folder.name}{_BEFORE}-{number}" for number in itertools.count(1))
    aside = next(path for path in map(folder.with_name, names) if not path.exists())
    folder.rename(aside)
    _LOG.warning(
        "the settings of %s are others than before: it begins anew, and what it had done lies in "
        "%s until you delete it.",
        folder.name,
        aside,
    )


def claim_start(recipe: Recipe) -> None:
    """Add what the weights are taken over from to what is written down, or check that it is that.

    Each process checks: on several machines each reads its own copy.

    Args:
        recipe: The recipe, whose folder was claimed for the same names. Where it holds no hashes
            of them, no step was done in it, or by an earlier medllm, which kept none.

    Raises:
        CheckpointError: What is gone on from is missing.
        TrainingError: It is another than before, or the folder cannot be written.
    """
    path, now = recipe.out / CLAIM_FILE, hashes_of_starts(recipe.model)
    told = _read(path)
    if "start" not in told:
        with disk_errors(recipe.out):
            _write(path, {**told, "start": now})
        return
    for key, sha256 in now.items():
        if told["start"][key] != sha256:
            raise TrainingError(
                f"model.{key}, {getattr(recipe.model, key)}, has sha256 {sha256[:12]}, and "
                f"{recipe.out} was begun with {told['start'][key][:12]}; bring that back (of the "
                "hub: owner/name@revision), name another out, or delete that folder."
            )


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


def _require_same(
    before: Mapping[str, Any], now: Mapping[str, Any], out: Path, may_differ: Sequence[str]
) -> None:
    changed = [
        key
        for key in now["recipe"]
        if before["recipe"].get(key) != now["recipe"][key] and key not in may_differ
    ]
    if changed:
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
