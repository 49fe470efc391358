"""Many files into a folder, the record of it, and tesseract beside it."""

from __future__ import annotations

import json
import os
import sys

import pydicom
import pytest

from medllm.dicom.deidentify import Key, deidentify_file, deidentify_files, write_record
from medllm.errors import DicomError

KEY = Key(bytes(range(32)))


@pytest.fixture
def sources(make_dataset, tmp_path):
    """Three files of two patients, named after them, and one that is none."""
    folder = tmp_path / "in"
    folder.mkdir()
    for number, patient in enumerate(["Zebrowski", "Zebrowski", "Quintilla"]):
        dataset = make_dataset(
            PatientName=patient,
            PatientID=f"ID-{patient}",
            SOPInstanceUID=f"1.2.3.{number}",
            StudyDescription="Studyword",
        )
        dataset.private_block(0x0029, "Privatorius", create=True).add_new(1, "LO", "secret")
        dataset.save_as(folder / f"{patient}{number}.dcm", enforce_file_format=True)
    (folder / "Zebrowski9.dcm").write_bytes(b"not one of them")
    return sorted(folder.iterdir())


def every_byte(folder):
    files = [path for path in folder.rglob("*") if path.is_file()]
    names = "\n".join(str(path.relative_to(folder)) for path in files).encode()
    return (names + b"".join(path.read_bytes() for path in files)).lower()


def test_a_bad_file_is_told_of_and_the_others_are_done(sources, tmp_path):
    out = tmp_path / "out"
    outcomes = list(deidentify_files(sources, out, KEY))
    record = json.loads(write_record(outcomes, out, KEY).read_text())
    assert [outcome.source for outcome in outcomes] == sources
    assert [outcome.error is None for outcome in outcomes] == [True, True, True, False]
    assert outcomes[-1].error.code == "not-an-image-file"
    for outcome in outcomes[:3]:
        dataset = pydicom.dcmread(out / outcome.file)
        assert outcome.file.parent.name == outcome.patient == dataset.PatientID
        assert outcome.file.name == f"{outcome.sop_instance_uid}.dcm"
        assert outcome.sop_instance_uid == dataset.SOPInstanceUID
    assert (record["n_files"], record["n_patients"]) == (3, 2)
    (made,) = record["runs"]
    assert (made["n_inputs"], made["n_files"], made["n_patients"]) == (4, 3, 2)
    assert made["refused"] == {"not-an-image-file": 1}
    assert made["key"] == KEY.fingerprint
    assert [file["file"] for file in made["files"]] == sorted(
        outcome.file.as_posix() for outcome in outcomes[:3]
    )
    rows = {(row["keyword"], row["action"]): row["n_files"] for row in made["attributes"]}
    assert rows["PatientName", "pseudonym"] == 3
    assert rows["StudyDescription", "removed"] == 3
    assert rows["private attributes", "removed"] == 3
    assert rows["ViewPosition", "kept"] == 3


def test_no_name_stands_in_the_folder(sources, tmp_path):
    out = tmp_path / "out"
    write_record(list(deidentify_files(sources, out, KEY)), out, KEY)
    data = every_byte(out)
    for secret in ("zebrowski", "quintilla", "studyword", "privatorius", "1.2.3.", str(tmp_path)):
        assert secret.encode() not in data


def test_a_second_run_writes_the_same_bytes(sources, tmp_path):
    first, second = tmp_path / "first", tmp_path / "second"
    for out, order in ((first, sources), (second, sources[::-1])):
        write_record(list(deidentify_files(order, out, KEY)), out, KEY)
    assert every_byte(first) == every_byte(second)
    before = every_byte(first)
    write_record(list(deidentify_files(sources, first, KEY)), first, KEY)
    assert every_byte(first) == before


def test_the_record_of_an_earlier_run_stays_whatever_its_key(sources, tmp_path):
    out, other = tmp_path / "out", Key(bytes(32))

    def record_of(files, key):
        return json.loads(
            write_record(list(deidentify_files(files, out, key)), out, key).read_text()
        )

    first = record_of(sources[:2], KEY)
    assert (first["n_files"], first["n_patients"]) == (2, 2)
    second = record_of(sources[1:], KEY)
    assert second["runs"][0] == first["runs"][0]
    assert (second["n_files"], second["n_patients"]) == (3, 2)  # one of them is of both runs
    assert [run["n_files"] for run in second["runs"]] == [2, 2]
    third = record_of(sources[:1], other)
    assert third["runs"][:2] == second["runs"]
    assert (third["n_files"], third["n_patients"]) == (4, 3)
    assert third["n_files"] == len(list(out.rglob("*.dcm")))
    assert [run["key"] for run in third["runs"]] == [KEY.fingerprint] * 2 + [other.fingerprint]


