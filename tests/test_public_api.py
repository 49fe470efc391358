from __future__ import annotations

import subprocess
import sys

import medllm


def test_every_public_name_is_there_and_listed():
    for name in medllm.__all__:
        assert getattr(medllm, name) is not None
    assert set(medllm._HOMES) < set(medllm.__all__)
    assert sorted(set(medllm.__all__)) == medllm.__all__


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
