from __future__ import annotations

from pathlib import Path

import pytest
import torch
from PIL import Image

from medllm import make_phantom
from medllm.data.blur import coarse
from medllm.datasets import ImageRecord
from medllm.evaluate import score_records
from medllm.evaluate.audits import probes as probing
from medllm.evaluate.audits.hiding import hide
from medllm.evaluate.audits.probes import INDICATED, INDICATION_ALONE, MISTAKEN, probes_of, sampler
from medllm.models import build_tokenizer, in_context, load_model
from tests.models.architectures.checkpoints import write_checkpoint

TOLD = ("Fever and cough for three days.", "Fall from a ladder.", "Before an operation.")


def test_a_blurred_image_keeps_the_means_of_sixteen_squares_alone():
    display = torch.rand(2, 64, 64)
    means = display.reshape(2, 4, 16, 4, 16).mean(dim=(2, 4))
    again = coarse(means.repeat_interleave(16, 1).repeat_interleave(16, 2))
    assert torch.allclose(coarse(display), again, atol=1e-6)


def test_each_probe_answers_as_the_model_does_when_it_is_asked_so(tiny_model, images):
    records = [ImageRecord("csv", images[0], "p", {})]
    probes = probes_of(tiny_model, ["pneumonia", "nodule"])
    (row,) = score_records(tiny_model, records, ["pneumonia", "nodule"], probes=probes)
    by_kind = {probe.kind: probe for probe in probes}
    # The tiny tokenizer knows no other wording and no word for a control.
    assert set(by_kind) == {"blurred", "hidden"}
    pixels = tiny_model.card.preprocessing.resize(records[0].radiograph().pixels)
    wanted = tiny_model.log_odds(
        tiny_model.card.preprocessing.pixel_values(coarse(pixels)), ["pneumonia", "nodule"]
    )[0]
    assert list(row.probes["blurred"].values()) == pytest.approx(wanted.tolist(), abs=1e-5)
    assert row.probes["blurred"] != row.log_odds


def test_an_image_is_shown_without_its_lungs_where_they_are_found(tiny_model, images, tmp_path):
    phantom = tmp_path / "phantom.png"
    Image.fromarray((make_phantom(2, size=128).pixels * 255).astype("uint8")).save(phantom)
    records = [ImageRecord("csv", path, "p", {}) for path in (images[0], phantom)]
    probes = probes_of(tiny_model, ["pneumonia"])
    blurred, whole = score_records(tiny_model, records, ["pneumonia"], probes=probes)
    assert set(blurred.probes) == {"blurred"}
    contract = tiny_model.card.preprocessing
    display = contract.resize(records[1].radiograph().pixels)[0]
    for name, copy in hide(display, (128, 128), contract).items():
        with torch.inference_mode():
            wanted = tiny_model.log_odds(contract.pixel_values(copy[None]), ["pneumonia"])
        assert whole.probes[name]["pneumonia"] == pytest.approx(float(wanted), abs=1e-5)
        assert whole.probes[name] != whole.log_odds


def test_what_does_not_lie_in_the_lungs_is_not_looked_for_without_them(new_tiny_model):
    probes = probes_of(new_tiny_model(("cardiomegaly",)), ["cardiomegaly"])
    assert "hidden" not in {probe.kind for probe in probes}


def test_wordings_and_a_control_are_asked_where_their_words_are_known(new_tiny_model):
    import dataclasses

    model = new_tiny_model(("pneumonia", "effusion"))
    texts = [
        *(question.text for question in model.card.questions),
        "Does this radiograph show pneumonia pleural effusion?",
        "Is there evidence of a fracture?",
        "yes no",
    ]
    knowing = dataclasses.replace(model, tokenizer=build_tokenizer(texts))
    probes = {probe.name: probe for probe in probes_of(knowing, ["pneumonia", "effusion"])}
    assert set(probes) == {
        "blurred",
        "lungs hidden",
        "thorax hidden",
        "Does this radiograph show {name}?",
        "Is there evidence of a fracture?",
    }
    reworded = probes["Does this radiograph show {name}?"].model.card.questions
    assert [question.text for question in reworded] == [
        "Does this radiograph show pneumonia?",
        "Does this radiograph show pleural effusion?",
    ]
    control = probes["Is there evidence of a fracture?"]
    assert {question.text for question in control.model.card.questions} == {control.name}


