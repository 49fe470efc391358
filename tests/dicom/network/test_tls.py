"""Certificates: right, wrong, and asked for, by DICOM and by HTTPS."""

from __future__ import annotations

import json
import shutil
import socket
import ssl
import subprocess
from dataclasses import replace

import pydicom
import pytest
from pydicom.uid import ImplicitVRLittleEndian
from pynetdicom import build_context, evt
from pynetdicom.sop_class import StudyRootQueryRetrieveInformationModelMove

from medllm.dicom.network import (
    Fetched,
    Instance,
    Patience,
    Study,
    Tls,
    WebPeer,
    fetch,
    parse_peer,
    store,
)
from medllm.errors import NetworkError


@pytest.fixture(scope="session")
def authority(tmp_path_factory):
    """A certificate authority, and what it signed: one for the server, one for us."""
    program = shutil.which("openssl")
    if program is None:
        pytest.skip("openssl is not installed")
    folder = tmp_path_factory.mktemp("tls")

    def run(*arguments: str) -> None:
        subprocess.run([program, *arguments], cwd=folder, check=True, capture_output=True)  # noqa: S603

    key = ("-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes")
    for name in ("ca", "other"):
        run("req", "-x509", *key, "-keyout", f"{name}.key", "-out", f"{name}.pem", "-days", "2",
            "-subj", f"/CN=test {name}", "-addext", "keyUsage=keyCertSign")  # fmt: skip
    for name in ("server", "client"):
        run("req", *key, "-keyout", f"{name}.key", "-out", f"{name}.csr", "-subj", f"/CN={name}")
        (folder / "ext").write_text("subjectAltName=IP:127.0.0.1\n")
        run("x509", "-req", "-in", f"{name}.csr", "-CA", "ca.pem", "-CAkey", "ca.key",
            "-CAcreateserial", "-out", f"{name}.pem", "-days", "2", "-extfile", "ext")  # fmt: skip
    return folder


def _server(authority, *, ask: bool) -> ssl.SSLContext:
    files = Tls(
        authority / "ca.pem" if ask else None, authority / "server.pem", authority / "server.key"
    )
    return files.context(server=True)


@pytest.fixture(params=["dicoms", "https"])
def secured(request, authority, node, site, uids):
    """Start a server that wants TLS, with or without a certificate of ours; give its peer."""

    def start(*, ask: bool = False):
        context = _server(authority, ask=ask)
        if request.param == "dicoms":
            return node(ssl_context=context, tls=Tls()).peer
        made = site(context)
        named = [{"00081155": {"vr": "UI", "Value": [uid]}} for uid in uids]
        stored = json.dumps({"00081199": {"vr": "SQ", "Value": named}}).encode()
        made.answer = lambda _: (200, {"Content-Type": "application/dicom+json"}, stored)
        return made.peer

    return start


def test_a_certificate_that_is_trusted_is_enough(secured, authority, study):
    peer = replace(secured(), tls=Tls(authority / "ca.pem"))
    assert [one.error for one in store(study, peer)] == [None] * 3


@pytest.mark.parametrize("ca", [None, "other.pem"])
def test_a_certificate_that_is_not_trusted_is_refused_in_words(secured, authority, study, ca):
    peer = replace(secured(), tls=Tls(authority / ca if ca else None))
    with pytest.raises(NetworkError, match="not trusted.*--tls-ca") as raised:
        list(store(study, peer))
    assert raised.value.code == "tls-failed"


def test_a_certificate_of_another_host_is_refused(secured, authority, study):
    peer = replace(secured(), tls=Tls(authority / "ca.pem"))
    other = (
        WebPeer(peer.url.replace("127.0.0.1", "localhost"), peer.tls)
        if isinstance(peer, WebPeer)
        else replace(peer, host="localhost")
    )
    with pytest.raises(NetworkError, match="not trusted") as raised:
        list(store(study, other))
    assert raised.value.code == "tls-failed"


def test_a_server_that_asks_for_ours_gets_it_or_is_told_of(secured, authority, study, quick):
    peer = secured(ask=True)
    ours = Tls(authority / "ca.pem", authority / "client.pem", authority / "client.key")
    assert [one.error for one in store(study, replace(peer, tls=ours))] == [None] * 3
    with pytest.raises(NetworkError, match="--tls-cert") as raised:
        list(store(study, replace(peer, tls=Tls(authority / "ca.pem")), patience=quick))
    assert raised.value.code == "tls-failed"


