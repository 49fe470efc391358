from __future__ import annotations

import csv
import dataclasses
import datetime
import functools
import json
import re
import shutil
import signal
import time
from pathlib import Path

import pytest
import torch
import yaml
from accelerate import Accelerator, DistributedType
from monai.networks.nets import DenseNet
from PIL import Image, ImageOps
from safetensors.torch import load_file
from transformers import LlavaForConditionalGeneration
from typer.testing import CliRunner

from medllm.cli import app
from medllm.errors import CheckpointError, TrainingError
from medllm.models import load_model, save_model
from medllm.models.checkpoint import BUNDLED
from medllm.train import measure, network
from medllm.train.network import new_model
from medllm.train.parts import divide
from medllm.train.recipe_file import read_recipe
from medllm.train.run import _accelerator, train, with_self_test
from medllm.train.stages import Stages, Watch

ON_A_CPU = {"ACCELERATE_USE_CPU": "true"}


def _losses(run, stage):
    lines = (run / stage / "log.jsonl").read_text().splitlines()
    return [json.loads(line)["loss"] for line in lines]


def _told_of_training(run):
    """Count what a training wrote into its split: a row an image, two images a patient."""
    table = csv.DictReader((run / "split.csv").read_text().splitlines())
    rows = [row for row in table if row["split"] == "train"]
    patients = {row["patient_id"] for row in rows}
    return f"A table of one's own (csv): {len(rows)} images of {len(patients)} patients."


@pytest.fixture(autouse=True)
def few_resamples(monkeypatch):
    """Resample less; what the figures of a card are is tested where they are made."""
    few = functools.partial(measure.clustered_bootstrap, n_resamples=50)
    monkeypatch.setattr(measure, "clustered_bootstrap", few)


@pytest.fixture(scope="module")
def unbroken(make_recipe, programs, tmp_path_factory):
    """A training on one process that nobody disturbed."""
    folder = tmp_path_factory.mktemp("unbroken")
    path = folder / "recipe.yaml"
    path.write_text(yaml.safe_dump(make_recipe(folder / "run")))
    program = programs.run("train", path, environment=ON_A_CPU)
    assert program.wait() == 0, program.stderr
    return folder / "run"


@pytest.fixture
def finished(unbroken, recipe_values, write_recipe):
    """A copy of it that a test may change, with its recipe and its model."""
    shutil.copytree(unbroken, recipe_values["out"])
    recipe = read_recipe(str(write_recipe(recipe_values)))
    return recipe, load_model(recipe.out / "checkpoint")


def test_the_self_test_is_of_the_network_as_it_loads(new_tiny_model, tmp_path):
    """Weights are stored in half precision; the LLM's rotary frequencies are not stored."""
    tested = with_self_test(new_tiny_model(("pneumonia",)))
    loaded = save_model(tested, tmp_path / "stored", dtype=torch.float16)
    theirs = dict(loaded.network.named_buffers()) | dict(loaded.network.named_parameters())
    for name, values in (*tested.network.named_buffers(), *tested.network.named_parameters()):
        assert torch.equal(values, theirs[name]), name


def test_a_recipe_becomes_a_checkpoint_that_transformers_opens(finished):
    recipe, model = finished
    folder = recipe.out / "checkpoint"
    again = load_model(folder)
    assert again.card.findings == ("pneumonia", "lung_opacity")
    assert again.card.self_test is not None
    assert "validation patients of csv" in again.card.questions[0].calibration.fitted_on
    pixels = torch.randn(2, 1, 64, 64, generator=torch.Generator().manual_seed(0))
    with torch.inference_mode():
        torch.testing.assert_close(model.log_odds(pixels), again.log_odds(pixels))
    LlavaForConditionalGeneration.from_pretrained(folder)
    for question in again.card.questions:
        # 7 images of each class: by chance that is so once in 60 times.
        assert question.measurements[0].auroc.value > 0.8
    names = {measured.test_set for measured in again.card.questions[0].measurements}
    assert any(name.startswith("csv; validation patients") for name in names)
    assert {row.finding for row in again.card.image_use} == {"pneumonia", "lung_opacity"}
    assert {row.baseline for row in again.card.comparisons} == {"thumbnails"}
    assert again.card.started_from == ""
    assert again.card.training_data == (_told_of_training(recipe.out),)
    assert re.fullmatch(
        r"[\d.e-]+ hours on 1 thread of a \w+ CPU; energy was not measured\.",
        again.card.training_cost,
    )


