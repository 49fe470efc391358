from __future__ import annotations

import csv
import json
import re
import shutil
import subprocess
import sys
from functools import partial

import numpy as np
import pytest
from PIL import Image
from scipy.special import expit
from typer.testing import CliRunner

from medllm import evaluate
from medllm.cli import app
from medllm.datasets import read_csv
from medllm.dicom import read_radiograph
from medllm.errors import MedllmError
from medllm.evaluate import open_study, score_records
from medllm.evaluate.study import write_drawn
from medllm.findings import FINDINGS
from medllm.metrics import auroc
from medllm.models import load_model, save_model
from tests.models.architectures.checkpoints import write_checkpoint

PATIENTS, IMAGES = 60, 2

# The tiny model's log-odds spread by about 0.3; labels drawn at ten times that call for a
# temperature of a tenth.
SHARPER = 10.0


@pytest.fixture(autouse=True, scope="module")
def few_resamples():
    """Resample less; what the figures are is tested where they are made."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(evaluate, "recalibrate", partial(evaluate.recalibrate, n_resamples=50))
        yield


def run(*arguments):
    return CliRunner().invoke(app, [str(argument) for argument in arguments])


def refused(*arguments):
    """Run what must be refused: its exit status, and the one line that `main` prints."""
    result = run(*arguments)
    if isinstance(result.exception, MedllmError):
        return 1, str(result.exception)
    return result.exit_code, result.output


@pytest.fixture(scope="module")
def checkpoint(tiny_model, tmp_path_factory):
    folder = tmp_path_factory.mktemp("models") / "tiny"
    save_model(tiny_model, folder)
    return folder


@pytest.fixture(scope="module")
def site(tiny_model, tmp_path_factory):
    """A site's images, labelled so that the model is right in rank and wrong in scale."""
    root = tmp_path_factory.mktemp("site")
    rng = np.random.default_rng(0)
    names = [f"{index}.png" for index in range(PATIENTS * IMAGES)]
    for name in names:
        coarse = Image.fromarray(rng.integers(256, size=(4, 4), dtype=np.uint8))
        coarse.resize((72, 72), Image.Resampling.BICUBIC).save(root / name)
    _write(root, [{"path": name, "pneumonia": "1"} for name in names])
    scored = list(score_records(tiny_model, read_csv(root), ["pneumonia"]))
    log_odds = np.array([row.log_odds["pneumonia"] for row in scored])
    chance = expit(SHARPER * (log_odds - log_odds.mean()))
    labels = (rng.random(len(names)) < chance).astype(int)
    _write(
        root,
        [
            {
                "path": name,
                "patient_id": f"LM-{index // IMAGES}",
                "pneumonia": str(labels[index]),
                "effusion": "1" if index < 6 else "",
            }
            for index, name in enumerate(names)
        ],
    )
    return root


def _write(root, rows):
    with (root / "labels.csv").open("w", newline="") as stream:
        writer = csv.DictWriter(stream, rows[0])
        writer.writeheader()
        writer.writerows(rows)


@pytest.fixture
def copy(site, tmp_path):
    return shutil.copytree(site, tmp_path / "data")


@pytest.fixture(scope="module")
def made(site, checkpoint, tmp_path_factory):
    out = tmp_path_factory.mktemp("made") / "new"
    result = run(
        *("calibrate", "csv", "--root", site, "--model", checkpoint, "--out", out),
        *("--name", "Site A"),
    )
    return result, out


