"""What keeps a model of the hub from being opened, told with its remedy; the hub is on loopback."""

from __future__ import annotations

import contextlib
import errno
import json
import logging
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
from safetensors.torch import load_file
from transformers import (
    AutoConfig,
    AutoModelForImageClassification,
    AutoModelForImageTextToText,
)
from transformers.utils import logging as transformers_logging

from medllm.errors import CheckpointError
from medllm.models import load_model
from medllm.models.hub import find_folder, read_config
from medllm.models.weights import load_weights, placement
from medllm.phantom import pixels_to_try
from tests.models.architectures.checkpoints import write_checkpoint

# What a model may bring code for.
AUTO_CLASSES = (
    "AutoConfig",
    "AutoModel",
    "AutoModelForCausalLM",
    "AutoModelForImageTextToText",
    "AutoModelForImageClassification",
    "AutoProcessor",
    "AutoImageProcessor",
)

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


@pytest.mark.parametrize(("kind", "part"), [("llava", "text_config"), ("gemma3", "vision_config")])
def test_a_part_of_a_kind_that_transformers_does_not_know_is_told_in_short(tmp_path, kind, part):
    folder = write_checkpoint(kind, tmp_path / "model")
    values = json.loads((folder / "config.json").read_text())
    values[part]["model_type"] = "llama9"
    (folder / "config.json").write_text(json.dumps(values))
    with pytest.raises(
        CheckpointError, match=rf"has a {part} of type 'llama9', which transformers 5.* 'pip inst"
    ) as error:
        load_model(folder)
    assert error.value.code == "unknown-architecture"
    assert len(str(error.value)) < 400 + len(str(folder))


@pytest.mark.parametrize(
    "values",
    [
        # As LLaVA-Med 1.5 is published, and LLaVA 1.5 itself.
        {"model_type": "llava_mistral", "architectures": ["LlavaMistralForCausalLM"]},
        {"model_type": "llava_llama", "mm_vision_tower": "openai/clip-vit-large-patch14-336"},
        # Older ones call themselves as transformers' own form does.
        {"model_type": "llava", "mm_vision_tower": "openai/clip-vit-large-patch14-336"},
    ],
)
def test_weights_of_llavas_own_code_ask_for_their_conversion(tmp_path, values):
    (tmp_path / "config.json").write_text(json.dumps(values))
    with pytest.raises(
        CheckpointError, match="of LLaVA's own code, .* Take its conversion .* 'llava'"
    ) as error:
        load_model(tmp_path)
    assert "upgrade" not in str(error.value)
    assert "\n" not in str(error.value)


@pytest.mark.parametrize("beside", [False, True], ids=["alone", "beside a configuration"])
def test_an_adapter_is_to_be_merged_before(tmp_path, beside):
    folder = write_checkpoint("clip", tmp_path / "model") if beside else tmp_path
    (folder / "adapter_config.json").write_text('{"peft_type": "LORA"}')
    with pytest.raises(CheckpointError, match="an adapter of peft .* Merge .*unload()") as error:
        load_model(folder)
    assert error.value.code == "adapter"


def test_weights_in_a_pickle_are_refused_until_they_are_converted_as_the_message_says(tmp_path):
    folder = write_checkpoint("vit-classifier", tmp_path / "model")
    file, whole = folder / "model.safetensors", load_model(folder)
    torch.save(load_file(file), folder / "pytorch_model.bin")
    file.unlink()
    with pytest.raises(
        CheckpointError, match=r"no weights in safetensors \(there is pytorch_model.bin\)"
    ) as error:
        load_model(folder)
    assert error.value.code == "no-safetensors"
    said = str(error.value)
    assert "owner/name@refs/pr/1" in said
    auto = "AutoModelForImageClassification"
    assert f"transformers.{auto}.from_pretrained(folder).save_pretrained(folder)" in said
    AutoModelForImageClassification.from_pretrained(folder).save_pretrained(folder)
    shown = whole.card.preprocessing.prepare(pixels_to_try(1))
    with torch.inference_mode():
        assert torch.equal(load_model(folder).log_odds(shown), whole.log_odds(shown))


def test_a_folder_without_any_weights_is_to_be_fetched_whole(tmp_path):
    """Trainer's own pickles are none of the weights that could be converted."""
    folder = write_checkpoint("vit-classifier", tmp_path / "model")
    (folder / "model.safetensors").unlink()
    for name in ("optimizer.pt", "scheduler.pt", "rng_state_0.pth", "training_args.bin"):
        (folder / name).write_bytes(b"")
    with pytest.raises(CheckpointError, match="holds no weights; .* Fetch it whole") as error:
        load_model(folder)
    assert error.value.code == "no-safetensors"
    (folder / "pytorch_model.bin").write_bytes(b"")
    with pytest.raises(CheckpointError, match=r"\(there is pytorch_model.bin\), and medllm opens"):
        load_model(folder)


def test_what_transformers_would_warn_of_a_configuration_is_kept_back(tmp_path, caplog):
    folder = write_checkpoint("siglip", tmp_path / "model")
    logger = logging.getLogger("transformers")
    logger.addHandler(caplog.handler)
    try:
        for opened, told in ((read_config, False), (AutoConfig.from_pretrained, True)):
            transformers_logging.warning_once.cache_clear()  # it has been told of the writing
            caplog.clear()
            opened(folder)
            # Its text tower's usual tokens are of CLIP's vocabulary.
            assert ("bos_token_id" in caplog.text) == told
    finally:
        logger.removeHandler(caplog.handler)


@pytest.mark.parametrize("kind", ["llava", "qwen3-vl", "clip", "vit-classifier"])
@pytest.mark.parametrize("known", [True, False])
def test_code_that_a_model_brings_along_is_never_run(tmp_path, kind, known):
    folder, marker = write_checkpoint(kind, tmp_path / "model"), tmp_path / "it ran"
    (folder / "evil.py").write_text(f"open({str(marker)!r}, 'w').close()\n")
    brought = {"auto_map": dict.fromkeys(AUTO_CLASSES, "evil.Evil")}
    brought["auto_map"] |= {"AutoTokenizer": ["evil.Evil", "evil.Evil"]}
    for file in folder.glob("*config.json"):
        file.write_text(json.dumps(json.loads(file.read_text()) | brought))
    if not known:
        file = folder / "config.json"
        file.write_text(json.dumps(json.loads(file.read_text()) | {"model_type": "evil"}))
    with contextlib.nullcontext() if known else pytest.raises(CheckpointError):
        load_model(folder)
    assert not marker.exists()


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
