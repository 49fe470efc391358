from __future__ import annotations

import dataclasses
import json
import shutil

import numpy as np
import pyarrow.parquet as pq
import pytest

from medllm.errors import AttributionError, LabelError, MedllmError
from medllm.evaluate import (
    ExplanationEvaluation,
    evaluate_explanations,
    open_study,
    outlined_records,
    write_explanations,
)
from medllm.evaluate.explanations import CONTROLS
from medllm.evaluate.explanations import runs as explanation_runs
from medllm.explanation import DEFAULT_METHOD, explain, methods
from medllm.explanation import METHODS as KNOWN
from medllm.explanation.attribution import PatchAttribution

pytestmark = pytest.mark.usefixtures("few_resamples")

METHODS = ("integrated-gradients", "occlusion")
(OTHER,) = set(METHODS) - {DEFAULT_METHOD}
N_IMAGES = 12
# What is not the same in two runs.
MEASURED_TIME = ("seconds", "memory_mib", "peak_memory_mib")


@pytest.fixture(scope="module")
def rows(evaluated):
    _, out = evaluated
    return pq.read_table(out / "explanations.parquet").to_pylist()


def of(rows, **wanted):
    return [row for row in rows if all(row[key] == value for key, value in wanted.items())]


def test_there_is_a_row_an_image_finding_and_method_and_the_damage_has_its_own(rows):
    assert len(rows) == (N_IMAGES + 1 + 4) * (len(METHODS) + len(CONTROLS))
    assert {row["method"] for row in rows} == {*METHODS, *CONTROLS}
    assert {row["error"] for row in of(rows, path="cut.png")} == {"truncated"}
    assert {row["error"] for row in rows if row["path"] != "cut.png"} == {None}


def test_a_row_is_the_explanation_that_a_report_would_have(rows, outlined, tiny_model):
    image = outlined.images[1]
    (row,) = of(rows, path=image.path, finding="nodule", method=DEFAULT_METHOD)
    wanted = explain(tiny_model, image.open().scan, "nodule")
    # another number of findings asked together sums in another order
    np.testing.assert_allclose(row["map"], wanted.map.values.ravel(), atol=1e-5)
    assert row["log_odds"] == pytest.approx(wanted.log_odds, abs=1e-5)
    assert row["verdict"] == wanted.verdict
    assert dict(row["passed"]) == {check.name: check.passed for check in wanted.checks}
    assert row["region"] == " ".join(
        word for word in (wanted.regions[0].side, wanted.regions[0].zone) if word
    )
    (other,) = of(rows, path=image.path, finding="nodule", method=OTHER)
    assert other["verdict"] is None


