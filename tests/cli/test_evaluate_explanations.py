from __future__ import annotations

import dataclasses
import json
import shutil
from pathlib import Path

import pytest
from PIL import Image
from typer.testing import CliRunner

from medllm.cli import app
from medllm.errors import AttributionError, CheckpointError, MedllmError
from medllm.explanation import METHODS
from medllm.models import load_model, save_model
from medllm.phantom import Lesion, make_phantom
from tests.models.architectures.checkpoints import write_checkpoint

# What the figures are is tested where they are made.
pytestmark = pytest.mark.usefixtures("few_resamples")


def run(*arguments):
    return CliRunner().invoke(
        app, ["evaluate-explanations", *(str(argument) for argument in arguments)]
    )


@pytest.fixture(scope="module")
def checkpoint(tiny_model, tmp_path_factory):
    folder = tmp_path_factory.mktemp("models") / "tiny"
    save_model(tiny_model, folder)
    return folder


@pytest.fixture(scope="module")
def root(tmp_path_factory):
    folder = tmp_path_factory.mktemp("set")
    rows = ["path,patient_id,nodule"]
    boxes = ["path,finding,x,y,width,height"]
    for index in range(4):
        phantom = make_phantom(index, size=80, lesions=[Lesion("nodule", "left", "middle")])
        Image.fromarray((phantom.pixels * 255).astype("uint8")).save(folder / f"{index}.png")
        rows.append(f"{index}.png,LM-{index},1")
        boxes.append(f"{index}.png,nodule,50,30,12,12")
    (folder / "labels.csv").write_text("\n".join(rows))
    (folder / "boxes.csv").write_text("\n".join(boxes))
    return folder


def test_a_table_is_printed_and_three_files_are_written(root, checkpoint, tmp_path):
    out = tmp_path / "out"
    result = run(
        *("csv", "--root", root, "--model", checkpoint, "--out", out, "--limit", 2),
        *("--method", "integrated-gradients,occlusion", "--sanity", 1),
    )
    assert result.exit_code == 0, result.output
    assert "csv (all): 2 images of 2 patients, 0 not read; tiny 0. Research use" in result.stdout
    assert "beyond the limit: 2" in result.stdout
    assert "\n  the model says it was trained on: not stated. Figures on" in result.stdout
    for name in ("integrated-gradients", "occlusion", "mean-map", "edges", "random"):
        assert f"\n  {name} " in result.stdout
    assert {"explanations.parquet", "metrics.json", "report.html"} <= {
        path.name for path in out.iterdir()
    }


def test_a_damaged_file_is_told_the_others_are_explained_and_the_exit_status_is_1(
    root, checkpoint, tmp_path
):
    for path in root.iterdir():
        (tmp_path / path.name).write_bytes(path.read_bytes())
    (tmp_path / "3.png").write_bytes((root / "3.png").read_bytes()[:99])
    result = run(
        *("csv", "--root", tmp_path, "--model", checkpoint, "--out", tmp_path / "out"),
        *("--method", "occlusion", "--checks", "none", "--sanity", 0, "--json"),
    )
    assert result.exit_code == 1
    assert "3.png: the PNG is cut off" in result.stderr
    assert "LM-3" not in result.output
    (line,) = result.stdout.splitlines()
    figures = json.loads(line)
    assert figures == json.loads((tmp_path / "out" / "metrics.json").read_text())
    assert figures["errors"] == {"truncated": 1}
    assert figures["localisation"]["occlusion"]["nodule"]["n"] == 3
    assert figures["default_method"] == "occlusion"


def test_patients_that_a_training_left_out_are_chosen_by_its_split(root, checkpoint, tmp_path):
    split = tmp_path / "split.csv"
    rows = [f"csv,LM-{at},{'test' if at == 2 else 'train'}" for at in range(4)]
    split.write_text("\n".join(["dataset,patient_id,split", *rows]))
    options = ("--split", "test", "--method", "occlusion", "--checks", "none", "--sanity", 0)
    result = run(
        *("csv", "--root", root, "--model", checkpoint, "--split-file", split),
        *(*options, "--out", tmp_path / "out"),
    )
    assert result.exit_code == 0, result.output
    assert "csv (test): 1 images of 1 patients" in result.stdout
    assert not (tmp_path / "out" / "split.csv").exists()
    drawn = run(
        *("csv", "--root", root, "--model", checkpoint, "--out", tmp_path / "drawn"),
        *(*options, "--split", "train"),
    )
    assert drawn.exit_code == 0, drawn.output
    rows = (tmp_path / "drawn" / "split.csv").read_text().splitlines()
    assert len(rows) == 5


def test_phantoms_need_no_folder(checkpoint, tmp_path):
    result = run(
        *("phantom", "--model", checkpoint, "--out", tmp_path / "out", "--limit", 2),
        *("--finding", "nodule", "--method", "occlusion", "--checks", "none", "--sanity", 0),
    )
    assert result.exit_code == 0, result.output
    assert "phantom (all): 2 images of 2 patients" in result.stdout
    assert "\nocclusion: no explanation was checked\n" in result.stdout


