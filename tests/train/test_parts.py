from __future__ import annotations

import dataclasses
import json

import pytest

from medllm.datasets import DATASETS
from medllm.errors import TrainingError
from medllm.evaluate import open_study
from medllm.train.parts import PARTS, divide
from medllm.train.recipe_file import read_recipe


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
        (
            [60, 9, 0],
            ["pneumonia"],
            r"pneumonia has \d image\(s\) with label 1, and 5 are the fewest, among the validation "
            "phantoms",
        ),
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
    parts = _division(tmp_path, ["train"] * 220 + ["test"] * 20, recipe_values, write_recipe)
    assert [record.patient_id for record in parts["test"]] == [f"p{at}" for at in range(220, 240)]
    # A ninth of 220 is expected; four binomial standard deviations are 19.
    assert 5 < len(parts["validation"]) < 44
    assert len(parts["train"]) + len(parts["validation"]) == 220


def test_an_evaluation_draws_the_parts_that_a_training_draws(tmp_path, recipe_values, write_recipe):
    root = tmp_path / "data"
    root.mkdir()
    rows = [f"{at}.png,p{at // 2},{at % 2}" for at in range(240)]
    (root / "labels.csv").write_text("path,patient_id,pneumonia\n" + "\n".join(rows))
    for at in range(240):
        (root / f"{at}.png").write_bytes(b"%d" % at)
    recipe_values["model"]["findings"] = ["pneumonia"]
    recipe_values["data"] = [{"dataset": "csv", "root": str(root)}]
    trained = divide(read_recipe(str(write_recipe(recipe_values)))).records["csv"]
    for part in PARTS:
        study = open_study("csv", root, split=part)
        assert [r.path for r in study.selection.records] == [r.path for r in trained[part]]


_NIH = "Image Index,Finding Labels,Patient ID,Patient Age,Patient Gender,View Position\n"
_MAPPING = "pneumonia-challenge-dataset-mappings_2018.json"


def _write_nih(root, n_patients):
    (root / "images").mkdir(parents=True)
    names = [f"{at:08}_000.png" for at in range(1, n_patients + 1)]
    labels = ("Pneumonia", "No Finding")
    (root / "Data_Entry_2017_v2020.csv").write_text(
        _NIH + "".join(f"{x},{labels[at % 2]},{at + 1},50,M,PA\n" for at, x in enumerate(names))
    )
    for name in names:
        (root / "images" / name).write_bytes(name.encode())
    return names


def _write_rsna(root, names):
    """Write the same patients, each by another file; the last has the bytes of the last but one."""
    (root / "stage_2_train_images").mkdir(parents=True)
    table = "".join(f"u{at},,,,,0\n" for at in range(len(names)))
    (root / "stage_2_train_labels.csv").write_text("patientId,x,y,width,height,Target\n" + table)
    mapping = [{"subset_img_id": f"u{at}", "img_id": name} for at, name in enumerate(names)]
    (root / _MAPPING).write_text(json.dumps(mapping))
    for at in range(len(names)):
        content = min(at, len(names) - 2)
        (root / "stage_2_train_images" / f"u{at}.dcm").write_bytes(b"rsna %d" % content)


def _owners(parts):
    return {record.patient_id: part for part in PARTS for record in parts[part]}


@pytest.fixture
def two_sets(tmp_path, recipe_values, write_recipe):
    """NIH's first 60 patients; RSNA's are the same, and one more."""
    names = _write_nih(tmp_path / "nih", 60)
    _write_rsna(tmp_path / "rsna", [*names, "00000061_000.png"])
    recipe_values["model"]["findings"] = ["pneumonia"]

    def division(**shares):
        recipe_values["data"] = [
            {"dataset": name, "root": str(tmp_path / name), "shares": shares[name]}
            for name in ("rsna", "nih")
        ]
        return divide(read_recipe(str(write_recipe(recipe_values)))).records

    return tmp_path, names, division


