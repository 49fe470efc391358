"""What the node does with what it took in: explains, tries again, sends, stops."""

from __future__ import annotations

import errno
import json
import logging
import threading
import time
from types import SimpleNamespace

import pydicom
import pytest
from pydicom.data import get_testdata_file

from medllm.dicom.network import node as node_module
from medllm.dicom.network.node import Pace, PassedOverError
from medllm.errors import DicomError, MedllmError, NetworkError

# pynetdicom drops the socket of a connection that was refused, without closing it.
pytestmark = pytest.mark.filterwarnings(
    "ignore:Exception ignored in. <s:pytest.PytestUnraisableExceptionWarning"
)


def test_a_study_is_explained_when_nothing_of_it_has_come_for_a_while(
    run_node, explain, pacs, make, monkeypatch, wait_until, store
):
    now = [1000.0]
    clock = SimpleNamespace(monotonic=lambda: now[0], sleep=time.sleep)
    monkeypatch.setattr(node_module, "time", clock)
    monkeypatch.setattr(node_module, "_POLL_S", 0.01)
    with run_node(pace=Pace(quiet_s=30)) as node:
        store(node, make(1))
        now[0] += 29
        store(node, make(2))
        now[0] += 29
        time.sleep(0.2)
        assert explain.given == [], "the second image came 29 s ago"
        now[0] += 2
        wait_until(lambda: len(pacs.taken) == 2)
    assert set(explain.given) == {"1.2.3.1", "1.2.3.2"}


def test_what_comes_late_or_again_is_explained_once(
    run_node, explain, pacs, make, wait_until, store
):
    with run_node() as node:
        assert store(node, make(1), make(1)) == [0, 0]
        wait_until(lambda: pacs.taken == ["1.2.3.1"])
        assert store(node, make(1), make(2)) == [0, 0]
        wait_until(lambda: len(pacs.taken) == 2)
        assert store(node, make(2, PatientComments="changed")) == [0x0111]
    assert explain.given == pacs.taken == ["1.2.3.1", "1.2.3.2"]


def test_results_stay_in_the_inbox_where_they_are_sent_nowhere(
    run_node, make, wait_until, store, left
):
    with run_node(send=None) as node:
        store(node, make(1))
        wait_until(lambda: left("done"))
    assert [path.name for path in left("done")] == ["sr.dcm"]


def test_a_disk_that_is_full_for_results_does_not_count_against_the_image(
    run_node, explain, pacs, make, wait_until, store
):
    outcomes = iter([OSError(errno.ENOSPC, "no room")] * 5 + [None])
    explain.does["1.2.3.1"] = lambda: next(outcomes)
    with run_node() as node:
        store(node, make(1))
        wait_until(lambda: pacs.taken == ["1.2.3.1"])
    assert len(explain.given) == 6


def test_a_disk_fault_that_passes_strands_no_image(
    run_node, explain, pacs, make, monkeypatch, tmp_path, wait_until, store, left
):
    failing, refused, rename = threading.Event(), [], type(tmp_path).rename

    def fail(path, target):
        if failing.is_set() and path.parent.parent.name == "working":
            refused.append(path)
            raise OSError(errno.ENOSPC, "no room")
        return rename(path, target)

    def fill():
        failing.set()
        raise OSError(errno.ENOSPC, "no room")

    monkeypatch.setattr(type(tmp_path), "rename", fail)
    explain.does["1.2.3.1"] = fill
    with run_node() as node:
        store(node, make(1))
        wait_until(lambda: refused)
        assert store(node, make(2)) == [0], "of the same study, while its folder is stuck"
        assert left("working")
        explain.does = {}
        failing.clear()
        wait_until(lambda: sorted(pacs.taken) == ["1.2.3.1", "1.2.3.2"])


def test_other_objects_of_a_study_are_taken_and_passed_over(
    run_node, explain, pacs, make, tmp_path, wait_until, store, reasons
):
    report = pydicom.dcmread(get_testdata_file("reportsi.dcm"))
    report.StudyInstanceUID = "1.2.9.1"
    explain.does[report.SOPInstanceUID] = PassedOverError("a report", code="not-a-radiograph")
    with run_node() as node:
        assert store(node, make(1), report) == [0, 0]
        wait_until(lambda: len(explain.given) == 2 and pacs.taken)
    outcomes = [
        json.loads(path.read_text()) for path in (tmp_path / "inbox" / "done").rglob("outcome.json")
    ]
    assert {one["outcome"]: one["code"] for one in outcomes} == {
        "explained": None,
        "passed-over": "not-a-radiograph",
    }
    assert not reasons()


