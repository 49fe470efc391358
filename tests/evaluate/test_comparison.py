from __future__ import annotations

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from sklearn.metrics import brier_score_loss, roc_auc_score

from medllm.errors import LabelError
from medllm.evaluate import compare
from medllm.evaluate.table import SCHEMA


def _write(folder, labels, probabilities, *, finding="mass", paths=None, errors=None):
    folder.mkdir()
    rows = [
        {
            "path": paths[at] if paths else f"{at}.png",
            "patient_id": f"p{at // 2}",
            "finding": finding,
            "label": float(labels[at]),
            "log_odds": float(np.log(value / (1 - value))),
            "probability": float(value),
            "call": "positive" if value >= 0.5 else "negative",
            "error": errors[at] if errors else None,
            "rows": 0,
            "columns": 0,
            "attributes": {},
            "other_labels": {},
            "probes": {},
        }
        for at, value in enumerate(probabilities)
    ]
    pq.write_table(pa.Table.from_pylist(rows, schema=SCHEMA), folder / "predictions.parquet")
    return folder


@pytest.fixture
def drawn():
    rng = np.random.default_rng(0)
    labels = rng.integers(2, size=300)
    good = 1 / (1 + np.exp(-(2.0 * labels - 1 + rng.normal(size=300))))
    poor = 1 / (1 + np.exp(-(0.7 * labels - 0.3 + rng.normal(size=300))))
    return labels, good, poor


def test_a_better_model_is_found_and_its_figures_are_those_of_scikit_learn(tmp_path, drawn):
    labels, good, poor = drawn
    result = compare([_write(tmp_path / "a", labels, poor), _write(tmp_path / "b", labels, good)])
    assert result.first == "a"
    (row,) = result.others["b"]
    first, second = roc_auc_score(labels, poor), roc_auc_score(labels, good)
    assert row.first_auroc.value == pytest.approx(first)
    assert row.auroc_difference.value == pytest.approx(second - first)
    assert row.auroc_difference.low > 0
    assert row.p_value < 0.01
    assert row.p_value_delong < 0.01
    assert row.brier_difference.value == pytest.approx(
        brier_score_loss(labels, good) - brier_score_loss(labels, poor)
    )
    wanted = (good[labels == 1] >= 0.5).mean() - (poor[labels == 1] >= 0.5).mean()
    assert row.sensitivity_difference.value == pytest.approx(wanted)
    assert (row.n, row.n_patients) == (300, 150)


def test_a_model_does_not_differ_from_itself(tmp_path, drawn):
    labels, good, _ = drawn
    result = compare([_write(tmp_path / "a", labels, good), _write(tmp_path / "b", labels, good)])
    (row,) = result.others["b"]
    assert (row.auroc_difference.low, row.auroc_difference.high) == (0, 0)
    assert row.p_value == row.p_value_holm == 1


def test_images_are_paired_by_path_and_the_unpaired_are_counted(tmp_path, drawn):
    labels, good, poor = drawn
    order = np.random.default_rng(1).permutation(300)[:250]
    shuffled = _write(
        tmp_path / "b", labels[order], good[order], paths=[f"{at}.png" for at in order]
    )
    result = compare([_write(tmp_path / "a", labels, poor), shuffled])
    (row,) = result.others["b"]
    assert row.n == 250
    assert result.unpaired == {"b": 50}
    assert row.unpaired == 50
    assert row.first_auroc.value == pytest.approx(roc_auc_score(labels[order], poor[order]))
    assert row.second_auroc.value == pytest.approx(roc_auc_score(labels[order], good[order]))


def test_what_cannot_be_compared_is_refused(tmp_path, drawn):
    labels, good, _ = drawn
    first = _write(tmp_path / "a", labels, good)
    with pytest.raises(LabelError, match="the labels of mass differ from the first's"):
        compare([first, _write(tmp_path / "flipped", 1 - labels, good)])
    with pytest.raises(LabelError, match="no finding in common"):
        compare([first, _write(tmp_path / "other", labels, good, finding="nodule")])
    elsewhere = [f"x{at}.png" for at in range(300)]
    with pytest.raises(LabelError, match="no finding in common on the same images"):
        compare([first, _write(tmp_path / "else", labels, good, paths=elsewhere)])
    with pytest.raises(LabelError, match=r"predictions.parquet is not there"):
        compare([first, tmp_path])


def test_what_one_lacks_of_a_later_finding_is_counted(tmp_path, drawn):
    labels, good, _ = drawn
    whole, partial = (tmp_path / name for name in ("whole", "partial"))
    tables = {
        key: _write(tmp_path / key, labels, good, finding=key) / "predictions.parquet"
        for key in ("mass", "nodule")
    }
    for folder, n_missing in ((whole, 0), (partial, 70)):
        folder.mkdir()
        rows = zip(*(pq.read_table(file).to_pylist() for file in tables.values()), strict=True)
        told = []
        for at, (mass, nodule) in enumerate(rows):
            told += [mass, _cut(nodule) if at < n_missing else nodule]
        pq.write_table(pa.Table.from_pylist(told, schema=SCHEMA), folder / "predictions.parquet")
    result = compare([whole, partial])
    assert [(row.finding, row.n, row.unpaired) for row in result.others["partial"]] == [
        ("mass", 300, 0),
        ("nodule", 230, 70),
    ]
    assert result.unpaired == {"partial": 70}
    assert (result.models["partial"].n_images, result.models["partial"].n_refused) == (230, 70)


def _cut(row):
    return row | dict.fromkeys(("log_odds", "probability", "call")) | {"error": "no-prediction"}


def test_one_result_is_not_compared_with_itself(tmp_path, drawn):
    labels, good, _ = drawn
    first = _write(tmp_path / "a", labels, good)
    with pytest.raises(LabelError, match="is named twice; compare two that differ"):
        compare([first, first / "predictions.parquet"])


def test_folders_of_one_name_are_told_apart(tmp_path, drawn):
    labels, good, poor = drawn
    for parent in ("one", "two"):
        (tmp_path / parent).mkdir()
    first = _write(tmp_path / "one" / "out", labels, good)
    second = _write(tmp_path / "two" / "out", labels, poor)
    assert list(compare([first, second]).others) == [str(second)]
