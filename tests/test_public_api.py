from __future__ import annotations

import dataclasses
import importlib
import inspect
import subprocess
import sys
import typing
from pathlib import Path

import pytest

import medllm
from medllm import datasets, errors


def _classes_in(hint):
    """Give medllm's own classes in a type hint, such as `Gate` in `tuple[Gate, ...]`."""
    if inspect.isclass(hint) and hint.__module__.startswith("medllm."):
        yield hint
    for part in typing.get_args(hint):
        yield from _classes_in(part)


def _handed_out(value):
    """Give the classes of a class's fields and of what it returns, or of a function's result."""
    functions = [value]
    if inspect.isclass(value):
        members = [member for name, member in vars(value).items() if not name.startswith("_")]
        functions = [
            getattr(one, "fget", None) or getattr(one, "func", None) or one for one in members
        ]
        if dataclasses.is_dataclass(value):
            for hint in typing.get_type_hints(value).values():
                yield from _classes_in(hint)
    for function in filter(inspect.isfunction, functions):
        yield from _classes_in(typing.get_type_hints(function).get("return"))


def test_every_public_name_is_there_and_listed():
    for name in medllm.__all__:
        assert getattr(medllm, name) is not None
    assert set(medllm._HOMES) < set(medllm.__all__)
    assert sorted(set(medllm.__all__)) == medllm.__all__


def test_every_error_is_listed():
    public = {name for name, value in vars(errors).items() if inspect.isclass(value)}
    assert {name for name in public if name.endswith("Error")} < set(medllm.__all__)


# What an evaluation hands out is read by its published schema, and an architecture is medllm's own.
@pytest.mark.parametrize(
    "package", ["data", "datasets", "dicom", "explanation", "models", "phantom", "report"]
)
def test_a_class_that_a_public_name_hands_out_is_public(package):
    module = importlib.import_module(f"medllm.{package}")
    missing = set()
    for name in module.__all__:
        for one in _handed_out(getattr(module, name)):
            home = importlib.import_module(one.__module__.rpartition(".")[0])
            # A module beside the packages has no table of contents: all of it is public.
            if home is not medllm and one.__name__ not in home.__all__:
                missing.add((name, one.__name__))
    assert missing == set()


@pytest.mark.parametrize(
    "package",
    ["datasets", "dicom", "evaluate", "explanation", "metrics", "models", "phantom", "report"],
)
def test_a_path_may_be_given_as_text(package):
    module = importlib.import_module(f"medllm.{package}")
    refused = set()
    for name in module.__all__:
        value = getattr(module, name)
        members = vars(value).values() if inspect.isclass(value) else [value]
        for function in filter(inspect.isfunction, members):
            if function.__name__.startswith("_"):  # a class's fields are filled by medllm itself
                continue
            for parameter, hint in typing.get_type_hints(function).items():
                kinds = [hint, *typing.get_args(hint)]
                if parameter != "return" and Path in kinds and str not in kinds:
                    refused.add(f"{name}: {parameter}")
    assert not refused


_READERS = sorted(
    name for name in datasets.__all__ if name.startswith("read_") and name != "read_dataset"
)


@pytest.mark.parametrize("reader", _READERS)
def test_a_reader_takes_a_folder_as_text(reader, tmp_path):
    with pytest.raises(errors.LabelError, match=tmp_path.name):
        getattr(datasets, reader)(str(tmp_path))


def test_explain_is_the_function_whatever_was_imported_before(programs):
    code = (
        "import medllm.explanation, medllm.models, medllm; "
        "assert callable(medllm.explain), medllm.explain"
    )
    program = programs.run(code=code)
    assert program.wait() == 0, program.stderr


def test_help_does_not_wait_for_torch():
    code = (
        "import sys; from typer.testing import CliRunner; from medllm.cli import app; "
        "result = CliRunner().invoke(app, ['explain', '--help']); "
        "assert result.exit_code == 0, result.output; "
        "slow = {'torch', 'transformers', 'monai', 'numpy', 'pydicom'} & set(sys.modules); "
        "assert not slow, slow"
    )
    subprocess.run([sys.executable, "-c", code], check=True)  # noqa: S603


def test_an_unknown_name_is_an_attribute_error():
    assert not hasattr(medllm, "diagnose")