def test_it_writes_a_checkpoint_with_the_same_weights_and_better_probabilities(
    made, site, checkpoint
):
    result, out = made
    assert result.exit_code == 0, result.output
    assert {file.name for file in out.iterdir()} == {
        *(file.name for file in checkpoint.iterdir()),
        "calibration.json",
        "reliability.svg",
    }
    weights = [(folder / "model.safetensors").read_bytes() for folder in (checkpoint, out)]
    assert weights[0] == weights[1]
    old, new = load_model(checkpoint), load_model(out)
    records = read_csv(site)
    labels = np.array([record.labels["pneumonia"] for record in records])
    scans = [read_radiograph(record.path) for record in records]
    before, after = (
        np.array([p.findings[0].probability for p in model.predict(scans, ["pneumonia"])])
        for model in (old, new)
    )
    assert ((after - labels) ** 2).mean() < ((before - labels) ** 2).mean() - 0.02
    assert after.mean() == pytest.approx(labels.mean(), abs=1e-3)
    assert auroc(after, labels) == pytest.approx(auroc(before, labels), abs=1e-9)
    calibration = new.card.questions[0].calibration
    # Labels were drawn at a tenth; the standard error at 120 images is about a fifth of it.
    assert 0.05 < calibration.temperature < 0.2
    assert calibration.fitted_on.startswith("Site A: 120 images of 60 patients, ")
    assert new.card.questions[1].calibration == old.card.questions[1].calibration


def test_the_table_shows_before_and_after_and_says_what_was_kept(made):
    result, out = made
    lines = result.stdout.splitlines()
    assert lines[0] == (
        "Site A: 120 images of 60 patients; before -> after, cross-fitted over patients"
    )
    (row,) = [line for line in lines if line.startswith("pneumonia")]
    page = json.loads((out / "calibration.json").read_text())["findings"]["pneumonia"]
    for name in ("brier", "ece", "slope", "intercept"):
        old, new = (page[side][name]["value"] for side in ("before", "after"))
        assert f"{round(old, 2) + 0:.2f} -> {round(new, 2) + 0:.2f}" in row
    assert any(
        line.startswith("effusion") and "keeps its calibration: 3 patients with" in line
        for line in lines
    )
    assert any("better; AUROC" in line for line in lines)
    assert str(out) in lines[-1]
    assert max(map(len, lines[:-1])) <= 100


def test_a_finding_that_is_not_asked_for_keeps_its_calibration(copy, checkpoint, tmp_path):
    table = copy / "labels.csv"
    table.write_text(table.read_text().replace("effusion", "cardiomegaly"))
    rows = list(csv.DictReader(table.open()))
    _write(copy, [row | {"effusion": row["pneumonia"]} for row in rows])
    command = ("calibrate", "csv", "--root", copy, "--model", checkpoint)
    assert "effusion                    60" not in run(*command, "--out", tmp_path / "a").stdout
    result = run(*command, "--out", tmp_path / "b", "--finding", "effusion")
    assert result.exit_code == 0, result.output
    assert "pneumonia                   keeps its calibration: not asked for" in result.stdout
    old, new = load_model(checkpoint), load_model(tmp_path / "b")
    (before, after) = (
        {one.finding: one.calibration for one in model.card.questions} for model in (old, new)
    )
    assert {key for key in before if before[key] != after[key]} == {"effusion"}
    status, message = refused(*command, "--out", tmp_path / "c", "--finding", "effusoin")
    assert (status, "'effusion'?" in message) == (1, True), message


def test_what_is_left_out_and_what_the_model_was_trained_on_is_told(copy, checkpoint, tmp_path):
    rows = (copy / "labels.csv").read_text().splitlines()
    views = [
        "view_position,split",
        *(f"{'LATERAL' if at < 4 else 'PA'},{(at % 5 and 'train') or 'test'}" for at in range(120)),
    ]
    (copy / "labels.csv").write_text(
        "\n".join(f"{a},{b}" for a, b in zip(rows, views, strict=True))
    )
    command = ("calibrate", "csv", "--root", copy, "--model", checkpoint)
    result = run(*command, "--out", tmp_path / "a")
    assert result.exit_code == 0, result.output
    lines = result.stdout.splitlines()
    assert lines[0].startswith("csv: 116 images of 58 patients")
    assert lines[1] == "  left out, view LATERAL: 4"
    assert lines[2].startswith("  24 patients are in more than one part of the split")
    assert lines[3].startswith("  the model says it was trained on: ")
    result = run(*command, "--out", tmp_path / "b", "--split", "train", "--view", "PA")
    assert "csv, train: 93 images" in result.stdout
    assert "left out, of the part test: 24" in result.stdout


