"""Phantoms with outlines as a csv data set, and a tiny model over them."""

from __future__ import annotations

import csv
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from medllm.evaluate import (
    ExplanationEvaluation,
    answers,
    evaluate_explanations,
    open_study,
    outlined_records,
    write_explanations,
)
from medllm.evaluate.explanations import OutlinedSet
from medllm.models import Model
from medllm.phantom import Lesion, make_phantom

METHODS = ("integrated-gradients", "occlusion")
N_PATIENTS = 6


@pytest.fixture(scope="session")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Nodules and effusions on both sides, two images a patient, one of them damaged."""
    folder = tmp_path_factory.mktemp("outlined")
    labels = [["path", "patient_id", "nodule", "effusion"]]
    boxes = [["path", "finding", "x", "y", "width", "height"]]
    for index in range(2 * N_PATIENTS):
        lesions = [Lesion("nodule", ("left", "right")[index % 2], "middle", strength=1.0)]
        if index % 3 == 0:
            lesions.append(Lesion("effusion", "right", strength=0.9))
        phantom = make_phantom(index, size=96, lesions=lesions)
        name = f"{index}.png"
        Image.fromarray((phantom.pixels * 255).round().astype(np.uint8)).save(folder / name)
        labels.append([name, f"p{index // 2}", "1", str(int(index % 3 == 0))])
        for finding, mask in phantom.masks.items():
            rows, columns = np.nonzero(mask)
            corner = [columns.min(), rows.min(), np.ptp(columns) + 1, np.ptp(rows) + 1]
            boxes.append([name, finding, *map(str, corner)])
    (folder / "cut.png").write_bytes((folder / "0.png").read_bytes()[:100])
    labels += [["cut.png", "bad", "1", "0"], ["plain.png", "p0", "0", "0"]]
    (folder / "plain.png").write_bytes((folder / "0.png").read_bytes())
    boxes.append(["cut.png", "nodule", "10", "10", "20", "20"])
    for name, rows in (("labels.csv", labels), ("boxes.csv", boxes)):
        with (folder / name).open("w", newline="") as stream:
            csv.writer(stream).writerows(rows)
    return folder


@pytest.fixture(scope="session")
def outlined(root: Path, tiny_model: Model) -> OutlinedSet:
    return outlined_records(open_study("csv", root), tiny_model)


@pytest.fixture(scope="session")
def evaluated(
    outlined: OutlinedSet,
    tiny_model: Model,
    tmp_path_factory: pytest.TempPathFactory,
) -> tuple[ExplanationEvaluation, Path]:
    out = tmp_path_factory.mktemp("out")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(answers, "N_RESAMPLES", 50)  # as `few_resamples` does for a module
        evaluation = evaluate_explanations(outlined, tiny_model, out, METHODS)
    write_explanations(evaluation, outlined, out)
    return evaluation, out
