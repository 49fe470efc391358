"""A study to send, and peers that misbehave, all on loopback."""

from __future__ import annotations

import json
import threading
from collections import Counter
from collections.abc import Callable
from functools import partialmethod
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from socketserver import BaseServer

import pydicom
import pytest
from pydicom.uid import (
    ComputedRadiographyImageStorage,
    DigitalXRayImageStorageForPresentation,
    JPEG2000Lossless,
)
from pynetdicom import AE, ALL_TRANSFER_SYNTAXES, evt
from pynetdicom.transport import AssociationServer

from medllm.dicom.network import DicomPeer, Patience, WebPeer
from medllm.phantom import make_phantom, write_dicom

DX, CR = DigitalXRayImageStorageForPresentation, ComputedRadiographyImageStorage
ACCESSION = "ACC-7391"
PATIENT = "PLANTED^NAME"


@pytest.fixture(autouse=True)
def _closed(sound_sockets):
    """Each test here may lose a connection."""


@pytest.fixture
def quick() -> Patience:
    """Enough to see that something is tried again, too little to wait for."""
    return Patience(tries=3, pause_s=0.01, answer_s=5)


@pytest.fixture(scope="session")
def study(tmp_path_factory) -> list[Path]:
    """One patient's study: DX, CR with MONOCHROME1, and DX in JPEG 2000 with MONOCHROME1."""
    folder = tmp_path_factory.mktemp("study")
    phantom = make_phantom(3, size=128, lesions=[])
    files = [
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
    for file in files:
        dataset = pydicom.dcmread(file)
        dataset.AccessionNumber, dataset.PatientName = ACCESSION, PATIENT
        dataset.save_as(file)
    return files


@pytest.fixture(scope="session")
def uids(study) -> list[str]:
    return [str(pydicom.dcmread(file).SOPInstanceUID) for file in study]


class Node:
    """A DICOM node in this process that answers as a test wants; it takes everything if not told.

    Attributes:
        taken: What it took, as it came.
        counts: How many associations it accepted, and requests to store it got.
    """

    def __init__(self, port, on_store=None, *, contexts=None, handlers=(), tls=None, **server):
        self.taken: list[pydicom.Dataset] = []
        self.counts: Counter[str] = Counter()
        self.peer = DicomPeer("127.0.0.1", port, "NODE", tls=tls)
        self.on_store = on_store
        self.entity = AE("NODE")
        for abstract, transfer in contexts or [(uid, ALL_TRANSFER_SYNTAXES) for uid in (DX, CR)]:
            self.entity.add_supported_context(abstract, transfer)
        for name in ("maximum_associations", "require_called_aet", "require_calling_aet"):
            if name in server:
                setattr(self.entity, name, server.pop(name))
        self.entity.start_server(
            ("127.0.0.1", port),
            block=False,
            evt_handlers=[
                (evt.EVT_C_STORE, self._store),
                (evt.EVT_ACCEPTED, lambda _: self.counts.update(["associations"])),
                *handlers,
            ],
            **server,
        )

    def _store(self, event: evt.Event) -> int:
        self.counts["store"] += 1
        status = 0x0000 if self.on_store is None else self.on_store(self, event)
        if status in (0x0000, 0xB000):
            dataset = event.dataset
            dataset.file_meta = event.file_meta
            self.taken.append(dataset)
        return status


@pytest.fixture
def node(free_port, monkeypatch):
    """Start nodes; they look for the end more often than each half second, to end soon."""
    monkeypatch.setattr(
        AssociationServer, "serve_forever", partialmethod(BaseServer.serve_forever, 0.02)
    )
    started: list[Node] = []

    def start(*arguments, **settings) -> Node:
        started.append(Node(free_port(), *arguments, **settings))
        return started[-1]

    yield start
    for one in started:
        one.entity.shutdown()


class Site:
    """An HTTP server in this process that answers what a test has laid down."""

    def __init__(self, url: str) -> None:
        self.peer = WebPeer(url)
        self.answers: list[tuple[int, dict[str, str], bytes]] = []
        self.asked: list[tuple[str, str, dict[str, str]]] = []
        self.bodies: list[bytes] = []
        self.answer: Callable[[str], tuple[int, dict[str, str], bytes]] | None = None

    def lay(self, status: int, body: object = None, **headers: str) -> None:
        content = b"" if body is None else json.dumps(body).encode()
        kind = {"Content-Type": "application/dicom+json"}
        self.answers.append((status, kind | headers, content))


@pytest.fixture
def site():
    """Start an HTTP server; a status of 0 hangs up without an answer."""
    servers: list[ThreadingHTTPServer] = []

    def start(ssl_context=None) -> Site:
        class Handler(BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                length = int(self.headers.get("Content-Length") or 0)
                made.bodies.append(self.rfile.read(length))
                made.asked.append((self.command, self.path, dict(self.headers)))
                status, headers, body = (
                    made.answer(self.path) if made.answer else made.answers.pop(0)
                )
                if status == 0:
                    self.close_connection = True
                    return
                self.send_response(status)
                for name, value in headers.items():
                    self.send_header(name, value)
                self.send_header("Content-Length", str(len(body)))
                self.end_headers()
                self.wfile.write(body)

            do_POST = do_GET  # noqa: N815

            def log_message(self, *_: object) -> None:
                pass

        server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        scheme = "http"
        if ssl_context is not None:
            server.socket = ssl_context.wrap_socket(server.socket, server_side=True)
            scheme = "https"
        threading.Thread(target=server.serve_forever, args=[0.02], daemon=True).start()
        servers.append(server)
        made = Site(f"{scheme}://127.0.0.1:{server.server_port}/dicom-web")
        return made

    yield start
    for server in servers:
        server.shutdown()
        server.server_close()
