from __future__ import annotations

import json
import shutil
import stat

import pydicom
import pytest
from PIL import Image
from typer.testing import CliRunner

from medllm.cli import app
from medllm.phantom import make_phantom, write_dicom


@pytest.fixture
def study(tmp_path):
    """A study of two images in a folder named after its patient."""
    folder = tmp_path / "Zebrowski"
    folder.mkdir()
    for view in ("PA", "AP"):
        path = write_dicom(make_phantom(3, size=64, view=view), folder / f"Zebrowski-{view}.dcm")
        dataset = pydicom.dcmread(path)
        dataset.PatientName, dataset.PatientID = "Zebrowski^Quintilla", "QX7731904"
        dataset.SOPInstanceUID = "1.2.3.1" if view == "PA" else "1.2.3.2"
        dataset.save_as(path)
    return folder


@pytest.fixture
def key(tmp_path):
    path = tmp_path / "site.key"
    path.write_bytes(bytes(range(32)))
    path.chmod(0o600)
    return path


def run(*arguments):
    return CliRunner().invoke(app, ["deidentify", *map(str, arguments)])


def test_a_study_goes_through(study, key, tmp_path):
    out = tmp_path / "out"
    result = run(study, "--out", out, "--key", key)
    assert result.exit_code == 0, result.output
    assert result.stderr == ""
    assert "2 of 2 files de-identified; patients: 1; key: " in result.stdout
    assert "look at each image" in result.stdout
    files = sorted(out.rglob("*.dcm"))
    assert len(files) == 2
    assert {pydicom.dcmread(file).PatientID for file in files} == {files[0].parent.name}
    assert json.loads((out / "deidentification.json").read_text())["n_files"] == 2


def test_no_output_names_the_patient_or_calls_an_image_clean(study, key, programs, tmp_path):
    out = tmp_path / "out"
    (study / "bad.dcm").write_bytes(b"x")
    done = programs.run("--verbose", "deidentify", study, "--out", out, "--key", key)
    assert done.wait() == 1
    # A refused file is named on stderr by the path that the user gave, and nowhere else.
    told = done.stdout + done.stderr.replace(f"{study}/bad.dcm", "")
    told += (out / "deidentification.json").read_text()
    told += "\n".join(str(path.relative_to(out)) for path in out.rglob("*"))
    for word in ("Zebrowski", "Quintilla", "QX7731904", "clean"):
        assert word.lower() not in told.lower()


def test_a_key_that_is_not_there_is_made_and_said(study, tmp_path):
    key = tmp_path / "new.key"
    first = run(study, "--out", tmp_path / "one", "--key", key)
    assert first.exit_code == 0, first.output
    assert f"{key}: new key" in first.stderr
    assert stat.S_IMODE(key.stat().st_mode) == 0o600
    assert key.read_bytes().hex() not in first.output
    second = run(study, "--out", tmp_path / "two", "--key", key)
    assert second.stderr == ""
    names = [sorted(p.name for p in (tmp_path / out).rglob("*.dcm")) for out in ("one", "two")]
    assert names[0] == names[1]


def test_bad_inputs_are_told_and_the_others_are_done(study, key, tmp_path):
    Image.new("L", (80, 80)).save(study / "scan.png")
    (study / "cut.dcm").write_bytes((study / "Zebrowski-PA.dcm").read_bytes()[:900])
    burned = pydicom.dcmread(study / "Zebrowski-PA.dcm")
    burned.BurnedInAnnotation = "YES"
    burned.save_as(study / "burned.dcm")
    out = tmp_path / "out"
    result = run(study, "--out", out, "--key", key)
    assert result.exit_code == 1
    assert "2 of 5 files de-identified" in result.stdout
    assert len(result.stderr.splitlines()) == 3
    assert "PNG files have no header" in result.stderr
    assert "accept 'burned-in-annotation'" in result.stderr
    (made,) = json.loads((out / "deidentification.json").read_text())["runs"]
    assert made["refused"].keys() >= {"no-header", "burned-in-annotation"}
    burned_in = ("--accept", "burned-in-annotation")
    accepted = run(study / "burned.dcm", "--out", out, "--key", key, *burned_in)
    assert accepted.exit_code == 0, accepted.output
    assert "burned-in-annotation 1" in accepted.stdout


def test_an_input_that_is_not_there_is_told_and_the_others_are_done(study, key, tmp_path):
    out, missing = tmp_path / "out", tmp_path / "missing.dcm"
    result = run(missing, study, "--out", out, "--key", key)
    assert result.exit_code == 1
    assert result.stderr == f"{missing}: no such file or folder; check it.\n"
    assert "2 of 3 files de-identified" in result.stdout
    (made,) = json.loads((out / "deidentification.json").read_text())["runs"]
    assert (made["n_inputs"], made["refused"]) == (3, {"file-not-found": 1})


def test_where_no_input_is_there_no_key_is_made(tmp_path):
    key = tmp_path / "new.key"
    result = run(tmp_path / "a.dcm", tmp_path / "b.dcm", "--out", tmp_path / "out", "--key", key)
    assert result.exit_code == 1
    assert [line.split(":")[0] for line in result.stderr.splitlines()] == [
        str(tmp_path / name) for name in ("a.dcm", "b.dcm")
    ]
    assert list(tmp_path.iterdir()) == []


def test_an_attribute_that_names_somebody_is_taken_out_when_asked(study, key, tmp_path):
    path = study / "Zebrowski-PA.dcm"
    dataset = pydicom.dcmread(path)
    dataset.StationName = "QUINTILLA 1"
    dataset.save_as(path)
    result = run(path, "--out", tmp_path / "out", "--key", key)
    assert result.exit_code == 1
    assert "Station Name (0008,1010)" in result.stderr
    assert "--remove" in result.stderr
    result = run(path, "--out", tmp_path / "out", "--key", key, "--remove", "StationName")
    assert result.exit_code == 0, result.output


@pytest.mark.parametrize(
    ("arguments", "wanted"),
    [
        (["--accept", "not-a-radiograph"], "is not one of: burned-in-annotation"),
        (["--remove", "PixelData"], "is not the keyword"),
        (["--remove", "Nonsense"], "is not the keyword"),
        (["--key", "OUT/site.key"], "would get the key"),
    ],
)
def test_wrong_use_is_said_before_anything_is_written(study, key, tmp_path, arguments, wanted):
    out = tmp_path / "out"
    arguments = [each.replace("OUT", str(out)) for each in arguments]
    given = [] if "--key" in arguments else ["--key", key]
    result = run(study, "--out", out, *given, *arguments)
    assert result.exit_code == 2
    assert wanted in " ".join(result.stderr.replace("│", " ").split())
    assert not out.exists()


def test_what_is_no_key_and_an_empty_folder_are_errors(study, key, tmp_path):
    key.chmod(0o644)
    result = run(study, "--out", tmp_path / "out", "--key", key)
    assert (result.exit_code, result.exception.code) == (1, "bad-key")
    shutil.rmtree(study)
    study.mkdir()
    result = run(study, "--out", tmp_path / "out", "--key", key)
    assert (result.exit_code, result.exception.code) == (1, "no-input")