def test_an_image_at_fault_is_set_aside_and_the_rest_of_the_study_explained(
    run_node, explain, pacs, make, wait_until, store, left, reasons
):
    explain.does["1.2.3.1"] = DicomError("it is cut off", code="truncated")
    with run_node() as node:
        store(node, make(1), make(2))
        wait_until(lambda: pacs.taken == ["1.2.3.2"])
    (reason,) = reasons()
    assert (reason["code"], reason["message"]) == ("truncated", "it is cut off")
    assert len(left("rejected")) == 1
    assert explain.given.count("1.2.3.1") == 1


def test_a_failure_that_may_pass_is_tried_again_a_few_times(
    run_node, explain, pacs, make, caplog, wait_until, store, reasons
):
    caplog.set_level(logging.INFO, "medllm.dicom.network.journal")
    passing = iter([RuntimeError("SMITH^JOHN"), None])
    explain.does["1.2.3.1"] = lambda: next(passing)
    explain.does["1.2.3.2"] = MedllmError("it never works", code="never")
    with run_node() as node:
        store(node, make(1), make(2))
        wait_until(lambda: reasons() and pacs.taken == ["1.2.3.1"])
    assert explain.given.count("1.2.3.1") == 2
    assert explain.given.count("1.2.3.2") == node_module.MAX_TRIES
    (reason,) = reasons()
    assert (reason["code"], reason["tries"]) == ("never", node_module.MAX_TRIES)
    assert "RuntimeError at " in caplog.text
    assert "SMITH" not in caplog.text


def test_an_image_that_ends_the_process_each_time_is_set_aside(
    run_node, explain, make, wait_until, store, left, reasons
):
    with run_node(pace=Pace(quiet_s=60)) as node:
        store(node, make(1))
    (image,) = left("waiting")
    image.with_suffix(".tries").write_text("x" * node_module.MAX_TRIES)
    with run_node():
        wait_until(lambda: reasons())
    assert explain.given == []
    assert reasons()[0]["code"] == "tried-in-vain"


def test_results_wait_for_a_pacs_that_is_away_while_new_work_goes_on(
    run_node, explain, pacs, make, wait_until, store, left
):
    away = threading.Event()

    def send(files):
        if not away.is_set():
            raise NetworkError("nobody answers", code="peer-away")
        pacs(files)

    with run_node(send=send) as node:
        store(node, make(1))
        wait_until(lambda: explain.given == ["1.2.3.1"])
        store(node, make(2, study=2))
        wait_until(lambda: len(left("outgoing")) == 2)
        away.set()
        wait_until(lambda: sorted(pacs.taken) == ["1.2.3.1", "1.2.3.2"])


def test_results_that_are_refused_do_not_hold_up_others(
    run_node, pacs, make, wait_until, store, left
):
    refused = []

    def send(files):
        if b"1.2.3.1" in files[0].read_bytes():
            refused.append(files)
            raise NetworkError("it is refused", code="refused")
        pacs(files)

    with run_node(send=send, pace=Pace(quiet_s=0.1, resend_s=60)) as node:
        store(node, make(1))
        wait_until(lambda: refused)
        store(node, make(2, study=2))
        wait_until(lambda: pacs.taken == ["1.2.3.2"])
    assert len(left("outgoing")) == 1


def test_stopping_gives_back_what_was_not_begun(run_node, explain, make, wait_until, store, left):
    entered, leave = threading.Event(), threading.Event()

    def slow():
        entered.set()
        leave.wait(20)

    explain.does = {"1.2.3.1": slow, "1.2.3.2": slow}
    with run_node() as node:
        store(node, make(1), make(2))
        assert entered.wait(20)
        node.stop()
        leave.set()
    assert len(explain.given) == 1
    assert len(left("waiting")) == 1
    assert not left("working")
    explain.does = {}
    with run_node():
        wait_until(lambda: len(explain.given) == 2)
    assert set(explain.given) == {"1.2.3.1", "1.2.3.2"}


def test_the_log_follows_an_image_and_names_nobody(run_node, pacs, make, caplog, wait_until, store):
    caplog.set_level(logging.INFO, "medllm.dicom.network.journal")
    with run_node() as node:
        store(node, make(1, PatientName="SMITH^JOHN", PatientID="4711"))
        wait_until(lambda: pacs.taken)
    events = [record.getMessage().split()[0] for record in caplog.records]
    assert events == ["listening", "taken", "complete", "explained", "sent", "stopped"]
    for identity in ("SMITH", "4711", "1.2.3.1", "1.2.9.1"):
        assert identity not in caplog.text
