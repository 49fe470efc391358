"""No command tells what stands in a header, also where pydicom would."""

from __future__ import annotations

import dataclasses
import json

import pydicom
import pynetdicom
import pytest
from pydicom.config import disable_value_validation

from medllm.models import Calibration, save_model
from medllm.phantom import make_phantom, write_dicom

# Runs commands as the command line does, in one process: libraries are imported in the first.
PROGRAM = """
import json, sys, warnings
# Python itself shows each warning, so that only the commands keep them back.
warnings.simplefilter("always", UserWarning)
from medllm.cli import app
for arguments in json.loads(sys.argv[1]):
    try:
        app(arguments)
    except SystemExit as ended:
        print("status", ended.code)
    except Exception as error:
        print("status", type(error).__name__)
"""
# A patient's name, by mistake, in values that pydicom looks at: it quotes each in its warning.
PLANTED = {
    b"ISO_IR 100": b"Quillon_Zy",  # Specific Character Set
    b"123456789012": b"Zyxw Quillon",  # Series Number, an integer
    b"4567": b"Zyxw",  # Instance Number
}


@pytest.fixture(scope="module")
def folder(tmp_path_factory, tiny_model):
    """A malformed radiograph, as a data set of one image, and a model for it."""
    folder = tmp_path_factory.mktemp("malformed")
    path = write_dicom(make_phantom(3, size=256), folder / "chest.dcm")
    dataset = pydicom.dcmread(path)
    with disable_value_validation():
        dataset.SpecificCharacterSet = "ISO_IR 100"
        dataset.PatientName, dataset.PatientID = "Zyxwvut^Quillon", "PID-4711-Q"
        dataset.SeriesNumber, dataset.InstanceNumber = "123456789012", "4567"
        dataset.save_as(path)
    content = path.read_bytes()
    for good, bad in PLANTED.items():
        assert content.count(good) == 1
        content = content.replace(good, bad)
    path.write_bytes(content)
    (folder / "labels.csv").write_text("path,pneumonia\nchest.dcm,1\n")
    eager = Calibration(low=0.0, high=0.0, fitted_on="nothing")
    question = dataclasses.replace(tiny_model.card.questions[0], calibration=eager)
    card = dataclasses.replace(tiny_model.card, questions=(question,))
    save_model(dataclasses.replace(tiny_model, card=card), folder / "model")
    return folder


@pytest.fixture
def pacs(free_port):
    """The address of a node that takes what it is sent."""
    entity = pynetdicom.AE("PACS")
    entity.supported_contexts = pynetdicom.StoragePresentationContexts
    port, taken = free_port(), [(pynetdicom.evt.EVT_C_STORE, lambda _: 0x0000)]
    server = entity.start_server(("127.0.0.1", port), block=False, evt_handlers=taken)
    yield f"dicom://PACS@127.0.0.1:{port}"
    server.shutdown()


def test_pydicom_would_tell(folder, caplog):
    with pytest.warns(UserWarning, match="Quillon_Zy"):
        dataset = pydicom.dcmread(folder / "chest.dcm")
    with pytest.warns(UserWarning, match="Zyxw Quillon"):
        dataset["SeriesNumber"]
    assert "Quillon_Zy" in caplog.text
    assert "Zyxw Quillon" in caplog.text


@pytest.mark.parametrize("told", [["--verbose"], []], ids=["verbose", "plain"])
def test_no_command_tells_a_value_of_a_malformed_header(folder, pacs, programs, tmp_path, told):
    file, model = folder / "chest.dcm", ["--model", folder / "model"]
    commands = [
        ["inspect", file],
        ["classify", file, *model],
        ["explain", file, *model, "--method", "occlusion", "--format", "html,json,dicom,fhir",
         "--with-identity", "--out", tmp_path / "reports"],
        ["evaluate", "csv", "--root", folder, *model, "--out", tmp_path / "evaluation"],
        ["deidentify", file, "--out", tmp_path / "research", "--key", tmp_path / "site.key"],
        ["send", file, "--to", pacs],
    ]  # fmt: skip
    asked = json.dumps([[*told, *map(str, command)] for command in commands])
    done = programs.run(asked, code=PROGRAM, folder=tmp_path)
    assert (done.stdout.count("\nstatus"), done.wait()) == (len(commands), 0), done.stderr
    # They did read the file.
    assert len(list(tmp_path.glob("reports/*/dicom/*.dcm"))) >= 4
    assert f"{file}  taken" in done.stdout
    assert "have it taken out as well with --remove" in done.stderr
    written = done.stdout + done.stderr
    for trace in ("zyx", "quillon", "4711"):
        assert trace not in written.lower()
