"""What `medllm explain` leaves in a folder, and what it says meanwhile."""

from __future__ import annotations

import contextlib
import dataclasses
import json
import os
import pty
import sys

import numpy as np
import pytest
from PIL import Image
from typer.testing import CliRunner

from medllm.cli import app, progress
from medllm.models import Calibration, save_model
from medllm.phantom import make_phantom, write_dicom


@pytest.fixture(scope="module")
def models(tiny_model, tmp_path_factory):
    """Two saved checkpoints that answer otherwise."""
    folder = tmp_path_factory.mktemp("models")
    for name, temperature in (("first", 1.0), ("second", 2.0)):
        told = Calibration(temperature=temperature, low=0.0, high=0.0, fitted_on="nothing")
        question = dataclasses.replace(tiny_model.card.questions[0], calibration=told)
        card = dataclasses.replace(tiny_model.card, questions=(question,))
        save_model(dataclasses.replace(tiny_model, card=card), folder / name)
    return folder


@pytest.fixture
def chest(tmp_path):
    return write_dicom(make_phantom(3, size=200), tmp_path / "chest.dcm")


def explain(file, model, out, formats):
    given = ["explain", file, "--model", model, "--method", "grad-cam", "--out", out]
    return CliRunner().invoke(app, [str(word) for word in (*given, "--format", formats)])


def test_no_file_of_another_models_report_stays_beside_the_new_one(models, chest, tmp_path):
    out = tmp_path / "out"
    assert explain(chest, models / "first", out, "html,json").stderr == ""
    second = explain(chest, models / "second", out, "html")
    assert second.exit_code == 0, second.output
    assert [file.name for file in (out / "chest").iterdir()] == ["report.html"]
    assert second.stderr == (
        f"{chest}: removed from {out / 'chest'}, of another report: report.json\n"
    )


def test_a_format_that_is_asked_for_later_stands_beside_the_others(models, chest, tmp_path):
    for formats in ("html", "json"):
        assert explain(chest, models / "first", tmp_path / "out", formats).stderr == ""
    assert {file.name for file in (tmp_path / "out" / "chest").iterdir()} == {
        "report.html",
        "report.json",
    }


@pytest.mark.usefixtures("pango")
def test_a_jpeg_among_dicom_files_has_all_formats_but_dicom(models, chest, tmp_path):
    picture = chest.with_name("photo.jpg")
    Image.fromarray(np.rint(make_phantom(4, size=200).pixels * 255).astype(np.uint8)).save(picture)
    done = explain(tmp_path, models / "first", tmp_path / "out", "html,dicom,json")
    assert done.exit_code == 1
    assert done.stderr == (
        f"{picture}: the radiograph is a JPEG file, which is of no study; the format 'dicom' needs "
        "a DICOM file. Use html, json, pdf or fhir.\n"
    )
    of_picture = {file.name for file in (tmp_path / "out" / "photo").iterdir()}
    assert of_picture == {"report.html", "report.json"}
    assert (tmp_path / "out" / "chest" / "dicom" / "sr.dcm").is_file()
    assert len(done.stdout.splitlines()) == 2
    # Where nothing else is asked for, nothing is there.
    alone = explain(picture, models / "first", tmp_path / "alone", "dicom")
    assert (alone.exit_code, alone.stdout) == (1, "")
    assert not (tmp_path / "alone").exists()


@contextlib.contextmanager
def terminal_as_stderr(monkeypatch):
    """Give what is written to a terminal; the list is filled at the end."""
    ours, theirs = pty.openpty()
    monkeypatch.setenv("TERM", "xterm")
    monkeypatch.setenv("COLUMNS", "100")
    written = []
    with open(theirs, "w", encoding="utf-8") as terminal, monkeypatch.context() as patch:
        patch.setattr(sys, "stderr", terminal)
        yield written
    with contextlib.suppress(OSError):  # the end of a terminal
        while part := os.read(ours, 4096):
            written.append(part.decode())
    os.close(ours)


def test_each_step_is_named_on_a_terminal(monkeypatch, capsys):
    with terminal_as_stderr(monkeypatch) as written, progress.steps("radiograph 2 of 3") as watch:
        assert list(watch(["grad-cam", "rise"])) == ["grad-cam", "rise"]
    told = "".join(written)
    assert "radiograph 2 of 3, rise" in told
    assert "1/2" in told
    assert capsys.readouterr().out == ""


def test_explain_tells_each_method_of_each_radiograph(models, chest, monkeypatch, tmp_path):
    told = []

    @contextlib.contextmanager
    def listened(what):
        def watch(methods):
            for name in methods:
                told.append((what, name))
                yield name

        yield watch

    monkeypatch.setattr(sys.modules["medllm.cli.explain"], "steps", listened)
    second = write_dicom(make_phantom(4, size=200), tmp_path / "other.dcm")
    given = ["explain", chest, second, "--model", models / "first", "--out", tmp_path / "out"]
    given += ["--method", "grad-cam,gradient-x-activation", "--format", "json"]
    done = CliRunner().invoke(app, [str(word) for word in given])
    assert done.exit_code == 0, done.output
    assert told == [
        (f"radiograph {number} of 2", method)
        for number in (1, 2)
        for method in ("grad-cam", "gradient-x-activation")
    ]
    report = json.loads((tmp_path / "out" / "chest" / "report.json").read_text())
    (other,) = report["findings"][0]["explanation"]["others"]
    assert other["method"] == "gradient-x-activation"


def test_nothing_is_shown_where_stderr_is_no_terminal(models, chest, tmp_path):
    done = explain(chest, models / "first", tmp_path / "out", "json")
    assert (done.exit_code, done.stderr) == (0, "")
