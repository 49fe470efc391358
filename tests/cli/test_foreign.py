"""The commands on models of another's making, in a folder and in the cache of the hub."""

from __future__ import annotations

import json
import shutil

import numpy as np
import pytest
from PIL import Image
from transformers import AutoModel, AutoProcessor
from typer.testing import CliRunner

from medllm.cli import app
from medllm.errors import CheckpointError
from medllm.models import save_model, wrap_pretrained
from medllm.phantom import make_phantom, write_dicom
from tests.models.architectures.checkpoints import write_checkpoint

# What the figures are is tested where they are made.
pytestmark = pytest.mark.usefixtures("few_resamples")


def run(*arguments):
    return CliRunner().invoke(app, [str(argument) for argument in arguments])


@pytest.fixture(scope="module")
def clip(tmp_path_factory):
    return write_checkpoint("clip", tmp_path_factory.mktemp("models") / "clip")


@pytest.fixture(scope="module")
def kept(clip, tmp_path_factory):
    """A folder of what was fitted for a network in memory."""
    network = AutoModel.from_pretrained(clip)
    model = wrap_pretrained(network, AutoProcessor.from_pretrained(clip, backend="pil"))
    folder = tmp_path_factory.mktemp("kept") / "site"
    save_model(model, folder)
    return folder


@pytest.fixture(scope="module")
def phantom_file(tmp_path_factory):
    file = tmp_path_factory.mktemp("phantom") / "chest.dcm"
    write_dicom(make_phantom(3, size=256), file)
    return file


def test_classify_answers_and_calls_nothing(clip, phantom_file):
    given = ("classify", phantom_file, "--model", clip, "--json", "--finding", "pneumonia")
    result = run(*given)
    assert result.exit_code == 0, result.output
    line = json.loads(result.stdout)
    assert line["model"]["name"] == "clip"
    (answer,) = line["findings"]
    assert (answer["finding"], answer["call"]) == ("pneumonia", "indeterminate")
    assert not answer["calibrated"]


def test_explain_writes_a_report(clip, phantom_file, tmp_path):
    result = run(
        *("explain", phantom_file, "--model", clip, "--finding", "pneumonia"),
        *("--out", tmp_path, "--format", "json"),
    )
    assert result.exit_code == 0, result.output
    (report,) = tmp_path.rglob("*.json")
    assert "pneumonia" in report.read_text()


def test_evaluate_measures_it(clip, tmp_path):
    rng = np.random.default_rng(0)
    rows = ["path,patient_id,pneumonia"]
    for at in range(12):
        coarse = Image.fromarray(rng.integers(256, size=(4, 4), dtype=np.uint8))
        coarse.resize((72, 72), Image.Resampling.BICUBIC).save(tmp_path / f"{at}.png")
        rows.append(f"{at}.png,p{at},{at % 2}")
    (tmp_path / "labels.csv").write_text("\n".join(rows))
    out = tmp_path / "out"
    result = run("evaluate", "csv", "--root", tmp_path, "--model", clip, "--out", out)
    assert result.exit_code == 0, result.output
    assert "clip as published" in result.stdout
    told = json.loads((out / "metrics.json").read_text())
    assert told["findings"]["pneumonia"]["n"] == 12
    assert told["findings"]["pneumonia"]["auroc"]["value"] is not None


@pytest.mark.parametrize(
    ("kind", "said"),
    [
        ("llava", "image        read once, whatever is asked"),
        ("paligemma", "image        encoded once, and read by the LLM anew for each question"),
        ("clip", ""),
    ],
)
def test_verify_says_whether_questions_share_the_image(tmp_path, kind, said):
    result = run("models", "verify", write_checkpoint(kind, tmp_path / kind))
    assert result.exit_code == 0, result.output
    assert [line for line in result.stdout.splitlines() if line.startswith("image ")] == (
        [said] if said else []
    )


def test_a_card_is_refused_with_where_to_find_what_it_would_say(clip):
    error = run("models", "card", clip).exception
    assert isinstance(error, CheckpointError)
    assert f"'medllm models show {clip}' says how medllm reads it" in str(error)


def test_the_list_has_cached_models_of_others(clip, kept, tmp_path, monkeypatch):
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path))
    shutil.copytree(kept, tmp_path / "models--site--kept" / "snapshots" / ("a" * 40))
    for name, commit, has_weights in (("seen", "a" * 40, True), ("config", "b" * 40, False)):
        repository = tmp_path / f"models--someone--{name}"
        shutil.copytree(clip, repository / "snapshots" / commit)
        (repository / "refs").mkdir()
        (repository / "refs" / "main").write_text(commit)
        if not has_weights:
            (repository / "snapshots" / commit / "model.safetensors").unlink()
    unknown = tmp_path / "models--someone--words" / "snapshots" / ("c" * 40)
    unknown.mkdir(parents=True)
    (unknown / "config.json").write_text('{"model_type": "gpt2"}')
    (unknown / "model.safetensors").touch()
    listed = run("models", "list").stdout.splitlines()
    assert [line.split()[0] for line in listed] == ["reference", "site/kept", "someone/seen"]
    assert listed[2].endswith("MB  clip, of another's making")


@pytest.mark.parametrize(
    "given",
    [
        "classify FILE --model SITE",
        "explain FILE --model SITE --finding pneumonia --out OUT",
        "evaluate csv --root ROOT --model SITE --out OUT",
        "evaluate-explanations phantom --model SITE --limit 2 --out OUT",
        "calibrate csv --root ROOT --model SITE --out OUT",
        "models verify SITE",
    ],
)
def test_a_network_in_memory_is_led_to_python(kept, phantom_file, tmp_path, given):
    Image.fromarray(np.zeros((72, 72), np.uint8)).save(tmp_path / "0.png")
    (tmp_path / "labels.csv").write_text("path,patient_id,pneumonia\n0.png,p0,1")
    places = {"FILE": phantom_file, "SITE": kept, "ROOT": tmp_path, "OUT": tmp_path / "out"}
    result = run(*(places.get(word, word) for word in given.split()))
    assert result.exit_code == 1
    assert isinstance(result.exception, CheckpointError), result.output
    assert result.exception.code == "in-memory"
    assert not (tmp_path / "out").exists()


def test_a_network_in_memory_is_shown_and_not_configured(kept, tmp_path):
    for command in ("show", "card"):
        result = run("models", command, kept)
        assert result.exit_code == 0, result.output
        assert "Its network lives in memory" in result.stdout
    refused = run("models", "configure", kept, "--out", tmp_path / "out").exception
    assert "is asked as it was trained or calibrated" in str(refused)