def test_plain_to_a_port_that_wants_tls_is_told(authority, node, study, quick):
    peer = replace(node(ssl_context=_server(authority, ask=False)).peer, tls=None)
    with pytest.raises(NetworkError, match="whether it wants TLS"):
        list(store(study, peer, patience=replace(quick, answer_s=1)))


@pytest.mark.parametrize("scheme", ["dicom", "dicoms"])
def test_a_port_behind_a_firewall_is_told(study, scheme):
    with socket.socket() as deaf, socket.socket() as first:
        deaf.bind(("127.0.0.1", 0))
        deaf.listen(0)  # the next that calls finds the queue full, and hears nothing
        first.connect(deaf.getsockname())
        peer = parse_peer(f"{scheme}://PACS@127.0.0.1:{deaf.getsockname()[1]}")
        with pytest.raises(NetworkError, match="nobody answers.*firewall") as raised:
            list(store(study, peer, patience=Patience(tries=1, answer_s=0.2)))
    assert raised.value.code == "peer-away"


def test_a_peer_that_leaves_our_greeting_unanswered_is_told_from_one_that_is_away(study):
    with socket.socket() as mute:
        mute.bind(("127.0.0.1", 0))
        mute.listen()
        peer = parse_peer(f"dicoms://PACS@127.0.0.1:{mute.getsockname()[1]}")
        with pytest.raises(NetworkError, match="took the connection.*speaks TLS"):
            list(store(study, peer, patience=Patience(tries=1, answer_s=0.2)))


@pytest.fixture
def moved(authority, node, study, uids, tmp_path, free_port, monkeypatch):
    """Have a PACS over TLS move one object to us; give what became of it."""
    (dataset, uid), port = (pydicom.dcmread(study[0]), uids[0]), free_port()
    monkeypatch.setenv("SSL_CERT_FILE", str(authority / "ca.pem"))  # the system's

    def move(ours: Tls, pacs: Tls) -> Fetched:
        def answer(_):
            context = build_context(dataset.SOPClassUID, dataset.file_meta.TransferSyntaxUID)
            secured = (pacs.context(), "127.0.0.1")
            yield "127.0.0.1", port, {"contexts": [context], "tls_args": secured}
            yield 1
            yield 0xFF00, dataset

        syntax = (StudyRootQueryRetrieveInformationModelMove, ImplicitVRLittleEndian)
        server = _server(authority, ask=False)
        made = node(contexts=[syntax], handlers=[(evt.EVT_C_MOVE, answer)], ssl_context=server)
        wanted = Study(dataset.StudyInstanceUID, (Instance("1.2", uid),))
        peer = replace(made.peer, tls=ours)
        (one,) = fetch(peer, wanted, tmp_path, port=port, patience=Patience(1, 0, 5))
        return one

    return move


def test_who_shows_a_certificate_of_the_authorities_that_are_named_may_send_to_us(moved, authority):
    ca, ours = authority / "ca.pem", (authority / "client.pem", authority / "client.key")
    one = moved(Tls(ca, *ours), Tls(ca, authority / "server.pem", authority / "server.key"))
    assert (one.new, one.error) == (True, None)


def test_where_no_authorities_are_named_who_sends_to_us_is_asked_for_none(moved, authority):
    ours = (authority / "client.pem", authority / "client.key")
    one = moved(Tls(None, *ours), Tls(authority / "ca.pem"))
    assert (one.new, one.error) == (True, None)


def test_who_shows_none_where_authorities_are_named_is_turned_away(moved, authority):
    ca, ours = authority / "ca.pem", (authority / "client.pem", authority / "client.key")
    with pytest.raises(NetworkError, match="does not send"):
        moved(Tls(ca, *ours), Tls(ca))


def test_to_be_sent_to_over_tls_wants_a_certificate_of_ours(moved, authority):
    ca = authority / "ca.pem"
    with pytest.raises(NetworkError, match="--tls-cert.*--tls-key") as raised:
        moved(Tls(ca), Tls(ca))
    assert raised.value.code == "tls-failed"


@pytest.mark.parametrize("name", ["absent.pem", "ext"])
def test_files_that_hold_no_certificate_are_named(authority, node, study, name):
    peer = replace(node().peer, tls=Tls(authority / name))
    with pytest.raises(NetworkError, match=f"{name}.*PEM"):
        list(store(study, peer))
