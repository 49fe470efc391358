from __future__ import annotations

import dataclasses
import json
import os
import shutil

import pytest
import torch
from transformers import AutoModelForImageClassification, LlavaForConditionalGeneration
from typer.testing import CliRunner

from medllm.cli import app
from medllm.errors import CheckpointError
from medllm.models import Model, SelfTest, load_model, save_model
from medllm.models.card_file import read_card
from medllm.models.checkpoint import BUNDLED, cached_checkpoints
from medllm.phantom import make_phantom


@pytest.fixture(scope="module")
def saved(tiny_model: Model, tmp_path_factory: pytest.TempPathFactory):
    """A saved tiny checkpoint with a self-test."""
    pixels = make_phantom(5).pixels
    with torch.inference_mode():
        values = tiny_model.log_odds(tiny_model.card.preprocessing.prepare(pixels))[0].tolist()
    expected = dict(zip(tiny_model.card.findings, values, strict=True))
    card = dataclasses.replace(tiny_model.card, self_test=SelfTest(5, expected))
    folder = tmp_path_factory.mktemp("checkpoint") / "tiny"
    save_model(dataclasses.replace(tiny_model, card=card), folder)
    return folder


@pytest.fixture
def copy(saved, tmp_path):
    return shutil.copytree(saved, tmp_path / "copy")


def test_saved_and_loaded_again_scores_the_same(saved, tiny_model):
    image = torch.randn(2, 1, 64, 64, generator=torch.Generator().manual_seed(0))
    loaded = load_model(saved)
    with torch.inference_mode():
        assert torch.equal(loaded.log_odds(image), tiny_model.log_odds(image))
    assert loaded.card.questions == tiny_model.card.questions


def test_transformers_opens_the_folder_unchanged_and_gives_the_same_logits(saved, tiny_model):
    network = LlavaForConditionalGeneration.from_pretrained(saved)
    prompt = tiny_model.tokenizer("<image>" * 16 + " is there", return_tensors="pt")
    image = torch.randn(1, 1, 64, 64, generator=torch.Generator().manual_seed(3))
    inputs = {"input_ids": prompt["input_ids"], "pixel_values": image}
    with torch.inference_mode():
        assert torch.equal(network(**inputs).logits, tiny_model.network(**inputs).logits)


def test_half_precision_halves_the_file_and_computes_in_single(tiny_model, saved, tmp_path):
    half = save_model(tiny_model, tmp_path / "half", dtype=torch.float16)
    assert half.network.dtype == torch.float32
    assert LlavaForConditionalGeneration.from_pretrained(tmp_path / "half").dtype == torch.float32
    sizes = [(folder / "model.safetensors").stat().st_size for folder in (tmp_path / "half", saved)]
    assert sizes[0] < 0.65 * sizes[1]  # headers are the same size in both
    image = torch.randn(1, 1, 64, 64, generator=torch.Generator().manual_seed(0))
    with torch.inference_mode():
        # Half precision keeps 11 bits of each weight.
        torch.testing.assert_close(
            half.log_odds(image), tiny_model.log_odds(image), atol=0.02, rtol=0
        )


def test_an_altered_weight_is_refused(copy):
    file = copy / "model.safetensors"
    content = bytearray(file.read_bytes())
    content[-1] ^= 1
    file.write_bytes(content)
    with pytest.raises(CheckpointError, match="was altered or cut short"):
        load_model(copy)


def test_a_missing_file_is_named(copy):
    (copy / "tokenizer.json").unlink()
    with pytest.raises(CheckpointError, match="lacks tokenizer.json"):
        load_model(copy)


def _rewrite(folder, change):
    card = json.loads((folder / "medllm.json").read_text())
    change(card)
    (folder / "medllm.json").write_text(json.dumps(card))


def test_a_missing_tensor_is_refused_not_left_random(copy):
    from safetensors.torch import load_file, save_file

    tensors = load_file(copy / "model.safetensors")
    dropped = next(name for name in tensors if "multi_modal_projector" in name)
    del tensors[dropped]
    save_file(tensors, copy / "model.safetensors", metadata={"format": "pt"})
    _rewrite(copy, lambda card: card["files"].pop("model.safetensors"))
    with pytest.raises(CheckpointError, match="missing: .*multi_modal_projector"):
        load_model(copy)


def test_a_self_test_that_fails_is_refused(copy):
    def shift(card):
        card["self_test"]["log_odds"]["pneumonia"] += 0.01

    _rewrite(copy, shift)
    with pytest.raises(CheckpointError, match="self-test of 'tiny' gives .* for pneumonia"):
        load_model(copy)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda card: card.update(schema_version=99), "schema version 99; this medllm reads 1"),
        (lambda card: card.pop("questions"), "is not a model card"),
        (lambda card: card.update(surprise=1), "is not a model card"),
        (lambda card: card["preprocessing"].update(mean=0.5), "is not a model card"),
        (lambda card: card["preprocessing"].update(std=[0.5, 0.5]), "mean has 1 and std 2"),
    ],
)
def test_a_card_of_another_form_is_refused(copy, change, message):
    _rewrite(copy, change)
    with pytest.raises(CheckpointError, match=message):
        read_card(copy)


def test_a_broken_card_is_refused(copy):
    (copy / "medllm.json").write_text("{")
    with pytest.raises(CheckpointError, match="is not JSON"):
        read_card(copy)


