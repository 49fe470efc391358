from __future__ import annotations

import base64
import dataclasses
import io
import json
import re
import shutil

import numpy as np
import pyarrow.parquet as pq
import pytest
from PIL import Image

from medllm.datasets import LabelPolicy
from medllm.errors import LabelError, MedllmError
from medllm.evaluate import (
    Evaluation,
    evaluate_model,
    evaluate_predictions,
    open_study,
    runs,
    write_evaluation,
)
from medllm.evaluate.answers import Answers
from medllm.evaluate.comparison.models import Cost
from medllm.evaluate.study import write_drawn
from medllm.evaluate.table import read_predictions
from medllm.evaluate.thresholds import ThresholdRule
from medllm.metrics import auroc
from medllm.models import load_model
from tests.models.architectures.checkpoints import write_checkpoint

N_PATIENTS = 60

pytestmark = pytest.mark.usefixtures("few_resamples")


@pytest.fixture(scope="module")
def root(tmp_path_factory):
    """Two images a patient, some of them with a label, and one of each kind of damage."""
    folder = tmp_path_factory.mktemp("set")
    rng = np.random.default_rng(0)
    rows = ["path,patient_id,pneumonia,effusion,sex,age_years,view_position,split"]
    for index in range(2 * N_PATIENTS):
        coarse = Image.fromarray(rng.integers(256, size=(4, 4), dtype=np.uint8))
        coarse.resize((72, 72), Image.Resampling.BICUBIC).save(folder / f"{index}.png")
        patient = index // 2
        effusion = "" if index % 5 == 0 else rng.integers(2)
        split = "test" if patient % 2 else "validation"
        view = "LATERAL" if index == 7 else "PA" if index % 3 else "AP"
        rows.append(
            f"{index}.png,p{patient},{rng.integers(2)},{effusion},{'FM'[patient % 2]},"
            f"{20 + patient},{view},{split}"
        )
    (folder / "cut.png").write_bytes((folder / "0.png").read_bytes()[:100])
    (folder / "empty.dcm").write_bytes(b"")
    colour = np.zeros((64, 64, 3), np.uint8)
    colour[..., 0] = 255
    Image.fromarray(colour).save(folder / "colour.png")
    for name in ("cut.png", "empty.dcm", "colour.png", "gone.png"):
        rows.append(f"{name},bad,1,0,F,50,PA,test")
    (folder / "labels.csv").write_text("\n".join(rows))
    return folder


@pytest.fixture(scope="module")
def evaluated(root, tiny_model, tmp_path_factory, few_resamples):
    out = tmp_path_factory.mktemp("out")
    study = open_study("csv", root)
    evaluation = evaluate_model(study, tiny_model, out, workers=0)
    write_evaluation(evaluation, study, out)
    return evaluation, study, out


def test_every_image_is_counted_and_every_damage_is_named(evaluated):
    evaluation, _, _ = evaluated
    assert evaluation.n_images == 2 * N_PATIENTS - 1 + 4
    assert evaluation.n_patients == N_PATIENTS + 1
    assert evaluation.left_out == {"view LATERAL": 1}
    assert evaluation.errors == {
        "truncated": 1,
        "empty-file": 1,
        "color": 1,
        "file-not-found": 1,
    }
    assert evaluation.findings["pneumonia"].n == 2 * N_PATIENTS - 1


def test_the_worst_errors_are_shown_as_they_were_scored(evaluated, tmp_path):
    evaluation, study, _ = evaluated

    def first_picture(polarity):
        write_evaluation(evaluation, study, tmp_path / polarity, polarity=polarity)
        page = (tmp_path / polarity / "report.html").read_text()
        encoded = re.search(r"data:image/jpeg;base64,([^\"]+)", page)[1]
        return np.asarray(Image.open(io.BytesIO(base64.b64decode(encoded))), dtype=float)

    for polarity in ("normal", "inverted"):
        (tmp_path / polarity).mkdir()
    np.testing.assert_allclose(first_picture("inverted"), 255 - first_picture("normal"), atol=8)


