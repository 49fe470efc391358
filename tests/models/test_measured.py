from __future__ import annotations

import dataclasses
import json
import logging
from pathlib import Path

import pytest

from medllm.errors import CheckpointError
from medllm.metrics import Estimate
from medllm.models import load_model, save_model
from medllm.models.card_file import read_card, sha256_of
from medllm.models.card_page import card_page
from medllm.models.measured import (
    EXPLANATIONS_FILE,
    LocalisedFinding,
    MeasuredExplanations,
    MeasuredMethod,
    UsualRange,
    keep_measured,
    read_measured,
    require_keepable,
    sentences,
)

HITS, FIXED, AREA = Estimate(0.4, 0.3, 0.5), Estimate(0.6, 0.5, 0.7), Estimate(0.81, 0.7, 0.9)


@pytest.fixture
def folder(tiny_model, tmp_path):
    save_model(tiny_model, tmp_path / "tiny")
    return tmp_path / "tiny"


def measured(dataset, n=119):
    return MeasuredExplanations(
        dataset,
        "all",
        n,
        n,
        "1.0",
        {
            "occlusion": MeasuredMethod(
                {"nodule": LocalisedFinding(n, HITS, FIXED, AREA, None)},
                {"supported": 1, "weak": 0, "do not use": 3},
                n_tested=8,
                rank_correlation=Estimate(0.7, 0.6, 0.8),
                survives=True,
            )
        },
    )


def test_what_is_kept_is_read_with_the_card_and_leaves_the_checkpoint_as_it_was(folder):
    before = sha256_of(folder)
    keep_measured(folder, before, measured("rsna"))
    model = load_model(folder)
    assert model.sha256 == before == sha256_of(folder)
    assert model.card.explanations == (measured("rsna"),)
    assert sorted(path.name for path in folder.iterdir() if path.name.startswith(".")) == []


def test_data_sets_stand_side_by_side_and_a_new_measurement_replaces_its_own(folder):
    own = sha256_of(folder)
    for one in (measured("rsna"), measured("phantom"), measured("rsna", 7)):
        keep_measured(folder, own, one)
    assert read_card(folder).explanations == (measured("rsna", 7), measured("phantom"))


def test_a_run_of_one_method_leaves_the_others_of_the_same_images(folder):
    own, first = sha256_of(folder), measured("phantom")
    later = dataclasses.replace(first, methods={"rise": first.methods["occlusion"]})
    for one in (first, later):
        keep_measured(folder, own, one)
    (kept,) = read_card(folder).explanations
    assert kept == dataclasses.replace(first, methods={**first.methods, **later.methods})
    keep_measured(folder, own, dataclasses.replace(later, n_images=7))  # of other images
    (kept,) = read_card(folder).explanations
    assert [*kept.methods] == ["rise"]


def test_what_a_run_did_not_measure_again_stays(folder):
    own, first = sha256_of(folder), measured("phantom")
    whole = first.methods["occlusion"]
    unchecked = MeasuredMethod({"mass": LocalisedFinding(119, FIXED, HITS, AREA, None)})
    checked = dataclasses.replace(
        unchecked, verdicts={"weak": 4}, usual={"deletion": UsualRange(4, 0.8, 1.0)}
    )
    for again in (unchecked, checked):
        later = dataclasses.replace(first, methods={"occlusion": again})
        for one in (first, later):
            keep_measured(folder, own, one)
        (kept,) = read_card(folder).explanations
        wanted = dataclasses.replace(whole, findings={**whole.findings, **again.findings})
        if again.usual:
            wanted = dataclasses.replace(wanted, verdicts=again.verdicts, usual=again.usual)
        assert kept.methods["occlusion"] == wanted


def test_a_file_of_other_weights_is_ignored_with_a_warning_and_replaced(folder, caplog):
    keep_measured(folder, "0" * 64, measured("rsna"))
    with caplog.at_level(logging.WARNING):
        assert read_card(folder).explanations == ()
    assert "is of other weights or of another medllm. It is ignored" in caplog.text
    keep_measured(folder, sha256_of(folder), measured("phantom"))
    assert read_card(folder).explanations == (measured("phantom"),)


@pytest.mark.parametrize("content", ["{", "[]", '{"schema_version": 1}'])
def test_a_damaged_file_is_ignored_with_a_warning(folder, caplog, content):
    (folder / EXPLANATIONS_FILE).write_text(content)
    with caplog.at_level(logging.WARNING):
        assert load_model(folder).card.explanations == ()
    assert f"{EXPLANATIONS_FILE} cannot be read" in caplog.text


def test_nothing_is_warned_of_where_nothing_is_kept(folder, caplog):
    assert read_measured(folder, sha256_of(folder)) == ()
    assert caplog.text == ""