def test_a_strategy_that_drops_a_patch_is_refused(copy):
    def keep_cls(config):
        config["vision_feature_select_strategy"] = "full"

    config = json.loads((copy / "config.json").read_text())
    keep_cls(config)
    (copy / "config.json").write_text(json.dumps(config))
    _rewrite(copy, lambda card: card["files"].pop("config.json"))
    with pytest.raises(CheckpointError, match="17 image tokens for 16 of a grid of 4 x 4"):
        load_model(copy)


def test_saving_replaces_a_checkpoint_and_nothing_else(tiny_model, copy, tmp_path):
    save_model(tiny_model, copy)
    assert load_model(copy).card.self_test is None
    assert [entry.name for entry in tmp_path.iterdir()] == ["copy"]
    other = tmp_path / "notes"
    other.mkdir()
    (other / "keep.txt").write_text("mine")
    with pytest.raises(CheckpointError, match="is no checkpoint"):
        save_model(tiny_model, other)
    assert (other / "keep.txt").read_text() == "mine"


def test_what_cannot_be_written_is_told_and_nothing_is_lost(
    tiny_model, copy, tmp_path, monkeypatch, full_disk
):
    before = read_card(copy)
    with (
        full_disk(),
        pytest.raises(CheckpointError, match="copy could not be .*too large"),
    ):
        save_model(tiny_model, copy)
    assert read_card(copy) == before
    (tmp_path / "file").write_text("")
    with pytest.raises(CheckpointError, match="file/site could not be written"):
        save_model(tiny_model, tmp_path / "file" / "site")
    (tmp_path / "here").mkdir()
    monkeypatch.chdir(tmp_path / "here")
    for place in (".", "../here", ""):
        with pytest.raises(CheckpointError, match="is the folder you are in; name one inside"):
            save_model(tiny_model, place)
    assert sorted(entry.name for entry in tmp_path.iterdir()) == ["copy", "file", "here"]


def test_a_path_that_does_not_exist_is_named(tmp_path):
    with pytest.raises(CheckpointError, match="neither a folder nor a hub name"):
        load_model(tmp_path / "nowhere")


@pytest.mark.parametrize("device", ["gpu", "cuda:99", "meta"])
def test_a_device_that_is_not_there_is_told_with_those_that_are(device):
    # Before the model is looked for, or gigabytes of it are fetched.
    with pytest.raises(ValueError, match=f"device is '{device}', and torch .* here on cpu"):
        load_model("clinic/none", device=device)


@pytest.mark.parametrize("device", ["cpu", "cpu:0"])
def test_a_cpu_computes_in_single_precision_whatever_it_is_called(published, tmp_path, device):
    folder = shutil.copytree(published("vit-classifier"), tmp_path / "half")
    network = AutoModelForImageClassification.from_pretrained(folder, dtype=torch.bfloat16)
    network.save_pretrained(folder)
    assert load_model(folder, device=device).dtype == torch.float32


def test_a_hub_name_is_found_in_the_local_cache(saved, tmp_path, monkeypatch):
    # The layout of a Hugging Face cache: refs name a revision, snapshots hold its files.
    repository = tmp_path / "models--clinic--tiny"
    shutil.copytree(saved, repository / "snapshots" / "abc")
    (repository / "refs").mkdir()
    (repository / "refs" / "main").write_text("abc")
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path))
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    assert load_model("clinic/tiny").card.name == "tiny"
    with pytest.raises(CheckpointError, match="'clinic/other' is not in the local"):
        load_model("clinic/other")


def test_a_cached_checkpoint_of_another_medllm_does_not_end_the_list(
    copy, saved, tmp_path, monkeypatch
):
    _rewrite(copy, lambda card: card.update(schema_version=99))
    for name, folder in (("newer", copy), ("tiny", saved)):
        repository = tmp_path / "cache" / f"models--clinic--{name}"
        shutil.copytree(folder, repository / "snapshots" / ("a" * 40))
        (repository / "refs").mkdir()
        (repository / "refs" / "main").write_text("a" * 40)
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path / "cache"))
    done = CliRunner().invoke(app, ["models", "list"])
    assert done.exit_code == 0, done.output
    *_, newer, tiny = done.output.splitlines()
    assert newer.startswith("clinic/newer")
    assert "schema version 99" in newer
    assert tiny.startswith("clinic/tiny")


@pytest.mark.parametrize(("main", "listed"), [("old", "old"), ("bare", "new"), (None, "new")])
def test_of_several_cached_revisions_the_one_of_main_is_listed_else_the_newest(
    saved, tmp_path, monkeypatch, main, listed
):
    hashes = {"old": "0" * 40, "new": "1" * 40, "middle": "2" * 40, "bare": "3" * 40}
    repository = tmp_path / "models--clinic--tiny"
    for place, name in enumerate(("old", "middle", "new", "bare")):
        snapshot = shutil.copytree(saved, repository / "snapshots" / hashes[name])
        if name == "bare":  # another's weights, without our card
            (snapshot / "medllm.json").unlink()
        for file in (snapshot, *snapshot.iterdir()):
            os.utime(file, (1e9 + place, 1e9 + place))
    if main:
        (repository / "refs").mkdir()
        (repository / "refs" / "main").write_text(hashes[main])
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path))
    assert cached_checkpoints()["clinic/tiny"].name == hashes[listed]


@pytest.mark.skipif(not (BUNDLED / "medllm.json").exists(), reason="no bundled weights here")
def test_the_bundled_reference_passes_its_self_test_and_is_small():
    model = load_model()
    assert model.card.self_test is not None
    assert sum(file.stat().st_size for file in BUNDLED.iterdir()) < 16e6
    assert "reference" in cached_checkpoints()