def test_figures_are_those_of_the_model_on_the_labelled_images(evaluated, tiny_model):
    evaluation, study, _ = evaluated
    scores, labels = [], []
    for record in study.selection.records:
        if "effusion" in record.labels and (record.path.name[0].isdigit()):
            (answer,) = tiny_model.predict([record.radiograph()], ["effusion"])[0].findings
            scores.append(answer.log_odds)
            labels.append(int(record.labels["effusion"]))
    figures = evaluation.findings["effusion"]
    assert (figures.n, figures.n_positive) == (len(labels), sum(labels))
    # Batches sum in another order, which can swap two images that are all but equal.
    assert figures.auroc.value == pytest.approx(auroc(np.array(scores), np.array(labels)), abs=1e-3)


def test_findings_without_a_label_are_not_asked(evaluated):
    evaluation, _, _ = evaluated
    assert list(evaluation.findings) == ["pneumonia", "effusion"]
    assert evaluation.averages is not None


def test_groups_audits_and_worst_errors_are_there(evaluated, root):
    evaluation, _, _ = evaluated
    assert {row.attribute for row in evaluation.subgroups} == {"sex", "age group", "view"}
    assert {row.finding for row in evaluation.audits.image_use} == {"pneumonia", "effusion"}
    assert "all of these" in {row.facts for row in evaluation.audits.shortcuts}
    worst = evaluation.worst["pneumonia"]
    assert worst
    for one in worst:
        assert (root / one.path).is_file()
        threshold = evaluation.findings["pneumonia"].threshold
        assert (one.probability >= threshold) == (one.label == 0)


def test_a_model_that_can_be_told_is_told_the_indications(images, tmp_path):
    root = tmp_path / "site"
    root.mkdir()
    rows = ["path,mass,indication"]
    for index, path in enumerate(images):
        (root / path.name).write_bytes(path.read_bytes())
        rows.append(f"{path.name},{index % 2},{('Fall.', 'Heavy smoker.')[index % 2]}")
    (root / "labels.csv").write_text("\n".join(rows))
    model = load_model(write_checkpoint("llava", tmp_path / "llava"))
    study = open_study("csv", root)
    evaluation = evaluate_model(study, model, tmp_path / "out", ["mass"], workers=0)
    (row,) = evaluation.audits.indications
    assert (row.finding, row.n) == ("mass", 40)
    # A blank image and one of two texts, which tell the label or its opposite.
    assert row.auroc_alone.value in (0, 1)
    assert row.auroc.value == pytest.approx(evaluation.findings["mass"].auroc.value)
    write_evaluation(evaluation, study, tmp_path / "out")
    assert "smoker" not in (tmp_path / "out" / "report.html").read_text()
    table = pq.read_table(tmp_path / "out" / "predictions.parquet")
    assert "smoker" not in str(table.to_pylist())
    # Other words of a request make another run.
    (root / "labels.csv").write_text("\n".join(rows).replace("Fall.", "Cough."))
    with pytest.raises(MedllmError, match="differs in the images"):
        evaluate_model(open_study("csv", root), model, tmp_path / "out", ["mass"], workers=0)


def test_the_files_hold_the_evaluation_and_its_page(evaluated):
    evaluation, _, out = evaluated
    text = (out / "metrics.json").read_text()
    assert Evaluation.model_validate_json(text) == evaluation
    # The names that other programs read.
    values = json.loads(text)["findings"]["pneumonia"]
    for name in ("auroc", "auprc", "sensitivity", "specificity", "brier", "ece"):
        assert set(values[name]) == {"value", "low", "high"}
    page = (out / "report.html").read_text()
    assert "data:image/jpeg;base64" in page
    cost = Cost.model_validate_json((out / "cost.json").read_text())
    assert cost.n == evaluation.n_images - sum(evaluation.errors.values())
    assert cost.seconds_median > 0
    assert sorted(path.name for path in out.iterdir()) == [
        "cost.json",
        "metrics.json",
        "predictions.parquet",
        "report.html",
        "run.json",
    ]


def test_the_same_command_again_gives_the_same_bytes(evaluated, tiny_model):
    _, study, out = evaluated
    before = {path.name: path.read_bytes() for path in out.iterdir()}
    write_evaluation(evaluate_model(study, tiny_model, out), study, out)
    assert {path.name: path.read_bytes() for path in out.iterdir()} == before


@pytest.fixture(scope="module")
def validated(root, tiny_model, tmp_path_factory):
    """The validation part, evaluated, and the folder of its files."""
    out = tmp_path_factory.mktemp("validation")
    validation = open_study("csv", root, split="validation")
    first = evaluate_model(validation, tiny_model, out, workers=0)
    write_evaluation(first, validation, out)
    return first, out


