"""What keeps a model of the hub from being opened, told with its remedy; the hub is on loopback."""

from __future__ import annotations

import errno
import json
import os
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path
from threading import Thread
from types import SimpleNamespace

import huggingface_hub.constants
import psutil
import pytest
import torch
from transformers import AutoConfig, AutoModelForImageTextToText

from medllm.errors import CheckpointError
from medllm.models import load_model
from medllm.models.hub import find_folder
from medllm.models.weights import load_weights, placement
from tests.models.architectures.checkpoints import write_checkpoint

RunHub = Callable[[type[BaseHTTPRequestHandler]], None]
Serve = Callable[[int, str], None]


class Quiet(BaseHTTPRequestHandler):
    def log_message(self, *_: object) -> None:
        pass


@pytest.fixture
def run_hub(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[RunHub]:
    """Start a hub on loopback that answers as a handler does."""
    servers = []

    def run(handler: type[BaseHTTPRequestHandler]) -> None:
        servers.append(HTTPServer(("127.0.0.1", 0), handler))
        Thread(target=servers[-1].serve_forever, daemon=True).start()
        endpoint = f"http://127.0.0.1:{servers[-1].server_port}"
        constants = huggingface_hub.constants
        files = f"{endpoint}/{{repo_id}}/resolve/{{revision}}/{{filename}}"
        monkeypatch.setattr(constants, "ENDPOINT", endpoint)
        monkeypatch.setattr(constants, "HUGGINGFACE_CO_URL_TEMPLATE", files)
        monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path))
        monkeypatch.setattr(constants, "HF_HUB_OFFLINE", False)

    yield run
    for server in servers:
        server.shutdown()
        server.server_close()


@pytest.fixture
def serve(run_hub: RunHub) -> Serve:
    """A hub that answers everything with one status and one of the hub's error codes."""
    answer = {"status": 500, "code": ""}

    class Hub(Quiet):
        def do_GET(self) -> None:
            self.send_response(int(answer["status"]))
            self.send_header("X-Error-Code", str(answer["code"]))
            self.send_header("Content-Length", "0")
            self.end_headers()

    run_hub(Hub)
    return lambda status, code: answer.update(status=status, code=code)


@pytest.mark.parametrize(
    ("status", "code", "says"),
    [
        (403, "GatedRepo", r"gated. Accept its terms at http://127.*/owner/name, .* hf auth login"),
        (404, "RepoNotFound", r"knows no such model. Check the spelling; if it is private"),
        (404, "RevisionNotFound", r"has no revision 'v9'"),
    ],
)
def test_what_the_hub_answers_becomes_a_remedy(serve, status, code, says):
    serve(status, code)
    with pytest.raises(CheckpointError, match=says.replace("hf auth", "'hf auth")) as error:
        find_folder("owner/name@v9")
    assert error.value.code == "not-fetched"
    assert "\n" not in str(error.value)


def test_a_hub_that_is_not_reached_says_how_to_do_without(serve, monkeypatch):
    # Port 9 is discard's; nothing listens there.
    monkeypatch.setattr(huggingface_hub.constants, "ENDPOINT", "http://127.0.0.1:9")
    with pytest.raises(
        CheckpointError, match=r"127.0.0.1:9 is not reached. Run 'hf download owner/name'"
    ):
        find_folder("owner/name")


def test_a_cache_that_lacks_it_and_may_not_ask_says_so(serve, monkeypatch):
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_OFFLINE", True)
    with pytest.raises(CheckpointError) as error:
        find_folder("owner/name")
    assert str(error.value) == (
        "'owner/name' is not in the local Hugging Face cache and could not be fetched: "
        "HF_HUB_OFFLINE is set. Run 'hf download owner/name' where the hub is reached, and pass "
        "the folder, or copy the cache."
    )