def test_the_cost_names_each_device_that_a_training_ran_on(finished):
    recipe, _ = finished
    log = recipe.out / "finetune" / "log.jsonl"
    steps = [
        {"step": 1, "seconds": 1800.0, "device": "1 x A"},
        {"step": 2, "seconds": 1800.0, "device": "1 x A"},
        {"step": 3, "seconds": 900.0, "device": "4 x B"},
        {"step": 4, "seconds": 360.0},
    ]
    log.write_text("".join(f"{json.dumps(step)}\n" for step in steps))
    for stage in ("pretrain", "align"):
        (recipe.out / stage / "log.jsonl").unlink()
    assert train(recipe).card.training_cost == (
        "1 hours on 1 x A and 0.25 hours on 4 x B and 0.1 hours on a device that its log does not "
        "name; energy was not measured."
    )


def test_a_finished_stage_is_not_trained_again(finished):
    recipe, _ = finished
    weights = recipe.out / "finetune" / "network" / "model.safetensors"
    before = weights.stat().st_mtime_ns
    train(recipe)
    assert weights.stat().st_mtime_ns == before


def test_what_a_stage_draws_does_not_depend_on_the_stages_of_its_process(finished):
    recipe, before = finished
    for folder in ("finetune", "checkpoint"):
        shutil.rmtree(recipe.out / folder)
    again = train(recipe)
    for name, value in before.network.state_dict().items():
        assert torch.equal(value, again.network.state_dict()[name]), name


def test_a_killed_training_ends_with_the_same_weights(
    unbroken, recipe_values, write_recipe, programs, tmp_path
):
    path, broken = write_recipe(recipe_values), tmp_path / "broken"
    command = ("train", path, f"out={broken}")
    program = programs.start(*command, environment=ON_A_CPU)
    while program.poll() is None and not list(broken.glob("finetune/state-*")):
        time.sleep(0.01)
    program.send_signal(signal.SIGKILL)
    assert program.wait() == -signal.SIGKILL, program.stderr
    assert not (broken / "checkpoint").exists()
    program = programs.run(*command, environment=ON_A_CPU)
    assert program.wait() == 0, program.stderr
    one, other = (load_file(run / "checkpoint" / "model.safetensors") for run in (unbroken, broken))
    for name, value in one.items():
        assert torch.equal(value, other[name]), name


