from __future__ import annotations

import json
import subprocess
import sys

import numpy as np
import pytest
from PIL import Image
from typer.testing import CliRunner

from medllm.cli import app, main
from medllm.datasets import DATASETS
from medllm.phantom import make_phantom


def run(*arguments):
    return CliRunner().invoke(app, ["datasets", *map(str, arguments)])


@pytest.fixture
def copies(tmp_path):
    """Two tables of one's own: `whole`, and `faulty`, that shares its first image."""
    pictures = [(make_phantom(seed, size=96).pixels * 255).astype(np.uint8) for seed in range(4)]
    for name, chosen in (("whole", pictures[:2]), ("faulty", pictures[2:])):
        (tmp_path / name).mkdir()
        for index, picture in enumerate(chosen):
            Image.fromarray(picture).save(tmp_path / name / f"{name}-{index}.png")
        (tmp_path / name / "labels.csv").write_text(
            f"path,patient_id,pneumonia\n{name}-0.png,secret-1,1\n{name}-1.png,secret-2,0\n"
        )
    Image.fromarray(pictures[0]).save(tmp_path / "faulty" / "faulty-0.png")
    return tmp_path


def test_list_has_a_row_a_set():
    result = run("list")
    assert result.exit_code == 0
    rows = result.stdout.splitlines()
    assert [row.split()[0] for row in rows] == list(DATASETS)
    (nih,) = [row for row in rows if row.startswith("nih ")]
    assert nih.split() == ["nih", "NIH", "ChestX-ray14", "112,120", "30,805", *nih.split()[5:]]
    lines = [json.loads(line) for line in run("list", "--json").stdout.splitlines()]
    assert [line["name"] for line in lines] == list(DATASETS)


def test_show_tells_terms_policy_counts_descent_and_the_card():
    page = run("show", "rsna").stdout
    assert "made of      nih: all images are NIH's" in page
    assert "published    26,684 images" in page
    assert "lung_opacity: 6,012 images with it" in page
    assert "policy       the labels leave no choice" in page
    assert "card         datasets/rsna.md in medllm's repository" in page
    policy = run("show", "chexpert").stdout
    assert "policy       uncertain: unknown, or negative, positive, soft" in policy
    assert "policy       blank: negative, or unknown" in policy
    facts = json.loads(run("show", "vindr", "--json").stdout)
    assert facts["policy"]["readers"] == {
        "default": "majority",
        "choices": ["any", "majority", "consensus"],
    }
    assert facts["citation"] == DATASETS["vindr"].citation


def test_show_tells_the_columns_of_a_table_of_ones_own():
    page = run("show", "csv").stdout
    assert "cite" not in page
    for column in ("path", "patient_id", "pneumonia", "age_years", "boxes.csv", "width"):
        assert column in page


@pytest.mark.parametrize("name", [name for name in DATASETS if name != "csv"])
def test_the_card_that_show_names_is_there(name, request):
    facts = json.loads(run("show", name, "--json").stdout)
    assert (request.config.rootpath / facts["card"]).is_file()


def test_verify_prints_a_page_and_a_line(copies):
    result = run("verify", "csv", "--root", copies / "whole")
    assert result.exit_code == 0
    assert "images       2 in the tables" in result.stdout
    assert "files        2 of 2\n" in result.stdout
    assert "sizes        96 x 96: 2" in result.stdout
    assert "secret" not in result.stdout
    line = json.loads(run("verify", "csv", "--root", copies / "whole", "--json").stdout)
    assert line["labels"] == {"pneumonia": {"positive": 1, "negative": 1, "soft": 0, "unknown": 0}}


def test_verify_exits_1_for_an_unreadable_file_and_0_for_a_missing_one(copies):
    (copies / "faulty" / "faulty-1.png").unlink()
    result = run("verify", "csv", "--root", copies / "faulty")
    assert result.exit_code == 0
    assert "1 of 2, a partial copy; not here: faulty-1.png" in result.stdout
    (copies / "faulty" / "faulty-0.png").write_bytes(b"\x89PNG\r\n\x1a\n")
    result = run("verify", "csv", "--root", copies / "faulty")
    assert result.exit_code == 1
    assert "UNREADABLE   truncated: 1: faulty-0.png" in result.stdout


def test_verify_exits_1_where_no_file_is_there_at_all(copies):
    for index in range(2):
        (copies / "faulty" / f"faulty-{index}.png").unlink()
    result = run("verify", "csv", "--root", copies / "faulty")
    assert result.exit_code == 1
    assert "files        0 of 2; not here: faulty-0.png, faulty-1.png\n" in result.stdout
    assert "FAULT        None of the 2 files that the tables name is in " in result.stdout


def test_verify_exits_1_for_a_patient_in_two_parts_and_names_nobody(copies):
    table = copies / "whole" / "labels.csv"
    rows = "whole-0.png,secret-1,1,train\nwhole-1.png,secret-1,0,test\n"
    table.write_text("path,patient_id,pneumonia,split\n" + rows)
    result = run("verify", "csv", "--root", table.parent)
    assert result.exit_code == 1
    assert "FAULT        1 patient is in more than one part of the split (te" in result.stdout
    assert result.stdout.count("more than one part") == 1
    assert "secret" not in result.stdout
    assert run("verify", "csv", "--root", table.parent, "--json").exit_code == 1


def test_verify_accepts_a_gate(copies):
    flat = np.full((96, 96), 7, np.uint8)
    Image.fromarray(flat).save(copies / "faulty" / "faulty-0.png")
    command = ("verify", "csv", "--root", copies / "faulty")
    assert "flat-image: 1" in run(*command).stdout
    assert run(*command, "--accept", "flat-image").exit_code == 0


