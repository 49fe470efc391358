"""Who and what gets in, with a real sender on the other side."""

from __future__ import annotations

import errno
import shutil
import socket
import subprocess
import time

import pytest
from pydicom.uid import (
    MPEG2MPML,
    UID,
    ComputedRadiographyImageStorage,
    DeflatedExplicitVRLittleEndian,
    ExplicitVRLittleEndian,
    JPEG2000Lossless,
    JPEGExtended12Bit,
    JPEGLosslessSV1,
)
from pynetdicom import ALL_TRANSFER_SYNTAXES, AllStoragePresentationContexts

from medllm.dicom.network import Tls, parse_peer
from medllm.dicom.network import reception as reception_module
from medllm.dicom.network import store as send_files
from medllm.dicom.network.inbox import Inbox
from medllm.dicom.network.node import Node
from medllm.dicom.network.reception import Access
from medllm.errors import NetworkError

# pynetdicom drops the socket of a connection that was refused, without closing it.
pytestmark = pytest.mark.filterwarnings(
    "ignore:Exception ignored in. <s:pytest.PytestUnraisableExceptionWarning"
)
LONG = "MORE_THAN_SIXTEEN"


def _without_study(dataset):
    del dataset.StudyInstanceUID


def _other_class(dataset):
    dataset.SOPClassUID = "1.2.840.10008.5.1.4.1.1.7"


def _other_instance(dataset):
    dataset.SOPInstanceUID = "1.2.3.99"


@pytest.mark.parametrize("spoil", [_without_study, _other_class, _other_instance])
def test_a_data_set_that_is_not_what_the_request_says_is_refused_and_kept_aside(
    run_node, explain, make, spoil, wait_until, connected, left, reasons
):
    dataset = make(1)
    sop_class, sop_instance = dataset.SOPClassUID, dataset.SOPInstanceUID
    spoil(dataset)
    with run_node() as node, connected(node) as association:
        assert _store_raw(association, sop_class, sop_instance, _encoded(dataset)) == 0xA900
        assert _store_raw(association, sop_class, sop_instance, _encoded(dataset)) == 0xA900
        assert association.send_c_store(make(2)).Status == 0, "the node goes on"
        wait_until(lambda: explain.given == ["1.2.3.2"])
    assert [path.parent.name for path in left("rejected")] == ["refused"]
    (reason,) = reasons()
    assert reason["outcome"] == "refused"


def _encoded(dataset):
    from pynetdicom.dsutils import encode

    return encode(dataset, is_implicit_vr=False, is_little_endian=True)


def _store_raw(association, sop_class, sop_instance, encoded):
    """Send bytes as a data set, which pynetdicom's own C-STORE would not."""
    from io import BytesIO

    from pynetdicom.dimse_primitives import C_STORE

    request = C_STORE()
    request.MessageID = 1
    request.AffectedSOPClassUID, request.AffectedSOPInstanceUID = sop_class, sop_instance
    request.Priority, request.DataSet = 2, BytesIO(encoded)
    association._reactor_checkpoint.clear()
    while not association._is_paused:
        time.sleep(0.005)
    association.dimse.send_msg(request, association.accepted_contexts[0].context_id)
    _, answer = association.dimse.get_msg(block=True)
    association._reactor_checkpoint.set()
    return answer.Status


@pytest.mark.parametrize("cut", [0.02, 0.6])
def test_a_data_set_that_is_cut_off_is_not_understood(run_node, make, cut, connected, left):
    encoded = _encoded(make(1))
    with run_node() as node, connected(node) as association:
        sent = encoded[: int(cut * len(encoded))]
        status = _store_raw(association, ComputedRadiographyImageStorage, "1.2.3.1", sent)
    assert status == 0xC000
    assert len(left("rejected")) == 1
    assert not left("waiting")


def test_a_compressed_image_without_its_end_is_not_understood(run_node, make, connected):
    image = make(1)
    image.compress(JPEG2000Lossless, generate_instance_uid=False)
    cut = _encoded(image)[:-200]
    context = (ComputedRadiographyImageStorage, JPEG2000Lossless)
    with run_node() as node, connected(node, context) as association:
        assert _store_raw(association, ComputedRadiographyImageStorage, "1.2.3.1", cut) == 0xC000


