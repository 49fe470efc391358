from __future__ import annotations

import dataclasses
import hashlib
import json
import os
import shutil
import subprocess
import sys

import numpy as np
import pydicom
import pytest
from PIL import Image
from pydicom.data import get_testdata_file
from typer.testing import CliRunner

from medllm.cli import app, main
from medllm.cli.classify import as_line
from medllm.cli.inputs import FORMAT_NAMES, METHOD_NAMES
from medllm.dicom import read_radiograph
from medllm.errors import MedllmError
from medllm.explanation import DEFAULT_METHOD, METHODS, methods
from medllm.explanation.attribution import PatchAttribution
from medllm.models import Calibration, save_model
from medllm.phantom import Lesion, make_phantom, write_dicom
from medllm.report.formats import FORMATS

CONTRAST = ["explain", "FILE", "--finding", "pneumonia", "--against"]


@pytest.fixture(scope="module")
def checkpoint(tiny_model, tmp_path_factory):
    """A saved tiny checkpoint whose calls are all positive, so that all is explained."""
    eager = Calibration(low=0.0, high=0.0, fitted_on="nothing")
    questions = tuple(dataclasses.replace(q, calibration=eager) for q in tiny_model.card.questions)
    card = dataclasses.replace(tiny_model.card, questions=questions[:1])
    folder = tmp_path_factory.mktemp("models") / "tiny"
    save_model(dataclasses.replace(tiny_model, card=card), folder)
    return folder


@pytest.fixture(scope="module")
def phantom_file(tmp_path_factory):
    file = tmp_path_factory.mktemp("phantom") / "chest.dcm"
    write_dicom(make_phantom(3, size=256, lesions=[Lesion("effusion", "left")]), file)
    return file


def run(*arguments):
    return CliRunner().invoke(app, [str(argument) for argument in arguments])


def test_classify_prints_the_documented_line(checkpoint, phantom_file):
    result = run("classify", phantom_file, "--model", checkpoint, "--json")
    assert result.exit_code == 0, result.output
    line = json.loads(result.stdout)
    assert set(line) == {"path", "sop_instance_uid", "model", "findings", "warnings", "error"}
    assert line["sop_instance_uid"] == pydicom.dcmread(phantom_file).SOPInstanceUID
    assert line["model"]["name"] == "tiny"
    assert line["error"] is None
    (answer,) = line["findings"]
    told = {"finding", "log_odds", "probability", "call", "low", "high", "calibrated"}
    assert set(answer) == told | {"prevalence"}
    assert answer["prevalence"] is None
    assert (answer["low"], answer["high"], answer["calibrated"]) == (0.0, 0.0, True)
    # The tiny model is not calibrated: its probability is the logistic function of its log-odds.
    assert answer["probability"] == pytest.approx(1 / (1 + np.exp(-answer["log_odds"])))


def test_classify_tells_which_share_of_positives_a_probability_supposes(tiny_model, phantom_file):
    fitted = Calibration(fitted_on="a site", prevalence=0.5)
    question = dataclasses.replace(tiny_model.card.questions[0], calibration=fitted)
    card = dataclasses.replace(tiny_model.card, questions=(question,))
    model = dataclasses.replace(tiny_model, card=card)
    for asked, prevalence in ((model, 0.5), (model.at_prevalence(0.1), 0.1)):
        (answer,) = as_line(asked.predict([read_radiograph(phantom_file)])[0])["findings"]
        assert answer["prevalence"] == prevalence


