from __future__ import annotations

import dataclasses
import json
import signal
import time

import numpy as np
import pytest
from PIL import Image
from typer.testing import CliRunner

from medllm.cli import app
from medllm.errors import MedllmError
from medllm.models import Calibration, save_model

# What the figures are is tested where they are made.
pytestmark = pytest.mark.usefixtures("few_resamples")


def run(*arguments):
    return CliRunner().invoke(app, [str(argument) for argument in arguments])


@pytest.fixture(scope="module")
def checkpoint(tiny_model, tmp_path_factory):
    folder = tmp_path_factory.mktemp("models") / "tiny"
    save_model(tiny_model, folder)
    return folder


@pytest.fixture(scope="module")
def root(tmp_path_factory):
    folder = tmp_path_factory.mktemp("set")
    rng = np.random.default_rng(0)
    rows = ["path,patient_id,pneumonia,sex"]
    for index in range(60):
        coarse = Image.fromarray(rng.integers(256, size=(4, 4), dtype=np.uint8))
        coarse.resize((72, 72), Image.Resampling.BICUBIC).save(folder / f"{index}.png")
        rows.append(f"{index}.png,LM-{index},{index % 2},{'FM'[index % 3 == 0]}")
    (folder / "labels.csv").write_text("\n".join(rows))
    return folder


def test_a_table_is_printed_and_three_files_are_written(root, checkpoint, tmp_path):
    result = run("evaluate", "csv", "--root", root, "--model", checkpoint, "--out", tmp_path / "o")
    assert result.exit_code == 0, result.output
    assert "csv (all): 60 images of 60 patients; 0 left out, 0 not scored; tiny 0." in result.stdout
    assert "Research use only; not for diagnosis." in result.stdout
    assert "pneumonia                   30 of 60" in result.stdout
    assert {"metrics.json", "report.html", "predictions.parquet"} <= {
        path.name for path in (tmp_path / "o").iterdir()
    }


def test_the_limit_is_the_number_of_images_and_another_one_is_another_run(
    root, checkpoint, tmp_path
):
    given = ["evaluate", "csv", "--root", root, "--model", checkpoint, "--out", tmp_path]
    result = run(*given, "--limit", 20)
    assert result.exit_code == 0, result.output
    assert "csv (all): 20 images of 20 patients; 40 left out, 0 not scored" in result.stdout
    assert "beyond the limit: 40" in result.stdout
    assert json.loads((tmp_path / "run.json").read_text())["n_images"] == 20
    other = run(*given, "--limit", 30)
    assert isinstance(other.exception, MedllmError)
    assert "holds another evaluation, which differs in the number of images" in str(other.exception)


def test_a_threshold_is_chosen_on_other_patients_alone(root, checkpoint, tmp_path):
    result = run(
        *("evaluate", "csv", "--root", root, "--model", checkpoint, "--out", tmp_path),
        *("--at", "sensitivity=0.9"),
    )
    assert result.exit_code == 2
    assert "--thresholds" in result.output


def test_a_damaged_file_is_told_the_others_are_scored_and_the_exit_status_is_1(
    root, checkpoint, tmp_path
):
    (tmp_path / "labels.csv").write_text(
        (root / "labels.csv").read_text() + "\ncut.png,LM-99,1,F\ngone.png,LM-99,1,F"
    )
    for path in root.glob("*.png"):
        (tmp_path / path.name).symlink_to(path)
    (tmp_path / "cut.png").write_bytes((root / "0.png").read_bytes()[:99])
    result = run(
        "evaluate", "csv", "--root", tmp_path, "--model", checkpoint, "--out", tmp_path / "out"
    )
    assert result.exit_code == 1
    assert "62 images of 61 patients; 0 left out, 2 not scored" in result.stdout
    assert "30 of 60" in result.stdout
    assert "cut.png: the PNG is cut off" in result.stderr
    assert "gone.png: no such file" in result.stderr
    assert "LM-99" not in result.output
    left_out = run(
        *("evaluate", "csv", "--root", tmp_path, "--model", checkpoint, "--partial"),
        *("--out", tmp_path / "partial"),
    )
    assert "file not in this copy: 1" in left_out.stdout