def test_a_checkpoint_made_of_another_does_not_take_its_measurements_along(folder, tmp_path):
    keep_measured(folder, sha256_of(folder), measured("rsna"))
    other = save_model(load_model(folder), tmp_path / "other")
    assert other.card.explanations == ()
    assert "explanations" not in json.loads((tmp_path / "other" / "medllm.json").read_text())
    assert "rsna" not in (tmp_path / "other" / "README.md").read_text()


def test_a_full_disk_leaves_the_file_as_it_was(folder, full_disk):
    own = sha256_of(folder)
    keep_measured(folder, own, measured("rsna"))
    with full_disk(10), pytest.raises(CheckpointError, match="copy the checkpoint to a folder"):
        keep_measured(folder, own, measured("phantom"))
    assert read_card(folder).explanations == (measured("rsna"),)


def test_a_folder_that_takes_no_file_is_refused(folder, monkeypatch):
    before = sorted(folder.iterdir())
    require_keepable(folder)
    assert sorted(folder.iterdir()) == before

    def refuse(path, *_, **__):
        raise OSError(30, "Read-only file system", str(path))

    monkeypatch.setattr(Path, "touch", refuse)
    with pytest.raises(CheckpointError, match=r"explanations.json cannot be written \(Read-only"):
        require_keepable(folder)


def test_a_folder_without_a_card_keeps_nothing(folder):
    own = sha256_of(folder)
    (folder / "medllm.json").unlink()
    before = sorted(folder.iterdir())
    for keep in (require_keepable, lambda there: keep_measured(there, own, measured("rsna"))):
        with pytest.raises(CheckpointError, match="has no medllm.json.* 'medllm calibrate' write"):
            keep(folder)
    assert sorted(folder.iterdir()) == before


def test_a_sentence_is_of_the_method_and_the_finding_that_were_used():
    kept = (measured("rsna"), measured("phantom", 60))
    found = list(sentences(kept, {"occlusion": ["nodule", "effusion"], "rise": ["nodule"]}))
    assert [one.split(" with ")[0] for one in found] == [
        "On 119 radiographs of rsna",
        "On 60 radiographs of phantom",
        "How often maps of rise point at the finding was not measured.",
    ]
    assert found[0].endswith(
        "with an outline of a lung nodule, the strongest point of occlusion lay in the "
        "outline in 40% (95% interval 30% to 50%), that of a fixed map, the same for all, in 60% "
        "(95% interval 50% to 70%)."
    )


def test_a_sentence_says_how_often_the_named_region_was_right():
    one = measured("phantom", 60)
    found = dataclasses.replace(one.methods["occlusion"].findings["nodule"], region_rate=AREA)
    method = dataclasses.replace(one.methods["occlusion"], findings={"nodule": found})
    kept = dataclasses.replace(one, methods={"occlusion": method})
    (told,) = sentences((kept,), {"occlusion": ["nodule"]})
    assert told.endswith("; the region named first held it in 81% (95% interval 70% to 90%).")
    # Where resampling gives none, there is no interval to tell.
    for low in (1.0, float("nan")):
        sure = dataclasses.replace(found, region_rate=Estimate(1.0, low, low))
        one.methods["occlusion"] = dataclasses.replace(method, findings={"nodule": sure})
        (told,) = sentences((one,), {"occlusion": ["nodule"]})
        assert told.endswith("; the region named first held it in 100%.")


@pytest.mark.parametrize(("n", "images"), [(1, "1 radiograph"), (9, "9 radiographs")])
def test_of_a_few_images_no_share_is_told(n, images):
    (told,) = sentences((measured("nih", n),), {"occlusion": ["nodule"]})
    assert told == (
        f"Measured on {images} of nih with an outline of a lung nodule, too few to say how often "
        "the strongest point of occlusion lies in the outline."
    )
    (enough,) = sentences((measured("nih", 10),), {"occlusion": ["nodule"]})
    assert enough.startswith("On 10 radiographs of nih with")


def test_the_card_shows_the_figures_or_says_that_there_are_none(tiny_model):
    assert "Not measured for this version." in card_page(tiny_model.card)
    page = card_page(dataclasses.replace(tiny_model.card, explanations=(measured("rsna"),)))
    assert "Not measured" not in page
    assert "### On rsna: 119 images of 119 patients" in page
    assert (
        "| occlusion | nodule | 119 | 0.400 (0.300 to 0.500) | - | "
        "0.810 (0.700 to 0.900) | - | - | - | - |"
    ) in page
    assert "| occlusion | 8 | no: the map survives | 0.700 (0.600 to 0.800) |" in page
    assert "4 explanations by occlusion: supported 25%, weak 0%, do not use 75%." in page