@pytest.fixture
def mixed_folder(tmp_path, phantom_file):
    """Good and bad files, as they lie about in a researcher's folder."""
    shutil.copy(phantom_file, tmp_path / "good.dcm")
    (tmp_path / "truncated.dcm").write_bytes(phantom_file.read_bytes()[:20_000])
    (tmp_path / "text.dcm").write_text("patient list, do not lose\n" * 20)
    (tmp_path / "zero.dcm").write_bytes(b"")
    shutil.copy(get_testdata_file("CT_small.dcm"), tmp_path / "ct.dcm")
    shutil.copy(get_testdata_file("reportsi.dcm"), tmp_path / "sr.dcm")
    huge = pydicom.dcmread(phantom_file)
    huge.Rows = huge.Columns = 65535
    huge.PixelData = b"\0\0"
    huge.save_as(tmp_path / "huge.dcm")
    color = pydicom.dcmread(phantom_file)
    color.SamplesPerPixel, color.PhotometricInterpretation = 3, "RGB"
    color.PlanarConfiguration = 0
    color.BitsAllocated = color.BitsStored = 8
    color.HighBit, color.Rows, color.Columns = 7, 70, 70
    color.PixelData = b"\1" * (70 * 70 * 3)
    color.save_as(tmp_path / "color.dcm")
    Image.fromarray(np.full((80, 80, 3), (200, 10, 10), dtype=np.uint8)).save(
        tmp_path / "photo.png"
    )
    return tmp_path


def test_classify_answers_each_file_of_a_mixed_folder(checkpoint, mixed_folder, programs):
    result = programs.run("classify", mixed_folder, "--model", checkpoint, "--json")
    assert result.wait() == 1
    assert "Traceback" not in result.stderr
    lines = {
        json.loads(line)["path"].rsplit("/", 1)[-1]: json.loads(line)
        for line in result.stdout.splitlines()
    }
    assert set(lines) == {path.name for path in mixed_folder.iterdir()}
    assert lines.pop("good.dcm")["error"] is None
    codes = {name: line["error"]["code"] for name, line in lines.items()}
    assert codes == {
        "truncated.dcm": "truncated",
        "text.dcm": "not-an-image-file",
        "zero.dcm": "empty-file",
        "ct.dcm": "not-a-radiograph",
        "sr.dcm": "not-a-radiograph",
        "huge.dcm": "too-large",
        "color.dcm": "color",
        "photo.png": "color",
    }
    for line in lines.values():
        assert line["findings"] == []
        assert line["error"]["message"].endswith(".")


def test_classify_without_json_names_the_bad_files_on_stderr(checkpoint, mixed_folder):
    result = run("classify", mixed_folder, "--model", checkpoint)
    assert result.exit_code == 1
    assert len(result.stdout.splitlines()) == 1
    assert len(result.stderr.splitlines()) == 8


def test_classify_tells_the_text_that_a_model_wrote_before_it_answered(tiny_model, phantom_file):
    (prediction,) = tiny_model.predict([read_radiograph(phantom_file)])
    assert all("prompt" not in one for one in as_line(prediction)["findings"])
    card = dataclasses.replace(tiny_model.card, reasoning_tokens=8)
    told = as_line(dataclasses.replace(prediction, card=card))["findings"]
    assert [one["prompt"] for one in told] == [one.prompt for one in prediction.findings]


def test_classify_gives_each_of_many_findings_its_own_line(
    tiny_model, checkpoint, phantom_file, tmp_path
):
    keys = ("pneumonia", "lung_opacity", "effusion", "cardiomegaly", "nodule")
    asked = tiny_model.card.questions[0]
    questions = tuple(dataclasses.replace(asked, finding=key) for key in keys)
    card = dataclasses.replace(tiny_model.card, questions=questions)
    save_model(dataclasses.replace(tiny_model, card=card), tmp_path / "five")
    head, *lines = run("classify", phantom_file, "--model", tmp_path / "five").stdout.splitlines()
    assert head.startswith(str(phantom_file))
    assert [line.split()[0] for line in lines] == list(keys)
    assert all(line.startswith("  ") for line in lines)
    one = run("classify", phantom_file, "--model", checkpoint).stdout.splitlines()
    assert len(one) == 1
    assert one[0].startswith(f"{phantom_file}  pneumonia ")


def test_explain_writes_a_report_a_file(checkpoint, phantom_file, tmp_path):
    result = run("explain", phantom_file, "--model", checkpoint, "--out", tmp_path / "out")
    assert result.exit_code == 0, result.output
    folder = tmp_path / "out" / "chest"
    assert {file.name for file in folder.iterdir()} == {"report.html", "report.json"}
    report = json.loads((folder / "report.json").read_text())
    assert report["findings"][0]["explanation"]["method"] == DEFAULT_METHOD


