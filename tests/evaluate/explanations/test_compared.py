"""Results of models beside what their explanations are worth."""

from __future__ import annotations

import json
import re

import numpy as np
import pytest
import torch
from scipy.special import expit, logit
from sklearn.metrics import brier_score_loss, roc_auc_score

from medllm.errors import LabelError
from medllm.evaluate import answers, compare, write_comparison
from medllm.evaluate.answers import Answers
from medllm.evaluate.comparison.models import write_cost
from medllm.evaluate.performance import figures_of
from medllm.evaluate.table import read_predictions, write_rows
from medllm.evaluate.thresholds import OwnThresholds
from medllm.evaluate.wording import ends, number
from medllm.explanation import DEFAULT_METHOD
from medllm.metrics import expected_calibration_error

LABELS = np.arange(60) % 2


@pytest.fixture(autouse=True)
def _few_resamples(monkeypatch):
    monkeypatch.setattr(answers, "N_RESAMPLES", 50)


def write_results(folder, sha256, log_odds, *, timed=True):
    """A result as `medllm evaluate` leaves it, whose calibration halves the log-odds."""
    folder.mkdir()
    rows = [
        {
            "path": f"{at}.png",
            "patient_id": f"p{at // 2}",
            "finding": "nodule",
            "label": float(LABELS[at]),
            "log_odds": value,
            "probability": float(expit(value / 2)),
            "call": "positive" if value > 0 else "negative",
            "rows": 10,
            "columns": 10,
            "attributes": {},
            "other_labels": {},
            "probes": {},
        }
        for at, value in enumerate(log_odds.tolist())
    ]
    rows[3] |= {"log_odds": None, "probability": None, "call": None, "error": "not-finite"}
    write_rows(rows, folder / "predictions.parquet")
    told = {
        "model": f"model {folder.name}",
        "model_sha256": sha256,
        "dataset": "csv",
        "split": "test",
        "caveats": ["Patients are unknown.", f"Fitted on {folder.name}."],
        "findings": {"nodule": {"threshold": 0.5, "threshold_source": f"of {folder.name}"}},
    }
    (folder / "metrics.json").write_text(json.dumps(told))
    if timed:
        write_cost(folder, [0.0001, 0.00034, 0.4], torch.device("cpu"))
    return folder


@pytest.fixture
def log_odds():
    return np.random.default_rng(0).normal(2 * (LABELS - 0.5), 2.0)


@pytest.fixture
def results(tmp_path, log_odds, evaluated):
    document, _ = evaluated
    own = write_results(tmp_path / "own", document.model_sha256 or "a" * 64, log_odds)
    return own, write_results(tmp_path / "old", "b" * 64, logit(0.3 + 0.4 * LABELS), timed=False)


@pytest.fixture
def explained(evaluated, tmp_path):
    """The folder of explanations, whose model was never saved, as if it had been."""
    document, out = evaluated
    folder = tmp_path / "explained"
    folder.mkdir()
    (folder / "explanations.parquet").symlink_to(out / "explanations.parquet")
    told = document.model_copy(update={"model_sha256": document.model_sha256 or "a" * 64})
    (folder / "metrics.json").write_text(told.model_dump_json())
    return folder


def test_each_model_is_measured_before_and_after_its_calibration(results, log_odds):
    one = compare(results).models["own"].findings["nodule"]
    scored = np.arange(60) != 3
    labels, bare = LABELS[scored], expit(log_odds[scored])
    given = expit(log_odds[scored] / 2)
    assert (one.n, one.n_positive) == (59, 29)
    assert one.auroc.value == pytest.approx(roc_auc_score(labels, given))
    assert one.brier_before.value == pytest.approx(brier_score_loss(labels, bare))
    assert one.brier.value == pytest.approx(brier_score_loss(labels, given))
    assert one.ece_before.value == pytest.approx(expected_calibration_error(bare, labels))
    assert one.ece.value == pytest.approx(expected_calibration_error(given, labels))
    assert one.ece_before.value != pytest.approx(one.ece.value)


def test_its_calibration_error_has_the_interval_that_an_evaluation_gives_it(results):
    own, _ = results
    predictions = read_predictions(own / "predictions.parquet")
    wanted = figures_of(Answers.of(predictions, "nodule"), OwnThresholds(0.5, "given"))
    assert compare(results).models["own"].findings["nodule"].ece == wanted.ece


def test_a_few_images_that_are_scored_again_leave_the_cost_of_all(tmp_path):
    for seconds in ([0.1, 0.2, 0.4], [9.0], [0.1, 0.3, 0.5]):
        write_cost(tmp_path, seconds, torch.device("cpu"))
        told = json.loads((tmp_path / "cost.json").read_text())
        assert told["n"] == 3
    assert told["seconds_median"] == 0.3