def test_a_record_of_one_run_as_it_was_written_before_stays(sources, tmp_path):
    outcomes = list(deidentify_files(sources[:1], tmp_path, KEY))
    path = write_record(outcomes, tmp_path, KEY)
    (before,) = json.loads(path.read_text())["runs"]
    path.write_text(json.dumps(before))
    write_record(list(deidentify_files(sources[1:2], tmp_path, KEY)), tmp_path, KEY)
    assert json.loads(path.read_text())["runs"][0] == before


@pytest.mark.parametrize("there", ["notes of mine", "[1]", "{}"])
def test_what_is_no_record_is_not_written_over(sources, tmp_path, there):
    path = tmp_path / "deidentification.json"
    path.write_text(there)
    with pytest.raises(DicomError, match="move it elsewhere") as caught:
        write_record(list(deidentify_files(sources[:1], tmp_path, KEY)), tmp_path, KEY)
    assert caught.value.code == "not-written"
    assert path.read_text() == there


def test_one_file_twice_is_one_file_and_two_of_one_uid_are_an_error(
    make_dataset, sources, tmp_path
):
    out = tmp_path / "out"
    outcomes = list(deidentify_files([sources[0], sources[0]], out, KEY))
    assert [outcome.error for outcome in outcomes] == [None, None]
    other = pydicom.dcmread(sources[0])
    other.ViewPosition = "AP"
    other.save_as(tmp_path / "other.dcm")
    _, second = deidentify_files([sources[0], tmp_path / "other.dcm"], out, KEY)
    assert second.error.code == "duplicate-uid"
    assert pydicom.dcmread(out / outcomes[0].file).ViewPosition == "PA"


def test_a_full_disk_stops_the_run_and_leaves_whole_files_alone(sources, tmp_path, full_disk):
    out = tmp_path / "out"
    (done,) = deidentify_files(sources[:1], out, KEY)
    before = every_byte(out)
    with full_disk(1000), pytest.raises(DicomError, match="free some space") as caught:
        list(deidentify_files(sources, out, KEY))
    assert caught.value.code == "not-written"
    assert every_byte(out) == before
    assert len(list(deidentify_files(sources, out, KEY))) == 4
    assert {path.suffix for path in out.rglob("*") if path.is_file()} == {".dcm"}
    assert (out / done.file).exists()


@pytest.fixture
def tesseract(tmp_path, monkeypatch):
    """Put a small program of that name on the path; it says what it is told to."""

    def install(words, status=0):
        folder = tmp_path / "bin"
        folder.mkdir(exist_ok=True)
        program = folder / "tesseract"
        program.write_text(
            f"#!{sys.executable}\n"
            "import sys\n"
            "picture = sys.stdin.buffer.read()\n"
            f"open({str(folder / 'picture.png')!r}, 'wb').write(picture)\n"
            "assert sys.argv[1:] == ['-', '-', '--psm', '11'], sys.argv\n"
            f"print({words!r})\n"
            f"sys.exit({status})\n"
        )
        program.chmod(0o755)
        monkeypatch.setenv("PATH", f"{folder}{os.pathsep}{os.environ['PATH']}")
        return folder / "picture.png"

    return install


def gates(made):
    return {gate.code: gate for gate in made.gates}


def test_without_tesseract_it_is_said_that_nobody_looked(sources, monkeypatch, tmp_path):
    monkeypatch.setenv("PATH", str(tmp_path))
    gate = gates(deidentify_file(sources[0], KEY))["text-not-looked-for"]
    assert not gate.passed
    assert "tesseract is not installed" in gate.message


def test_text_that_tesseract_reads_is_told_but_not_repeated(sources, tesseract):
    picture = tesseract("ZEBROWSKI 1931\n\nL")
    gate = gates(deidentify_file(sources[0], KEY))["text-in-pixels"]
    assert not gate.passed
    assert "2 words" in gate.message
    assert "ZEBROWSKI" not in gate.message
    from PIL import Image

    with Image.open(picture) as seen:
        assert seen.size == (80, 96)
        assert seen.getextrema()[1] > 200  # as a reader sees it, by its window


def test_where_tesseract_reads_nothing_nothing_is_promised(sources, tesseract):
    tesseract("L\n| -")
    made = deidentify_file(sources[0], KEY)
    assert gates(made)["text-in-pixels"].passed
    assert "text-in-pixels" not in {gate.code for gate in made.warnings}
    assert gates(made)["text-in-pixels"].message == "none found"


def test_where_tesseract_fails_it_is_said_that_nobody_looked(sources, tesseract):
    tesseract("words words", status=1)
    gate = gates(deidentify_file(sources[0], KEY))["text-not-looked-for"]
    assert "tesseract failed" in gate.message


def test_pixels_that_cannot_be_decoded_are_not_looked_at(make_dataset, write, tesseract):
    tesseract("words words")
    made = deidentify_file(write(make_dataset(BitsStored=13, HighBit=14)), KEY)
    assert "cannot be decoded" in gates(made)["text-not-looked-for"].message
