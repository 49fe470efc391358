"""`medllm send` and `medllm fetch` as a user runs them."""

from __future__ import annotations

import dataclasses
import json

import pydicom
import pytest
from typer.testing import CliRunner

from medllm.cli import app, main
from medllm.cli.explain import write_report
from medllm.dicom import read_radiograph
from medllm.phantom import Lesion, make_phantom, write_dicom

pytestmark = pytest.mark.usefixtures("sound_sockets")


@pytest.fixture(scope="module")
def chest(tmp_path_factory):
    """A radiograph with an accession number."""
    file = tmp_path_factory.mktemp("chest") / "chest.dcm"
    write_dicom(make_phantom(3, size=256, lesions=[Lesion("effusion", "left")]), file)
    dataset = pydicom.dcmread(file)
    dataset.AccessionNumber = "ACC-55"
    dataset.save_as(file)
    return file


def run(*arguments):
    return CliRunner().invoke(app, [str(argument) for argument in arguments])


def run_main(capsys, monkeypatch, *arguments):
    """Run with `main`, which turns errors into exit statuses."""
    monkeypatch.setattr("sys.argv", ["medllm", *map(str, arguments)])
    with pytest.raises(SystemExit) as ended:
        main()
    return ended.value.code, capsys.readouterr()


@pytest.fixture
def impatient(monkeypatch):
    monkeypatch.setattr("medllm.dicom.network.retry.time.sleep", lambda _: None)


@pytest.fixture(scope="module")
def results(pango, tiny_model, chest, tmp_path_factory):
    """The folder of its report, and the DICOM objects in it by their UIDs."""
    folder = tmp_path_factory.mktemp("out")
    card = dataclasses.replace(tiny_model.card, questions=tiny_model.card.questions[:1])
    model = dataclasses.replace(tiny_model, card=card)
    write_report(model, read_radiograph(chest), folder, ["dicom", "html"], None, ["occlusion"])
    objects = {str(pydicom.dcmread(path).SOPInstanceUID) for path in folder.rglob("*.dcm")}
    assert len(objects) >= 5  # SR, SEG, SC, GSPS and PDF
    return folder, objects


@pytest.mark.integration
@pytest.mark.parametrize("road", ["dicom_url", "web_url"])
def test_the_results_are_seen_in_the_study_that_they_explain(
    orthanc, chest, results, free_port, tmp_path, road
):
    (folder, objects), url = results, getattr(orthanc, road)
    sent = run("send", chest, "--to", url)
    assert (sent.exit_code, sent.stdout) == (0, f"{chest}  taken\n")
    for _ in range(2):  # the second time, too, it is the same objects
        sent = run("send", folder, "--to", url)
        assert sent.exit_code == 0, sent.output
        assert f"{len(objects)} of {len(objects)} files taken by {url}" in sent.stderr
    header = pydicom.dcmread(chest)
    everything = {str(header.SOPInstanceUID), *objects}
    seen = orthanc.ask(f"/dicom-web/studies/{header.StudyInstanceUID}/instances")
    assert {one["00080018"]["Value"][0] for one in seen} == everything
    assert orthanc.instances() == everything

    port = free_port()
    orthanc.introduce("MEDLLM", port)
    fetched = run("fetch", "--from", url, "--accession", "ACC-55", "--port", port,
                  "--out", tmp_path / "in")  # fmt: skip
    assert fetched.exit_code == 0, fetched.output
    files = {file.stem: file for file in (tmp_path / "in").iterdir()}
    assert set(files) == everything
    assert sorted(fetched.stdout.split()) == sorted(map(str, files.values()))
    assert f"{len(files)} of {len(files)} objects" in fetched.stderr
    for path in (chest, *folder.rglob("*.dcm")):
        wanted = pydicom.dcmread(path)
        assert pydicom.dcmread(files[str(wanted.SOPInstanceUID)]) == wanted