def test_explain_sets_other_methods_beside_the_first(checkpoint, phantom_file, tmp_path):
    result = run(
        "explain",
        phantom_file,
        "--model",
        checkpoint,
        "--method",
        "occlusion, grad-cam,occlusion",
        "--format",
        "json",
        "--out",
        tmp_path,
    )
    assert result.exit_code == 0, result.output
    report = json.loads((tmp_path / "chest" / "report.json").read_text())
    explanation = report["findings"][0]["explanation"]
    assert explanation["method"] == "occlusion"
    assert [other["method"] for other in explanation["others"]] == ["grad-cam"]


def test_every_method_is_asked_for_at_once_the_default_first(checkpoint, phantom_file, monkeypatch):
    asked = []

    def explain_findings(model, scan, findings, *, method, others, **_):
        asked.extend((method, *others))
        raise MedllmError("enough")

    monkeypatch.setattr("medllm.explanation.explain_findings", explain_findings)
    result = run("explain", phantom_file, "--model", checkpoint, "--method", "all")
    assert result.stderr == f"{phantom_file}: enough\n"
    assert asked[0] == DEFAULT_METHOD
    assert sorted(asked) == sorted(METHODS)


def test_a_finding_whose_explanation_is_refused_leaves_the_others(
    tiny_model, phantom_file, tmp_path, monkeypatch
):
    def complete_but_for_one(case):
        flat = np.ones(case.model.grid)
        errors = {"pneumonia": 100.0}
        return tuple(PatchAttribution(flat, 1, errors.get(key, 0.0)) for key in case.findings)

    method = dataclasses.replace(METHODS[DEFAULT_METHOD], attribute=complete_but_for_one)
    monkeypatch.setitem(methods.METHODS, DEFAULT_METHOD, method)
    save_model(tiny_model, tmp_path / "model")
    findings = ("--finding", "pneumonia", "--finding", "nodule", "--finding", "effusion")
    result = run(
        *("explain", phantom_file, "--model", tmp_path / "model", *findings),
        *("--out", tmp_path),
    )
    assert result.exit_code == 1
    refused, not_drawn = result.stderr.splitlines()
    assert "the attributions of pneumonia miss the log-odds" in refused
    assert not_drawn.startswith("maps not drawn, since a check failed: 2 of 2 ")
    report = json.loads((tmp_path / "chest" / "report.json").read_text())
    explained = {one["finding"] for one in report["findings"] if "explanation" in one}
    assert explained == {"nodule", "effusion"}
    reasons = {one["finding"]: one["reason"] for one in report["findings"]}
    assert reasons["pneumonia"].startswith("Not explained: the attributions of pneumonia miss the")


def test_explain_says_why_this_finding_rather_than_that(tiny_model, phantom_file, tmp_path):
    save_model(tiny_model, tmp_path / "model")
    result = run(
        "explain",
        phantom_file,
        "--model",
        tmp_path / "model",
        "--finding",
        "pneumonia",
        "--against",
        "nodule",
        "--format",
        "json",
        "--out",
        tmp_path,
    )
    assert result.exit_code == 0, result.output
    report = json.loads((tmp_path / "chest" / "report.json").read_text())
    findings = {entry["finding"]: entry for entry in report["findings"]}
    explained = findings["pneumonia"]["explanation"]
    assert explained["against"] == "nodule"
    difference = findings["pneumonia"]["log_odds"] - findings["nodule"]["log_odds"]
    assert explained["log_odds"] == pytest.approx(difference, abs=1e-5)
    assert "Why pneumonia rather than a lung nodule" in findings["pneumonia"]["reason"]


