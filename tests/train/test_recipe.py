from __future__ import annotations

import pytest

from medllm.errors import TrainingError
from medllm.train.recipe_file import BUNDLED, read_recipe


def test_the_command_line_goes_over_the_environment_and_that_over_the_file(
    recipe_values, write_recipe, monkeypatch
):
    path = write_recipe(recipe_values)
    assert read_recipe(str(path)).finetune.epochs == 10
    monkeypatch.setenv("MEDLLM_TRAIN__FINETUNE__EPOCHS", "5")
    assert read_recipe(str(path)).finetune.epochs == 5
    read = read_recipe(str(path), ["finetune.epochs=7", "data.csv.repeats=3"])
    assert read.finetune.epochs == 7
    assert read.data[0].repeats == 3


def test_every_bundled_recipe_is_read_by_its_name():
    for path in BUNDLED.glob("*.yaml"):
        assert read_recipe(path.stem).model.findings


# Each setting with the words its message must hold: what was found, and what is wanted.
WRONG = {
    "finetune.augmentation.hidden=5": "finetune.augmentation.hidden",
    "finetune.augmentation.border=-1": "finetune.augmentation.border",
    "finetune.augmentation.pose=.nan": "finetune.augmentation.pose",
    "finetune.augmentation.posse=1": "pose",
    "finetune.learning_rate=.inf": "finetune.learning_rate",
    "finetune.epoch=3": "'finetune.epoch' is unknown; did you mean 'epochs'",
    "model.lora.rnak=3": "did you mean 'rank'",
    "compute.presision=auto": "did you mean 'precision'",
    "finetne.epochs=3": "did you mean 'finetune'",
    "finetune.epochs=0": "finetune.epochs: input should be greater than 0, found 0",
    "finetune.epochs=many": "finetune.epochs: input should be a valid integer",
    "card.version=0.3": "found 0.3; give it quotes of its own, as in 'card.version=\"0.3\"'",
    "model.findings=[pnuemonia]": "'pnuemonia' is not a finding; did you mean pneumonia?",
    "model.findings=[nodule, nodule]": "named twice",
    "model.ships=[nodule]": "ships may name only what findings names",
    "model.start=owner/name": "start brings its own vision and text",
    "model.text=owner/name": "both pretrained, or both new shapes",
    "data.csv.shares=[0.5, 0.5, 0.5]": "add up to 1",
    "data.csv.root=null": "csv needs a root",
    "data.nih.root=here": "names no data set of the recipe",
    "data=[]": "data: ",
    "measure=[{name: a, dataset: nih}]": "measure names nih, which data does not",
    "pretrain.repeats={nih: 3}": "pretrain.repeats names nih, which data does not",
    "pretrain.repeats={csv: 0}": "pretrain.repeats.csv: input should be greater than 0, found 0",
    "model.vision.model_type=dinov2": "pretrain makes a ViT, and model.vision is a dinov2",
    "model.lora.halves=[]": "model.lora.halves: ",
    "seed=-1": "seed: input should be greater than or equal to 0, found -1",
    "finetune": "is no setting; write key=value",
    "out.more=1": "leads to a value",
    "out.more.still=1": "leads to a value",
    "card.name=[a": "'card.name=[a' is not YAML: while parsing",
}


def test_a_setting_of_a_data_set_that_is_not_described_is_told(recipe_values, write_recipe):
    path = str(write_recipe(recipe_values))
    with pytest.raises(TrainingError, match=r"'data.csv.repeats' names no data set"):
        read_recipe(path, ["data=[csv]", "data.csv.repeats=2"])


@pytest.mark.parametrize(("setting", "told"), WRONG.items(), ids=WRONG)
def test_what_is_wrong_is_told_with_the_right_name(setting, told, recipe_values, write_recipe):
    path = write_recipe(recipe_values)
    with pytest.raises(TrainingError) as caught:
        read_recipe(str(path), [setting])
    assert told in str(caught.value)
    assert "\n" not in str(caught.value)


# What would be passed over in silence, or undone.
TOGETHER = {
    ("model.lora={rank: 8}", "model.freeze=[vision]"): "freeze leaves vision as it is, and lora ch",
    ("model.lora={rank: 8}", "finetune=null"): "model.lora is for the stage finetune",
    ("pretrain=null", "align=null", "finetune=null"): "nothing of a new network is trained",
}


@pytest.mark.parametrize(("settings", "told"), TOGETHER.items())
def test_settings_that_contradict_each_other_are_refused(
    settings, told, recipe_values, write_recipe
):
    path = write_recipe(recipe_values)
    with pytest.raises(TrainingError, match=told):
        read_recipe(str(path), settings)
    one = read_recipe(str(path), ["model.lora={halves: [text]}", "model.freeze=[vision]"])
    assert one.model.lora is not None


def test_a_pretrained_encoder_is_not_pretrained_again(recipe_values, write_recipe):
    recipe_values["model"] |= {"vision": "owner/encoder", "text": "owner/llm"}
    with pytest.raises(TrainingError, match="must be a shape"):
        read_recipe(str(write_recipe(recipe_values)))


def test_a_file_that_is_missing_or_no_recipe_is_refused(tmp_path):
    with pytest.raises(TrainingError, match=r"nor a bundled recipe \(.*reference"):
        read_recipe("nowhere.yaml")
    broken = tmp_path / "broken.yaml"
    broken.write_text("a: [")
    with pytest.raises(TrainingError, match="is not YAML"):
        read_recipe(str(broken))
    broken.write_text("- a list")
    with pytest.raises(TrainingError, match="holds no mapping"):
        read_recipe(str(broken))