def test_a_cache_that_has_another_revision_names_it(serve, tmp_path, monkeypatch):
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_OFFLINE", True)
    cached, commit = tmp_path / "models--owner--name", "b" * 40
    (cached / "snapshots" / commit).mkdir(parents=True)
    (cached / "refs").mkdir()
    (cached / "refs" / "main").write_text(commit)
    assert find_folder("owner/name") == cached / "snapshots" / commit
    with pytest.raises(CheckpointError) as error:
        find_folder("owner/name@v9")
    said = str(error.value)
    assert said.startswith("'owner/name@v9' is not in the local")
    assert "The cache has main of it: name that behind the @." in said
    assert "'hf download owner/name --revision v9'" in said
    (cached / "refs" / "main").unlink()
    with pytest.raises(CheckpointError, match=f"The cache has {commit} of it"):
        find_folder("owner/name")


def test_a_connection_that_breaks_says_that_the_same_command_goes_on(run_hub, monkeypatch):
    commit, file = "0" * 40, {"type": "file", "path": "config.json", "size": 1000, "oid": "1" * 40}

    class Breaking(Quiet):
        def do_HEAD(self) -> None:
            self.send_response(200)
            self.send_header("X-Repo-Commit", commit)
            self.send_header("ETag", '"1"')
            self.send_header("Content-Length", "1000")
            self.end_headers()

        def do_GET(self) -> None:
            if not self.path.startswith("/api/"):
                self.do_HEAD()  # and not a byte of the thousand
                return
            self.send_response(200)
            self.end_headers()
            told = [file] if "/tree/" in self.path else {"id": "owner/name", "sha": commit}
            self.wfile.write(json.dumps(told).encode())

    run_hub(Breaking)
    monkeypatch.setattr("huggingface_hub.file_download.time.sleep", lambda _: None)
    with pytest.raises(CheckpointError, match=r"broke.*goes on where it stopped") as error:
        find_folder("owner/name")
    assert error.value.code == "not-fetched"


def test_a_full_disk_is_told_as_such(serve, monkeypatch):
    def fill(*_: object, **__: object) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr("huggingface_hub.snapshot_download", fill)
    with pytest.raises(CheckpointError, match="could not be fetched: No space left on device: /"):
        find_folder("owner/name")


def test_a_kind_that_transformers_does_not_know_names_its_version(tmp_path):
    folder = write_checkpoint("qwen2.5-vl", tmp_path / "model")
    file = folder / "config.json"
    file.write_text(json.dumps(json.loads(file.read_text()) | {"model_type": "qwen9_vl"}))
    with pytest.raises(
        CheckpointError, match=r"of type 'qwen9_vl', which transformers 5\.\d+.* 'pip install"
    ):
        load_model(folder)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float16, "auto"])
def test_weights_larger_than_the_free_memory_are_not_read(tmp_path, monkeypatch, dtype):
    folder = write_checkpoint("qwen2.5-vl", tmp_path / "model")
    network, _ = load_weights(AutoModelForImageTextToText, folder, dtype=dtype)
    needed = sum(one.numel() * one.element_size() for one in network.state_dict().values())

    def leave(available: int) -> None:
        monkeypatch.setattr(psutil, "virtual_memory", lambda: SimpleNamespace(available=available))

    leave(needed)
    load_weights(AutoModelForImageTextToText, folder, dtype=dtype)
    leave(needed // 2)
    with pytest.raises(CheckpointError, match=r"GiB of memory are free; use a machine") as error:
        load_weights(AutoModelForImageTextToText, folder, dtype=dtype)
    assert error.value.code == "no-memory"


def test_the_memory_that_counts_is_that_of_the_gpu_which_is_named(tmp_path, monkeypatch):
    folder = write_checkpoint("qwen2.5-vl", tmp_path / "model")
    config = AutoConfig.from_pretrained(folder)
    # The first GPU is full, and is asked when none is named.
    free = {None: 0, "cuda:0": 0, "cuda:1": 2**40}
    monkeypatch.setattr(torch.cuda, "mem_get_info", lambda device=None: (free[device], 2**40))
    placed = [placement(folder, config, torch.float32, f"cuda:{at}", None) for at in (0, 1)]
    assert placed == [{"device_map": "auto"}, {}]
