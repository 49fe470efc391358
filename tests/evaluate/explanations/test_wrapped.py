"""A network of MONAI, wrapped in Python, is evaluated as a checkpoint is."""

from __future__ import annotations

import json

import numpy as np
import pyarrow.parquet as pq
import pytest
import torch
from monai.networks.nets import DenseNet
from sklearn.metrics import roc_auc_score

import medllm
from medllm.data import Preprocessing
from medllm.evaluate import (
    evaluate_explanations,
    evaluate_model,
    open_study,
    outlined_records,
    write_evaluation,
    write_explanations,
)
from medllm.explanation import explain
from medllm.models import Model

pytestmark = pytest.mark.usefixtures("few_resamples")


@pytest.fixture(scope="module")
def dense() -> Model:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        network = DenseNet(2, 1, 2, init_features=8, growth_rate=4, block_config=(2, 2))
        with torch.no_grad():
            network.class_layers.out.weight.mul_(20)
    contract = Preprocessing(size=56, channels=1)
    return medllm.wrap(
        network, {"nodule": 1, "effusion": 0}, contract, output="logits", name="dense"
    )


def test_its_answers_are_measured(root, dense, tmp_path):
    study = open_study("csv", root)
    evaluation = evaluate_model(study, dense, tmp_path, workers=0)
    write_evaluation(evaluation, study, tmp_path)
    read = [one for one in study.selection.records if one.path.name != "cut.png"]
    log_odds = [
        dense.predict([one.radiograph()], ["effusion"])[0].findings[0].log_odds for one in read
    ]
    labels = [one.labels["effusion"] for one in read]
    figures = evaluation.findings["effusion"]
    assert figures.auroc.value == pytest.approx(roc_auc_score(labels, log_odds))
    assert evaluation.errors == {"truncated": 1}
    told = json.loads((tmp_path / "metrics.json").read_text())
    assert told["model"].startswith("dense ")
    assert told["model_sha256"] == dense.sha256 != ""


def test_its_explanations_are_measured(root, dense, tmp_path):
    outlined = outlined_records(open_study("csv", root, limit=4), dense)
    evaluation = evaluate_explanations(outlined, dense, tmp_path, ("occlusion",), sanity=1)
    write_explanations(evaluation, outlined, tmp_path)
    image = outlined.images[1]
    (row,) = (
        row
        for row in pq.read_table(tmp_path / "explanations.parquet").to_pylist()
        if (row["path"], row["finding"], row["method"]) == (image.path, "nodule", "occlusion")
    )
    wanted = explain(dense, image.open().scan, "nodule", method="occlusion").map.values
    np.testing.assert_allclose(row["map"], wanted.ravel(), atol=1e-5)
    place = evaluation.localisation["occlusion"]["nodule"]
    assert place.n == 4
    assert 0 <= place.hit_rate.value <= 1
    assert (tmp_path / "report.html").is_file()
