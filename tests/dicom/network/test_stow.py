"""STOW-RS to servers that are busy, refuse, or answer nonsense."""

from __future__ import annotations

import json
from io import BytesIO

import pydicom
import pytest
from pydicom.filebase import DicomBytesIO
from pydicom.filewriter import write_dataset
from pydicom.uid import PYDICOM_IMPLEMENTATION_UID, ExplicitVRLittleEndian

from medllm.dicom.network import Patience, WebPeer, store
from medllm.errors import NetworkError


def _answer(**sequences: list[tuple[str, int]]) -> dict[str, object]:
    """A STOW-RS answer, PS3.18 I.2: sequences of objects with a reason; 0 is none."""
    tags = {
        "failed": ("00081198", "00081197"),
        "referenced": ("00081199", "00081196"),
        "other": ("0008119A", "00081197"),
    }
    return {
        tags[name][0]: {
            "vr": "SQ",
            "Value": [
                {
                    "00081155": {"vr": "UI", "Value": [uid]},
                    **({tags[name][1]: {"vr": "US", "Value": [reason]}} if reason else {}),
                }
                for uid, reason in items
            ],
        }
        for name, items in sequences.items()
    }


def _stored(uid: str) -> dict[str, object]:
    return _answer(referenced=[(uid, 0)])


def test_a_busy_server_is_tried_again(site, study, uids, quick):
    made = site()
    made.lay(503)
    made.lay(429)
    for uid in uids:
        made.lay(200, _stored(uid))
    assert [one.error for one in store(study, made.peer, patience=quick)] == [None] * 3
    assert [method for method, _, _ in made.asked] == ["POST"] * 5
    assert all(path == "/dicom-web/studies" for _, path, _ in made.asked)


def test_a_dropped_connection_is_tried_again(site, study, uids, quick):
    made = site()
    made.lay(0)
    for uid in uids:
        made.lay(200, _stored(uid))
    assert [one.error for one in store(study, made.peer, patience=quick)] == [None] * 3


def test_what_stays_busy_is_given_up(site, study, quick):
    made = site()
    made.answer = lambda _: (503, {}, b"")
    with pytest.raises(NetworkError, match="503 Service Unavailable") as raised:
        list(store(study, made.peer, patience=quick))
    assert raised.value.code == "peer-busy"
    assert len(made.asked) == quick.tries


def test_each_object_keeps_its_own_reason(site, study, uids):
    made = site()
    made.lay(409, _answer(failed=[(uids[0], 0xA700)]))
    made.lay(200, _answer(referenced=[(uids[1], 0xB000)]))
    made.lay(400)
    dx, cr, j2k = store(study, made.peer)
    assert (dx.error, cr.error, j2k.error) == ("refused", None, "refused")
    assert "0xA700, Refused: Out of Resources" in dx.message
    assert "0xB000" in cr.message
    assert "400 Bad Request" in j2k.message


def test_a_partly_accepted_answer_is_a_failure(site, study, uids):
    made = site()
    made.lay(202, _answer(failed=[(uids[0], 0xC000)]))
    (sent,) = store(study[:1], made.peer)
    assert sent.error == "refused"
    assert "Cannot Understand" in sent.message


XML = """<?xml version="1.0" encoding="UTF-8"?>
<NativeDicomModel xmlns="http://dicom.nema.org/PS3.19/models/NativeDicom" xml:space="preserve">
<DicomAttribute keyword="ReferencedSOPSequence" tag="00081199" vr="SQ"><Item number="1">
<DicomAttribute keyword="ReferencedSOPInstanceUID" tag="00081155" vr="UI">
<Value number="1">{}</Value></DicomAttribute></Item></DicomAttribute></NativeDicomModel>"""


@pytest.mark.parametrize(
    ("kind", "body"),
    [
        ("application/dicom+json", lambda uid: json.dumps(_stored(uid))),
        ("application/dicom+json; charset=utf-8", lambda uid: json.dumps(_stored(uid))),
        ("application/dicom+xml", XML.format),  # whatever was asked for
        ("application/dicom+xml;charset=UTF-8", XML.format),
    ],
    ids=["json", "json with a charset", "xml", "xml with a charset"],
)
def test_an_object_is_taken_that_the_answer_names(site, study, uids, kind, body):
    made = site()
    made.answer = lambda _: (200, {"Content-Type": kind}, body(uids[0]).encode())
    (sent,) = store(study[:1], made.peer)
    assert (sent.error, sent.message) == (None, "")