def test_files_of_one_name_get_folders_of_their_own(checkpoint, phantom_file, tmp_path):
    for name in ("a", "b"):
        (tmp_path / name).mkdir()
        shutil.copy(phantom_file, tmp_path / name / "chest.dcm")
    other = make_phantom(4, size=256)
    write_dicom(other, tmp_path / "b" / "chest.dcm")
    result = run(
        "explain",
        tmp_path / "a",
        tmp_path / "b",
        "--model",
        checkpoint,
        "--format",
        "json",
        "--out",
        tmp_path / "out",
    )
    assert result.exit_code == 0, result.output
    uids = {
        json.loads(file.read_text())["image"]["sop_instance_uid"]
        for file in (tmp_path / "out").glob("*/report.json")
    }
    assert len(uids) == 2


def explain_as_json(checkpoint, file, out):
    result = run("explain", file, "--model", checkpoint, "--format", "json", "--out", out)
    assert result.exit_code == 0, result.output
    return result


def hashes(out):
    """The image that each folder's report is of."""
    return {
        file.parent.name: json.loads(file.read_text())["image"]["sha256"]
        for file in out.glob("*/report.json")
    }


@pytest.fixture
def namesakes(phantom_file, tmp_path):
    """Two images of one name, with their hashes."""
    files = [tmp_path / name / "chest.dcm" for name in ("a", "b")]
    for file in files:
        file.parent.mkdir()
    shutil.copy(phantom_file, files[0])
    write_dicom(make_phantom(4, size=256), files[1])
    return [(file, hashlib.sha256(file.read_bytes()).hexdigest()) for file in files]


def test_a_later_run_leaves_the_report_of_another_image_of_that_name(
    checkpoint, namesakes, tmp_path
):
    (first, of_first), (second, of_second) = namesakes
    out = tmp_path / "out"
    assert explain_as_json(checkpoint, first, out).stderr == ""
    told = explain_as_json(checkpoint, second, out)
    elsewhere = f"chest-{of_second[:8]}"
    assert hashes(out) == {"chest": of_first, elsewhere: of_second}
    assert told.stderr == (
        f"{second}: {out / 'chest'} holds the report of another image; written to "
        f"{out / elsewhere}\n"
    )
    written, overview = told.stdout.splitlines()
    assert written == f"{second}  {out / elsewhere / 'report.json'}"
    assert overview.startswith("2 reports  ")
    # Again: each is written over its own.
    assert explain_as_json(checkpoint, first, out).stderr == ""
    explain_as_json(checkpoint, second, out)
    assert hashes(out) == {"chest": of_first, elsewhere: of_second}


@pytest.mark.parametrize("there", ["report.pdf", "dicom/sr.dcm", "report.html"])
def test_a_report_that_names_no_image_is_left_where_it_is(checkpoint, namesakes, tmp_path, there):
    (file, digest), _ = namesakes
    other = tmp_path / "out" / "chest" / there
    other.parent.mkdir(parents=True)
    other.write_bytes(b"of somebody")
    explain_as_json(checkpoint, file, tmp_path / "out")
    assert hashes(tmp_path / "out") == {f"chest-{digest[:8]}": digest}
    assert other.read_bytes() == b"of somebody"


def test_a_page_alone_tells_of_which_image_it_is(checkpoint, namesakes, tmp_path):
    (file, digest), _ = namesakes
    out = tmp_path / "out"
    for _ in range(2):
        run("explain", file, "--model", checkpoint, "--format", "html", "--out", out)
    assert [folder.name for folder in out.iterdir()] == ["chest"]
    assert digest in (out / "chest" / "report.html").read_text()


