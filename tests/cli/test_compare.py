from __future__ import annotations

import dataclasses
import re
import shutil

import numpy as np
import pytest
from PIL import Image
from typer.testing import CliRunner

from medllm.cli import app
from medllm.errors import LabelError
from medllm.models import Calibration, save_model

# What the figures are is tested where they are made.
pytestmark = pytest.mark.usefixtures("few_resamples")


def run(*arguments):
    return CliRunner().invoke(app, [str(argument) for argument in arguments])


@pytest.fixture(scope="module")
def root(tmp_path_factory):
    folder = tmp_path_factory.mktemp("set")
    rng = np.random.default_rng(0)
    rows = ["path,patient_id,pneumonia"]
    for at in range(40):
        coarse = Image.fromarray(rng.integers(256, size=(4, 4), dtype=np.uint8))
        coarse.resize((72, 72), Image.Resampling.BICUBIC).save(folder / f"{at}.png")
        rows.append(f"{at}.png,LM-{at},{at % 2}")
    (folder / "labels.csv").write_text("\n".join(rows))
    return folder


@pytest.fixture(scope="module")
def ours(root, tiny_model, tmp_path_factory):
    """The results of a model whose calibration moves every probability, and that calls all."""
    folder = tmp_path_factory.mktemp("results")
    fitted = Calibration(bias=3.0, low=0.0, high=0.0, fitted_on="Site A: 9 images")
    questions = tuple(
        dataclasses.replace(question, calibration=fitted) for question in tiny_model.card.questions
    )
    card = dataclasses.replace(tiny_model.card, questions=questions)
    save_model(dataclasses.replace(tiny_model, card=card), folder / "model")
    given = ("evaluate", "csv", "--root", root, "--model", folder / "model")
    assert run(*given, "--out", folder / "ours").exit_code == 0
    return folder / "ours"


def evaluate_peer(root, out):
    """Call 15 of 20 with the finding, and 2 of 20 without it."""
    called = {at for at in range(40) if (at < 30 if at % 2 else at < 4)}
    lines = [f"{at}.png,pneumonia,{0.8 if at in called else 0.3}" for at in range(40)]
    (root / "peer.csv").write_text("path,finding,probability\n" + "\n".join(lines))
    result = run(
        *("evaluate", "csv", "--root", root, "--predictions", root / "peer.csv", "--out", out)
    )
    assert result.exit_code == 0, result.output
    return out


def test_a_peer_on_a_copy_of_the_data_set_is_compared(root, ours, tmp_path):
    copy = shutil.copytree(root, tmp_path / "copy")
    compared = run("compare", ours, evaluate_peer(copy, tmp_path / "peer"))
    assert compared.exit_code == 0, compared.output
    told = "sensitivity 1.000 to 0.750, specificity 0.000 to 0.900"
    assert f"\n  at each one's own threshold: {told}\n" in compared.stdout


def test_the_error_of_raw_log_odds_is_named_as_such(root, ours, tmp_path):
    peer = evaluate_peer(shutil.copytree(root, tmp_path / "copy"), tmp_path / "peer")
    lines = run("compare", ours, peer).stdout.splitlines()
    (own,) = (line for line in lines if line.startswith("ours: "))
    assert re.search(r"ECE of pneumonia 0\.\d{3} by raw log-odds and 0\.\d{3} as reported$", own)
    # Predictions that were given have no other probability than theirs.
    (own,) = (line for line in lines if line.startswith("peer: "))
    assert re.fullmatch(r"peer: ECE of pneumonia 0\.\d{3}", own)


def test_another_data_set_with_the_same_file_names_is_refused(root, ours, tmp_path):
    other = shutil.copytree(root, tmp_path / "other")
    table = other / "labels.csv"
    table.write_text(table.read_text().replace("LM-", "ZH-"))
    refused = run("compare", ours, evaluate_peer(other, tmp_path / "peer"))
    assert isinstance(refused.exception, LabelError)
    assert "40 of them with another patient_id" in str(refused.exception)
    assert "LM-" not in str(refused.exception)