def test_the_figures_are_those_of_the_rows(evaluated, rows):
    evaluation, _ = evaluated
    for method in METHODS:
        own = [row for row in of(rows, method=method, finding="nodule") if not row["error"]]
        figures = evaluation.localisation[method]["nodule"]
        assert (figures.n, figures.n_patients) == (N_IMAGES, N_IMAGES // 2)
        for name, column in (
            ("hit_rate", "hit"),
            ("miou", "overlap"),
            ("pixel_auroc", "pixel_auroc"),
            ("relevance_mass", "relevance_mass"),
            ("region_rate", "region_hit"),
        ):
            values = np.array([row[column] for row in own], dtype=float)
            assert getattr(figures, name).value == pytest.approx(np.nanmean(values))
        means = of(rows, method="mean-map", finding="nodule")[:N_IMAGES]
        gaps = [
            row["pixel_auroc"] - mean["pixel_auroc"] for row, mean in zip(own, means, strict=True)
        ]
        assert figures.over_mean_map.value == pytest.approx(np.mean(gaps))
        assert figures.over_mean_map.p_value_holm >= figures.over_mean_map.p_value


def test_controls_stand_among_the_methods_and_are_no_tests(evaluated):
    evaluation, _ = evaluated
    assert set(evaluation.localisation) == {*METHODS, *CONTROLS}
    assert evaluation.localisation["mean-map"]["nodule"].over_mean_map is None
    assert evaluation.localisation["random"]["nodule"].over_mean_map.p_value_holm is None
    point = evaluation.localisation["best-point"]["nodule"]
    assert point.hit_rate.value is not None
    assert point.pixel_auroc.value is None


def test_the_document_counts_what_was_asked(evaluated):
    evaluation, _ = evaluated
    assert evaluation.n_images == N_IMAGES + 1
    assert evaluation.errors == {"truncated": 1}
    assert evaluation.n_outlined == {"nodule": {"nodule": 13}, "effusion": {"effusion": 4}}
    assert sum(evaluation.verdicts.values()) == N_IMAGES + 4
    assert evaluation.checks.keys() == {DEFAULT_METHOD}
    assert evaluation.checks[DEFAULT_METHOD]["deletion"].n == N_IMAGES + 4
    assert evaluation.agreement["occlusion"]["occlusion"] == pytest.approx(1)
    forth = evaluation.agreement["occlusion"]["integrated-gradients"]
    assert forth == pytest.approx(evaluation.agreement["integrated-gradients"]["occlusion"])
    assert evaluation.costs["occlusion"].n == N_IMAGES + 4
    worst = evaluation.cases["nodule"].worst
    areas = [case.pixel_auroc[DEFAULT_METHOD] for case in worst]
    assert areas == sorted(areas)


def test_the_files_hold_the_document_by_its_published_names(evaluated):
    evaluation, out = evaluated
    text = (out / "metrics.json").read_text()
    assert ExplanationEvaluation.model_validate_json(text) == evaluation
    values = json.loads(text)
    for name in ("hit_rate", "miou", "pixel_auroc", "side_accuracy", "relevance_mass"):
        figure = values["localisation"]["occlusion"]["nodule"][name]
        assert {"value", "low", "high"} <= figure.keys()
    assert {"value", "low", "high"} <= values["localisation"]["occlusion"]["nodule"][
        "over_mean_map"
    ].keys()
    assert {"value", "low", "high", "share_passed"} <= values["checks"][DEFAULT_METHOD][
        "deletion"
    ].keys()
    assert values["verdicts"].keys() == {"supported", "weak", "do not use"}
    assert sorted(path.name for path in out.iterdir()) == [
        "explanations.parquet",
        "metrics.json",
        "parts",
        "report.html",
        "run.json",
    ]


def test_a_killed_run_goes_on_and_ends_as_an_unbroken_one(
    evaluated, rows, outlined, tiny_model, tmp_path
):
    seen = []

    def killed_after(n):
        def watch(explained, total):
            for one in explained:
                if len(seen) == n:
                    raise KeyboardInterrupt
                seen.append(one)
                yield one

        return watch

    with pytest.raises(KeyboardInterrupt):
        evaluate_explanations(outlined, tiny_model, tmp_path, METHODS, watch=killed_after(10))
    parts = sorted(path.name for path in (tmp_path / "parts").iterdir())
    assert parts == ["000000.parquet", "000001.parquet"]
    told = []
    again = evaluate_explanations(
        outlined,
        tiny_model,
        tmp_path,
        METHODS,
        watch=lambda explained, total: told.append(total) or explained,
    )
    assert told == [N_IMAGES + 1 - 8]
    found = pq.read_table(tmp_path / "explanations.parquet").to_pylist()
    assert [without_times(row) for row in found] == [without_times(row) for row in rows]
    assert again.localisation == evaluated[0].localisation
    # Finished, it tries what could not be read, and says the same.
    told.clear()
    seen.clear()
    last = evaluate_explanations(outlined, tiny_model, tmp_path, METHODS, watch=killed_after(1))
    assert [one.error for one in seen] == ["truncated"]
    assert last == again


def _killed(*_):
    raise KeyboardInterrupt


def test_what_was_mended_or_changed_since_is_explained_anew(
    root, tiny_model, tmp_path, monkeypatch
):
    own, out = tmp_path / "data", tmp_path / "out"
    shutil.copytree(root, own)
    whole, cut = (own / "1.png").read_bytes(), (own / "2.png").read_bytes()[:2000]
    (own / "2.png").write_bytes(cut)
    seen = []

    def run(**read_by):
        seen.clear()
        outlined = outlined_records(open_study("csv", own), tiny_model, **read_by)
        outlined = dataclasses.replace(outlined, images=outlined.images[:4])
        evaluation = evaluate_explanations(
            outlined,
            tiny_model,
            out,
            ["occlusion"],
            checked="none",
            sanity=0,
            watch=lambda explained, total: (seen.append(one) or one for one in explained),
        )
        rows = pq.read_table(out / "explanations.parquet").to_pylist()
        return evaluation, {row["path"]: row for row in of(rows, method="occlusion")}

    first, before = run()
    assert first.errors == {"truncated": 1}
    (own / "2.png").write_bytes(whole)
    (own / "3.png").write_bytes(whole)
    second, after = run()
    assert (len(seen), second.errors) == (2, {})
    assert after["2.png"]["log_odds"] == pytest.approx(before["1.png"]["log_odds"], abs=1e-5)
    assert after["3.png"]["log_odds"] != before["3.png"]["log_odds"]
    assert without_times(after["1.png"]) == without_times(before["1.png"])
    assert run()[0] == second
    assert not seen
    # A run that is killed as the parts are joined does not take the table of before for theirs.
    shutil.rmtree(out / "parts")
    with monkeypatch.context() as patch:
        patch.setattr(explanation_runs, "finish", _killed)
        with pytest.raises(KeyboardInterrupt):
            run()
    assert not (out / "explanations.parquet").exists()
    assert run()[0].localisation == second.localisation
    with pytest.raises(MedllmError, match="another evaluation, which differs in --polarity"):
        run(polarity="inverted")


def without_times(row):
    # NaN is not equal to itself.
    return json.dumps({key: value for key, value in row.items() if key not in MEASURED_TIME})


def test_another_run_in_the_same_folder_is_refused(evaluated, outlined, tiny_model):
    _, out = evaluated
    fewer = dataclasses.replace(outlined, images=outlined.images[:4])
    with pytest.raises(
        MedllmError, match="another evaluation, which differs in the number of images"
    ):
        evaluate_explanations(fewer, tiny_model, out, METHODS)
    with pytest.raises(MedllmError, match="another evaluation, which differs in checked"):
        evaluate_explanations(outlined, tiny_model, out, METHODS, checked="none")


def test_without_the_default_method_the_first_that_is_asked_for_is_judged(
    outlined, tiny_model, tmp_path
):
    few = dataclasses.replace(outlined, images=outlined.images[1:2])
    asked = ["gradient-x-activation", "grad-cam"]
    evaluation = evaluate_explanations(few, tiny_model, tmp_path, asked, sanity=0)
    assert evaluation.default_method == "gradient-x-activation"
    assert evaluation.checks.keys() == {"gradient-x-activation"}
    assert sum(evaluation.verdicts.values()) == 1


def test_a_difference_that_most_resamples_leave_undefined_is_written_without_p_values(
    outlined, tiny_model, tmp_path
):
    # Two patients, a nodule on either side: who draws one of them twice knows of one side alone.
    few = dataclasses.replace(outlined, images=outlined.images[1:3])
    evaluation = evaluate_explanations(
        few, tiny_model, tmp_path, ["occlusion"], checked="none", sanity=0
    )
    gap = evaluation.localisation["occlusion"]["nodule"].differences["side_accuracy"]
    assert (gap.low, gap.p_value, gap.p_value_holm) == (None, None, None)
    write_explanations(evaluation, few, tmp_path)
    text = (tmp_path / "metrics.json").read_text()
    assert ExplanationEvaluation.model_validate_json(text) == evaluation


def test_a_refused_map_is_counted_and_the_others_are_measured(
    outlined, tiny_model, tmp_path, monkeypatch
):
    def refuse(case):
        raise AttributionError("too little memory; use a smaller model.", code="out-of-memory")

    monkeypatch.setitem(
        methods.METHODS, "occlusion", dataclasses.replace(KNOWN["occlusion"], attribute=refuse)
    )
    few = dataclasses.replace(outlined, images=outlined.images[1:3])
    seen = []
    evaluation = evaluate_explanations(
        few,
        tiny_model,
        tmp_path,
        METHODS,
        checked="none",
        watch=lambda explained, total: (seen.append(one) or one for one in explained),
    )
    assert evaluation.costs["occlusion"].failed == {"out-of-memory": 2}
    assert evaluation.localisation["occlusion"]["nodule"].n == 0
    assert evaluation.localisation["integrated-gradients"]["nodule"].n == 2
    assert evaluation.localisation["occlusion"]["nodule"].over_mean_map is None
    assert seen[0].message == "1.png: too little memory; use a smaller model."


def test_a_map_that_a_report_would_refuse_is_not_measured(
    outlined, tiny_model, tmp_path, monkeypatch
):
    def incomplete(case):
        flat = PatchAttribution(np.ones(case.model.grid), 1, completeness_error=100.0)
        return (flat,) * len(case.findings)

    monkeypatch.setitem(
        methods.METHODS, "occlusion", dataclasses.replace(KNOWN["occlusion"], attribute=incomplete)
    )
    few = dataclasses.replace(outlined, images=outlined.images[1:3])
    evaluation = evaluate_explanations(few, tiny_model, tmp_path, METHODS, checked="none")
    assert evaluation.costs["occlusion"].failed == {"incomplete-attribution": 2}
    assert evaluation.localisation["occlusion"]["nodule"].n == 0


def test_bad_input_is_told_in_one_line(outlined, tiny_model, tmp_path):
    with pytest.raises(ValueError, match="'lime' is not a method; use one of: integrated"):
        evaluate_explanations(outlined, tiny_model, tmp_path, ["lime"])
    damaged = dataclasses.replace(outlined, images=outlined.images[-1:])
    with pytest.raises(LabelError, match=r"none of the 1 outlined images could be read \(trunc"):
        evaluate_explanations(damaged, tiny_model, tmp_path, METHODS)


def test_few_images_are_lost_when_a_run_is_killed():
    assert explanation_runs.PART <= 4