def test_a_full_disk_is_told_to_the_sender_and_passes(
    run_node, explain, make, monkeypatch, tmp_path, wait_until, store
):
    with run_node() as node:
        with monkeypatch.context() as patch:

            def full(_):
                raise OSError(errno.ENOSPC, "no room")

            patch.setattr("medllm.dicom.network.inbox.sync", full)
            assert store(node, make(1)) == [0xA700]
            assert not list((tmp_path / "inbox" / "drafts").iterdir())
        assert store(node, make(1)) == [0]
        wait_until(lambda: explain.given == ["1.2.3.1"])


def test_a_connection_that_drops_in_the_middle_leaves_nothing(
    run_node, make, tmp_path, wait_until, store, connected
):
    with run_node() as node, connected(node) as association:
        encoded = _encoded(make(1))
        half = _pdus(association, encoded)[:-1]
        assert len(half) >= 2
        sock = association.dul.socket.socket
        for pdu in half:
            sock.sendall(pdu)
        time.sleep(0.2)
        sock.shutdown(socket.SHUT_RDWR)
        wait_until(lambda: not association.is_established)
        kept = {path for path in (tmp_path / "inbox").rglob("*") if path.suffix == ".dcm"}
        assert not kept, "nothing of the image that was cut off"
        assert store(node, make(2)) == [0], "the node goes on"


def _pdus(association, encoded):
    """Encode a C-STORE request as it goes over the wire, in pieces of 4 KiB."""
    from io import BytesIO

    from pynetdicom.dimse_messages import C_STORE_RQ
    from pynetdicom.dimse_primitives import C_STORE
    from pynetdicom.pdu import P_DATA_TF

    request = C_STORE()
    request.MessageID = 1
    request.AffectedSOPClassUID = ComputedRadiographyImageStorage
    request.AffectedSOPInstanceUID = "1.2.3.1"
    request.Priority, request.DataSet = 2, BytesIO(encoded)
    message = C_STORE_RQ()
    message.primitive_to_message(request)
    pdus = []
    for primitive in message.encode_msg(association.accepted_contexts[0].context_id, 4096):
        pdu = P_DATA_TF()
        pdu.from_primitive(primitive)
        pdus.append(pdu.encode())
    return pdus


def test_a_data_set_too_large_for_memory_is_broken_off(
    run_node, make, monkeypatch, connected, left
):
    monkeypatch.setattr(reception_module, "MAX_FILE_BYTES", 10_000)
    with run_node() as node:
        with connected(node) as association:
            answer = association.send_c_store(make(1))
            assert "Status" not in answer
        assert not left("waiting")
        assert not left("rejected")
        small = make(2)
        small.Rows, small.PixelData = 1, small.PixelData[:160]
        with connected(node) as association:
            statuses = [association.send_c_store(small).Status for _ in range(30)]
            assert set(statuses) == {0}, "each data set is counted anew"


def test_who_announces_more_than_a_pdu_can_hold_is_hung_up_on(run_node, make, store):
    with run_node(allow=["TESTER"]) as node:
        with socket.create_connection(("127.0.0.1", node.port), timeout=10) as stranger:
            stranger.sendall(b"\x01\0\xff\xff\xff\xf0")  # a request for an association of 4 GiB
            assert stranger.recv(1) == b"", "and none of it is waited for"
        assert store(node, make(1)) == [0]


def test_the_longest_request_for_an_association_gets_through(run_node, connected):
    everything = [
        (context.abstract_syntax, *ALL_TRANSFER_SYNTAXES)
        for context in AllStoragePresentationContexts[:128]
    ]
    with run_node() as node, connected(node, *everything) as association:
        assert len(association.accepted_contexts) == 128
        sent = sum(len(uid) + 4 for contexts in everything for uid in contexts)
        assert 2**17 < sent < 2**18