def test_a_finding_that_all_or_none_of_the_images_have_is_told_with_the_reason(
    root, checkpoint, tmp_path
):
    rows = (root / "labels.csv").read_text().splitlines()
    by_label = sorted(rows[1:], key=lambda row: row.split(",")[2])
    for path in root.glob("*.png"):
        (tmp_path / path.name).symlink_to(path)
    given = ("evaluate", "csv", "--root", tmp_path, "--model", checkpoint, "--out")
    (tmp_path / "labels.csv").write_text("\n".join([rows[0], *by_label[:30]]))
    result = run(*given, tmp_path / "none", "--limit", 20)
    assert result.exit_code == 0, result.output
    assert (
        "  pneumonia: none of these images has it, so AUROC and sensitivity are not defined; "
        "--limit takes a part of the images, name a larger one or leave it out\n"
    ) in result.stdout
    (tmp_path / "labels.csv").write_text("\n".join([rows[0], *by_label[30:]]))
    result = run(*given, tmp_path / "all")
    assert (
        "  pneumonia: all of these images have it, so AUROC and specificity are not defined; "
        "choose another --split or --view, or add images\n"
    ) in result.stdout
    both = run("evaluate", "csv", "--root", root, "--model", checkpoint, "--out", tmp_path / "both")
    assert "not defined" not in both.stdout


def test_an_audit_that_alarms_is_told_with_its_finding(root, tmp_path):
    rows = (root / "labels.csv").read_text().splitlines()
    site = ["site", *("A" if row.split(",")[2] == "1" else "B" for row in rows[1:])]
    (tmp_path / "labels.csv").write_text(
        "\n".join(f"{row},{one}" for row, one in zip(rows, site, strict=True))
    )
    for path in root.glob("*.png"):
        (tmp_path / path.name).symlink_to(path)
    lines = [f"{at}.png,pneumonia,{at % 7 / 10}" for at in range(60)]
    (tmp_path / "peer.csv").write_text("path,finding,probability\n" + "\n".join(lines))
    given = ("evaluate", "csv", "--root", tmp_path, "--predictions", tmp_path / "peer.csv", "--out")
    told = "  alarming: Do acquisition facts tell the label? (pneumonia)\n"
    assert told in run(*given, tmp_path / "by-site", "--group", "site").stdout
    assert "alarming" not in run(*given, tmp_path / "without").stdout


def test_what_the_model_was_trained_on_is_told_beside_its_figures(root, tiny_model, tmp_path):
    said = ("Ten chests of one hospital.", "Phantoms.")
    fitted = Calibration(fitted_on="Site A: 9 images")
    questions = tuple(
        dataclasses.replace(question, calibration=fitted) for question in tiny_model.card.questions
    )
    card = dataclasses.replace(tiny_model.card, training_data=said, questions=questions)
    save_model(dataclasses.replace(tiny_model, card=card), tmp_path / "told")
    wanted = (
        "the model says it was trained on: Ten chests of one hospital; Phantoms. Figures on those "
        "images are no evidence of what it is worth on others."
    )
    given = ("evaluate", "csv", "--root", root, "--out")
    result = run(*given, tmp_path / "a", "--model", tmp_path / "told")
    assert wanted in " ".join(result.stdout.split())
    # What is said of the calibration's data does not reassure about the AUROC.
    assert "Its AUROC depends on what the weights were trained on." in result.stdout
    lines = "path,finding,probability\n" + "".join(f"{at}.png,pneumonia,0.5\n" for at in range(60))
    (tmp_path / "peer.csv").write_text(lines)
    peer = run(*given, tmp_path / "b", "--predictions", tmp_path / "peer.csv")
    assert "trained on" not in peer.stdout
    compared = run("compare", tmp_path / "a", tmp_path / "b")
    assert " ".join(compared.stdout.split()).count(wanted) == 1


def test_json_is_the_file_on_one_line(root, checkpoint, tmp_path):
    result = run(
        *("evaluate", "csv", "--root", root, "--model", checkpoint),
        *("--out", tmp_path / "out", "--json"),
    )
    (line,) = result.stdout.splitlines()
    assert json.loads(line) == json.loads((tmp_path / "out" / "metrics.json").read_text())


