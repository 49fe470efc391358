"""The sending of results, when the inbox's own disk fails."""

from __future__ import annotations

import errno
import logging

import pytest

from medllm.dicom.network.delivery import Delivery
from medllm.dicom.network.disk import Outcome
from medllm.dicom.network.inbox import Inbox

STUDY, NAME = "a" * 16, "1" * 16 + "-" + "2" * 16


@pytest.fixture
def inbox(tmp_path):
    """An inbox with the results of one image, to be sent."""
    with Inbox(tmp_path / "inbox") as made:
        made.take_in(STUDY, NAME, b"image")
        (image,) = made.claim(STUDY)
        with made.new_results() as results:
            (results / "sr.dcm").write_bytes(b"result")
            made.finish(image, results, Outcome("explained"))
        made.give_back(STUDY)
        yield made


def test_a_disk_that_fails_for_a_while_does_not_end_the_sending(
    inbox, monkeypatch, wait_until, caplog
):
    caplog.set_level(logging.INFO, "medllm.dicom.network.journal")
    faults, listed, sent = iter([OSError(errno.EIO, "Input/output error")] * 2), inbox.outgoing, []

    def outgoing():
        if (fault := next(faults, None)) is not None:
            raise fault
        return listed()

    monkeypatch.setattr(inbox, "outgoing", outgoing)
    delivery = Delivery(inbox, sent.extend, pause_s=0.01)
    delivery.start()
    wait_until(lambda: not listed())
    delivery.stop()
    assert [file.name for file in sent] == ["sr.dcm"]
    events = [record.getMessage() for record in caplog.records]
    assert events[:2] == ['failed cause="OSError: Input/output error"'] * 2
    assert events[2].startswith("sent ")
