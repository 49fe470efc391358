"""`medllm listen` as its user runs it: a process that is sent images, and killed."""

from __future__ import annotations

import contextlib
import dataclasses
import json
import os
import signal
import time
from collections import Counter

import pydicom
import pytest
from pydicom.uid import JPEG2000Lossless
from typer.testing import CliRunner

from medllm.cli import app
from medllm.cli.listen import _explainer
from medllm.dicom.network import parse_peer, store
from medllm.dicom.network.inbox import Inbox
from medllm.dicom.network.node import PassedOverError
from medllm.errors import DicomError, LabelError, MedllmError
from medllm.models import Calibration, load_model, save_model
from medllm.phantom import make_phantom, write_dicom
from tests.models.architectures.checkpoints import write_checkpoint

METHOD = "grad-cam"  # the fastest


@pytest.fixture(scope="module")
def checkpoint(tiny_model, tmp_path_factory):
    """A saved tiny checkpoint whose calls are all positive, so that all is explained."""
    eager = Calibration(low=0.0, high=0.0, fitted_on="nothing")
    questions = tuple(dataclasses.replace(q, calibration=eager) for q in tiny_model.card.questions)
    card = dataclasses.replace(tiny_model.card, questions=questions[:1])
    folder = tmp_path_factory.mktemp("models") / "tiny"
    save_model(dataclasses.replace(tiny_model, card=card), folder)
    return folder


@pytest.fixture(scope="module")
def study(tmp_path_factory):
    """One patient's study: DX, CR with MONOCHROME1, and DX again in JPEG 2000."""
    folder = tmp_path_factory.mktemp("study")
    phantom = make_phantom(3, size=128, lesions=[])
    return [
        write_dicom(phantom, folder / "dx.dcm"),
        write_dicom(
            phantom, folder / "cr.dcm", modality="CR", photometric_interpretation="MONOCHROME1"
        ),
        write_dicom(
            phantom,
            folder / "j2k.dcm",
            photometric_interpretation="MONOCHROME1",
            transfer_syntax=JPEG2000Lossless,
        ),
    ]


class Listener:
    """A `medllm listen` process, and what it and its predecessors have logged."""

    def __init__(self, programs, log, port, *options):
        self.log, self.port = log, port
        self.program = programs.start("listen", "--port", port, *options, log=log)

    def lines(self, event):
        """What was logged of an event, by all processes that wrote to the log."""
        lines = [line.split() for line in self.log.read_text().splitlines()]
        return [line for line in lines if line[1:2] == [event]]

    def wait_for(self, event, n=1):
        wait_until(lambda: len(self.lines(event)) >= n, self.log)

    def end(self, number):
        """Send it a signal, and give its exit status."""
        self.program.send_signal(number)
        return self.program.wait()

    @property
    def url(self):
        return f"dicom://MEDLLM@127.0.0.1:{self.port}"


def wait_until(condition, log):
    deadline = time.monotonic() + 120
    while not condition():
        assert time.monotonic() < deadline, log.read_text()
        time.sleep(0.02)


@pytest.fixture
def listen(tmp_path, checkpoint, free_port, programs):
    """Start a listener on the test's inbox, as often as it is killed."""
    started = []

    def start(*options):
        listener = Listener(
            programs,
            tmp_path / "log",
            free_port(),
            *("--inbox", tmp_path / "inbox", "--model", checkpoint, "--method", METHOD),
            *options,
        )
        started.append(listener)
        listener.wait_for("listening", len(started))
        return listener

    yield start
    for listener in started:
        listener.end(signal.SIGKILL)


@contextlib.contextmanager
def receiving(port):
    """A PACS that counts what it is sent."""
    from pynetdicom import AE, ALL_TRANSFER_SYNTAXES, AllStoragePresentationContexts, evt

    came = []

    def on_store(event):
        came.append(event.dataset)
        return 0

    entity = AE("PACS")
    for context in AllStoragePresentationContexts:
        entity.add_supported_context(context.abstract_syntax, ALL_TRANSFER_SYNTAXES)
    entity.start_server(
        ("127.0.0.1", port), block=False, evt_handlers=[(evt.EVT_C_STORE, on_store)]
    )
    try:
        yield came
    finally:
        entity.shutdown()


def send_all(study, node):
    assert [sent.error for sent in store(study, parse_peer(node.url))] == [None] * len(study)


@pytest.mark.usefixtures("pango")
def test_nothing_is_lost_or_done_twice_however_often_it_is_killed(
    listen, study, free_port, tmp_path
):
    study = study[:2]

    def images(state):
        return len(list((tmp_path / "inbox" / state).glob("*/*[!s]")))  # all but .tries

    port = free_port()  # nobody is there yet
    options = ("--send-to", f"dicom://PACS@127.0.0.1:{port}", "--quiet-seconds", "0.2")

    # Killed while it waits for the rest of the study.
    node = listen(*options[:2], "--quiet-seconds", "60")
    send_all(study, node)
    assert node.end(signal.SIGKILL) == -signal.SIGKILL
    assert images("waiting") == 2

    # Killed while it explains.
    node = listen(*options)
    node.wait_for("explained")
    node.end(signal.SIGKILL)
    assert images("outgoing") == images("working") == 1

    # Killed between results made and sent: the PACS is still away.
    node = listen(*options)
    send_all(study, node)
    wait_until(lambda: images("outgoing") == 2, node.log)
    node.end(signal.SIGKILL)

    with receiving(port) as came:
        node = listen(*options)
        node.wait_for("sent", 2)
        assert node.end(signal.SIGTERM) == 0
    assert images("waiting") == images("working") == images("outgoing") == 0
    assert images("done") == 2

    explained = Counter(line[3] for line in node.lines("explained"))
    assert set(explained.values()) == {1}, "no image was explained twice"
    uids = Counter(dataset.SOPInstanceUID for dataset in came)
    assert set(uids.values()) == {1}, "no result was sent twice"
    assert {dataset.StudyInstanceUID for dataset in came} == {
        pydicom.dcmread(file).StudyInstanceUID for file in study
    }
    assert len([dataset for dataset in came if dataset.Modality == "SR"]) == 2
    assert "PHANTOM" not in node.log.read_text()


