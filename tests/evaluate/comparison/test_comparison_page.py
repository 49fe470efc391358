"""The page of a comparison has what the table of a paper needs, under heads that say what it is."""

from __future__ import annotations

import re
from html import unescape

import numpy as np
import pytest
from scipy.special import expit

from medllm.evaluate import answers, compare, write_comparison
from medllm.evaluate.table import write_rows
from medllm.evaluate.wording import UNDEFINED, ends, number, p_value

LABELS = np.arange(120) % 2
FINDINGS = ("mass", "nodule")


@pytest.fixture(autouse=True)
def _few_resamples(monkeypatch):
    monkeypatch.setattr(answers, "N_RESAMPLES", 50)


@pytest.fixture
def write(tmp_path):
    def write(name, strength, *, n_images=120, calls=("negative", "positive")):
        rng = np.random.default_rng(len(name))
        rows = []
        for at in range(n_images):
            for finding in FINDINGS:
                score = strength * (LABELS[at] - 0.5) + rng.normal()
                rows.append(
                    {
                        "path": f"{at}.png",
                        "patient_id": f"p{at // 2}",
                        "finding": finding,
                        "label": float(LABELS[at]),
                        "log_odds": float(score),
                        "probability": float(expit(2 * score)),
                        "call": calls[int(score > 0)],
                        "rows": 10,
                        "columns": 10,
                        "attributes": {},
                        "other_labels": {},
                        "probes": {},
                    }
                )
        (tmp_path / name).mkdir()
        write_rows(rows, tmp_path / name / "predictions.parquet")
        return tmp_path / name

    return write


def _tables(comparison, folder):
    """Read each table of the page by its caption: the heads, and the cells of each row."""
    write_comparison(comparison, folder)
    page = (folder / "report.html").read_text()
    tables = {}
    for table in re.findall(r"<table.*?</table>", page, re.S):
        caption = re.search(r"<caption>Table \d+\. (\w+ ?\w*)", table)[1]
        rows = [
            [_words(cell) for cell in re.findall(r"<t[hd][^>]*>(.*?)</t[hd]>", row, re.S)]
            for row in re.findall(r"<tr>(.*?)</tr>", table, re.S)
        ]
        tables[caption] = rows
    return tables


def _words(cell):
    return unescape(re.sub(r"<[^>]+>", " ", cell)).split()


def _told(*figures):
    return [
        [number(one.value), *ends(one).split()] if one.value is not None else [UNDEFINED]
        for one in figures
    ]


def test_each_model_and_the_difference_stand_with_all_three_p_values(write, tmp_path):
    comparison = compare([write("reference", 1.0), write("other", 1.8)])
    heads, first, second, difference = _tables(comparison, tmp_path)["Lung mass"]
    assert [" ".join(words) for words in heads] == [
        *("Model", "n (positive)", "AUROC", "p (resampling)", "p (DeLong)", "p (Holm)"),
        *("Sensitivity", "Specificity", "Brier score"),
    ]
    row = comparison.others["other"][0]
    ours = _told(row.first_auroc, row.first_sensitivity, row.first_specificity, row.first_brier)
    assert first == [["reference", "the", "first"], ["120", "60"], ours[0], [], [], [], *ours[1:]]
    theirs = (row.second_auroc, row.second_sensitivity, row.second_specificity, row.second_brier)
    theirs = _told(*theirs)
    assert second == [["other"], ["120", "60"], theirs[0], [], [], [], *theirs[1:]]
    values = [row.p_value, row.p_value_delong, row.p_value_holm]
    assert len({p_value(value) for value in values}) == 3
    gaps = (row.auroc_difference, row.sensitivity_difference, row.specificity_difference)
    gap, *gaps = _told(*gaps, row.brier_difference)
    p_values = [[p_value(value)] for value in values]
    assert difference == [["other", "minus", "reference"], [], gap, *p_values, *gaps]


def test_the_first_stands_once_and_again_where_the_images_are_others(write, tmp_path):
    results = [write("first", 1.0), write("second", 1.2), write("third", 1.5)]
    comparison = compare([*results, write("half", 1.4, n_images=60)])
    _, *rows = _tables(comparison, tmp_path)["Lung mass"]
    assert [(row[0][0], *row[1][:1]) for row in rows] == [
        *(("first", "120"), ("second", "120"), ("second",), ("third", "120"), ("third",)),
        *(("first", "60"), ("half", "60"), ("half", "60")),
    ]


def test_a_model_that_called_nothing_leaves_the_others_calls(write, tmp_path):
    silent = write("silent", 1.2, calls=("indeterminate",) * 2)
    comparison = compare([write("first", 1.0), silent])
    row = comparison.others["silent"][0]
    assert row.second_sensitivity.value is row.sensitivity_difference.value is None
    _, first, second, difference = _tables(comparison, tmp_path)["Lung mass"]
    assert first[6:8] == _told(row.first_sensitivity, row.first_specificity)
    assert second[6:8] == difference[6:8] == [[UNDEFINED], [UNDEFINED]]


def test_raw_and_reported_are_not_called_before_and_after(write, tmp_path):
    comparison = compare([write("first", 1.0), write("second", 1.2)])
    heads, row, *_ = _tables(comparison, tmp_path)["Expected calibration"]
    assert [" ".join(words) for words in heads[4:]] == [
        *("ECE, raw log-odds", "ECE, as reported", "Brier, raw log-odds", "Brier, as reported")
    ]
    told = comparison.models["first"].findings["mass"]
    assert row[4:] == _told(told.ece_before, told.ece, told.brier_before, told.brier)
    main = (tmp_path / "report.html").read_text().partition("<main>")[2]  # without the style
    assert not re.search(r"\b(before|after)\b", main, re.IGNORECASE)
