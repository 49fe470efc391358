from __future__ import annotations

import dataclasses
import json
import re
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from medllm.errors import CheckpointError
from medllm.evaluate import (
    recalibrate,
    require_destination,
    stored_precision,
    write_recalibrated,
)
from medllm.evaluate.recalibration.checkpoint import figures_of
from medllm.models import load_model, save_model
from medllm.models.card_page import card_page
from medllm.models.checkpoint import BUNDLED

ROOT = Path(__file__).parents[3]


@pytest.fixture(scope="module", params=[torch.float32, torch.float16, torch.bfloat16], ids=str)
def source(request, tiny_model, tmp_path_factory):
    folder = tmp_path_factory.mktemp("models") / "tiny"
    save_model(tiny_model, folder, dtype=request.param)
    return folder, request.param


def test_the_weights_are_the_same_bytes_in_any_precision(source, simulated, tmp_path):
    folder, dtype = source
    assert stored_precision(folder) == dtype
    result = recalibrate(load_model(folder), simulated(n_patients=60), "Site A", n_resamples=50)
    saved = write_recalibrated(result, tmp_path / "new", stored_precision(folder))
    for file in ("model.safetensors", "tokenizer.json"):
        assert (tmp_path / "new" / file).read_bytes() == (folder / file).read_bytes()
    assert saved.card.questions[0].calibration == result.refitted[0].after.calibration
    image = torch.randn(2, 1, 64, 64, generator=torch.Generator().manual_seed(0))
    with torch.inference_mode():
        assert torch.equal(saved.log_odds(image), load_model(folder).log_odds(image))


def test_a_mixture_of_precisions_is_held_by_float32(tiny_model, tmp_path):
    from safetensors.torch import save_file

    save_model(tiny_model, tmp_path / "a", dtype=torch.float16)
    tensors = load_file(tmp_path / "a" / "model.safetensors")
    first = next(iter(tensors))
    tensors[first] = tensors[first].to(torch.bfloat16)
    save_file(tensors, tmp_path / "a" / "model.safetensors")
    assert stored_precision(tmp_path / "a") == torch.float32


def test_the_bundled_weights_are_kept_as_they_are(tmp_path):
    if not (BUNDLED / "medllm.json").exists():
        pytest.skip("no bundled weights here")
    model = load_model(BUNDLED)
    save_model(model, tmp_path / "copy", dtype=stored_precision(BUNDLED))
    copy, original = (
        load_file(folder / "model.safetensors") for folder in (tmp_path / "copy", BUNDLED)
    )
    assert copy.keys() == original.keys()
    for name, tensor in original.items():
        assert copy[name].dtype == tensor.dtype
        assert torch.equal(copy[name].view(torch.uint8), tensor.view(torch.uint8)), name


@pytest.fixture(scope="module")
def result(tiny_model, simulated):
    return recalibrate(
        tiny_model, simulated(("pneumonia", "effusion"), n_patients=60), "Site A", n_resamples=50
    )


def test_the_card_does_not_say_that_no_weight_was_fitted_on_the_sites_images(result):
    page = card_page(result.model.card)
    again = page.index("## Figures at recalibration; whether a weight was fitted on these images")
    assert page.index("| Site A; calibration cross-fitted over patients") > again
    assert page.index("### pneumonia") > again
    # What keeps its calibration keeps its place.
    assert page.index("images that no weight") < page.index("### nodule") < again


def test_the_figures_beside_the_checkpoint_are_those_that_were_measured(result, tmp_path):
    saved = write_recalibrated(result, tmp_path / "new", torch.float32)
    assert {"calibration.json", "reliability.svg"} < {f.name for f in (tmp_path / "new").iterdir()}
    page = json.loads((tmp_path / "new" / "calibration.json").read_text())
    assert page["checkpoint"]["sha256"] == saved.sha256
    assert page["model"] == {"name": "tiny", "version": "0", "sha256": "0" * 64}
    assert (page["dataset"], page["n_images"], page["n_patients"]) == ("Site A", 120, 60)
    assert "cross-fitted over patients" in page["method"]
    one = result.refitted[1]
    told = page["findings"][one.finding]
    assert told["after"]["slope"] == dataclasses.asdict(one.after.slope)
    assert told["before"]["calibration"] == dataclasses.asdict(one.before.calibration)
    assert told["after"]["calibration"] == dataclasses.asdict(one.after.calibration)
    assert page["findings"]["nodule"] == {"refitted": False, "reason": "no label"}


def test_the_reference_page_names_all_that_is_written(result, tmp_path):
    write_recalibrated(result, tmp_path / "new", torch.float32)
    page = (ROOT / "docs" / "reference" / "checkpoint.md").read_text()
    for file in (tmp_path / "new").iterdir():
        assert f"`{file.name}`" in page
    told = json.loads((tmp_path / "new" / "calibration.json").read_text())
    kept, refitted = told["findings"]["nodule"], told["findings"]["pneumonia"]
    for values in (told, kept, refitted, refitted["after"], refitted["after"]["bins"][0]):
        for key in values.keys() - told["findings"].keys():
            assert re.search(rf"`(findings\.\*\.)?{key}`", page), key