def test_thresholds_of_the_validation_part_are_tried_on_the_test_part(
    validated, root, tiny_model, tmp_path
):
    first, out = validated
    study = open_study("csv", root, split="test", thresholds=out / "metrics.json")
    second = evaluate_model(study, tiny_model, tmp_path / "t", workers=0)
    assert second.left_out == {
        "of the part validation": N_PATIENTS,
        "view LATERAL": 1,
    }
    for finding, figures in second.findings.items():
        assert figures.fixed_threshold.threshold == first.findings[finding].youden_threshold
        assert figures.fixed_threshold.threshold_source == (
            "fixed on csv, validation: other images, of other patients"
        )


@pytest.mark.parametrize(
    ("at", "words"),
    [
        ("sensitivity=0.75", "the highest with a sensitivity of 0.75 or more"),
        ("specificity=0.75", "the lowest with a specificity of 0.75 or more"),
    ],
)
def test_a_threshold_of_a_wanted_share_is_taken_over(validated, root, tmp_path, at, words):
    _, out = validated
    thresholds = open_study(
        "csv", root, split="test", thresholds=out / "metrics.json", at=at
    ).thresholds
    finding = next(iter(thresholds.values))
    point = thresholds.of(finding)
    assert point.source.startswith(f"{words}, fixed on csv, validation: other images")
    told = Answers.of(read_predictions(out / "predictions.parquet"), finding)
    label = int(at.startswith("sensitivity"))
    own = told.probabilities[told.labels == label]
    shares = {float(one): ((own >= one) == label).mean() for one in told.probabilities}
    reached = [one for one, share in shares.items() if share >= 0.75]
    assert point.upper == (max(reached) if label else min(reached))
    alone = shutil.copy(out / "metrics.json", tmp_path)
    with pytest.raises(LabelError, match="is not there, and a threshold for a sensitivity or"):
        open_study("csv", root, split="test", thresholds=alone, at=at)


@pytest.mark.parametrize("at", ["sensitivity", "specificity=90", "ppv=0.9", "sensitivity=nan", ""])
def test_a_rule_that_is_none_is_refused(at):
    with pytest.raises(LabelError, match="is no way to choose a threshold; write youden"):
        ThresholdRule.of(at)


@pytest.fixture
def again(evaluated, root, tmp_path):
    """Open the evaluated set with thresholds of it, changed in some way."""
    _, _, out = evaluated
    text = (out / "metrics.json").read_text()

    def opened(*, part=None, beside=True, **changed):
        values = json.loads(text) | changed
        (tmp_path / "metrics.json").write_text(json.dumps(values))
        if beside:
            (tmp_path / "predictions.parquet").write_bytes(
                (out / "predictions.parquet").read_bytes()
            )
        return open_study("csv", root, split=part, thresholds=tmp_path / "metrics.json")

    return opened


def test_thresholds_of_the_same_images_are_refused(again):
    with pytest.raises(
        LabelError, match=f"on {2 * N_PATIENTS + 3} of these {2 * N_PATIENTS + 3} i"
    ):
        again()
    with pytest.raises(LabelError, match=f"chosen on {N_PATIENTS + 3} of these {N_PATIENTS + 3}"):
        again(part="test")


def _write_table(folder, names, seed):
    """Write a table without pseudonyms; no file is opened until it is scored."""
    folder.mkdir()
    rng = np.random.default_rng(seed)
    rows = [f"{name},{rng.integers(2)},{rng.integers(20, 90)}" for name in names]
    (folder / "labels.csv").write_text("\n".join(["path,pneumonia,age_years", *rows]))
    return folder


@pytest.fixture
def tables(evaluated, tmp_path):
    """Evaluate a table, so that other ones can be opened with its thresholds."""
    _, _, out = evaluated
    names = [f"images/{at:03}.jpeg" for at in range(40)]
    first = _write_table(tmp_path / "first", names, seed=0)
    study = open_study("csv", first)
    (tmp_path / "peer.csv").write_text(
        "path,finding,probability\n" + "\n".join(f"{name},pneumonia,0.5" for name in names)
    )
    evaluate_predictions(study, tmp_path / "peer.csv", tmp_path / "before")
    (tmp_path / "before" / "metrics.json").write_bytes((out / "metrics.json").read_bytes())

    def opened(root):
        thresholds = tmp_path / "before" / "metrics.json"
        return open_study("csv", root, thresholds=thresholds).thresholds.source

    return first, names, opened


