"""What `medllm explain` leaves in a folder, and what it says meanwhile."""

from __future__ import annotations

import contextlib
import dataclasses
import json
import os
import pty
import sys

import numpy as np
import pyarrow.parquet as pq
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


NOTE = "maps not drawn, since a check failed: "


def told(done):
    """What was told on stderr, but for how many maps the checks refused."""
    return "".join(line for line in done.stderr.splitlines(True) if not line.startswith(NOTE))


def test_how_many_maps_are_refused_is_told_with_another_method(models, chests, tmp_path):
    done = explain(chests, models / "first", tmp_path / "out", "json")
    reports = [json.loads(file.read_text()) for file in tmp_path.glob("out/*/report.json")]
    verdicts = [report["findings"][0]["explanation"]["verdict"] for report in reports]
    assert {"do not use"} < set(verdicts)  # some, and not all
    refused = f"{NOTE}{verdicts.count('do not use')} of 3 (the reports say which)"
    assert done.stderr == f"{refused}; another method beside: --method grad-cam,patch-shapley\n"
    given = ["explain", chests, "--model", models / "first", "--out", tmp_path / "both"]
    both = [*map(str, given), "--method", "grad-cam,patch-shapley", "--format", "json"]
    assert CliRunner().invoke(app, both).stderr == f"{refused}\n"


def test_no_file_of_another_models_report_stays_beside_the_new_one(models, chest, tmp_path):
    out = tmp_path / "out"
    assert told(explain(chest, models / "first", out, "html,json")) == ""
    second = explain(chest, models / "second", out, "html")
    assert second.exit_code == 0, second.output
    assert [file.name for file in (out / "chest").iterdir()] == ["report.html"]
    assert told(second) == (
        f"{chest}: removed from {out / 'chest'}, of another report: report.json\n"
    )


def test_a_format_that_is_asked_for_later_stands_beside_the_others(models, chest, tmp_path):
    for formats in ("html", "json"):
        assert told(explain(chest, models / "first", tmp_path / "out", formats)) == ""
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
    assert told(done) == (
        f"{picture}: the radiograph is a JPEG file, which is of no study; the format 'dicom' needs "
        "a DICOM file. Use html, json, pdf or fhir.\n"
    )
    of_picture = {file.name for file in (tmp_path / "out" / "photo").iterdir()}
    assert of_picture == {"report.html", "report.json"}
    assert (tmp_path / "out" / "chest" / "dicom" / "sr.dcm").is_file()
    assert len(done.stdout.splitlines()) == 3  # the overview of both is the last
    # Where nothing else is asked for, nothing is there.
    alone = explain(picture, models / "first", tmp_path / "alone", "dicom")
    assert (alone.exit_code, alone.stdout) == (1, "")
    assert not (tmp_path / "alone").exists()


@pytest.fixture
def chests(chest):
    """Three radiographs in a folder of their own."""
    folder = chest.with_name("study")
    folder.mkdir()
    for number, name in enumerate("abc"):
        write_dicom(make_phantom(number, size=200), folder / f"{name}.dcm")
    return folder


def names_in(table):
    return [row["report"] for row in pq.read_table(table).to_pylist()]


def test_many_reports_have_an_overview_that_is_named_last(models, chests, chest, tmp_path):
    out = tmp_path / "out"
    index, table = out / "index.html", out / "explanations.parquet"
    # A radiograph alone needs none, and reports without report.json cannot be looked over.
    explain(chest, models / "first", out, "html,json")
    explain(chests, models / "first", out, "html")
    assert not index.exists()
    assert not table.exists()
    done = explain(chests, models / "first", out, "json")
    assert (done.exit_code, told(done)) == (0, "")
    assert done.stdout.splitlines()[-1] == f"4 reports  {index}  {table}"
    assert names_in(table) == ["a", "b", "c", "chest"]
    assert 'href="./a/report.html"' in index.read_text()
    # It tells of what is there: the reports of another model have taken the place of three.
    again = explain(chests, models / "second", out, "html")
    assert again.exit_code == 0
    assert "removed, of reports that are no longer there: explanations.parquet, index.html" in (
        again.stderr
    )
    assert {file.name for file in out.iterdir()} == {"a", "b", "c", "chest"}


def test_an_overview_is_written_in_spite_of_a_bad_input_and_of_a_foreign_report(
    models, chests, tmp_path
):
    (chests / "b.dcm").write_bytes((chests / "b.dcm").read_bytes()[:2000])
    (tmp_path / "out" / "others").mkdir(parents=True)
    (tmp_path / "out" / "others" / "report.json").write_text('{"tests": 3}')
    done = explain(chests, models / "first", tmp_path / "out", "json")
    assert done.exit_code == 1
    assert f"{chests / 'b.dcm'}" in done.stderr
    assert told(done).splitlines()[-1] == (
        f"{tmp_path / 'out'}: files from which no report could be read, and left out of the "
        "overview: 1 (others/report.json)"
    )
    assert names_in(tmp_path / "out" / "explanations.parquet") == ["a", "c"]


def test_a_run_that_is_stopped_leaves_an_overview_of_what_it_did(
    models, chests, tmp_path, monkeypatch
):
    module = sys.modules["medllm.cli.explain"]
    make = module._made

    def stopped(model, scan, *others, **options):
        if scan.path.stem == "c":
            raise KeyboardInterrupt
        return make(model, scan, *others, **options)

    monkeypatch.setattr(module, "_made", stopped)
    done = explain(chests, models / "first", tmp_path / "out", "json")
    assert done.exit_code == 130
    assert done.stdout.splitlines()[-1].startswith("2 reports  ")
    assert names_in(tmp_path / "out" / "explanations.parquet") == ["a", "b"]


def test_a_page_of_others_is_left_and_the_reports_are_written(models, chests, tmp_path):
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "index.html").write_text("mine")
    done = explain(chests, models / "first", tmp_path / "out", "json")
    assert done.exit_code == 1
    assert told(done) == (
        f"{tmp_path / 'out' / 'index.html'} is not an overview of reports that medllm wrote, and "
        "is left as it is; for an overview, move it, or give the reports a folder of their own.\n"
    )
    assert (tmp_path / "out" / "index.html").read_text() == "mine"
    assert {file.name for file in (tmp_path / "out").iterdir()} == {"a", "b", "c", "index.html"}
    assert all((tmp_path / "out" / name / "report.json").is_file() for name in "abc")


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
    assert (done.exit_code, told(done)) == (0, "")