def test_no_path_and_no_patient_is_told(result, tmp_path):
    write_recalibrated(result, tmp_path / "new", torch.float32)
    for name in ("calibration.json", "reliability.svg", "medllm.json"):
        text = (tmp_path / "new" / name).read_text()
        assert str(tmp_path) not in text
        assert "p17" not in text
        assert ".png" not in text


def test_a_figure_that_is_not_defined_is_null(result):
    odd = dataclasses.replace(
        result.refitted[0].before,
        slope=dataclasses.replace(result.refitted[0].before.slope, value=float("nan")),
    )
    changed = dataclasses.replace(
        result, refitted=(dataclasses.replace(result.refitted[0], before=odd), result.refitted[1])
    )
    assert figures_of(changed)["findings"]["pneumonia"]["before"]["slope"]["value"] is None


def test_writing_replaces_an_older_checkpoint_and_leaves_no_drafts(result, tmp_path):
    for _ in range(2):
        write_recalibrated(result, tmp_path / "new", torch.float32)
    assert [entry.name for entry in tmp_path.iterdir()] == ["new"]
    assert not [entry for entry in (tmp_path / "new").iterdir() if entry.name.startswith(".")]
    assert load_model(tmp_path / "new").card.version == "0+recalibrated"


def test_a_checkpoint_that_is_no_earlier_calibration_of_this_model_is_not_replaced(
    result, tiny_model, tmp_path
):
    """Trained weights may lie there, and no other copy of them."""
    trained, other, moved = (tmp_path / name for name in ("trained", "other", "moved"))
    save_model(tiny_model, trained)
    elsewhere = dataclasses.replace(result.source, sha256="1" * 64)
    write_recalibrated(dataclasses.replace(result, source=elsewhere), other)
    # Another checkpoint with the figures of a calibration beside it.
    save_model(tiny_model, moved)
    (moved / "calibration.json").write_bytes((other / "calibration.json").read_bytes())
    for folder, said in (
        (trained, "'tiny 0', which medllm calibrate did not write"),
        (moved, "'tiny 0', which medllm calibrate did not write"),
        (other, r"a calibration of 'tiny 0' \(sha256 111111111111\), and not of this mod"),
    ):
        before = {file.name: file.read_bytes() for file in folder.iterdir()}
        with pytest.raises(CheckpointError, match=said) as caught:
            write_recalibrated(result, folder)
        assert "name another folder, or move that one away" in str(caught.value)
        assert {file.name: file.read_bytes() for file in folder.iterdir()} == before
    for damage in ("", "[]", '{"model": 3}'):
        (other / "calibration.json").write_text(damage)
        with pytest.raises(CheckpointError, match="which medllm calibrate did not write"):
            write_recalibrated(result, other)


def test_a_disk_that_fails_is_one_line_and_damages_nothing(result, tmp_path, monkeypatch):
    write_recalibrated(result, tmp_path / "new", torch.float32)
    before = {f.name: f.read_bytes() for f in (tmp_path / "new").iterdir()}

    def full(*_args, **_kwargs):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(type(result.model.tokenizer), "save_pretrained", full)
    with pytest.raises(CheckpointError, match="could not be written .No space left on device.; m"):
        write_recalibrated(result, tmp_path / "new", torch.float32)
    assert {f.name: f.read_bytes() for f in (tmp_path / "new").iterdir()} == before
    assert [entry.name for entry in tmp_path.iterdir()] == ["new"]


def test_a_bad_destination_is_refused_before_anything_is_computed(result, tmp_path):
    source = tmp_path / "source"
    write_recalibrated(result, source, torch.float32)
    (tmp_path / "notes").mkdir()
    (tmp_path / "notes" / "keep.txt").write_text("mine")
    for folder, message in (
        (tmp_path / "notes" / ".." / "source", "is the model's own folder"),
        (tmp_path / "notes", "exists and is no checkpoint"),
        (tmp_path / "notes" / "keep.txt", "is a file or read-only"),
        (tmp_path / "notes" / "keep.txt" / "new", "is a file or read-only"),
    ):
        with pytest.raises(CheckpointError, match=message):
            require_destination(folder, source)
    model, again = tmp_path / "model", tmp_path / "again"
    save_model(result.source, model)
    write_recalibrated(dataclasses.replace(result, source=load_model(model)), again)
    for folder in (tmp_path / "a" / "b", again):
        require_destination(folder, model)
    with pytest.raises(CheckpointError, match="and not of this model"):
        require_destination(source, model)