def test_it_takes_the_parts_that_an_evaluation_draws_or_those_of_a_table(
    site, checkpoint, tmp_path
):
    command = ("calibrate", "csv", "--root", site, "--model", checkpoint)
    study = open_study("csv", site, split="train")
    write_drawn(study.drawn, tmp_path)
    records = study.selection.records
    patients = {record.patient_id for record in records}
    result = run(*command, "--out", tmp_path / "a", "--split", "train")
    assert result.exit_code == 0, result.output
    told = f"csv, train: {len(records)} images of {len(patients)} patients"
    assert result.stdout.startswith(told)
    # Those whom a training kept for validation, as its split.csv says.
    table = (tmp_path / "split.csv").read_text()
    (tmp_path / "own.csv").write_text(table.replace(",train", ",validation"))
    own = ("--split", "validation", "--split-file", tmp_path / "own.csv")
    result = run(*command, "--out", tmp_path / "b", *own)
    assert result.exit_code == 0, result.output
    n_validation = table.count(",train") + table.count(",validation")
    told = f"csv, validation: {n_validation} images of {n_validation // 2} patients"
    assert result.stdout.startswith(told)


def test_no_patient_is_named_anywhere(made):
    result, out = made
    assert "LM-" not in result.output
    for name in ("calibration.json", "medllm.json", "reliability.svg"):
        assert "LM-" not in (out / name).read_text()


def test_the_new_checkpoint_is_used_like_any_other(made, site):
    _, out = made
    assert "verified" in run("models", "verify", out).stdout
    assert "Site A; calibration cross-fitted" in run("models", "show", out).stdout
    line = json.loads(run("classify", site / "0.png", "--model", out, "--json").stdout)
    assert line["findings"][0]["finding"] == "pneumonia"


def test_the_same_command_replaces_what_it_wrote(made, site, checkpoint, tmp_path):
    out = shutil.copytree(made[1], tmp_path / "new")
    before = load_model(out).sha256
    given = ("--root", site, "--model", checkpoint, "--out", out, "--name", "Site A, again")
    result = run("calibrate", "csv", *given)
    assert result.exit_code == 0, result.output
    assert load_model(out).sha256 != before


def test_of_a_foreign_model_each_labelled_finding_that_is_left_out_is_told_why(copy, tmp_path):
    foreign = write_checkpoint("llava", tmp_path / "foreign")
    model = load_model(foreign)
    scored = list(score_records(model, read_csv(copy), ["pneumonia", "effusion"]))
    ranks = {
        finding: np.argsort(np.argsort([row.log_odds[finding] for row in scored]))
        for finding in ("pneumonia", "effusion")
    }
    rows = [
        {
            "path": row.record.path.name,
            "patient_id": row.record.patient_id,
            "pneumonia": int(ranks["pneumonia"][at] + (at % 2) * 40 > 80),
            "effusion": int(ranks["effusion"][at] + (at % 2) * 40 < 80),  # the wrong way round
        }
        for at, row in enumerate(scored)
    ]
    _write(copy, rows)
    out = tmp_path / "new"
    result = run("calibrate", "csv", "--root", copy, "--model", foreign, "--out", out)
    assert result.exit_code == 0, result.output
    lines = result.stdout.splitlines()
    (told,) = [line for line in lines if line.startswith("effusion")]
    assert re.search("left out: the fitted slope is -[0-9.]+; the log-odds do not rank", told)
    again = run("calibrate", "csv", "--root", copy, "--model", foreign, "--out", out)
    assert again.exit_code == 0, again.output
    unlabelled = len(FINDINGS) - 2
    assert f"{unlabelled} more of the model's findings have no label and are left out" in lines


def test_json_lines_are_the_findings_of_calibration_json(copy, checkpoint, tmp_path):
    out = tmp_path / "new"
    result = run("calibrate", "csv", "--root", copy, "--model", checkpoint, "--out", out, "--json")
    assert result.exit_code == 0, result.output
    lines = [json.loads(line) for line in result.stdout.splitlines()]
    page = json.loads((out / "calibration.json").read_text())
    assert {line.pop("finding"): line for line in lines} == page["findings"]
    assert page["dataset"] == "csv"