@pytest.mark.integration
@pytest.mark.usefixtures("pango")
def test_results_return_to_their_study_in_a_pacs_across_a_kill(listen, study, orthanc):
    assert [sent.error for sent in store(study, parse_peer(orthanc.dicom_url))] == [None] * 3
    (identifier,) = orthanc.ask("/studies")
    options = ("--send-to", orthanc.web_url, "--quiet-seconds", "0.2")

    node = listen(*options)
    orthanc.introduce("MEDLLM", node.port)
    orthanc.ask("/modalities/MEDLLM/store", "POST", identifier)
    node.wait_for("explained")
    node.end(signal.SIGKILL)

    node = listen(*options)
    orthanc.introduce("MEDLLM", node.port)
    node.wait_for("sent", 3)
    # The PACS forwards the whole study again, with the results: there is nothing new in it.
    n_results = len(orthanc.instances()) - len(study)
    orthanc.ask("/modalities/MEDLLM/store", "POST", identifier)
    node.wait_for("passed-over", n_results)
    assert node.end(signal.SIGINT) == 0

    assert set(Counter(line[3] for line in node.lines("explained")).values()) == {1}
    assert not node.lines("rejected")
    assert not node.lines("refused")
    assert len(orthanc.ask("/studies")) == 1
    uid = pydicom.dcmread(study[0]).StudyInstanceUID
    found = orthanc.ask(f"/dicom-web/studies/{uid}/instances")
    assert len(found) == len(study) + n_results
    modalities = Counter(one["00080060"]["Value"][0] for one in found)
    assert modalities["SR"] == 3
    assert (modalities["DX"], modalities["CR"]) == (2, 1)


def test_a_second_listener_on_an_inbox_is_refused(tmp_path, checkpoint):
    with Inbox(tmp_path):
        result = CliRunner().invoke(app, ["listen", "--inbox", str(tmp_path), "--port", "0"])
    assert isinstance(result.exception, MedllmError)
    assert result.exception.code == "inbox-in-use"


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--host", "0.0.0.0"], "name those that may send"),  # noqa: S104
        (["--method", "guess"], "'guess' is not one of"),
        (["--port", "70000"], "'--port'"),
    ],
)
def test_wrong_usage_is_said(options, message, tmp_path):
    result = CliRunner().invoke(app, ["listen", "--inbox", str(tmp_path / "inbox"), *options])
    assert result.exit_code == 2
    assert message in result.output
    assert not (tmp_path / "inbox").exists()


def test_a_model_that_calls_nothing_is_told_what_to_explain(study, tmp_path):
    folder, inbox = write_checkpoint("clip", tmp_path / "model"), tmp_path / "inbox"
    options = ["listen", "--inbox", str(inbox), "--model", str(folder)]
    unnamed = CliRunner().invoke(app, options)
    assert unnamed.exit_code == 2
    assert "name what to explain" in unnamed.output
    unknown = CliRunner().invoke(app, [*options, "--finding", "mas"])
    assert isinstance(unknown.exception, LabelError)
    _explainer(load_model(folder), ["json"], ["occlusion"], ["mass"])(study[0], tmp_path)
    report = json.loads((tmp_path / "report.json").read_text())
    assert [one["finding"] for one in report["findings"] if one["explanation"]] == ["mass"]


@pytest.fixture
def explain(tiny_model):
    return _explainer(tiny_model, ["json"], [METHOD])


@pytest.mark.parametrize(
    ("attribute", "value", "code"),
    [
        ("ViewPosition", "LL", "lateral-view"),
        ("BodyPartExamined", "HAND", "not-chest"),
        ("Modality", "MR", "not-a-radiograph"),
        ("PresentationIntentType", "FOR PROCESSING", "for-processing"),
    ],
)
def test_what_the_models_are_not_for_is_passed_over(
    explain, study, tmp_path, attribute, value, code
):
    image = pydicom.dcmread(study[0])
    if attribute == "ViewPosition":
        del image.ViewCodeSequence
    if attribute == "BodyPartExamined":
        del image.AnatomicRegionSequence
    setattr(image, attribute, value)
    image.save_as(tmp_path / "image.dcm")
    results = tmp_path / "results"
    results.mkdir()
    with pytest.raises(PassedOverError) as caught:
        explain(tmp_path / "image.dcm", results)
    assert caught.value.code == code
    assert not list(results.iterdir())


def test_an_image_with_damaged_pixels_is_at_fault(explain, study, tmp_path):
    image = pydicom.dcmread(study[0])
    image.PixelData = image.PixelData[:5000]
    image.save_as(tmp_path / "image.dcm")
    with pytest.raises(DicomError) as caught:
        explain(tmp_path / "image.dcm", tmp_path)
    assert caught.value.code == "truncated"
    assert not isinstance(caught.value, PassedOverError)


def test_an_image_gets_its_report(explain, study, tmp_path):
    explain(study[0], tmp_path)
    assert os.listdir(tmp_path) == ["report.json"]