def test_another_table_with_equal_file_names_has_other_images(tables, tmp_path):
    _, names, opened = tables
    assert opened(_write_table(tmp_path / "second", names, seed=1)) == (
        "fixed on csv, all: another table; whether those are other patients is not known"
    )
    others = [name.replace("images", "others") for name in names]
    assert opened(_write_table(tmp_path / "third", others, seed=1)) == (
        "fixed on csv, all: other images, of patients with other names"
    )


def test_a_table_that_was_moved_has_the_same_images(tables, tmp_path):
    first, _, opened = tables
    moved = shutil.move(first, tmp_path / "moved")
    with pytest.raises(LabelError, match="chosen on 40 of these 40 images"):
        opened(moved)


def test_a_label_that_was_corrected_makes_no_other_image(tiny_model, images, tmp_path):
    root, out = tmp_path / "set", tmp_path / "out"
    root.mkdir()
    _write_without_split(root, images)
    study = open_study("csv", root)
    write_evaluation(evaluate_model(study, tiny_model, out, workers=0), study, out)
    table = root / "labels.csv"
    table.write_text(table.read_text().replace("0.png,p0,0", "0.png,p0,1"))
    with pytest.raises(LabelError, match="chosen on 40 of these 40 images"):
        open_study("csv", root, thresholds=out / "metrics.json")
    # In another folder it cannot be told from another table.
    copy = shutil.copytree(root, tmp_path / "copy")
    study = open_study("csv", copy, thresholds=out / "metrics.json")
    assert "another table; whether" in study.thresholds.source


def test_thresholds_of_another_model_or_prevalence_are_refused(again, tiny_model, tmp_path):
    study = again(beside=False, model_sha256="1" * 64)
    with pytest.raises(LabelError, match="has thresholds of the model 111111111111, and evaluated"):
        evaluate_model(study, tiny_model, tmp_path / "new", workers=0)
    study = again(beside=False)
    moved = _knowing(tiny_model)
    with pytest.raises(LabelError, match="of pneumonia supposed a share of unknown size with it, "):
        evaluate_model(study, moved, tmp_path / "new", workers=0, prevalence=0.02)
    (tmp_path / "peer.csv").write_text("path,finding,probability\n0.png,pneumonia,0.5")
    with pytest.raises(LabelError, match="evaluated is predictions that were given"):
        evaluate_predictions(study, tmp_path / "peer.csv", tmp_path / "new")


def test_thresholds_of_more_findings_than_are_evaluated_serve(
    again, evaluated, tiny_model, tmp_path
):
    findings = evaluated[0].model_dump(mode="json")["findings"]
    for figures in findings.values():
        figures["supposed_prevalence"] = 0.5
    study = again(beside=False, findings=findings)
    model = _knowing(tiny_model)
    got = evaluate_model(study, model, tmp_path / "new", ["pneumonia"], workers=0)
    assert got.findings["pneumonia"].fixed_threshold is not None


def _knowing(model):
    """Let each calibration of a model say that it supposes a half."""
    return model.asking(
        dataclasses.replace(
            one,
            calibration=dataclasses.replace(one.calibration, prevalence=0.5, fitted_on="a site"),
        )
        for one in model.card.questions
    )


def test_a_prevalence_and_the_settings_leave_a_trace(root, tiny_model, tmp_path):
    study = open_study("csv", root, split="test", views=["PA", ""])
    moved = evaluate_model(
        study,
        _knowing(tiny_model),
        tmp_path,
        ["pneumonia"],
        workers=0,
        prevalence=0.02,
        accept=["too-small"],
    )
    figures = moved.findings["pneumonia"]
    assert figures.supposed_prevalence == 0.02
    assert figures.threshold_source == "the model's own, moved to prevalence 0.02"
    assert moved.settings == {
        "views": "PA, unknown",
        "accepted gates": "too-small",
        "polarity": "auto",
        "supposed prevalence": "0.02",
    }


