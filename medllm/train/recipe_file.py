"""From a recipe's file, the environment and the command line to a checked recipe."""

from __future__ import annotations

import difflib
import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, get_args

import yaml
from pydantic import ValidationError

from medllm.errors import TrainingError
from medllm.train.recipe import Recipe, Section

BUNDLED = Path(__file__).parent / "recipes"
# MEDLLM_TRAIN__FINETUNE__EPOCHS=3 stands for finetune.epochs=3.
_PREFIX = "MEDLLM_TRAIN__"


def read_recipe(source: str, settings: Sequence[str] = ()) -> Recipe:
    """Read a recipe; the environment goes over the file, and settings over both.

    Args:
        source: A YAML file, or the name of a bundled recipe.
        settings: `key=value`, keys joined by dots and data sets by name, such as
            `finetune.epochs=3` or `data.nih.repeats=2`; values are YAML.

    Returns:
        The recipe.

    Raises:
        TrainingError: The file is missing or no YAML, or something in it is unknown, missing or
            out of range.
    """
    file, values = _read_file(source)
    for key, text in _from_environment(os.environ):
        _set(values, key, text)
    for setting in settings:
        key, equals, text = setting.partition("=")
        if not equals:
            raise TrainingError(f"'{setting}' is no setting; write key=value.")
        _set(values, key, text)
    try:
        return Recipe.model_validate(values)
    except ValidationError as error:
        raise TrainingError(f"{file.name}: {_told(error)}") from error


def _read_file(source: str) -> tuple[Path, dict[str, Any]]:
    file = Path(source)
    if not file.is_file():
        file = BUNDLED / f"{source}.yaml"
    if not file.is_file():
        known = ", ".join(sorted(path.stem for path in BUNDLED.glob("*.yaml")))
        raise TrainingError(f"{source} is neither a file nor a bundled recipe ({known}).")
    try:
        values = yaml.safe_load(file.read_text(encoding="utf-8"))
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        raise TrainingError(f"{file} is not YAML: {' '.join(str(error).split())}.") from error
    if not isinstance(values, dict):
        raise TrainingError(f"{file} holds no mapping; see the how-to page on training.")
    return file, values


def _from_environment(environment: Mapping[str, str]) -> list[tuple[str, str]]:
    return [
        (name.removeprefix(_PREFIX).lower().replace("__", "."), text)
        for name, text in sorted(environment.items())
        if name.startswith(_PREFIX)
    ]


def _set(values: dict[str, Any], key: str, text: str) -> None:
    *path, last = key.split(".")
    place: Any = values
    for word in path:
        if isinstance(place, list):
            place = _of_data_set(place, word, key)
            continue
        _require_section(place, key)
        # `finetune: null` may be filled from outside too.
        place[word] = {} if place.get(word) is None else place[word]
        place = place[word]
    _require_section(place, key)
    try:
        place[last] = yaml.safe_load(text)
    except yaml.YAMLError as error:
        raise TrainingError(
            f"'{key}={text}' is not YAML: {' '.join(str(error).split())}. Close its brackets and "
            f"quotes, or quote the whole: {key}='\"...\"'."
        ) from error


def _of_data_set(sources: Sequence[Any], name: str, key: str) -> dict[str, Any]:
    for source in sources:
        if isinstance(source, dict) and source.get("dataset") == name:
            return source
    raise TrainingError(f"'{key}' names no data set of the recipe.")


def _require_section(place: object, key: str) -> None:
    if not isinstance(place, dict):
        raise TrainingError(f"'{key}' leads to a value and not to a section of the recipe.")


def _told(error: ValidationError) -> str:
    """Say in one line what is wrong first, and the nearest right name of an unknown key."""
    first = error.errors()[0]
    place = [str(word) for word in first["loc"]]
    where = ".".join(place) or "the recipe"
    if first["type"] == "extra_forbidden":
        return f"'{where}' is unknown;{_nearest(place)} take it out or correct it."
    words = first["msg"].removeprefix("Value error, ")
    found = "" if isinstance(first["input"], dict) else f", found {first['input']!r}"
    if first["type"] == "string_type":
        # YAML takes a version for a number; the shell takes the outer quotes away.
        found += f"; give it quotes of its own, as in '{where}=\"{first['input']}\"'"
    more = f" ({error.error_count() - 1} more)" if error.error_count() > 1 else ""
    return f"{where}: {words[0].lower()}{words[1:]}{found}{more}."


def _nearest(place: list[str]) -> str:
    part: Any = Recipe
    for word in place[:-1]:
        if word.isdigit():
            continue
        kind = part.model_fields[word].annotation
        kinds = (kind, *get_args(kind))
        part = next(
            (one for one in kinds if isinstance(one, type) and issubclass(one, Section)), part
        )
    near = difflib.get_close_matches(place[-1], part.model_fields, 1)
    return f" did you mean '{near[0]}'?" if near else ""