def test_patients_of_a_set_without_a_split_are_in_the_part_that_another_has_them_in(two_sets):
    root, names, division = two_sets
    (root / "nih" / "train_val_list.txt").write_text("\n".join(names[:40]))
    (root / "nih" / "test_list.txt").write_text("\n".join(names[40:]))
    records = division(rsna=[0.5, 0.4, 0.1], nih=[0.5, 0.4, 0.1])
    assert list(records) == ["rsna", "nih"]
    official, followed = _owners(records["nih"]), _owners(records["rsna"])
    assert {patient for patient, part in official.items() if part == "test"} == {
        str(at) for at in range(41, 61)
    }
    # Patient 61 is RSNA's alone, but has a file of patient 60.
    assert followed == {**official, "61": "test"}


def test_two_sets_with_shares_of_their_own_have_no_patient_in_two_parts(two_sets):
    _, _, division = two_sets
    records = division(rsna=[0.4, 0.3, 0.3], nih=[0.8, 0.1, 0.1])
    rsna, nih = _owners(records["rsna"]), _owners(records["nih"])
    assert {patient: rsna[patient] for patient in nih} == nih
    assert set(nih.values()) == set(PARTS)


def test_official_splits_that_contradict_each_other_are_refused(two_sets, monkeypatch):
    root, names, division = two_sets
    (root / "nih" / "train_val_list.txt").write_text("\n".join(names[:40]))
    (root / "nih" / "test_list.txt").write_text("\n".join(names[40:]))
    reader = DATASETS["rsna"].reader

    def read(folder, policy):
        return [dataclasses.replace(record, split="train") for record in reader(folder, policy)]

    monkeypatch.setitem(DATASETS, "rsna", dataclasses.replace(DATASETS["rsna"], reader=read))
    with pytest.raises(TrainingError, match=r"nih and rsna: 20 patient\(s\) are both in train and"):
        division(rsna=[1, 0, 0], nih=[1, 0, 0])


def test_a_patient_in_two_parts_of_one_set_is_refused(tmp_path, recipe_values, write_recipe):
    root = tmp_path / "data"
    root.mkdir()
    rows = [f"{at}.png,p,{at},{part}" for at, part in enumerate(("train", "test"))]
    (root / "labels.csv").write_text("path,patient_id,pneumonia,split\n" + "\n".join(rows))
    for at in range(2):
        (root / f"{at}.png").write_bytes(b"%d" % at)
    recipe_values["data"] = [{"dataset": "csv", "root": str(root), "shares": [0.9, 0, 0.1]}]
    with pytest.raises(TrainingError, match=r"^csv: 1 patient\(s\) are both in train and in test"):
        divide(read_recipe(str(write_recipe(recipe_values))))


@pytest.mark.parametrize(
    ("where", "told"),
    [
        ({"rsna_clas": ["Normal"]}, "no image of csv has 'rsna_clas'; where may name .*ward"),
        ({"ward": ["ICU", "north"]}, "ward of no image of csv is 'ICU'; it is 'north', 'south'"),
    ],
)
def test_figures_of_images_that_are_not_there_are_refused(
    where, told, tmp_path, recipe_values, write_recipe
):
    rows = [f"{at}.png,p{at},{at % 2},{('north', 'south')[at % 3 == 0]}" for at in range(120)]
    (tmp_path / "labels.csv").write_text("path,patient_id,pneumonia,ward\n" + "\n".join(rows))
    for at in range(120):
        (tmp_path / f"{at}.png").write_text(str(at))  # the same file twice is one patient
    recipe_values["model"]["findings"] = ["pneumonia"]
    shares = [0.4, 0.4, 0.2]
    recipe_values["data"] = [{"dataset": "csv", "root": str(tmp_path), "shares": shares}]
    measured = {"name": "Ours", "dataset": "csv"}
    recipe_values["measure"] = [{**measured, "where": where}]
    with pytest.raises(TrainingError, match=f"measure 'Ours': {told}"):
        divide(read_recipe(str(write_recipe(recipe_values))))
    recipe_values["measure"] = [{**measured, "where": {"ward": ["north"]}}]
    divide(read_recipe(str(write_recipe(recipe_values))))