def test_a_format_that_states_no_hash_is_written_over_its_own_report_alone(
    checkpoint, namesakes, tmp_path, monkeypatch
):
    # The object that holds the pages is not what this is about, and they take seconds to set.
    monkeypatch.setattr("medllm.report.pdf.encode", lambda report, *paper: b"%PDF-1.7\n")
    (first, _), (second, of_second) = namesakes
    out = tmp_path / "out"

    def explain_as_dicom(file, folder):
        result = run("explain", file, "--model", checkpoint, "--format", "dicom", "--out", out,
                     "--finding", "pneumonia", "--method", "grad-cam")  # fmt: skip
        assert result.exit_code == 0, result.output
        assert str(out / folder) + "/" in result.stdout

    for file, folder in ((first, "chest"), (first, "chest"), (second, f"chest-{of_second[:8]}")):
        explain_as_dicom(file, folder)
    # Where the report was taken away, the folder is the next one's, and says so.
    shutil.rmtree(out / "chest" / "dicom")
    (out / "chest" / "image.sha256").write_text("0" * 64)
    explain_as_dicom(first, "chest")
    explain_as_dicom(first, "chest")
    # What states the hash takes its place beside it.
    explain_as_json(checkpoint, first, out)
    assert {folder.name for folder in out.iterdir()} == {"chest", f"chest-{of_second[:8]}"}
    assert (out / "chest" / "report.json").is_file()


def test_a_wrong_path_is_a_bad_input_and_the_others_are_done(checkpoint, phantom_file, tmp_path):
    wrong = tmp_path / "wrong.dcm"
    given = ["classify", wrong, phantom_file, "--model", checkpoint]
    words = run(*given)
    assert words.exit_code == 1
    assert words.stderr == f"{wrong}: no such file or folder; check it.\n"
    assert words.stdout.startswith(f"{phantom_file}  pneumonia ")
    missing, done = map(json.loads, run(*given, "--json").stdout.splitlines())
    assert (missing["path"], missing["error"]["code"]) == (str(wrong), "file-not-found")
    assert (done["path"], done["error"]) == (str(phantom_file), None)


def test_a_finding_may_be_written_as_people_write_it(tiny_model, phantom_file, tmp_path):
    opacity = dataclasses.replace(tiny_model.card.questions[0], finding="lung_opacity")
    card = dataclasses.replace(tiny_model.card, questions=(*tiny_model.card.questions[:1], opacity))
    save_model(dataclasses.replace(tiny_model, card=card), tmp_path / "model")
    result = run(
        *("classify", phantom_file, "--model", tmp_path / "model", "--json"),
        *("--finding", "Lung opacity, PNEUMONIA,", "--finding", "lung-opacity"),
    )
    assert result.exit_code == 0, result.output
    found = [answer["finding"] for answer in json.loads(result.stdout)["findings"]]
    assert found == ["lung_opacity", "pneumonia"]


def test_help_names_every_method_and_format():
    assert METHOD_NAMES.split(", ") == list(METHODS)
    assert FORMAT_NAMES.split(", ") == list(FORMATS)


def test_who_stops_a_command_is_told_what_there_is(checkpoint, phantom_file, monkeypatch, capsys):
    def stop(*_):
        raise KeyboardInterrupt

    monkeypatch.setattr(sys.modules["medllm.cli.classify"], "as_line", stop)
    given = ["classify", str(phantom_file), "--model", str(checkpoint), "--json"]
    monkeypatch.setattr(sys, "argv", ["medllm", *given])
    with pytest.raises(SystemExit) as ended:
        main()
    assert ended.value.code == 130
    assert capsys.readouterr().err == "medllm: stopped; what was written is whole.\n"