def test_two_processes_train_as_one(
    unbroken, recipe_values, write_recipe, programs, free_port, tmp_path
):
    path, two = write_recipe(recipe_values), tmp_path / "two"
    # What torchrun gives to each of its processes.
    shared = {
        **{"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(free_port())},
        **{"WORLD_SIZE": "2", "LOCAL_WORLD_SIZE": "2"},
    }
    started = [
        programs.start(
            *("train", path, f"out={two}"),
            environment={**ON_A_CPU, **shared, "RANK": rank, "LOCAL_RANK": rank},
        )
        for rank in ("0", "1")
    ]
    for program in started:
        assert program.wait() == 0, program.stderr
    for stage in ("pretrain", "align", "finetune"):
        ours, theirs = _losses(two, stage), _losses(unbroken, stage)
        assert len(ours) == len(theirs), stage
        # Sums over half batches are rounded otherwise; Adam carries that on, further each step.
        assert ours[:5] == pytest.approx(theirs[:5], abs=2e-4), stage


@pytest.mark.usefixtures("finished")
def test_another_recipe_or_other_data_is_not_mixed_into_a_training(
    recipe_values, write_recipe, phantom_table, tmp_path
):
    path = str(write_recipe(recipe_values))
    with pytest.raises(TrainingError, match="differs in finetune"):
        train(read_recipe(path, ["finetune.epochs=3"]))
    train(read_recipe(path, ["compute.save_seconds=9"]))
    copy = tmp_path / "copy"
    copy.mkdir()
    for file in phantom_table.iterdir():
        (copy / file.name).write_bytes(file.read_bytes())
    table = copy / "labels.csv"
    values = {**recipe_values, "out": str(tmp_path / "other")}
    values["data"] = [{**values["data"][0], "root": str(copy)}]
    path = str(write_recipe(values))
    train(read_recipe(path))
    swapped = copy / "0.png"
    before = swapped.read_bytes()
    ImageOps.invert(Image.open(swapped)).save(swapped)
    part = re.search(r"csv,0\.png,p0,(\w+)", (tmp_path / "other" / "split.csv").read_text())[1]
    assert part in ("train", "validation")
    with pytest.raises(TrainingError, match=rf"the images of csv \({part}\) are not those"):
        train(read_recipe(path))
    swapped.write_bytes(before)
    table.write_text(re.sub(r"^0.png,p0,0,0", "0.png,p0,1,1", table.read_text(), flags=re.M))
    with pytest.raises(TrainingError, match="data sets are not those"):
        train(read_recipe(path))


def test_a_training_goes_on_from_a_checkpoint(recipe_values, write_recipe):
    """The bundled model, since a tiny one learns too little to be calibrated but by luck."""
    values = {**recipe_values, "pretrain": None, "align": None}
    values["model"] = {"start": str(BUNDLED), "findings": ["pneumonia"]}
    # Too small a step to go anywhere: what is found at the end is what was begun with.
    values["finetune"] = {"epochs": 1, "batch_size": 8, "learning_rate": 1e-7}
    further, begun = train(read_recipe(str(write_recipe(values)))), load_model(BUNDLED)
    assert further.card.findings == ("pneumonia",)
    assert further.card.training_data == (
        *begun.card.training_data,
        f"Up to here the training data of medllm-reference {begun.card.version} (sha256 "
        f"{begun.sha256[:12]}), from which this training went on, with csv.",
        _told_of_training(Path(values["out"])),
    )
    page = (Path(values["out"]) / "checkpoint" / "README.md").read_text()
    assert "whether an earlier one did is not known" in page
    for name in ("vision_tower", "language_model"):
        halves = (getattr(one.network.model, name).state_dict() for one in (further, begun))
        # Half precision keeps 11 bits of each weight.
        torch.testing.assert_close(*halves, rtol=1e-3, atol=1e-5)


def test_a_model_of_phantoms_alone_says_so_on_its_card(recipe_values, write_recipe):
    """The bundled model, since a tiny one learns too little of phantoms to be calibrated."""
    values = {
        "out": recipe_values["out"],
        "card": {"name": "phantoms", "limitations": ["It is small."]},
        "model": {"start": str(BUNDLED), "findings": ["pneumonia"]},
        "data": [{"dataset": "phantom", "count": [12, 30, 0]}],
    }
    card = train(read_recipe(str(write_recipe(values)))).card
    assert card.questions[0].calibration.fitted_on.startswith("validation phantoms (30 images)")
    (measured,) = card.questions[0].measurements
    assert measured.test_set == (
        "phantoms of unseen seeds; validation phantoms, on which the calibration was fitted"
    )
    assert card.limitations[-2] == "It is small."
    assert "calibrated and measured on phantoms" in card.limitations[-1]
    assert card.training_data[-1] == "Synthetic radiographs of medllm.phantom: 12 images."
    assert {row.shown for row in card.image_use} > {"image", "blank"}


def test_phantoms_are_not_pretrained_on_unasked(recipe_values, write_recipe):
    values = {**recipe_values, "data": [{"dataset": "phantom", "count": [12, 30, 0]}]}
    recipe = read_recipe(str(write_recipe(values)))
    with pytest.raises(TrainingError, match=r"no images for pretrain but phantoms.*phantoms=true"):
        train(recipe)


def test_a_checkpoint_of_another_vocabulary_is_refused(
    finished, recipe_values, write_recipe, tmp_path
):
    recipe, _ = finished
    folder = recipe.out / "checkpoint"
    tokenizer = json.loads((folder / "tokenizer.json").read_text())
    vocabulary = tokenizer["model"]["vocab"]
    vocabulary["unheard"] = vocabulary.pop("nodule")
    (folder / "tokenizer.json").write_text(json.dumps(tokenizer))
    card = json.loads((folder / "medllm.json").read_text())
    del card["files"]
    (folder / "medllm.json").write_text(json.dumps(card))
    values = {**recipe_values, "out": str(tmp_path / "further"), "pretrain": None, "align": None}
    values["model"] = {"start": str(folder), "findings": ["nodule"]}
    with pytest.raises(CheckpointError, match="does not know all words of .*nodule"):
        new_model(read_recipe(str(write_recipe(values))))


@pytest.mark.parametrize(
    ("shape", "message"),
    [
        ("vision.patch_size=7", "has 9 x 9 patches on 64 pixels, which they do not divide"),
        ("text.num_attention_heads=5", r"'llama' is no shape .* not a multiple of .*heads \(5\)"),
        ("text.hidden_size=wide", "no shape .* 'hidden_size' expected int, got str"),
        ("text={model_type: bert, hidden_size: 16}", "no network has these shapes: The hidden si"),
    ],
)
def test_shapes_that_make_no_network_are_refused_before_the_first_step(
    recipe_values, write_recipe, shape, message
):
    recipe = read_recipe(str(write_recipe(recipe_values)), [f"model.{shape}"])
    with pytest.raises((CheckpointError, TrainingError), match=message):
        new_model(recipe)


def test_a_network_of_another_architecture_is_not_gone_on_with(
    recipe_values, write_recipe, monkeypatch
):
    values = {**recipe_values, "pretrain": None, "align": None}
    values["model"] = {"start": str(BUNDLED), "findings": ["pneumonia"]}
    begun = load_model(BUNDLED)
    # A checkpoint of another architecture, as it loads; the smallest is some gigabytes.
    other = dataclasses.replace(begun, network=torch.nn.Linear(1, 1))
    monkeypatch.setattr(network, "load_model", lambda *_, **__: other)
    with pytest.raises(CheckpointError, match=r"reference is a Linear, which.*start from a LLaVA"):
        new_model(read_recipe(str(write_recipe(values))))


def test_divided_weights_are_refused_before_anything_is_done(
    recipe_values, write_recipe, monkeypatch
):
    """Configured as `accelerate config` does; without GPUs accelerate itself takes no notice."""
    divided = property(lambda _: DistributedType.FSDP)
    monkeypatch.setattr(Accelerator, "distributed_type", divided)
    recipe = read_recipe(str(write_recipe(recipe_values)))
    with pytest.raises(TrainingError, match="configured for FSDP.*without FSDP"):
        train(recipe)
    assert not recipe.out.exists()


def test_questions_that_no_image_answers_are_not_asked(recipe_values, write_recipe):
    values = {**recipe_values, "pretrain": None}
    recipe = read_recipe(str(write_recipe(values)))
    model = new_model(recipe)
    part = dict(divide(recipe).load("train", model.card.preprocessing, recipe.out))
    part["csv"] = dataclasses.replace(
        part["csv"],
        labels=[
            {key: value for key, value in row.items() if not key.startswith("opacity")}
            for row in part["csv"].labels
        ],
    )
    stages = Stages(recipe, model, part, {}, Accelerator(cpu=True), Watch())
    asked = stages._questions(recipe.align)._wordings
    # Two findings; view, age group and sex.
    assert len(asked) == 5


def test_the_others_wait_longer_than_images_are_prepared_for(recipe_values, write_recipe):
    accelerator = _accelerator(read_recipe(str(write_recipe(recipe_values))))
    assert accelerator.init_handler.timeout >= datetime.timedelta(hours=12)


# The labels' table changed, with the words that the message must hold.
DAMAGED = {
    "a missing file": (lambda text: text + "gone.png,p9,1,1,30,F,PA\n", "are missing, first gone"),
    "an empty class": (lambda text: re.sub(r"(p\d+),1,1", r"\1,0,0", text), "no label 1"),
    "a label outside": (lambda text: text.replace("p0,0,0", "p0,2,0"), "pneumonia is '2'"),
    "one patient in two parts": (
        lambda text: "\n".join(
            f"{line},{'split' if not at else 'train' if at % 2 else 'validation'}"
            for at, line in enumerate(text.splitlines())
        ),
        "are both in train and in validation",
    ),
    "a part of another name": (
        lambda text: "\n".join(
            f"{line},{'split' if not at else 'dev'}" for at, line in enumerate(text.splitlines())
        ),
        "the part of an image is 'dev'; wanted are train, validation, test",
    ),
}


@pytest.mark.parametrize(("damage", "told"), DAMAGED.values(), ids=DAMAGED)
def test_damaged_data_is_refused_before_the_first_step(
    damage, told, recipe_values, write_recipe, phantom_table, tmp_path
):
    copy = tmp_path / "copy"
    copy.mkdir()
    for file in phantom_table.iterdir():
        (copy / file.name).symlink_to(file)
    table = copy / "labels.csv"
    text = table.read_text()
    table.unlink()
    table.write_text(damage(text))
    recipe_values["data"][0]["root"] = str(copy)
    result = CliRunner().invoke(app, ["train", str(write_recipe(recipe_values))])
    assert result.exit_code == 1
    assert told in str(result.exception)
    assert not list((tmp_path / "run").glob("*/state-*"))


def test_baselines_are_trained_beside_it(recipe_values, write_recipe, monkeypatch):
    # The same network with fewer layers, which is not what this is about.
    small = functools.partial(DenseNet, init_features=8, growth_rate=4, block_config=(2, 2))
    monkeypatch.setattr("medllm.train.classifiers.DenseNet121", small)
    values = {**recipe_values, "baselines": ["linear-head", "densenet-121"]}
    values |= {"align": None, "compute": {}, "finetune": {**values["finetune"], "epochs": 6}}
    recipe = read_recipe(str(write_recipe(values)))
    model = train(recipe)
    names = {row.baseline for row in model.card.comparisons}
    assert names == {"thumbnails", "linear-head", "densenet-121"}
    again = train(recipe)
    assert [row.baseline_auroc for row in again.card.comparisons] == [
        row.baseline_auroc for row in model.card.comparisons
    ]


def test_adapters_are_merged_and_the_frozen_half_stays(recipe_values, write_recipe):
    values = {**recipe_values, "align": None}
    values["model"] = {
        **values["model"],
        "lora": {"halves": ["text"], "rank": 2, "alpha": 4},
        "freeze": ["vision"],
    }
    recipe = read_recipe(str(write_recipe(values)))
    model = new_model(recipe)
    sets = divide(recipe).load("train", model.card.preprocessing, recipe.out / "prepared")
    stages = Stages(recipe, model, sets, {}, Accelerator(cpu=True), Watch())
    stages.pretrain()
    stages.answer("finetune", recipe.finetune)
    encoder = load_file(recipe.out / "pretrain" / "encoder" / "model.safetensors")
    network = load_file(recipe.out / "finetune" / "network" / "model.safetensors")
    assert not any("lora" in name for name in network)
    for name, value in encoder.items():
        (found,) = [key for key in network if key.endswith(f"vision_tower.{name}")]
        assert torch.equal(network[found], value), name
