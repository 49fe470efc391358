from __future__ import annotations

from pathlib import Path

import pytest
import torch

from medllm.data.blur import coarse
from medllm.datasets import ImageRecord
from medllm.evaluate import score_records
from medllm.evaluate.probes import probes_of, sampler
from medllm.models import build_tokenizer


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
    assert set(by_kind) == {"blurred"}
    pixels = tiny_model.card.preprocessing.resize(records[0].radiograph().pixels)
    wanted = tiny_model.log_odds(
        tiny_model.card.preprocessing.pixel_values(coarse(pixels)), ["pneumonia", "nodule"]
    )[0]
    assert list(row.probes["blurred"].values()) == pytest.approx(wanted.tolist(), abs=1e-5)
    assert row.probes["blurred"] != row.log_odds


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