def test_only_the_sample_is_probed(tiny_model, images):
    records = [ImageRecord("csv", path, path.stem, {}) for path in images[:6]]
    chosen = {images[1], images[4]}
    rows = score_records(
        tiny_model,
        records,
        ["pneumonia"],
        probes=probes_of(tiny_model, ["pneumonia"]),
        is_probed=lambda record: record.path in chosen,
        batch_size=4,
    )
    assert {row.record.path for row in rows if row.probes} == chosen


def test_the_sample_holds_the_rare_and_some_of_all():
    records = [
        ImageRecord("csv", Path(f"{index}.png"), f"p{index}", {"mass": int(index % 100 == 0)})
        for index in range(20_000)
    ]
    is_probed = sampler(records, ["mass"])
    chosen = [record for record in records if is_probed(record)]
    positive = sum(record.labels["mass"] for record in chosen)
    # 150 of 200 positives and 2% of 19,800 others; four standard deviations are 25 and 79.
    assert abs(positive - 150) < 25
    assert abs(len(chosen) - positive - 396) < 79
    again = sampler(records, ["mass"])
    assert chosen == [record for record in records if again(record)]


@pytest.fixture(scope="module")
def chat_model(tmp_path_factory):
    """A tiny vision-language model that can be told of a patient."""
    return load_model(write_checkpoint("llava", tmp_path_factory.mktemp("hub") / "llava"))


def _indicated(images, told, patients=None):
    names = patients or [f"p{at}" for at in range(len(told))]
    return [
        ImageRecord("csv", path, patient, {}, indication=text)
        for path, patient, text in zip(images, names, told, strict=False)
    ]


def test_a_model_is_told_of_its_own_patient_of_another_and_shown_nothing(chat_model, images):
    records = _indicated(images, TOLD)
    keys = ["mass", "effusion"]
    contract = chat_model.card.preprocessing
    grey = contract.pixel_values(torch.full((1, contract.size, contract.size), 0.5))
    others = set()
    for row in score_records(
        chat_model, records, keys, probes=probes_of(chat_model, keys, records)
    ):
        own = contract.prepare(row.record.radiograph().pixels)

        def answers(shown, text):
            with torch.inference_mode():
                return in_context(chat_model, text).log_odds(shown, keys)[0].tolist()

        told = answers(own, row.record.indication)
        assert list(row.probes[INDICATED].values()) == pytest.approx(told, abs=1e-4)
        alone = answers(grey, row.record.indication)
        assert list(row.probes[INDICATION_ALONE].values()) == pytest.approx(alone, abs=1e-4)
        (other,) = (
            text
            for text in TOLD
            if list(row.probes[MISTAKEN].values()) == pytest.approx(answers(own, text), abs=1e-4)
        )
        assert other != row.record.indication
        assert abs(told[0] - row.log_odds["mass"]) > 1e-3
        others.add(other)
    assert others == set(TOLD)


def test_an_image_is_told_its_own_indication_once(chat_model, images, monkeypatch):
    told = []
    monkeypatch.setattr(
        probing, "in_context", lambda model, text: told.append(text) or in_context(model, text)
    )
    records = _indicated(images, TOLD)
    probes = probes_of(chat_model, ["mass"], records)
    for row in score_records(chat_model, records, ["mass"], probes=probes):
        assert {INDICATED, INDICATION_ALONE, MISTAKEN} <= set(row.probes)
    # And another's, which is each one's once.
    assert sorted(told) == sorted(TOLD * 2)


def test_what_no_prompt_can_hold_is_told_of_no_patient(chat_model, images):
    records = _indicated(images, (TOLD[0], "Ask {question} again.", ""))
    probes = probes_of(chat_model, ["mass"], records)
    first, odd, blank = score_records(chat_model, records, ["mass"], probes=probes)
    assert {INDICATED, INDICATION_ALONE} <= set(first.probes)
    assert MISTAKEN not in first.probes  # what the other one said
    assert MISTAKEN in odd.probes
    assert INDICATED not in odd.probes
    assert INDICATED not in blank.probes
    assert "blurred" in blank.probes


@pytest.mark.parametrize(
    ("told", "patients"),
    [((), None), ((TOLD[0],) * 3, None), (TOLD, ["p", "p", "p"]), ((TOLD[0],), None)],
)
def test_without_another_patients_indication_none_is_told(chat_model, images, told, patients):
    probes = probes_of(chat_model, ["mass"], _indicated(images, told, patients))
    assert "indication" not in {one.kind for one in probes}


def test_a_model_that_is_asked_its_questions_alone_is_told_nothing(tiny_model, images):
    probes = probes_of(tiny_model, ["pneumonia"], _indicated(images, TOLD))
    assert "indication" not in {one.kind for one in probes}
