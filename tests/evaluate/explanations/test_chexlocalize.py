"""The files are read here by their published form, with nothing of medllm's writers."""

from __future__ import annotations

import json
import pickle

import numpy as np
import pyarrow.parquet as pq
import pytest
import torch.nn.functional as F
from PIL import Image

from medllm.evaluate import evaluate_explanations, open_study, outlined_records
from medllm.evaluate.explanations.chexlocalize import write_heatmaps
from medllm.phantom import Lesion, make_phantom

pytestmark = pytest.mark.usefixtures("few_resamples")

TASKS = (
    *("Enlarged Cardiomediastinum", "Cardiomegaly", "Lung Lesion", "Airspace Opacity", "Edema"),
    *("Consolidation", "Atelectasis", "Pneumothorax", "Pleural Effusion", "Support Devices"),
)
ROWS, COLUMNS = 96, 80
METHODS = ("occlusion", "grad-cam")


def runs_of(mask):
    """Lengths down the columns, outside first, one pixel after the other."""
    runs, inside = [0], False
    for pixel in mask.T.ravel():
        if bool(pixel) != inside:
            runs.append(0)
            inside = not inside
        runs[-1] += 1
    return runs


def decoded(outline):
    """cocodataset/cocoapi, common/maskApi.c: rleFrString, a character at a time."""
    runs, place, text = [], 0, outline["counts"]
    if isinstance(text, list):
        runs, text = text, ""
    while place < len(text):
        number, shift, more = 0, 0, True
        while more:
            code = ord(text[place]) - 48
            number |= (code & 0x1F) << shift
            more, place, shift = bool(code & 0x20), place + 1, shift + 5
            if not more and code & 0x10:
                number -= 1 << shift
        runs.append(number + (runs[-2] if len(runs) > 2 else 0))
    rows, columns = outline["size"]
    assert sum(runs) == rows * columns
    pixels = [at % 2 == 1 for at, run in enumerate(runs) for _ in range(run)]
    return np.array(pixels).reshape(columns, rows).T


def otsu(steps):
    """The threshold of 256 steps with the largest variance between the groups, tried in turn."""
    best, found = 0.0, 255
    for threshold in range(255):
        low, high = steps[steps <= threshold], steps[steps > threshold]
        if low.size and high.size:
            between = low.size * high.size * (low.mean() - high.mean()) ** 2
            if between > best * (1 + 1e-12):
                best, found = between, threshold
    return found


@pytest.fixture(scope="module")
def published(tmp_path_factory):
    folder = tmp_path_factory.mktemp("chexlocalize")
    read = [*TASKS, "Lung Opacity", "No Finding", "Pneumonia", "Pleural Other", "Fracture"]
    read.remove("Airspace Opacity")  # of the outlines alone
    labels = [f"Path,{','.join(read)}"]

    def label(path, found):
        return ",".join([f"valid/{path}.jpg", *(f"{float(task == found)}" for task in read)])

    outlines = {}
    none = {"size": [ROWS, COLUMNS], "counts": runs_of(np.zeros((ROWS, COLUMNS)))}
    for patient in range(3):
        lesions = [Lesion("effusion", ("left", "right")[patient % 2], strength=1.0)]
        phantom = make_phantom(patient, size=ROWS, lesions=lesions)
        place = folder / "CheXpert" / "val" / f"patient{patient}" / "study1"
        place.mkdir(parents=True)
        pixels = (phantom.pixels[:, :COLUMNS] * 255).astype(np.uint8)
        Image.fromarray(pixels).save(place / "view1_frontal.jpg")
        drawn = {"size": [ROWS, COLUMNS], "counts": runs_of(phantom.masks["effusion"][:, :COLUMNS])}
        labels.append(label(f"patient{patient}/study1/view1_frontal", "Pleural Effusion"))
        name = f"patient{patient}_study1_view1_frontal"
        outlines[name] = {**dict.fromkeys(TASKS, none), "Pleural Effusion": drawn}
    outlines["patient0_study1_view2_lateral"] = dict.fromkeys(TASKS, none)
    labels.append(label("patient0/study1/view2_lateral", None))
    (folder / "CheXpert" / "val_labels.csv").write_text("\n".join(labels))
    (folder / "CheXlocalize").mkdir()
    (folder / "CheXlocalize" / "gt_segmentations_val.json").write_text(json.dumps(outlines))
    return folder