def test_only_those_on_the_list_may_send(run_node, make, store, connected):
    with run_node(allow=["TESTER", "ORTHANC"]) as node:
        with connected(node, calling="STRANGER") as association:
            assert association.is_rejected
        with connected(node, called="OTHER") as association:
            assert association.is_rejected
        assert store(node, make(1)) == [0]


def test_with_a_certificate_only_tls_gets_in(
    run_node, explain, make, write, tmp_path, wait_until, connected
):
    program = shutil.which("openssl")
    if program is None:
        pytest.skip("openssl is not installed")
    wanted = ("-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes")
    named = ("-subj", "/CN=node", "-addext", "subjectAltName=IP:127.0.0.1")
    files = ("-keyout", "node.key", "-out", "node.pem")
    command = [program, "req", *wanted, *named, *files]
    subprocess.run(command, cwd=tmp_path, check=True, capture_output=True)  # noqa: S603
    certificate, image = tmp_path / "node.pem", write(make(1))
    with run_node(tls=Tls(cert=certificate, key=tmp_path / "node.key")) as node:
        with connected(node) as association:
            assert not association.is_established
        url = f"dicoms://MEDLLM@127.0.0.1:{node.port}"
        (sent,) = send_files([image], parse_peer(url, tls=Tls(ca=certificate)))
        assert sent.error is None
        wait_until(lambda: explain.given == ["1.2.3.1"])


@pytest.mark.parametrize(
    "titles", [{"ae_title": "MORE_THAN_SIXTEEN"}, {"allow": ["MORE_THAN_SIXTEEN"]}]
)
def test_a_title_that_is_none_is_said(explain, tmp_path, titles):
    with Inbox(tmp_path) as inbox:
        node = Node(inbox, explain, access=Access(port=0, **titles))
        with pytest.raises(NetworkError, match="application entity title"):
            node.run()


def test_it_answers_an_echo(run_node, connected):
    with run_node() as node, connected(node, ("1.2.840.10008.1.1", ExplicitVRLittleEndian)) as link:
        assert link.send_c_echo().Status == 0


@pytest.mark.parametrize(
    ("sop_class", "transfer_syntax", "taken"),
    [
        (ComputedRadiographyImageStorage, JPEG2000Lossless, True),
        (ComputedRadiographyImageStorage, DeflatedExplicitVRLittleEndian, False),
        (ComputedRadiographyImageStorage, MPEG2MPML, False),
        (UID("1.2.840.10008.5.1.4.1.1.77.1.4.1"), MPEG2MPML, True),
        (UID("1.2.840.10008.5.1.4.1.1.88.33"), ExplicitVRLittleEndian, True),
    ],
    ids=["radiograph J2K", "deflated", "radiograph as video", "video", "report"],
)
def test_encodings_are_offered_that_can_be_dealt_with(
    run_node, sop_class, transfer_syntax, taken, connected
):
    with run_node() as node, connected(node, (sop_class, transfer_syntax)) as association:
        assert bool(association.accepted_contexts) is taken


def test_encodings_without_a_decoder_are_not_offered(run_node, monkeypatch, connected):
    from pydicom.pixels.decoders.base import Decoder

    real = Decoder.is_available.fget
    monkeypatch.setattr(
        Decoder,
        "is_available",
        property(lambda self: JPEGLosslessSV1 != self.UID and real(self)),
    )
    monkeypatch.setattr(reception_module, "find_spec", lambda _: None)
    contexts = [
        (ComputedRadiographyImageStorage, JPEGLosslessSV1, ExplicitVRLittleEndian),
        (ComputedRadiographyImageStorage, JPEGExtended12Bit),
    ]
    with run_node() as node, connected(node, *contexts) as association:
        (accepted,) = association.accepted_contexts
        assert accepted.transfer_syntax == [ExplicitVRLittleEndian]


def test_a_port_that_is_taken_is_said(run_node, tmp_path, explain):
    with run_node() as node, Inbox(tmp_path / "other") as inbox:
        second = Node(inbox, explain, access=Access(port=node.port))
        with pytest.raises(NetworkError, match="cannot be listened on"):
            second.run()