@pytest.mark.parametrize(
    "option",
    [
        ("--model", "m"),
        ("--prevalence", "0.02"),
        ("--polarity", "inverted"),
        ("--accept", "too-small"),
        ("--workers", "2"),
        ("--cache", "kept"),
    ],
)
def test_what_says_how_a_model_scores_is_refused_beside_predictions(tmp_path, option):
    # Before anything is read: neither the data set nor the predictions are there.
    result = run(
        *("evaluate", "csv", "--root", tmp_path / "gone", "--predictions", tmp_path / "peer.csv"),
        *("--out", tmp_path / "out", *option),
    )
    assert result.exit_code == 2
    assert f"leave out {option[0]}" in " ".join(result.output.replace("│", " ").split())


def test_a_peer_is_compared_in_pairs(root, checkpoint, tmp_path):
    ours, peers = tmp_path / "ours", tmp_path / "peers"
    run("evaluate", "csv", "--root", root, "--model", checkpoint, "--out", ours)
    lines = [f"{at}.png,pneumonia,{0.9 if at % 2 else 0.1 + at / 1000}" for at in range(60)]
    (tmp_path / "peer.csv").write_text("path,finding,probability\n" + "\n".join(lines))
    result = run(
        "evaluate", "csv", "--root", root, "--predictions", tmp_path / "peer.csv", "--out", peers
    )
    assert result.exit_code == 0, result.output
    assert "1.000 (0.884 to 1.000)" in result.stdout
    compared = run("compare", ours, peers)
    assert compared.exit_code == 0, compared.output
    assert "peers against ours" in compared.stdout
    # To: the arrow of the other direction would read as "greater than".
    assert " to 1.000" in compared.stdout
    assert " > " not in compared.stdout
    assert compared.stdout.split("p (Holm)\n")[1].splitlines()[0].endswith("<0.001")
    as_json = json.loads(run("compare", ours, peers, "--json").stdout)
    assert as_json["others"]["peers"][0]["second_auroc"]["value"] == 1


@pytest.mark.parametrize(
    ("arguments", "status", "message"),
    [
        (["evaluate", "csv"], 2, "Missing option '--root'"),
        (["evaluate", "nihh", "--root", "x"], 1, "Did you mean 'nih'?"),
        (["evaluate", "csv", "--root", "x"], 1, "labels.csv is not in x"),
        (["evaluate", "csv", "--root", "x", "--uncertain", "negative"], 1, "no choice of 'unc"),
        (["evaluate", "csv", "--root", "x", "--uncertain", "soft"], 2, "'soft' is not one of"),
        (["evaluate", "csv", "--root", "x", "--accept", "nothing"], 2, "'nothing' is not one of"),
        (["compare", "x"], 2, "name two folders or more"),
        (["compare", "x", "y"], 1, "is not there; name a folder that medllm evaluate wrote"),
    ],
)
def test_wrong_usage_and_bad_input_are_told_in_one_line(arguments, status, message):
    result = run(*arguments)
    if isinstance(result.exception, MedllmError):
        assert (1, message in str(result.exception)) == (status, True), result.exception
    else:
        assert result.exit_code == status
        assert message in result.output


def test_a_run_that_is_killed_where_it_scores_or_measures_ends_as_an_unbroken_one(
    root, checkpoint, programs, tmp_path
):
    whole, broken = tmp_path / "whole", tmp_path / "broken"
    command = ["evaluate", "csv", "--root", root, "--model", checkpoint, "--out"]
    for sign in ("parts", "predictions.parquet"):
        program = programs.start(*command, broken)
        while program.poll() is None and not (broken / sign).exists():
            time.sleep(0.01)
        program.send_signal(signal.SIGKILL)
        assert program.wait() == -signal.SIGKILL, program.stderr
        assert not (broken / "report.html").exists()
    for out in (whole, broken):
        program = programs.run(*command, out)
        assert program.wait() == 0, program.stderr
    for name in ("predictions.parquet", "metrics.json", "report.html"):
        assert (broken / name).read_bytes() == (whole / name).read_bytes()