@pytest.mark.parametrize(
    ("second", "told"),
    [
        ("60 images of 50 patients", "Site A: 60 images of 50 patients. Where"),
        (
            "20 images of 9 patients",
            "Site A: 60 images of 50 patients (pneumonia); Site A: 20 images of 9 patients (",
        ),
    ],
)
def test_a_finding_with_another_calibration_is_named_in_the_caveat(tiny_model, second, told):
    data = ("60 images of 50 patients", second, "never evaluated")
    calibrations = {
        question.finding: dataclasses.replace(
            question.calibration, fitted_on=f"Site A: {said}, {at} images with the finding"
        )
        for at, (question, said) in enumerate(zip(tiny_model.card.questions, data, strict=True))
        if said != "never evaluated"
    }
    (caveat,) = runs._fitted_on(tiny_model, calibrations)
    name = f"{tiny_model.card.name} {tiny_model.card.version}"
    assert caveat.startswith(f"The calibration of {name} was fitted on: {told}")


def test_what_the_calibration_was_fitted_on_is_a_caveat(evaluated, root, tiny_model, tmp_path):
    first, _, _ = evaluated
    assert not any("was fitted on" in caveat for caveat in first.caveats)  # not calibrated
    counted = iter(("60 images of 50 patients", "60 images of 50 patients", "never evaluated"))
    fitted = tiny_model.asking(
        dataclasses.replace(
            one,
            calibration=dataclasses.replace(
                one.calibration, fitted_on=f"Site A: {next(counted)}, {at} images with the finding"
            ),
        )
        for at, one in enumerate(tiny_model.card.questions)
    )
    study = open_study("csv", root)
    again = evaluate_model(study, fitted, tmp_path, workers=0)
    assert again.caveats[:-1] == first.caveats
    assert again.caveats[-1].startswith(
        f"The calibration of tiny {tiny_model.card.version} was fitted on: Site A"
    )


def test_a_peers_probabilities_get_the_same_figures(evaluated, root, tmp_path):
    ours, study, out = evaluated
    peer = evaluate_predictions(study, out / "predictions.parquet", tmp_path)
    for finding, figures in ours.findings.items():
        theirs = peer.findings[finding]
        assert theirs.auroc == figures.auroc
        assert theirs.brier == figures.brier
        # What our own file calls positive stays so.
        assert theirs.sensitivity == figures.sensitivity
    assert peer.errors == {"no-prediction": 4}
    assert peer.audits.image_use == ()


def test_a_peer_and_a_model_do_not_take_each_others_folder(evaluated, root, tiny_model, tmp_path):
    _, study, out = evaluated
    with pytest.raises(MedllmError, match="holds the evaluation of a model, not of predictions"):
        evaluate_predictions(study, out / "predictions.parquet", out)
    for _ in range(2):
        evaluate_predictions(study, out / "predictions.parquet", tmp_path)
    with pytest.raises(MedllmError, match=r"predictions that predictions.parquet gave, not a mod"):
        evaluate_model(study, tiny_model, tmp_path, workers=0)


def test_a_peer_on_another_table_does_not_overwrite_its_first_results(tables, tmp_path):
    _, names, _ = tables
    other = open_study("csv", _write_table(tmp_path / "other", names, seed=1))
    written = tmp_path / "before" / "predictions.parquet"
    before = written.read_bytes()
    with pytest.raises(
        MedllmError, match="another evaluation, which differs in the images .*, --root"
    ):
        evaluate_predictions(other, tmp_path / "peer.csv", tmp_path / "before")
    assert written.read_bytes() == before


def test_of_a_peer_too_a_corrected_label_makes_no_other_image(tables):
    first, _, opened = tables
    table = first / "labels.csv"
    header, row, *others = table.read_text().splitlines()
    name, label, age = row.split(",")
    table.write_text("\n".join([header, f"{name},{1 - int(label)},{age}", *others]))
    with pytest.raises(LabelError, match="chosen on 40 of these 40 images"):
        opened(first)


def test_a_peer_that_lacks_some_images_of_one_finding_is_told_so(evaluated, tmp_path):
    _, study, _ = evaluated
    rows = [
        f"{record.path.name},{finding},0.5"
        for at, record in enumerate(study.selection.records)
        for finding in ("pneumonia", "effusion")
        if finding == "pneumonia" or at >= 30
    ]
    (tmp_path / "peer.csv").write_text("path,finding,probability\n" + "\n".join(rows))
    peer = evaluate_predictions(study, tmp_path / "peer.csv", tmp_path / "out")
    assert peer.errors == {"no-prediction of effusion": 30}


