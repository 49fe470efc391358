from __future__ import annotations

import re

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from sklearn.calibration import calibration_curve
from sklearn.metrics import brier_score_loss, recall_score, roc_auc_score, roc_curve

from medllm.errors import LabelError
from medllm.evaluate import compare, write_comparison
from medllm.evaluate.answers import Answers
from medllm.evaluate.performance import figures_of
from medllm.evaluate.table import SCHEMA, read_predictions
from medllm.evaluate.thresholds import OwnThresholds


def _write(folder, labels, probabilities, *, finding="mass", paths=None, errors=None):
    folder.mkdir()
    paths = paths or [f"{at}.png" for at in range(len(labels))]
    rows = [
        {
            "path": paths[at],
            # Of the image, wherever its row stands.
            "patient_id": f"p{int(re.sub(r'[^0-9]', '', paths[at])) // 2}",
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
    for told, values in ((row.first_sensitivity, poor), (row.second_sensitivity, good)):
        assert told.value == pytest.approx(recall_score(labels, values >= 0.5))
    for told, values in ((row.first_specificity, poor), (row.second_specificity, good)):
        assert told.value == pytest.approx(recall_score(labels, values >= 0.5, pos_label=0))
    assert row.second_brier.value == pytest.approx(brier_score_loss(labels, good))


def test_each_models_figures_have_the_intervals_that_its_own_evaluation_gives_them(tmp_path, drawn):
    labels, good, _ = drawn
    # All in order, and no positive missed: resampling alone gives no interval.
    sure = np.where(labels, 0.9, np.linspace(0.1, 0.6, 300))
    folders = [_write(tmp_path / "a", labels, good), _write(tmp_path / "b", labels, sure)]
    (row,) = compare(folders).others["b"]
    wanted = [
        figures_of(
            Answers.of(read_predictions(folder / "predictions.parquet"), "mass"),
            OwnThresholds(0.5, "given"),
        )
        for folder in folders
    ]
    assert wanted[1].auroc.low < 1 == wanted[1].auroc.value == wanted[1].sensitivity.value
    for key in ("auroc", "sensitivity", "specificity", "brier"):
        told = [getattr(row, f"{which}_{key}") for which in ("first", "second")]
        assert told == [getattr(one, key) for one in wanted]


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


def test_curves_are_of_the_images_that_all_scored_and_run_as_those_of_scikit_learn(tmp_path, drawn):
    labels, good, poor = drawn
    errors = ["no-prediction" if at < 40 else None for at in range(300)]
    lacking = _write(tmp_path / "lacking", labels, poor)
    table = pq.read_table(lacking / "predictions.parquet").to_pylist()
    rows = [_cut(row) if error else row for row, error in zip(table, errors, strict=True)]
    order = np.random.default_rng(2).permutation(300)
    rows = [rows[at] for at in order]
    pq.write_table(pa.Table.from_pylist(rows, schema=SCHEMA), lacking / "predictions.parquet")
    result = compare([_write(tmp_path / "whole", labels, good), lacking])
    curves = result.curves["mass"]
    kept = np.arange(300) >= 40
    assert (curves.n, curves.n_positive, curves.n_patients) == (260, labels[kept].sum(), 130)
    for name, values in (("whole", good[kept]), ("lacking", poor[kept])):
        one = curves.models[name]
        fall_out, recall, _ = roc_curve(labels[kept], values)
        points = set(zip(one.roc.x, one.roc.y, strict=True))
        assert points <= set(zip(fall_out.tolist(), recall.tolist(), strict=True))
        assert one.sensitivity == pytest.approx(recall_score(labels[kept], values >= 0.5))
        assert sum(part.n for part in one.reliability) == 260
        frequency, probability = calibration_curve(
            labels[kept], values, n_bins=len(one.reliability), strategy="quantile"
        )
        told = [(part.probability, part.frequency.value) for part in one.reliability]
        assert len(told) == 10
        # An edge may fall on either side of an image: 26 a bin.
        np.testing.assert_allclose(told, list(zip(probability, frequency, strict=True)), atol=0.06)
    write_comparison(result, tmp_path / "out")
    page = (tmp_path / "out" / "report.html").read_text()
    assert "260 images" in page
    plots = re.findall(r'<svg viewBox[^>]*aria-label="(ROC curves|Reliability) of Lung mass', page)
    assert plots == ["ROC curves", "Reliability"]
    roc = page[page.index("ROC curves of Lung mass") : page.index("Reliability of Lung mass")]
    # The models' lines differ without their colour, too.
    assert len(set(re.findall(r'<polyline[^>]*stroke-dasharray="([^"]*)"', roc))) == 3


def test_a_finding_without_a_shared_image_has_no_curves(tmp_path, drawn):
    labels, good, poor = drawn
    paths = [f"{at}.png" for at in range(300)]
    first = _write(tmp_path / "first", labels, good)
    halves = [
        _write(tmp_path / name, labels[part], poor[part], paths=paths[part])
        for name, part in (("one", slice(0, 150)), ("two", slice(150, 300)))
    ]
    result = compare([first, *halves])
    assert result.curves == {}
    write_comparison(result, tmp_path / "out")
    assert "ROC curves" not in (tmp_path / "out" / "report.html").read_text()


def test_no_difference_of_calls_is_told_of_a_model_that_called_nothing(tmp_path, drawn):
    labels, good, poor = drawn
    silent = _write(tmp_path / "silent", labels, poor)
    rows = pq.read_table(silent / "predictions.parquet").to_pylist()
    rows = [row | {"call": "indeterminate"} for row in rows]
    pq.write_table(pa.Table.from_pylist(rows, schema=SCHEMA), silent / "predictions.parquet")
    result = compare([_write(tmp_path / "a", labels, good), silent])
    (row,) = result.others["silent"]
    assert row.sensitivity_difference.value is None
    assert row.specificity_difference.value is None
    assert row.second_sensitivity.value is row.second_specificity.value is None
    assert row.first_sensitivity.value == pytest.approx(recall_score(labels, good >= 0.5))
    assert row.auroc_difference.value is not None
    assert result.curves["mass"].models["silent"].sensitivity is None