@pytest.mark.parametrize(
    ("kind", "body"),
    [
        ("application/dicom+json", b"{}"),
        ("application/dicom+json", b""),
        ("application/dicom+json", json.dumps(_stored("1.2.3")).encode()),
        ("text/html", b"<html>Please log in</html>"),
    ],
    ids=["says nothing", "has no body", "names another", "is a login page"],
)
def test_an_answer_that_does_not_name_the_object_confirms_nothing(site, study, uids, kind, body):
    made = site()
    made.answer = lambda _: (200, {"Content-Type": kind}, body)
    (sent,) = store(study[:1], made.peer)
    assert (sent.error, sent.sop_instance_uid) == ("not-confirmed", uids[0])
    assert "did not name the object as stored" in sent.message


def test_a_failure_that_is_told_of_no_object_is_a_failure(site, study):
    made = site()
    made.lay(202, _answer(other=[("", 0x0110)]))
    (sent,) = store(study[:1], made.peer)
    assert sent.error == "refused"
    assert "0x0110, Processing Failure" in sent.message


@pytest.mark.parametrize(("status", "code"), [(401, "not-authorised"), (403, "not-authorised"),
                                              (404, "no-service")])  # fmt: skip
def test_what_concerns_all_objects_ends_the_sending(site, study, quick, status, code):
    made = site()
    made.lay(status)
    with pytest.raises(NetworkError) as raised:
        list(store(study, made.peer, patience=quick))
    assert raised.value.code == code
    assert len(made.asked) == 1


def test_a_server_that_speaks_no_dicomweb_is_told(site, study, quick):
    made = site()
    made.answer = lambda _: (200, {"Content-Type": "application/json"}, b"<html>hello</html>")
    with pytest.raises(NetworkError, match="no DICOMweb") as raised:
        list(store(study, made.peer, patience=quick))
    assert raised.value.code == "bad-answer"


def test_a_server_that_is_away_or_silent_is_told(site, study, free_port):
    away = WebPeer(f"http://127.0.0.1:{free_port()}/dicom-web")
    with pytest.raises(NetworkError, match="nobody answers") as raised:
        list(store(study, away, patience=Patience(2, 0, 1)))
    assert raised.value.code == "peer-away"
    assert "Connection refused" in str(raised.value)
    import time

    silent = site()
    silent.answer = lambda _: time.sleep(1) or (200, {}, b"")
    with pytest.raises(NetworkError) as raised:
        list(store(study * 2, silent.peer, patience=Patience(1, 0, 0.2)))
    assert raised.value.code == "connection-lost"


def _posted(site, path, uid) -> bytes:
    """What stands in the one part of the request with which an object was sent."""
    made = site()
    made.lay(200, _stored(uid))
    (sent,) = store([path], made.peer)
    assert sent.error is None, sent.message
    return made.bodies[0].split(b"\r\n\r\n", 1)[1].rsplit(b"\r\n--", 1)[0]


def test_an_object_without_file_meta_is_posted_as_a_whole_file(site, study, uids, tmp_path):
    """PS3.10 7.1: preamble, prefix, and each attribute of type 1."""
    dataset = pydicom.dcmread(study[1])
    stream = DicomBytesIO()
    stream.is_little_endian, stream.is_implicit_VR = True, False
    write_dataset(stream, dataset)
    (tmp_path / "bare.dcm").write_bytes(stream.getvalue())
    posted = _posted(site, tmp_path / "bare.dcm", uids[1])
    assert posted[:132] == bytes(128) + b"DICM"
    got = pydicom.dcmread(BytesIO(posted))
    length = got.file_meta.FileMetaInformationGroupLength
    assert posted[144 + length :] == stream.getvalue()
    assert got.file_meta.FileMetaInformationVersion == b"\0\1"
    assert got.file_meta.MediaStorageSOPClassUID == dataset.SOPClassUID
    assert got.file_meta.MediaStorageSOPInstanceUID == uids[1]
    assert got.file_meta.TransferSyntaxUID == ExplicitVRLittleEndian
    assert got.file_meta.ImplementationClassUID == PYDICOM_IMPLEMENTATION_UID
    assert got.file_meta.ImplementationVersionName == "MEDLLM"


def test_who_wrote_a_file_stays_in_it(site, study, uids, tmp_path):
    dataset = pydicom.dcmread(study[0])
    dataset.file_meta.ImplementationClassUID = "1.2.3.4"
    del dataset.file_meta.ImplementationVersionName
    dataset.save_as(tmp_path / "theirs.dcm")
    got = pydicom.dcmread(BytesIO(_posted(site, tmp_path / "theirs.dcm", uids[0])))
    assert got.file_meta.ImplementationClassUID == "1.2.3.4"
    assert "ImplementationVersionName" not in got.file_meta