@pytest.fixture(scope="module")
def written(published, tiny_model, tmp_path_factory):
    out = tmp_path_factory.mktemp("out")
    study = open_study("chexlocalize", published)
    outlined = outlined_records(study, tiny_model)
    evaluation = evaluate_explanations(outlined, tiny_model, out, METHODS, checked="none", sanity=0)
    return write_heatmaps(evaluation, outlined, out)


@pytest.mark.parametrize("method", METHODS)
def test_each_map_is_a_pickle_in_the_published_form_and_hits_what_the_table_says(written, method):
    rows = pq.read_table(written.parent / "explanations.parquet").to_pylist()
    truth = json.loads((written / "gt_segmentations.json").read_text())
    files = sorted((written / method / "maps").rglob("*_map.pkl"))
    assert [file.name for file in files] == [
        f"patient{patient}_study1_view1_frontal_Pleural Effusion_map.pkl" for patient in range(3)
    ]
    for file in files:
        content = pickle.loads(file.read_bytes())  # noqa: S301 - written above
        assert content.keys() == {"map", "prob", "task", "gt", "cxr_img", "cxr_dims"}
        name, task = file.stem.rsplit("_", 2)[:2]
        assert (content["task"], content["gt"]) == (task, 1) == ("Pleural Effusion", 1)
        assert content["cxr_dims"] == (COLUMNS, ROWS)
        assert content["map"].ndim == 4
        assert content["cxr_img"].shape == (3, *content["map"].shape[2:])
        width, height = content["cxr_dims"]
        enlarged = F.interpolate(
            content["map"], size=(height, width), mode="bilinear", align_corners=False
        )[0, 0].numpy()
        at = np.unravel_index(enlarged.argmax(), enlarged.shape)
        (row,) = [
            row
            for row in rows
            if row["method"] == method and row["path"].split("/")[-3] == name.split("_")[0]
        ]
        assert content["prob"] == row["probability"]
        # of cells that are the highest together, the table has the share that lies within
        assert abs(decoded(truth[name][task])[at] - row["hit"]) < 1
        assert row["hit"] in (0, 1) or method != "occlusion"
        cell = np.array(row["map"]).reshape(4, 4)
        # The strongest patch lies where the map is strongest.
        assert cell[at[0] * 4 // ROWS, at[1] * 4 // COLUMNS] == pytest.approx(cell.max())


def test_segmentations_are_above_otsus_threshold_of_every_finding_of_each_image(written):
    truth = json.loads((written / "gt_segmentations.json").read_text())
    assert sorted(truth) == [f"patient{patient}_study1_view1_frontal" for patient in range(3)]
    for method in METHODS:
        found = json.loads((written / method / "pred_segmentations.json").read_text())
        assert found.keys() == truth.keys()
        for name, outlines in truth.items():
            for task in TASKS:
                assert decoded(found[name][task]).shape == decoded(outlines[task]).shape
                if task != "Pleural Effusion":
                    assert not decoded(found[name][task]).any()
            file = written / method / "maps" / f"{name}_Pleural Effusion_map.pkl"
            heatmap = pickle.loads(file.read_bytes())["map"]  # noqa: S301 - written above
            large = F.interpolate(
                heatmap, size=(ROWS, COLUMNS), mode="bilinear", align_corners=False
            )[0, 0]
            steps = (255 * (large - large.min()) / (large.max() - large.min())).byte().numpy()
            marked = decoded(found[name]["Pleural Effusion"])
            # a value on the edge of a step may be rounded to either side
            assert (marked != (steps > otsu(steps))).mean() < 0.01
            assert marked.any()


def test_maps_of_another_data_set_are_refused(evaluated, outlined):
    evaluation, out = evaluated
    with pytest.raises(ValueError, match="the maps are of 'csv'; wanted is chexlocalize"):
        write_heatmaps(evaluation, outlined, out)
