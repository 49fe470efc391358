from __future__ import annotations

import csv
import json
import shutil
from dataclasses import replace

import pytest
import torch
from PIL import Image, ImageOps

from medllm.data import Preprocessing, prepared
from medllm.errors import TrainingError
from medllm.models import save_model
from medllm.phantom import make_phantom
from medllm.train.claim import CLAIM_FILE, claim, claim_images, claim_start
from medllm.train.parts import divide
from medllm.train.recipe_file import read_recipe
from medllm.train.run import train

CONTRACT = Preprocessing(size=64)


@pytest.fixture
def recipe(recipe_values, write_recipe, phantom_table, tmp_path):
    """A recipe with a copy of the data that a test may change."""
    root = shutil.copytree(phantom_table, tmp_path / "data")
    recipe_values["data"] = [
        {**recipe_values["data"][0], "root": str(root)},
        {"dataset": "phantom", "count": [2, 2, 0]},
    ]
    return read_recipe(str(write_recipe(recipe_values)))


def claim_all(recipe):
    """What a training does before its first step."""
    division = divide(recipe)
    claim(recipe, division)
    parts = {
        part: division.load(part, CONTRACT, recipe.out / "prepared")
        for part in ("train", "validation")
    }
    claim_images(recipe.out, parts)


def swap_first_of(part, recipe):
    """Put another image in the place of one, under its name."""
    with (recipe.out / "split.csv").open() as stream:
        name = next(row["file"] for row in csv.DictReader(stream) if row["split"] == part)
    path = recipe.data[0].root / name
    ImageOps.invert(Image.open(path)).save(path)


@pytest.mark.parametrize("part", ["train", "validation"])
def test_an_image_that_was_swapped_is_noticed_though_names_and_labels_are_the_same(part, recipe):
    claim_all(recipe)
    (recipe.out / "pretrain").mkdir()
    claim_all(recipe)
    swap_first_of(part, recipe)
    claim(recipe, divide(recipe))
    with pytest.raises(TrainingError, match=rf"the images of csv \({part}\) are not those"):
        claim_all(recipe)


def test_an_image_that_nothing_was_trained_on_may_still_come(recipe):
    claim_all(recipe)
    (recipe.out / "pretrain").mkdir()
    swap_first_of("test", recipe)
    claim_all(recipe)


def test_phantoms_that_are_made_otherwise_are_noticed(recipe, monkeypatch):
    claim_all(recipe)
    (recipe.out / "pretrain").mkdir()

    def darker(seed, **options):
        phantom = make_phantom(seed, **options)
        return replace(phantom, pixels=phantom.pixels * 0.9)

    monkeypatch.setattr(prepared, "make_phantom", darker)
    told = r"the images of phantom \(train\), phantom \(validation\) are not those"
    with pytest.raises(TrainingError, match=told):
        claim_all(recipe)


def test_a_training_killed_while_images_are_prepared_goes_on(recipe):
    claim(recipe, divide(recipe))
    before = json.loads((recipe.out / CLAIM_FILE).read_text())
    assert "images" not in before
    claim_all(recipe)
    after = json.loads((recipe.out / CLAIM_FILE).read_text())
    images = after.pop("images")
    assert after == before
    assert {part: set(sets) for part, sets in images.items()} == {
        "train": {"csv", "phantom"},
        "validation": {"csv", "phantom"},
    }


@pytest.fixture
def further(recipe_values, write_recipe, tmp_path, new_tiny_model):
    """A recipe that goes on from a checkpoint, which a test may change."""
    save_model(new_tiny_model(("pneumonia",)), tmp_path / "start")
    values = {**recipe_values, "pretrain": None, "align": None}
    values["model"] = {"start": str(tmp_path / "start"), "findings": ["pneumonia"]}
    return read_recipe(str(write_recipe(values)))


def test_a_start_that_was_replaced_is_noticed_though_its_folder_is_the_same(
    further, new_tiny_model, tmp_path
):
    claim(further, divide(further))
    claim_start(further)
    (further.out / "finetune").mkdir()
    claim_start(further)
    other = new_tiny_model(("pneumonia",))
    with torch.no_grad():
        other.network.lm_head.weight.mul_(2)
    save_model(other, tmp_path / "start")
    with pytest.raises(TrainingError, match=r"model.start, .*/start, has .* begun with") as refused:
        train(further)
    assert "bring that back" in str(refused.value)
    assert not (further.out / "checkpoint").exists()
    # Where nothing was trained yet, anything may change.
    (further.out / "finetune").rmdir()
    claim(further, divide(further))
    claim_start(further)


@pytest.mark.parametrize("half", ["vision", "text"])
def test_a_half_that_was_replaced_is_noticed(recipe_values, write_recipe, tmp_path, half):
    for name in ("vision", "text"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "model.safetensors").write_bytes(b"weights")
        recipe_values["model"][name] = str(tmp_path / name)
    recipe_values["pretrain"] = None
    recipe = read_recipe(str(write_recipe(recipe_values)))
    claim(recipe, divide(recipe))
    claim_start(recipe)
    (recipe.out / "align").mkdir()
    (tmp_path / half / "trainer_state.json").write_text("{}")  # is no part of a model
    claim_start(recipe)
    (tmp_path / half / "model.safetensors").write_bytes(b"others")
    with pytest.raises(TrainingError, match=f"model.{half}, .* was begun with"):
        claim_start(recipe)