def test_verify_compares_with_the_published_counts(tmp_path):
    (tmp_path / "labels.csv").write_text("path,patient_id,pneumonia\na.png,p,1\nb.png,q,0\n")
    page = run("verify", "kermany", "--root", tmp_path).stdout
    assert "images       2 in the tables, fewer than published (5,856)" in page
    (row,) = [row for row in page.splitlines() if row.strip().startswith("pneumonia")]
    assert row.split() == ["pneumonia", "1", "1", "0", "0", "4,273"]
    many = "".join(f"{index}.png,p,0\n" for index in range(5857))
    (tmp_path / "labels.csv").write_text("path,patient_id,pneumonia\n" + many)
    assert (
        "5,857 in the tables, MORE than published"
        in run("verify", "kermany", "--root", tmp_path).stdout
    )


def test_leakage_between_sets_exits_1_and_names_files_only(copies):
    sets = [f"csv:{copies / name}" for name in ("whole", "faulty")]
    result = run("leakage", *sets)
    assert result.exit_code == 1
    assert "between sets" in result.stdout
    assert "1 images, identical to the byte" in result.stdout
    assert "whole-0.png" in result.stdout
    assert result.stdout.endswith("LEAKAGE\n")
    assert "secret" not in result.stdout
    lines = [json.loads(line) for line in run("leakage", *sets, "--json").stdout.splitlines()]
    assert [next(iter(line)) for line in lines] == ["set", "set", "shared"]
    assert lines[2]["shared"]["leaks"] is True


def test_no_leakage_exits_0_and_says_what_could_not_be_compared(copies):
    (copies / "faulty" / "faulty-0.png").unlink()
    sets = [f"csv:{copies / name}" for name in ("whole", "faulty")]
    result = run("leakage", *sets)
    assert result.exit_code == 0
    assert "1 of 2 images compared, 1 files not here" in result.stdout
    not_compared = "not compared: patients of {} and {}, whose pseudonyms are not known to be"
    assert not_compared.format(*sets) in result.stdout
    assert result.stdout.endswith("no leakage found between sets or official parts\n")
    (copies / "faulty" / "faulty-0.png").write_bytes(b"")
    result = run("leakage", *sets)
    assert result.exit_code == 1
    assert "UNREADABLE: empty-file: 1" in result.stdout


def test_a_copy_that_tells_no_patients_apart_is_said_not_to(tmp_path):
    for name in ("csv", "rsna"):
        (tmp_path / name).mkdir()
    (tmp_path / "csv" / "labels.csv").write_text("path,patient_id,pneumonia\na.png,p,1\n")
    (tmp_path / "rsna" / "stage_2_train_labels.csv").write_text(
        "patientId,x,y,width,height,Target\np,,,,,0\n"
    )
    page = run("leakage", f"rsna:{tmp_path / 'rsna'}", f"csv:{tmp_path / 'csv'}").stdout
    assert "patients of rsna and csv, which rsna does not tell apart\n" in page
    assert "patients of rsna between its parts, which it does not tell apart\n" in page
    assert "patients of csv between" not in page


def test_two_patients_with_one_image_are_told_and_are_no_leakage_yet(copies):
    whole = copies / "whole"
    (whole / "whole-1.png").write_bytes((whole / "whole-0.png").read_bytes())
    result = run("leakage", f"csv:{whole}")
    assert result.exit_code == 0
    assert "under the names of two patients\n  csv: 2 images, identical" in result.stdout


@pytest.mark.parametrize(
    ("arguments", "code", "message"),
    [
        (["verify", "csv"], 2, "Missing option '--root'"),
        (["verify", "csv", "--root", "ROOT", "--accept", "color"], 2, "'color' is not one of"),
        (["verify", "csv", "--root", "ROOT", "--workers", "0"], 2, "--workers"),
        (["leakage", "csv"], 2, "'csv' is not NAME:DIR, such as nih:data/nih."),
        (["leakage", "csv:"], 2, "is not NAME:DIR"),
        (["show", "kermanny"], 1, "Did you mean 'kermany'?"),
        (["verify", "csv", "--root", "/nowhere"], 1, "labels.csv is not in /nowhere"),
        (["leakage", "csv:/nowhere"], 1, "labels.csv is not in /nowhere"),
    ],
)
def test_wrong_usage_exits_2_and_a_bad_copy_1(
    copies, arguments, code, message, monkeypatch, capsys
):
    given = [str(copies / "whole") if word == "ROOT" else word for word in arguments]
    monkeypatch.setattr(sys, "argv", ["medllm", "datasets", *given])
    with pytest.raises(SystemExit) as ended:
        main()
    told = " ".join(capsys.readouterr().err.replace("│", " ").split())
    assert ended.value.code == code, told
    assert message in told


def test_help_waits_for_no_library_and_no_command_for_torch(copies):
    code = (
        "import sys; from typer.testing import CliRunner; from medllm.cli import app; "
        "run = lambda *words: CliRunner().invoke(app, ['datasets', *words]); "
        "results = [run('--help'), run('verify', '--help'), run('leakage', '--help')]; "
        "slow = {'torch', 'numpy', 'medllm.datasets'} & set(sys.modules); "
        "assert not slow, slow; "
        f"results.append(run('leakage', 'csv:{copies / 'whole'}')); "
        f"results.append(run('verify', 'csv', '--root', '{copies / 'whole'}')); "
        "assert all(result.exit_code == 0 for result in results), results; "
        "assert 'torch' not in sys.modules"
    )
    subprocess.run([sys.executable, "-c", code], check=True)  # noqa: S603
