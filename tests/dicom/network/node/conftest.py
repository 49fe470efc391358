"""A node in a thread, a sender, and a few lines that stand for the model and for the PACS."""

from __future__ import annotations

import contextlib
import gc
import json
import threading
import time

import pydicom
import pytest
from pydicom.uid import ComputedRadiographyImageStorage, ExplicitVRLittleEndian
from pynetdicom import AE

from medllm.dicom.network.inbox import Inbox
from medllm.dicom.network.node import Node, Pace
from medllm.dicom.network.reception import Access

PLAIN_CR = (ComputedRadiographyImageStorage, ExplicitVRLittleEndian)
QUICK = Pace(quiet_s=0.1, retry_s=0.05, resend_s=0.05)


class Explainer:
    """Stands for the model: notes what it is given, and does as it is told."""

    def __init__(self):
        self.given, self.does = [], {}

    def __call__(self, image, results):
        dataset = pydicom.dcmread(image)
        self.given.append(dataset.SOPInstanceUID)
        does = self.does.get(dataset.SOPInstanceUID)
        if callable(does):
            does = does()
        if does is not None:
            raise does
        (results / "sr.dcm").write_bytes(b"result of " + dataset.SOPInstanceUID.encode())


class Pacs:
    """Stands for `store`: takes what is sent."""

    def __init__(self):
        self.taken = []

    def __call__(self, files):
        self.taken += [file.read_bytes().decode().removeprefix("result of ") for file in files]


@pytest.fixture(autouse=True, scope="module")
def dropped_sockets():
    """Have what was dropped collected here, where it is expected."""
    yield
    gc.collect()


def wait_until(condition):
    deadline = time.monotonic() + 20
    while not condition():
        assert time.monotonic() < deadline, "it did not happen within 20 s"
        time.sleep(0.01)


@pytest.fixture(name="wait_until")
def _wait_until():
    return wait_until


@pytest.fixture
def explain():
    return Explainer()


@pytest.fixture
def pacs():
    return Pacs()


@pytest.fixture
def run_node(tmp_path, explain, pacs):
    """Run a node in a thread while a block runs."""

    @contextlib.contextmanager
    def run(*, send=pacs, pace=QUICK, **access):
        with Inbox(tmp_path / "inbox") as inbox:
            node = Node(inbox, explain, send, access=Access(port=0, **access), pace=pace)
            thread = threading.Thread(target=node.run)
            thread.start()
            try:
                wait_until(lambda: node.port is not None or not thread.is_alive())
                yield node
            finally:
                node.stop()
                thread.join(timeout=20)
                assert not thread.is_alive()

    return run


@contextlib.contextmanager
def connected(node, *contexts, calling="TESTER", called="MEDLLM"):
    entity = AE(calling)
    for abstract, *transfer in contexts or [
        (ComputedRadiographyImageStorage, ExplicitVRLittleEndian)
    ]:
        entity.add_requested_context(abstract, transfer)
    association = entity.associate("127.0.0.1", node.port, ae_title=called)
    try:
        yield association
    finally:
        if association.is_established:
            association.release()


@pytest.fixture(name="connected")
def _connected():
    return connected


def store(node, *datasets):
    """Send data sets as they are, and give the statuses."""
    contexts = {(one.SOPClassUID, one.file_meta.TransferSyntaxUID) for one in datasets}
    with connected(node, *contexts) as association:
        return [association.send_c_store(one).Status for one in datasets]


@pytest.fixture(name="store")
def _store():
    return store


@pytest.fixture
def make(make_dataset):
    """Make a CR image of a study, with a UID of its own."""

    def make(number, study=1, **attributes):
        named = {"SOPInstanceUID": f"1.2.3.{number}", "StudyInstanceUID": f"1.2.9.{study}"}
        dataset = make_dataset(**{**named, **attributes})
        dataset.file_meta.MediaStorageSOPClassUID = dataset.get("SOPClassUID")
        dataset.file_meta.MediaStorageSOPInstanceUID = dataset.get("SOPInstanceUID")
        return dataset

    return make


@pytest.fixture
def left(tmp_path):
    """List the DICOM files that the inbox has in a state."""
    return lambda state: sorted((tmp_path / "inbox" / state).rglob("*.dcm"))


@pytest.fixture
def reasons(tmp_path):
    """Read why images were rejected."""

    def read():
        found = (tmp_path / "inbox" / "rejected").rglob("*.json")
        return [json.loads(path.read_text()) for path in found]

    return read