def test_a_training_that_an_earlier_medllm_began_goes_on(further):
    claim(further, divide(further))
    (further.out / "finetune").mkdir()
    claim(further, divide(further))
    claim_start(further)
    assert set(json.loads((further.out / CLAIM_FILE).read_text())["start"]) == {"start"}


# The second training of a process may compute otherwise than its first.
@pytest.mark.parametrize("precision", ["float32", "bfloat16"])
def test_a_folder_is_claimed_before_any_image_is_prepared(
    recipe, recipe_values, write_recipe, precision
):
    recipe_values["compute"]["precision"] = precision
    recipe = read_recipe(str(write_recipe(recipe_values)))
    claim(recipe, divide(recipe))
    (recipe.out / "pretrain").mkdir()
    other = read_recipe(str(write_recipe(recipe_values)), ["model.freeze=[vision]"])
    with pytest.raises(TrainingError, match="differs in model"):
        train(other)
    assert not (recipe.out / "prepared").exists()


def test_a_disk_that_is_full_or_closed_is_told_in_one_line(recipe, tmp_path, full_disk):
    division = divide(recipe)
    (tmp_path / "file").write_text("")
    closed = recipe.model_copy(update={"out": tmp_path / "file" / "run"})
    with pytest.raises(TrainingError, match=r"cannot be written to \(Not a directory\); make room"):
        claim(closed, division)
    with full_disk(), pytest.raises(TrainingError, match=r"cannot be written to \(File too large"):
        claim(recipe, division)
    assert not list(recipe.out.iterdir())
    claim(recipe, division)
    held = (recipe.out / CLAIM_FILE).read_bytes()
    with full_disk(), pytest.raises(TrainingError, match=r"cannot be written to \(File too large"):
        claim_images(recipe.out, {"train": {}})
    assert (recipe.out / CLAIM_FILE).read_bytes() == held


def changed(recipe, **stage):
    finetune = recipe.finetune.model_copy(update=stage)
    return recipe.model_copy(update={"finetune": finetune})


def claimed(recipe):
    return json.loads((recipe.out / CLAIM_FILE).read_text())["recipe"]


def test_what_failed_before_a_stage_began_may_be_mended(recipe):
    """Such as a wrong name of a model, or a batch that is larger than the data set."""
    frozen = recipe.model.model_copy(update={"freeze": ("vision",)})
    wrong = recipe.model_copy(update={"model": frozen})
    claim_all(wrong)
    claim_all(changed(recipe, batch_size=8))
    assert claimed(recipe)["model"]["freeze"] == []
    assert claimed(recipe)["finetune"]["batch_size"] == 8
    (recipe.out / "pretrain").mkdir()
    with pytest.raises(TrainingError, match="differs in model"):
        claim(wrong, divide(recipe))


def test_a_stage_whose_settings_change_before_it_is_finished_begins_anew_alone(recipe, caplog):
    claim_all(recipe)
    images = json.loads((recipe.out / CLAIM_FILE).read_text())["images"]
    (recipe.out / "pretrain" / "encoder").mkdir(parents=True)
    (recipe.out / "finetune" / "state-7").mkdir(parents=True)
    claim_all(changed(recipe, learning_rate=1e-5))
    assert (recipe.out / "pretrain" / "encoder").exists()
    assert not (recipe.out / "finetune").exists()
    # A mistake costs nothing that was computed.
    assert (recipe.out / "finetune.before-1" / "state-7").exists()
    assert "finetune are others than before: it begins anew" in caplog.text
    assert claimed(recipe)["finetune"]["learning_rate"] == 1e-5
    assert json.loads((recipe.out / CLAIM_FILE).read_text())["images"] == images
    # Nor does a second change, with a try of its own and a baseline between.
    for stage in ("finetune", "baseline-linear-head"):
        (recipe.out / stage / "state-1").mkdir(parents=True)
    claim_all(changed(recipe, learning_rate=1e-6))
    assert (recipe.out / "finetune.before-1" / "state-7").exists()
    assert (recipe.out / "finetune.before-2" / "state-1").exists()
    claim_all(changed(recipe, learning_rate=1e-7))
    assert (recipe.out / "baseline-linear-head.before-1" / "state-1").exists()
    assert not (recipe.out / "baseline-linear-head.before-1.before-1").exists()


@pytest.mark.parametrize("finished", ["align/network", "finetune/network"])
def test_a_stage_that_is_finished_or_was_gone_on_from_may_not_change(finished, recipe):
    claim_all(recipe)
    (recipe.out / finished).mkdir(parents=True)
    align = recipe.align.model_copy(update={"learning_rate": 1e-5})
    with pytest.raises(TrainingError, match="differs in align;"):
        claim(recipe.model_copy(update={"align": align}), divide(recipe))
    assert (recipe.out / finished).exists()


def test_a_baseline_is_of_the_stage_that_it_stands_beside(recipe):
    claim_all(recipe)
    weights = recipe.out / "baseline-linear-head" / "weights.safetensors"
    weights.parent.mkdir()
    weights.write_bytes(b"")
    with pytest.raises(TrainingError, match="differs in finetune;"):
        claim(changed(recipe, learning_rate=1e-5), divide(recipe))
