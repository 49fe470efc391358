from __future__ import annotations

import io
import os
import re
import subprocess
import sys
from importlib.util import module_from_spec, spec_from_file_location
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

ROOT = Path(__file__).parents[1]
PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").rglob("*.md"))]


def _snippets():
    for page in PAGES:
        for number, code in enumerate(re.findall(r"```python\n(.*?)```", page.read_text(), re.S)):
            yield pytest.param(code, id=f"{page.relative_to(ROOT)}-{number}")


@pytest.mark.parametrize("code", list(_snippets()))
def test_the_snippet_runs_as_it_stands(code, programs, tmp_path, request):
    if re.search(r"""["'](pdf|dicom)["']""", code):
        request.getfixturevalue("pango")
    program = programs.run(code=code, folder=tmp_path)
    assert program.wait() == 0, program.stderr


def _script(name):
    spec = spec_from_file_location(name, ROOT / "docs" / f"{name}.py")
    module = module_from_spec(spec)
    sys.modules[name] = module  # dataclasses look their module up
    spec.loader.exec_module(module)
    return module


def test_every_picture_is_of_the_script_that_makes_them_and_is_light():
    script = _script("make_pictures")
    pictures = {path.name: path for path in (ROOT / "docs" / "images").iterdir()}
    made = {f"{picture.name}.png" for picture in script.PICTURES}
    assert set(pictures) == made | set(script.DICOM_PICTURES)
    assert {picture.page for picture in script.PICTURES} == set(script.COMMANDS)
    assert max(path.stat().st_size for path in pictures.values()) <= script.MOST_BYTES


def test_a_picture_is_written_in_as_many_colours_as_its_size_allows():
    script = _script("make_pictures")
    script.MOST_BYTES = 20_000  # of a small picture: the colours of noise are slow to choose from
    noise = np.random.default_rng(0).integers(256, size=(158, 158, 3), dtype=np.uint8)
    small = script._small(Image.fromarray(noise))
    assert len(small) <= script.MOST_BYTES
    with Image.open(io.BytesIO(small)) as picture:
        assert picture.size == (158, 158)
        assert 16 <= len(picture.getcolors()) < 256
    with pytest.raises(ValueError, match="less high"):
        script._small(Image.fromarray(noise).resize((632, 632), 0))


def test_pages_made_from_the_code_are_up_to_date():
    for path, text in _script("make_pages").pages().items():
        assert path.read_text(encoding="utf-8") == text, f"{path.name}: run make docs"


def test_every_link_between_the_pages_leads_somewhere():
    for page in PAGES:
        for target in re.findall(r"\]\(([^)#]+)[^)]*\)", page.read_text()):
            if not target.startswith("http"):
                assert (page.parent / target).exists(), f"{page.name} links to {target}"


def test_a_command_runs_from_the_root_beside_the_folder_called_datasets():
    """transformers looks for Hugging Face's `datasets`; ours at the root holds no Python."""
    result = subprocess.run(
        [sys.executable, "-m", "medllm", "models", "verify"],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=False,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
    )
    assert result.returncode == 0, result.stderr
    assert not list((ROOT / "datasets").rglob("*.py"))