def test_unreadable_images_are_told_counted_and_end_in_status_1(copy, checkpoint, tmp_path):
    (copy / "3.png").unlink()
    (copy / "7.png").write_bytes(b"")
    out = tmp_path / "new"
    result = run("calibrate", "csv", "--root", copy, "--model", checkpoint, "--out", out)
    assert result.exit_code == 1
    assert "118 images of 60 patients, 2 more could not be scored" in result.stdout
    told = result.stderr.splitlines()
    assert [line.split(":")[0] for line in told] == [str(copy / "3.png"), str(copy / "7.png")]
    page = json.loads((out / "calibration.json").read_text())
    assert page["errors"] == {"file-not-found": 1, "empty-file": 1}
    assert load_model(out).card.version == "0+recalibrated"


@pytest.mark.parametrize(
    ("change", "code", "message"),
    [
        ({"dataset": "csvv"}, 1, "Did you mean 'csv'?"),
        ({"--root": "/nowhere"}, 1, "labels.csv is not in /nowhere"),
        ({"--model": "/nowhere"}, 1, "neither a folder nor a hub name"),
        ({"--out": "MODEL"}, 1, "is the model's own folder"),
        ({"--out": "ROOT"}, 1, "exists and is no checkpoint"),
        ({"--out": "ROOT/0.png/new"}, 1, "is a file or read-only"),
        ({"--out": "OTHER"}, 1, "holds 'tiny 0', which medllm calibrate did not write"),
        ({"--accept": "tea-leaves"}, 2, "'tea-leaves' is not one of"),
        ({"--out": None}, 2, "Missing option '--out'"),
    ],
)
def test_what_can_be_known_before_is_refused_before(
    site, checkpoint, tmp_path, change, code, message
):
    given = {"--root": site, "--model": checkpoint, "--out": tmp_path / "new"} | change
    words = {"MODEL": checkpoint, "ROOT": site, "ROOT/0.png/new": site / "0.png" / "new"}
    if change == {"--out": "OTHER"}:
        words["OTHER"] = shutil.copytree(checkpoint, tmp_path / "trained")
    arguments = [given.pop("dataset", "csv")]
    for option, value in given.items():
        arguments += [] if value is None else [option, words.get(value, value)]
    status, words = refused("calibrate", *arguments)
    assert status == code, words
    assert message in words
    if code == 1:
        assert len(words.splitlines()) == 1
    assert not (tmp_path / "new").exists()


@pytest.mark.parametrize(
    ("table", "message"),
    [
        ("path,pneumonia\n0.png,maybe\n", "line 2: pneumonia is 'maybe'"),
        ("path,mass\n0.png,1\n", "pneumonia: no label; effusion: no label"),
        ("path,pneumonia\n0.png,1\n1.png,0\n", "pneumonia: 1 patients with and 1 without, wanted"),
    ],
)
def test_labels_that_cannot_be_used_are_refused_in_one_line(
    copy, checkpoint, tmp_path, table, message
):
    (copy / "labels.csv").write_text(table)
    out = tmp_path / "new"
    status, words = refused("calibrate", "csv", "--root", copy, "--model", checkpoint, "--out", out)
    assert status == 1
    assert message in words
    assert len(words.splitlines()) == 1
    assert not out.exists()


def test_a_user_sees_one_line_without_a_traceback(programs, tmp_path):
    result = programs.run("calibrate", "csv", "--root", tmp_path, "--out", tmp_path / "new")
    assert result.wait() == 1
    assert result.stdout == ""
    (line,) = result.stderr.splitlines()
    assert line.startswith("medllm: labels.csv is not in ")


def test_help_does_not_wait_for_torch():
    code = (
        "import sys; from typer.testing import CliRunner; from medllm.cli import app; "
        "result = CliRunner().invoke(app, ['calibrate', '--help']); "
        "assert result.exit_code == 0, result.output; "
        "slow = {'torch', 'transformers', 'matplotlib', 'numpy', 'sklearn'} & set(sys.modules); "
        "assert not slow, slow"
    )
    subprocess.run([sys.executable, "-c", code], check=True)  # noqa: S603