def test_the_essence_is_kept_with_the_checkpoint_and_its_card_shows_it(checkpoint, tmp_path):
    folder = shutil.copytree(checkpoint, tmp_path / "own")
    common = ("phantom", "--model", folder, "--limit", 3, "--finding", "nodule")
    result = run(*common, "--method", "grad-cam", "--checks", "none", "--keep", "--out", tmp_path)
    assert result.exit_code == 0, result.output
    figures = json.loads((tmp_path / "metrics.json").read_text())
    found = figures["localisation"]["grad-cam"]["nodule"]["pixel_auroc"]
    for command in (["models", "show", folder], ["models", "card", folder]):
        shown = CliRunner().invoke(app, [str(word) for word in command]).stdout
        assert "grad-cam" in shown
        assert f"{found['value']:.3f} ({found['low']:.3f} to {found['high']:.3f})" in shown
        assert "n phantom" in shown
    assert (folder / "README.md").read_text() == shown
    (kept,) = load_model(folder).card.explanations
    own = kept.methods["grad-cam"].findings["nodule"]
    for figure, method in ((own.hit_rate, "grad-cam"), (own.fixed_hit_rate, "mean-map")):
        assert dataclasses.asdict(figure) == figures["localisation"][method]["nodule"]["hit_rate"]
    assert kept.methods["grad-cam"].n_tested == figures["sanity"]["methods"]["grad-cam"]["n"] == 3


def test_a_folder_that_cannot_be_written_is_told_before_anything_is_computed(
    checkpoint, tmp_path, monkeypatch
):
    def refuse(path, *_, **__):
        raise OSError(30, "Read-only file system", str(path))

    monkeypatch.setattr(Path, "touch", refuse)
    quickly = ("--limit", 1, "--method", "grad-cam", "--checks", "none")
    result = run("phantom", "--model", checkpoint, "--keep", "--out", tmp_path / "out", *quickly)
    assert "explanations.json cannot be written (Read-only file system); copy the checkp" in str(
        result.exception
    )
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize("given", ["folder", "hub"])
def test_nothing_is_kept_in_a_model_as_it_was_published(tmp_path, monkeypatch, given):
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path))
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    repository = tmp_path / "models--some--clip"
    folder = write_checkpoint("clip", repository / "snapshots" / ("a" * 40))
    (repository / "refs").mkdir()
    (repository / "refs" / "main").write_text("a" * 40)
    before = sorted(tmp_path.rglob("*"))
    model = folder if given == "folder" else "some/clip"
    result = run("phantom", "--model", model, "--keep", "--out", tmp_path / "out", "--limit", 1)
    assert isinstance(result.exception, CheckpointError), result.output
    assert result.exception.code == "not-kept"
    assert "'medllm models configure' or 'medllm calibrate'" in str(result.exception)
    assert sorted(tmp_path.rglob("*")) == before


@pytest.mark.parametrize("kind", ["clip", "vit-classifier"])
def test_of_all_methods_those_that_cannot_serve_are_left_out_and_told(tmp_path, monkeypatch, kind):
    few = ("integrated-gradients", "occlusion", "grad-cam", "attention-rollout")
    for name in set(METHODS) - set(few):  # what is slow, out of the table of all
        monkeypatch.delitem(METHODS, name)
    folder, out = write_checkpoint(kind, tmp_path / kind), tmp_path / "out"
    common = ("phantom", "--model", folder, "--limit", 2, "--finding", "pneumonia", "--out", out)
    result = run(*common, "--sanity", 1)
    assert result.exit_code == 0, result.output
    said = result.stderr.splitlines()
    assert len(said) == 2
    assert said[0].startswith(f"grad-cam is left out: model '{kind}' has no image tokens")
    assert said[1].startswith(f"attention-rollout is left out: model '{kind}' reads no image tok")
    figures = json.loads((out / "metrics.json").read_text())
    assert figures["methods"] == ["integrated-gradients", "occlusion"]
    assert [*figures["refusals"]] == ["grad-cam", "attention-rollout"]
    assert sum(figures["verdicts"].values()) == 2
    assert figures["sanity"]["methods"].keys() == {*figures["methods"], "edges"}


def test_a_method_that_is_named_and_cannot_serve_is_refused_before_anything_is_computed(tmp_path):
    folder, out = write_checkpoint("clip", tmp_path / "clip"), tmp_path / "out"
    named = ("--method", "occlusion,gradient-attention")
    result = run("phantom", "--model", folder, "--limit", 2, *named, "--out", out)
    assert isinstance(result.exception, AttributionError), result.output
    assert result.exception.code == "no-attention"
    assert "the method 'gradient-attention' cannot be tried: model 'clip' re" in str(
        result.exception
    )
    assert not out.exists()


@pytest.mark.parametrize(
    ("arguments", "status", "message"),
    [
        (["csv"], 2, "name the data set's folder"),
        (["phantom", "--root", "x"], 2, "phantoms are drawn, not read"),
        (["csv", "--root", "x", "--method", "lime"], 2, "'lime' is not one of: all, "),
        (["csv", "--root", "x", "--checks", "some"], 2, "'some' is not one of"),
        (["phantom", "--heatmaps"], 2, "give it with chexlocalize alone"),
        (["nihh", "--root", "x"], 1, "Did you mean 'nih'?"),
        (["csv", "--root", "x"], 1, "labels.csv is not in x"),
    ],
)
def test_wrong_usage_and_bad_input_are_told_in_one_line(checkpoint, arguments, status, message):
    result = run(*arguments, "--model", checkpoint)
    if isinstance(result.exception, MedllmError):
        assert (1, message in str(result.exception)) == (status, True), result.exception
    else:
        assert result.exit_code == status
        assert message in " ".join(result.output.split())


def test_a_table_without_boxes_is_told_with_a_remedy(root, checkpoint, tmp_path):
    for path in root.glob("*.png"):
        (tmp_path / path.name).write_bytes(path.read_bytes())
    (tmp_path / "labels.csv").write_text((root / "labels.csv").read_text())
    result = run("csv", "--root", tmp_path, "--model", checkpoint, "--out", tmp_path / "out")
    assert "write boxes.csv (path, finding, x, y, width, height)" in str(result.exception)
