"""A small data set of phantoms in the form of `csv`, and a recipe that trains in seconds."""

from __future__ import annotations

import csv

import pytest
import yaml
from accelerate.state import AcceleratorState
from PIL import Image

from medllm.phantom import Lesion, make_phantom

SHAPE = {
    "hidden_size": 16,
    "num_hidden_layers": 2,
    "num_attention_heads": 2,
    "intermediate_size": 32,
}

WEAK = {"pose": 0.2, "exposure": 0.2, "texture": 0, "border": 0, "hidden": 0}


@pytest.fixture(autouse=True)
def _no_precision_of_an_earlier_training():
    """accelerate holds on to it, and a CPU with matrix units for bfloat16 trains in that."""
    AcceleratorState._reset_state()


def _write_phantoms(folder, count=48):
    folder.mkdir()
    with (folder / "labels.csv").open("w", newline="") as stream:
        table = csv.writer(stream)
        table.writerow(
            ["path", "patient_id", "pneumonia", "lung_opacity", "age_years", "sex", "view_position"]
        )
        for seed in range(count):
            lesions = [Lesion("lung_opacity", "right", "lower", 1.0, 1.0)] if seed % 2 else []
            phantom = make_phantom(seed, size=96, lesions=lesions)
            Image.fromarray((phantom.pixels * 255).astype("uint8")).save(folder / f"{seed}.png")
            # Two images a patient, one of each class.
            found = [seed % 2, seed % 2]
            about = [phantom.age_years, phantom.sex, phantom.view]
            table.writerow([f"{seed}.png", f"p{seed // 2}", *found, *about])
    return folder


@pytest.fixture(scope="session")
def phantom_table(tmp_path_factory):
    return _write_phantoms(tmp_path_factory.mktemp("training") / "data")


@pytest.fixture(scope="session")
def make_recipe(phantom_table):
    def make(out):
        """A recipe of all stages, as it stands in its file."""
        return {
            "out": str(out),
            "card": {"name": "tiny"},
            "model": {
                "vision": {**SHAPE, "image_size": 64, "patch_size": 16, "num_channels": 1},
                "text": dict(SHAPE),
                "findings": ["pneumonia", "lung_opacity"],
            },
            "data": [{"dataset": "csv", "root": str(phantom_table), "shares": [0.5, 0.3, 0.2]}],
            "pretrain": {"epochs": 2, "batch_size": 8},
            "align": {"epochs": 1, "batch_size": 8},
            # As short as tells the two classes apart.
            "finetune": {
                **{"epochs": 10, "batch_size": 4, "learning_rate": 2e-2, "layer_decay": 1.0},
                **{"auxiliary": False, "location": 0, "augmentation": dict(WEAK)},
            },
            "compute": {"save_seconds": 0},
        }

    return make


@pytest.fixture
def recipe_values(make_recipe, tmp_path):
    return make_recipe(tmp_path / "run")


@pytest.fixture
def write_recipe(tmp_path):
    def write(values, name="recipe.yaml"):
        path = tmp_path / name
        path.write_text(yaml.safe_dump(values))
        return path

    return write
