from __future__ import annotations

import pytest

from medllm.errors import TrainingError
from medllm.train.parts import divide
from medllm.train.reading import read_recipe


def _read(values, write_recipe, **data):
    values["data"] = [{"dataset": "phantom", **data}]
    return read_recipe(str(write_recipe(values)))


def test_phantoms_alone_are_divided_by_their_seeds(recipe_values, write_recipe):
    division = divide(_read(recipe_values, write_recipe, count=[60, 30, 10]))
    assert not division.records
    assert {part: len(seeds) for part, seeds in division.seeds.items()} == {
        "train": 60,
        "validation": 30,
        "test": 10,
    }
    assert len(set().union(*division.seeds.values())) == 100


# Two phantoms in three have no opacity: of two or three there need be none.
@pytest.mark.parametrize(
    ("count", "findings", "told"),
    [
        ([60, 0, 0], ["pneumonia"], "pneumonia has no label among the validation phantoms"),
        ([60, 1, 0], ["pneumonia"], "pneumonia has no label [01] among the validation phantoms"),
        ([1, 60, 0], ["effusion"], "effusion has no label [01] among the train phantoms"),
        ([60, 60, 0], ["edema"], "edema has no label among the train phantoms"),
    ],
)
def test_phantoms_that_lack_a_class_are_refused(count, findings, told, recipe_values, write_recipe):
    recipe_values["model"]["findings"] = findings
    recipe = _read(recipe_values, write_recipe, count=count)
    with pytest.raises(TrainingError, match=rf"{told}.*more phantoms \(data, count\)"):
        divide(recipe)


def test_phantoms_do_not_stand_in_for_validation_patients(recipe_values, write_recipe):
    recipe_values["model"]["findings"] = ["pneumonia", "effusion"]
    recipe_values["data"].append({"dataset": "phantom", "count": [60, 60, 60]})
    recipe = read_recipe(str(write_recipe(recipe_values)))
    with pytest.raises(TrainingError, match="effusion has no label among the validation patients"):
        divide(recipe)
    divide(read_recipe(str(write_recipe(recipe_values)), ["model.ships=[pneumonia]"]))


def _division(tmp_path, splits, recipe_values, write_recipe):
    root = tmp_path / "divided"
    root.mkdir()
    rows = [f"{at}.png,p{at},{at % 2},{split}" for at, split in enumerate(splits)]
    (root / "labels.csv").write_text("path,patient_id,pneumonia,split\n" + "\n".join(rows))
    for at in range(len(splits)):
        (root / f"{at}.png").write_bytes(bytes([at]))
    recipe_values["model"]["findings"] = ["pneumonia"]
    recipe_values["data"] = [{"dataset": "csv", "root": str(root)}]
    return divide(read_recipe(str(write_recipe(recipe_values)))).records["csv"]


def test_an_official_test_part_stays_one_and_validation_is_taken_from_training(
    tmp_path, recipe_values, write_recipe
):
    parts = _division(tmp_path, ["train"] * 60 + ["test"] * 20, recipe_values, write_recipe)
    assert [record.patient_id for record in parts["test"]] == [f"p{at}" for at in range(60, 80)]
    # A ninth of 60 is expected; four binomial standard deviations are 10.
    assert 0 < len(parts["validation"]) < 17
    assert len(parts["train"]) + len(parts["validation"]) == 60