def test_the_cost_is_told_where_it_was_written_down(results):
    models = compare(results).models
    cost = models["own"].cost
    assert (cost.n, cost.seconds_median) == (3, 0.00034)
    assert re.fullmatch(r"\d+ threads? of a \w+ CPU", cost.machine)
    assert 100 < cost.peak_memory_mib < 100_000
    assert models["old"].cost is None
    assert (models["own"].n_images, models["own"].n_refused) == (59, 1)


def test_explanations_stand_with_the_model_that_they_are_of(results, explained, evaluated):
    document, _ = evaluated
    models = compare([results[0], explained, results[1]]).models
    assert models["old"].explanations == ()
    (told,) = models["own"].explanations
    assert told.method == DEFAULT_METHOD
    assert told.n_judged == sum(document.verdicts.values())
    assert told.n_judged - told.n_kept == document.verdicts.get("do not use", 0)
    for key, one in told.findings.items():
        figures = document.localisation[DEFAULT_METHOD][key]
        assert one.hit_rate == figures.hit_rate
        assert one.hit_rate_over_mean_map == figures.differences["hit_rate"]
        assert one.pixel_auroc_over_mean_map == figures.over_mean_map


def test_explanations_of_another_model_are_refused(results, explained):
    told = json.loads((explained / "metrics.json").read_text()) | {"model_sha256": "c" * 64}
    (explained / "metrics.json").write_text(json.dumps(told))
    own = json.loads((results[0] / "metrics.json").read_text())["model_sha256"]
    with pytest.raises(LabelError, match="none of the evaluated models is that") as refused:
        compare([*results, explained])
    said = str(refused.value)
    assert f"(model own {own[:12]}, model old bbbbbbbbbbbb)" in said
    assert "calibrated or configured, explain the folder that was evaluated: 'medllm eval" in said
    assert "medllm evaluate-explanations csv ... --model FOLDER'." in said
    (explained / "metrics.json").write_text("{")
    with pytest.raises(LabelError, match="give that command again with the same --out"):
        compare([*results, explained])
    with pytest.raises(LabelError, match="1 of the folders holds predictions; name two"):
        compare([results[0], explained])


def test_the_page_holds_every_figure(results, explained, tmp_path):
    comparison = compare([*results, explained])
    write_comparison(comparison, tmp_path / "page")
    page = (tmp_path / "page" / "report.html").read_text()
    assert json.loads((tmp_path / "page" / "metrics.json").read_text())["first"] == "own"
    (row,) = comparison.others["old"]
    models = comparison.models.values()
    calibrated = [figures for one in models for figures in one.findings.values()]
    for figure in (
        *(row.first_auroc, row.second_auroc, row.auroc_difference, row.brier_difference),
        *(figure for one in calibrated for figure in (one.ece_before, one.ece, one.brier)),
    ):
        assert number(figure.value) in page
        assert ends(figure) in page
    (told,) = comparison.models["own"].explanations
    assert f"{told.n_kept} of {told.n_judged}" in page
    assert page.count("not written down") == 1
    assert "Research use only; not for diagnosis." in page


def test_the_page_says_on_what_at_which_threshold_and_with_which_caveats(results, tmp_path):
    comparison = compare(results)
    write_comparison(comparison, tmp_path)
    page = (tmp_path / "report.html").read_text()
    assert "<h1>2 models on csv (test)</h1>" in page
    for sentence in ("Patients are unknown.", "Fitted on own.", "Fitted on old."):
        assert page.count(f'<p class="caution">{sentence}</p>') == 1
    assert "own, 0.500 (of own); old, 0.500 (of old).</p>" in page
    assert "<td>0.3</td>" in page  # milliseconds
    (results[1] / "metrics.json").unlink()  # predictions without a page
    again = compare(results)
    assert again.datasets == ("csv (test)",)
    write_comparison(again, tmp_path)
    assert "own, 0.500 (of own); old, not told.</p>" in (tmp_path / "report.html").read_text()


def test_without_explanations_the_page_says_how_to_add_them(results, tmp_path):
    write_comparison(compare(results), tmp_path)
    assert "medllm evaluate-explanations" in (tmp_path / "report.html").read_text()


def test_a_name_cannot_become_part_of_the_page(results, tmp_path):
    hostile = results[0].rename(tmp_path / "<script>alert(1)<\u2215script>")
    write_comparison(compare([results[1], hostile]), tmp_path / "page")
    assert "<script" not in (tmp_path / "page" / "report.html").read_text()
