"""A real and tiny model, the place of the real data, programs, a disk that is full, and a PACS."""

from __future__ import annotations

import contextlib
import json
import os
import re
import resource
import shutil
import socket
import subprocess
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import torch
from transformers import LlamaConfig, ViTConfig

from medllm.data import Preprocessing
from medllm.errors import ReportError
from medllm.evaluate import answers
from medllm.findings import FINDINGS
from medllm.models import Model, ModelCard, Question, build_network, build_tokenizer
from medllm.report import pdf
from tests.programs import Programs

TEMPLATE = "<image>\n{question}\n"


def build_tiny_model(
    findings: tuple[str, ...] = ("pneumonia", "effusion", "nodule"), *, std: float = 0.2
) -> Model:
    """Build a model of random weights, large enough that errors show."""
    questions = tuple(Question(key, FINDINGS[key].question) for key in findings)
    tokenizer = build_tokenizer([*(question.text for question in questions), "yes no"])
    network = build_network(
        ViTConfig(
            hidden_size=16,
            num_hidden_layers=2,
            num_attention_heads=2,
            intermediate_size=32,
            image_size=64,
            patch_size=16,
            num_channels=1,
        ),
        LlamaConfig(
            hidden_size=16, num_hidden_layers=2, num_attention_heads=2, intermediate_size=32
        ),
        tokenizer,
    )
    generator = torch.Generator().manual_seed(0)
    with torch.no_grad():
        for parameter in network.parameters():
            if parameter.ndim > 1:
                parameter.normal_(std=std, generator=generator)
    card = ModelCard(
        name="tiny",
        version="0",
        description="Random weights.",
        intended_use="Tests.",
        limitations=("It knows nothing.",),
        training_data=(),
        questions=questions,
        preprocessing=Preprocessing(size=64, channels=1),
        prompt_template=TEMPLATE,
    )
    return Model(network, tokenizer, card, sha256="0" * 64)


@pytest.fixture(scope="session")
def tiny_model() -> Model:
    return build_tiny_model()


@pytest.fixture
def new_tiny_model() -> Callable[..., Model]:
    """Build a tiny model that a test may change."""
    return build_tiny_model


@pytest.fixture(scope="session")
def programs(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Programs]:
    """Run `medllm` or a text of Python as its user does, in a process of its own."""
    started = Programs(tmp_path_factory.mktemp("programs"))
    yield started
    started.close()


@pytest.fixture(scope="session")
def data_root() -> Path:
    """The folder of real radiographs; tests that need it are skipped without."""
    beside = Path(__file__).parents[2] / "shared" / "data"
    root = Path(os.environ.get("MEDLLM_DATA") or beside)
    if not root.is_dir():
        pytest.skip(f"no real radiographs: set MEDLLM_DATA to their folder ({root.name} is absent)")
    return root


@pytest.fixture(scope="session")
def pango() -> None:
    """Skip what writes a PDF where the system's library for it is missing."""
    try:
        pdf._weasyprint()
    except ReportError as error:
        pytest.skip(str(error))


@pytest.fixture
def full_disk() -> Callable[..., contextlib.AbstractContextManager[None]]:
    """Let the disk take no more than the first bytes of any file, and then fail."""

    @contextlib.contextmanager
    def full(room: int = 0) -> Iterator[None]:
        soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
        resource.setrlimit(resource.RLIMIT_FSIZE, (room, hard))
        try:
            yield
        finally:
            resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))

    return full


@pytest.fixture
def see_probe(tmp_path: Path) -> Callable[[str], dict[str, Any]]:
    """Open a page beside those of the test's folder; give what it wrote down, and the console."""
    chromium = shutil.which("chromium") or shutil.which("google-chrome")
    if chromium is None:
        pytest.skip("chromium is not installed")

    def see(probe: str) -> dict[str, Any]:
        page = tmp_path / "probe.html"
        page.write_text(probe)
        done = subprocess.run(  # noqa: S603 - a browser found on this machine, a page made here
            [
                chromium,
                "--headless",
                "--no-sandbox",
                "--disable-gpu",
                "--disable-background-networking",
                "--allow-file-access-from-files",
                "--enable-logging=stderr",
                f"--user-data-dir={tmp_path / 'profile'}",
                "--virtual-time-budget=5000",
                "--dump-dom",
                page.as_uri(),
            ],
            capture_output=True,
            text=True,
            timeout=120,
            check=True,
        )
        seen = json.loads(re.search(r'<pre id="seen">(.*?)</pre>', done.stdout).group(1))
        console = [line for line in done.stderr.splitlines() if "CONSOLE" in line]
        return {**seen, "console": console}

    return see