@pytest.mark.integration
def test_a_line_of_json_an_object(orthanc, chest, tmp_path):
    (tmp_path / "text.dcm").write_text("no DICOM at all\n" * 20)
    sent = run("send", chest, tmp_path, "--to", orthanc.dicom_url, "--json")
    assert sent.exit_code == 1
    bad, good = map(json.loads, sent.stdout.splitlines())
    uid = str(pydicom.dcmread(chest).SOPInstanceUID)
    assert good == {"path": str(chest), "sop_instance_uid": uid, "remark": "", "error": None}
    assert bad["error"]["code"] == "not-an-image-file"
    assert bad["error"]["message"].startswith(str(tmp_path / "text.dcm"))
    assert f"1 of 2 files taken by {orthanc.dicom_url}" in sent.stderr

    study = pydicom.dcmread(chest).StudyInstanceUID
    for new in (True, False):
        fetched = run("fetch", "--from", orthanc.web_url, "--study", study,
                      "--out", tmp_path / "in", "--json")  # fmt: skip
        assert fetched.exit_code == 0, fetched.output
        assert json.loads(fetched.stdout) == {
            "path": str(tmp_path / "in" / f"{uid}.dcm"),
            "sop_instance_uid": uid,
            "new": new,
            "error": None,
        }


@pytest.mark.usefixtures("impatient")
def test_a_pacs_that_is_away_is_one_line_for_people_and_one_a_file_for_programs(chest, free_port):
    url = f"dicom://PACS@127.0.0.1:{free_port()}"
    sent = run("send", chest, chest.parent, "--to", url)
    assert sent.exit_code == 1
    assert sent.stdout == ""
    first, last = sent.stderr.splitlines()
    assert first.startswith(f"nobody answers at {url} (Connection refused)")
    assert last == f"0 of 2 files taken by {url}"
    lines = run("send", chest, "--to", url, "--json").stdout.splitlines()
    assert [json.loads(line)["error"]["code"] for line in lines] == ["peer-away"]


@pytest.mark.usefixtures("impatient")
def test_a_file_that_is_not_there_is_told_and_the_others_are_sent(chest, free_port, tmp_path):
    absent, url = tmp_path / "absent.dcm", f"dicom://PACS@127.0.0.1:{free_port()}"
    told, away, last = run("send", absent, chest, "--to", url).stderr.splitlines()
    assert told == f"{absent}: no such file or folder; check it."
    assert away.startswith(f"nobody answers at {url}")
    assert last == f"0 of 2 files taken by {url}"
    lines = run("send", absent, chest, "--to", url, "--json").stdout.splitlines()
    codes = {line["path"]: line["error"]["code"] for line in map(json.loads, lines)}
    assert codes == {str(absent): "file-not-found", str(chest): "peer-away"}


@pytest.mark.usefixtures("impatient")
@pytest.mark.parametrize(
    ("arguments", "code", "words"),
    [
        (["send", "FILE", "--to", "PACS:104"], 1, "no address of a PACS"),
        (["send", "FILE", "--to", "https://me:secret@h/rs"], 1, "MEDLLM_DICOMWEB_LOGIN"),
        (["send", "absent.dcm", "--to", "dicom://A@127.0.0.1:1"], 1, "absent.dcm: no such file"),
        (["send", "EMPTY", "--to", "dicom://A@127.0.0.1:1"], 1, "no DICOM file was found in"),
        (["send", "FILE"], 2, "--to"),
        (["send", "FILE", "--to", "dicoms://A@127.0.0.1:1", "--tls-ca", "no.pem"], 1, "no.pem"),
        (["fetch", "--from", "http://127.0.0.1:1/rs"], 2, "give one of the two"),
        (["fetch", "--from", "http://127.0.0.1:1/rs", "--study", "1.2", "--accession", "A"], 2,
         "give one of the two"),
        (["fetch", "--from", "http://127.0.0.1:1/rs", "--study", "../x"], 2, "form of a UID"),
        (["fetch", "--from", "http://127.0.0.1:1/rs", "--accession", "A*"], 2, "without '*'"),
        (["fetch", "--from", "http://127.0.0.1:1/rs", "--study", "1.2"], 1, "nobody answers"),
        (["fetch", "--from", "dicom://A@127.0.0.1:1", "--study", "1.2"], 1, "nobody answers"),
    ],
)  # fmt: skip
def test_what_is_wrong_is_said_in_one_line(
    chest, tmp_path, capsys, monkeypatch, arguments, code, words
):
    places = {"FILE": chest, "EMPTY": tmp_path}
    arguments = [places.get(argument, argument) for argument in arguments]
    status, shown = run_main(capsys, monkeypatch, *arguments)
    assert status == code
    assert words in " ".join(shown.err.replace("│", " ").split())
    assert "secret" not in shown.err
    assert "Traceback" not in shown.err