def _write_without_split(folder, images):
    rows = "\n".join(f"{at}.png,p{at // 2},{at % 2}" for at in range(40))
    (folder / "labels.csv").write_text("path,patient_id,pneumonia\n" + rows)
    for at, path in enumerate(images):
        (folder / f"{at}.png").write_bytes(path.read_bytes())


def test_a_split_is_drawn_by_patient_and_written_down(tmp_path, images):
    _write_without_split(tmp_path, images)
    out = tmp_path / "out"
    parts = {
        part: {record.patient_id for record in study.selection.records}
        for part in ("train", "test")
        if (study := open_study("csv", tmp_path, split=part))
    }
    assert not parts["train"] & parts["test"]
    out.mkdir()
    write_drawn(open_study("csv", tmp_path, split="train").drawn, out)
    again = open_study("csv", tmp_path, split="test", split_file=out / "split.csv")
    assert {record.patient_id for record in again.selection.records} == parts["test"]


def test_a_split_that_was_drawn_is_a_caveat(evaluated, tmp_path, images):
    _write_without_split(tmp_path, images)
    study = open_study("csv", tmp_path, split="train")
    assert [one for one in study.caveats if "may have been trained on these patients" in one]
    write_drawn(study.drawn, tmp_path)
    given = tmp_path / "split.csv"
    for whole in ({}, {"split": "train", "split_file": given}):
        assert open_study("csv", tmp_path, **whole).caveats == ()


def test_a_run_that_is_refused_leaves_the_split_of_another(tiny_model, tmp_path, images):
    _write_without_split(tmp_path, images)
    out = tmp_path / "out"
    evaluate_model(open_study("csv", tmp_path, split="train"), tiny_model, out, workers=0)
    before = (out / "split.csv").read_bytes()
    (tmp_path / "labels.csv").write_text(
        "path,patient_id,pneumonia\n" + "\n".join(f"{at}.png,q{at},{at % 2}" for at in range(40))
    )
    with pytest.raises(MedllmError, match="holds another evaluation, which differs in"):
        evaluate_model(open_study("csv", tmp_path, split="train"), tiny_model, out, workers=0)
    assert (out / "split.csv").read_bytes() == before


def test_a_run_that_is_taken_up_again_writes_its_split_again(tiny_model, tmp_path, images):
    _write_without_split(tmp_path, images)
    given = tmp_path / "peer.csv"
    rows = (f"{at}.png,pneumonia,0.5" for at in range(40))
    given.write_text("path,finding,probability\n" + "\n".join(rows))
    for evaluate, out in (
        (lambda *to: evaluate_model(to[0], tiny_model, to[1], workers=0), tmp_path / "model"),
        (lambda study, out: evaluate_predictions(study, given, out), tmp_path / "peer"),
    ):
        for _ in range(2):
            evaluate(open_study("csv", tmp_path, split="train"), out)
            assert (out / "split.csv").is_file()
            (out / "split.csv").unlink()


def test_what_cannot_be_evaluated_is_refused_before_the_first_image(root, tiny_model, tmp_path):
    with pytest.raises(LabelError, match="soft labels are for training"):
        open_study("csv", root, policy=LabelPolicy(uncertain="soft"))
    with pytest.raises(LabelError, match="no image is of the part 'train'; the data set has: test"):
        open_study("csv", root, split="train")
    with pytest.raises(LabelError, match="no image has the attribute 'hosptial' to make groups"):
        open_study("csv", root, columns=["hosptial"])
    with pytest.raises(LabelError, match="is not a metrics.json of medllm evaluate"):
        open_study("csv", root, thresholds=root / "labels.csv")
    study = open_study("csv", root)
    with pytest.raises(LabelError, match="is asked for nodule; the images are labelled for eff"):
        evaluate_model(study, tiny_model, tmp_path, ["nodule"])
    unlabelled = dataclasses.replace(
        study,
        selection=dataclasses.replace(
            study.selection,
            records=[
                record for record in study.selection.records if record.path.name == "gone.png"
            ],
        ),
    )
    with pytest.raises(LabelError, match="no image that was scored has a label"):
        evaluate_model(unlabelled, tiny_model, tmp_path / "x")
