"""STOW-RS to servers that are busy, refuse, or answer nonsense."""

from __future__ import annotations

import pytest

from medllm.dicom.network import Patience, WebPeer, store
from medllm.errors import NetworkError


def _answer(**sequences: list[tuple[str, int]]) -> dict[str, object]:
    """A STOW-RS answer, PS3.18 I.2: FailedSOPSequence or ReferencedSOPSequence with a reason."""
    tags = {"failed": ("00081198", "00081197"), "referenced": ("00081199", "00081196")}
    return {
        tags[name][0]: {
            "vr": "SQ",
            "Value": [
                {
                    "00081155": {"vr": "UI", "Value": [uid]},
                    tags[name][1]: {"vr": "US", "Value": [reason]},
                }
                for uid, reason in items
            ],
        }
        for name, items in sequences.items()
    }


def test_a_busy_server_is_tried_again(site, study, quick):
    made = site()
    for status in (503, 429, 200, 200, 200):
        made.lay(status, {})
    assert [one.error for one in store(study, made.peer, patience=quick)] == [None] * 3
    assert [method for method, _, _ in made.asked] == ["POST"] * 5
    assert all(path == "/dicom-web/studies" for _, path, _ in made.asked)


def test_a_dropped_connection_is_tried_again(site, study, quick):
    made = site()
    made.lay(0)
    for _ in study:
        made.lay(200, {})
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