@dataclass(frozen=True)
class Orthanc:
    """A real PACS on this machine, with its own empty storage."""

    http_url: str
    dicom_port: int
    ae_title: str = "ORTHANC"

    @property
    def dicom_url(self) -> str:
        return f"dicom://{self.ae_title}@127.0.0.1:{self.dicom_port}"

    @property
    def web_url(self) -> str:
        return f"{self.http_url}/dicom-web"

    def ask(self, path: str, method: str = "GET", body: Any = None) -> Any:
        """Use its own interface, which medllm does not: an independent look into the PACS."""
        data = None if body is None else json.dumps(body).encode()
        request = urllib.request.Request(self.http_url + path, data, method=method)  # noqa: S310
        with urllib.request.urlopen(request, timeout=20) as answer:  # noqa: S310
            return json.loads(answer.read() or b"null")

    def instances(self) -> set[str]:
        """SOP Instance UIDs of all that it holds."""
        found = self.ask("/instances?expand")
        return {instance["MainDicomTags"]["SOPInstanceUID"] for instance in found}

    def clear(self) -> None:
        for patient in self.ask("/patients"):
            self.ask(f"/patients/{patient}", "DELETE")

    def introduce(self, ae_title: str, port: int) -> None:
        """Let it know a node on this machine, so that it can send there."""
        self.ask(f"/modalities/{ae_title}", "PUT", [ae_title, "127.0.0.1", port])


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


@pytest.fixture(name="free_port")
def _free_port() -> Callable[[], int]:
    return free_port


@pytest.fixture(scope="session")
def orthanc_server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Orthanc]:
    program = shutil.which("Orthanc") or shutil.which("Orthanc", path="/usr/sbin")
    plugins = sorted(Path("/usr/share/orthanc/plugins").glob("libOrthanc*.so"))
    if program is None or {"DicomWeb", "Gdcm"} - {path.stem[10:] for path in plugins}:
        pytest.skip("Orthanc is not installed: apt install orthanc orthanc-dicomweb orthanc-gdcm")
    folder = tmp_path_factory.mktemp("orthanc")
    http_port, dicom_port = free_port(), free_port()
    settings = {
        "StorageDirectory": str(folder),
        "IndexDirectory": str(folder),
        "Plugins": [str(path) for path in plugins],
        "HttpPort": http_port,
        "DicomPort": dicom_port,
        "DicomCheckCalledAet": True,
        "DicomAlwaysAllowFind": True,
        "DicomAlwaysAllowMove": True,
        "StableAge": 1,
    }
    (folder / "orthanc.json").write_text(json.dumps(settings))
    server = Orthanc(f"http://127.0.0.1:{http_port}", dicom_port)
    with (folder / "log").open("wb") as log, pytest.MonkeyPatch.context() as environment:
        environment.setenv("NO_PROXY", "127.0.0.1")
        process = subprocess.Popen([program, str(folder / "orthanc.json")], stdout=log, stderr=log)  # noqa: S603
        try:
            _wait_for(server, process)
            yield server
        finally:
            process.kill()
            process.wait()


def _wait_for(server: Orthanc, process: subprocess.Popen[bytes]) -> None:
    deadline = time.monotonic() + 60
    while True:
        try:
            server.ask("/system")
        except urllib.error.URLError:
            assert process.poll() is None, "Orthanc has ended"
            assert time.monotonic() < deadline, "Orthanc does not answer"
            time.sleep(0.1)
        else:
            return


@pytest.fixture
def orthanc(orthanc_server: Orthanc) -> Orthanc:
    """The PACS, empty; a test that uses it carries the marker `integration`."""
    orthanc_server.clear()
    return orthanc_server


@pytest.fixture(scope="session")
def sound_sockets() -> Iterator[None]:
    """Let pynetdicom close a socket that it could not shut down; it leaves it to the collector."""
    from pynetdicom.transport import AssociationSocket

    def close(connection: AssociationSocket) -> None:
        if connection.socket is not None:
            with contextlib.suppress(OSError):
                connection.socket.shutdown(socket.SHUT_RDWR)
            connection.socket.close()

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(AssociationSocket, "_shutdown_socket", close)
        yield


@pytest.fixture(scope="module")
def few_resamples() -> Iterator[None]:
    """Resample less where what is tested does not depend on an interval's width."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(answers, "N_RESAMPLES", 50)
        yield