@pytest.mark.parametrize(
    ("arguments", "code", "message"),
    [
        (["classify"], 2, "Missing argument"),
        (["explain", "FILE", "--format", "docx"], 2, "'docx' is not one of: html"),
        (["explain", "FILE", "--method", "tea-leaves"], 2, "'tea-leaves' is not one of"),
        (["explain", "FILE", "--method", "gradcam"], 2, "Did you mean 'grad-cam'?"),
        (["explain", "FILE", "--method", "rise,tea-leaves"], 2, "'tea-leaves' is not one of"),
        (["explain", "FILE", "--method", ","], 2, "',' is not one of"),
        (["explain", "FILE", "--against", "nodule"], 2, "needs one --finding, and 0 are given"),
        ([*CONTRAST, "nodule", "--finding", "edema"], 2, "needs one --finding, and 2 are given"),
        ([*CONTRAST, "pneumonia"], 2, "'pneumonia' is the --finding itself"),
        ([*CONTRAST, "gout"], 1, "does not answer for 'gout'"),
        (["classify", "FILE", "--model", "/nowhere"], 1, "neither a folder nor a hub name"),
        (["classify", "FILE", "--model", "nowhere/"], 1, "nowhere/ is neither a folder nor a hub"),
        (["classify", "FILE", "--finding", "gout"], 1, "does not answer for 'gout'"),
        (["classify", "FILE", "--finding", "Pnuemonia"], 1, "Did you mean 'pneumonia'?"),
        (["classify", "FILE", "--finding", "pneumonia,gout"], 1, "does not answer for 'gout'"),
        (["classify", "FILE", "--finding", ","], 2, "names no finding"),
        ([*CONTRAST, "nodule", "--finding", "edema,mass"], 2, "and 3 are given"),
        (["explain", "FILE", "--model", "/nowhere", "--out", "FILE"], 2, "chest.dcm' is a file"),
        ([*CONTRAST, "Pneumonia"], 2, "'pneumonia' is the --finding itself"),
        (["classify", "/nowhere.dcm"], 1, "nowhere.dcm"),
        (["models", "verify", "/nowhere"], 1, "neither a folder nor a hub name"),
    ],
)
def test_wrong_usage_exits_2_and_a_bad_input_1(
    checkpoint, phantom_file, arguments, code, message, monkeypatch, capsys
):
    given = [str(phantom_file) if word == "FILE" else word for word in arguments]
    if given[0] != "models" and "--model" not in given and len(given) > 1:
        given += ["--model", str(checkpoint)]
    # `main` in this process: another one spends its time on importing torch.
    monkeypatch.setattr(sys, "argv", ["medllm", *given])
    with pytest.raises(SystemExit) as ended:
        main()
    told = capsys.readouterr().err
    assert ended.value.code == code, told
    assert message in told
    assert "Traceback" not in told


def test_a_torchvision_of_another_build_than_torch_is_told_with_the_remedy(tmp_path):
    # As PyPI's build for CUDA does beside torch's for the CPU.
    (tmp_path / "torchvision").mkdir()
    reason = "operator torchvision::nms does not exist"
    (tmp_path / "torchvision" / "__init__.py").write_text(f"raise RuntimeError({reason!r})")
    done = subprocess.run(
        [sys.executable, "-m", "medllm", "models", "list"],
        env={**os.environ, "PYTHONPATH": str(tmp_path)},
        capture_output=True,
        text=True,
    )
    assert done.returncode == 1
    assert done.stderr == (
        f"medllm: the torchvision that is installed is of another build than torch ({reason}). "
        "Uninstall it (pip uninstall torchvision; medllm needs none), or install the one of your "
        "torch.\n"
    )


def test_another_package_that_does_not_open_is_not_blamed_on_torchvision(monkeypatch):
    def fail() -> None:
        raise ImportError("Qwen2VLVideoProcessor requires the torchvision library")

    monkeypatch.setattr("medllm.cli.app", fail)
    with pytest.raises(ImportError, match="Qwen2VL"):
        main()


def test_inspect_shows_the_pipeline_and_no_identity(phantom_file, tmp_path):
    named = pydicom.dcmread(phantom_file)
    named.PatientName, named.PatientID = "Quixote^Alonso", "LM-1605"
    named.save_as(tmp_path / "named.dcm")
    words = run("inspect", tmp_path / "named.dcm")
    record = json.loads(run("inspect", tmp_path / "named.dcm", "--json").stdout)
    assert words.exit_code == 0
    assert "pixel pipeline" in words.stdout
    assert "Quixote" not in words.stdout + json.dumps(record)
    assert "LM-1605" not in words.stdout + json.dumps(record)
    assert record["pipeline"][0]["name"] == "decode"
    assert record["rows"] == 256


def test_models_verify_and_show_a_folder(checkpoint):
    assert "verified" in run("models", "verify", checkpoint).stdout
    shown = run("models", "show", checkpoint).stdout
    assert "Is there evidence of pneumonia?" in shown
    assert json.loads(run("models", "show", checkpoint, "--json").stdout)["name"] == "tiny"
